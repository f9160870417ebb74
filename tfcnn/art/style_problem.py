"""The loss of neural style and its targets; large pictures by tiles, 4096 px in a few GB.

A Gram matrix belongs to the whole picture, so tiles take two passes: the first sums the products of all
cores, which gives each layer's loss and its slope at the Gram matrix; the second takes that slope back
through the net, window by window. The result is the gradient of the whole picture but for what a location sees
beyond its margin.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn.backbones import tap
from tfcnn.errors import InputError
from tfcnn.imageopt import Objective, Problem, constraints, objectives, optimizers
from tfcnn.imageopt.objectives import gram_matrix, squared_distance
from tfcnn.imageopt.optimize import Terms, compiled
from tfcnn.imageopt.tiles import Window, windows


@dataclasses.dataclass(frozen=True)
class Layers:
    """Where a net's content and style are read."""

    content: tuple[str, ...]
    style: tuple[str, ...]


class StyleProblem(Problem):
    """Content, style and smoothness of one picture, compiled once for all pictures and sizes.

    The targets are variables, set by `set_content` and `set_styles`.

    Args:
        net: a flat functional model from pixels [1, H, W, 3], 0..255.
        layers: where content and style are read.
        content_weight, style_weight, tv_weight: of the parts, each shared by its layers; 0 leaves it out.
        relative: divide each loss by its target's own mean square; False is neural-style's plain mean.
        normalize_gradients: divide the gradient of each loss at its layer by its L1 norm, then weigh it.
        learning_rate: of Adam, grey levels.
        tile: pictures with a longer side are computed in tiles of this side, pixels; 0 never.
    """

    def __init__(
        self,
        net: keras.Model,
        layers: Layers,
        *,
        content_weight: float = 5.0,
        style_weight: float = 100.0,
        tv_weight: float = 1e-3,
        relative: bool = True,
        normalize_gradients: bool = False,
        learning_rate: float = 4.0,
        tile: int = 1024,
    ):
        if not (content_weight or style_weight):
            raise InputError("content_weight and style_weight are both 0: nothing is left to paint")
        self.tile, self.relative, self._whole_only = tile, relative, normalize_gradients
        self.contents = {each: _variable([1, None, None, None]) for each in layers.content if content_weight}
        self.grams = {each: _variable([1, None, None]) for each in layers.style if style_weight}
        self._strides: dict[str, int] = {}
        self.weights = {f"style {each}": style_weight / len(self.grams) for each in self.grams}
        self.weights |= {f"match {each}": content_weight / len(self.contents) for each in self.contents}
        matches = [objectives.gram_match(*pair, relative=relative) for pair in self.grams.items()]
        matches += [objectives.feature_match(*pair, relative=relative) for pair in self.contents.items()]
        if normalize_gradients:
            matches = [_normalized(match) for match in matches]
        terms = [self.weights[match.terms[0].name] * match for match in matches]
        smooth = [tv_weight * objectives.total_variation()] if tv_weight else []
        what = Objective([term for each in [*terms, *smooth] for term in each.terms])
        adam = optimizers.Adam(learning_rate)
        super().__init__(net, what, optimizer=adam, constraint=constraints.in_range())
        self._features = tf.function(tap(net, what.layers), reduce_retracing=True)
        self._compiled_window_gradient = compiled(self._window_gradient)
        self._smooth = Problem(net, smooth[0]) if smooth else None

    # ------------------------------------------------------------------------------------ targets

    def set_content(self, image: tf.Tensor | np.ndarray) -> None:
        """Take the content from a picture [1, H, W, 3], 0..255."""
        rows: dict[str, dict[int, list]] = {layer: {} for layer in self.contents}
        for window, features in self._by_window(image):
            for layer in rows:
                self._strides[layer] = _stride(window, features[layer])
                core = window.core(features[layer], self._strides[layer])
                rows[layer].setdefault(window.core_rows.start, []).append(core)
        for layer, bands in rows.items():
            self.contents[layer].assign(tf.concat([tf.concat(band, 2) for band in bands.values()], 1))

    def set_styles(self, pictures: Sequence[tf.Tensor | np.ndarray], blend: Sequence[float] = ()) -> None:
        """Take the style from pictures [1, H, W, 3], 0..255: their Gram matrices, mixed.

        Args:
            pictures: of any sizes.
            blend: their shares, made to sum to 1; equal when empty.
        """
        shares = np.array(blend or [1.0] * len(pictures), np.float32)
        mixed = dict.fromkeys(self.grams, 0.0)
        for picture, share in zip(pictures, shares / shares.sum(), strict=True):
            means, _ = self._means(picture, [f"style {layer}" for layer in self.grams])
            for layer in mixed:
                mixed[layer] += share * means[f"style {layer}"]
        for layer, gram in mixed.items():
            self.grams[layer].assign(gram)

    # -------------------------------------------------------------------------------------- tiles

    def _in_tiles(self, image) -> bool:
        if len(windows(image.shape[1], image.shape[2], self.tile)) == 1:
            return False
        if self._whole_only:
            raise InputError("normalize_gradients needs the whole picture at once: set the tile size to 0")
        return True

    def _by_window(self, image) -> Iterator[tuple[Window, dict]]:
        """Each window and its layers' values {layer: [1, h, w, C]}."""
        for window in windows(image.shape[1], image.shape[2], self.tile):
            features = self._features(window.cut(tf.cast(image, tf.float32)))
            yield window, {layer: tf.cast(value, tf.float32) for layer, value in features.items()}

    def _means(self, image, names: Sequence[str]) -> tuple[dict, dict]:
        """First pass: the Gram matrix of each term "style LAYER", the mean squared difference of each term
        "match LAYER", and how many locations each has.
        """
        sums, sizes = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
        for window, features in self._by_window(image):
            for name in names:
                kind, layer = name.split(" ", 1)
                stride = _stride(window, features[layer])
                core = window.core(features[layer], stride)
                if kind == "style":
                    value = gram_matrix(core)
                else:
                    value = squared_distance(core, self.contents[layer][:, *window.core_on_map(stride)])
                size = float(core.shape[1] * core.shape[2])
                sums[name], sizes[name] = sums[name] + size * value, sizes[name] + size
        return {name: sums[name] / sizes[name] for name in names}, sizes

    def _losses(self, means) -> tuple[dict, dict]:
        """Each weighted term {name: [1]} of a picture with these means, and its slope at them."""
        with tf.GradientTape() as tape:
            tape.watch(means)
            terms = {}
            for name, mean in means.items():
                kind, layer = name.split(" ", 1)
                if kind == "style":
                    loss = squared_distance(mean, self.grams[layer], self.relative)
                else:
                    square = tf.reduce_mean(tf.square(self.contents[layer])) if self.relative else 1.0
                    loss = mean / square
                terms[name] = self.weights[name] * loss
            value = tf.add_n([tf.reduce_sum(term) for term in terms.values()])
        return terms, tape.gradient(value, means)

    def _window_gradient(self, image, slopes, wanted, sizes):
        """Second pass: the gradient at a window's pixels, given the slope at each mean over all locations."""
        with tf.GradientTape() as tape:
            tape.watch(image)
            features = self._features(image)
            parts = []
            for name, slope in slopes.items():
                kind, layer = name.split(" ", 1)
                values = tf.cast(features[layer], tf.float32)
                size = tf.cast(tf.shape(values)[1] * tf.shape(values)[2], tf.float32)
                mean = gram_matrix(values) if kind == "style" else squared_distance(values, wanted[layer])
                parts.append(tf.reduce_sum(slope * mean) * size / sizes[name])
            value = tf.add_n(parts)
        return tape.gradient(value, image)

    def value_and_gradient(self, x: tf.Tensor, seed: tf.Tensor | None) -> tuple[Terms, tf.Tensor]:
        """As that of `Problem`."""
        if not self._in_tiles(x):
            return super().value_and_gradient(x, seed)
        means, sizes = self._means(x, list(self.weights))
        terms, slopes = self._losses(means)
        sizes = {name: tf.constant(count) for name, count in sizes.items()}
        gradient = np.empty(x.shape, np.float32)
        for window in windows(x.shape[1], x.shape[2], self.tile):
            wanted = {
                layer: whole[:, *window.on_map(self._strides[layer])]
                for layer, whole in self.contents.items()
            }
            slope = self._compiled_window_gradient(window.cut(x), slopes, wanted, sizes)
            gradient[:, window.core_rows, window.core_columns] = window.core(slope)
        if self._smooth is not None:
            smooth, slope = self._smooth.value_and_gradient(x, seed)
            terms, gradient = terms | smooth, gradient + slope
        return terms, tf.convert_to_tensor(gradient)

    def evaluate(self, image: tf.Tensor | np.ndarray) -> dict[str, np.ndarray]:
        """As that of `Problem`."""
        if not self._in_tiles(image):
            return super().evaluate(image)
        terms, _ = self._losses(self._means(image, list(self.weights))[0])
        smooth = self._smooth.evaluate(image) if self._smooth is not None else {}
        return {name: term.numpy() for name, term in terms.items()} | smooth


def _variable(shape):
    return tf.Variable(tf.zeros([side or 1 for side in shape]), shape=shape, trainable=False)


def _stride(window: Window, features) -> int:
    """Pixels to a location of a window's features."""
    return max(1, round((window.rows.stop - window.rows.start) / features.shape[1]))


def _normalized(match: Objective) -> Objective:
    """The same values; their gradient at the layer is divided by its L1 norm + 1e-8."""
    (term,) = match.terms
    (layer,) = term.layers

    @tf.custom_gradient
    def function(features):
        with tf.GradientTape() as tape:
            tape.watch(features)
            value = term.function({layer: features})
        slope = tape.gradient(value, features)
        slope /= tf.reduce_sum(tf.abs(slope), axis=[1, 2, 3], keepdims=True) + 1e-8
        return value, lambda upstream: upstream[:, None, None, None] * slope

    return objectives.of(term.name, layer, function)
