"""What a picture is optimised for: functions of a net's layers, added, subtracted and scaled.

Letters: N pictures, H W height and width, C channels, K classes. An objective takes a dict {layer: [N, h, w,
C]} that also holds the picture itself, before any transform, under IMAGE ([N, H, W, 3], 0..255), and gives
[N]: each picture is a problem of its own. Values are means over locations and channels, so that sizes compare.
A target may be a tf.Variable: assigning to it changes the problem without a new trace. A layer's name with ":input"
after it is what goes into the layer.
"""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn.backbones.graph import INPUT, calls, made_by

IMAGE = "image"
Value = tf.Tensor | np.ndarray  # also a tf.Variable: assigning to it changes the problem


@dataclasses.dataclass(frozen=True)
class Term:
    """One named part of an objective: the product of its weights, times function(endpoints).

    Weights are multiplied where the objective is evaluated, so that a tf.Variable among them may change later.
    """

    name: str
    layers: tuple[str, ...]
    function: Callable[[dict[str, tf.Tensor]], tf.Tensor]
    weights: tuple[float | tf.Tensor | tf.Variable, ...] = ()

    def times(self, weight: float | tf.Tensor | tf.Variable) -> "Term":
        """Gives the term with one more weight; numbers are multiplied at once."""
        if self.weights and all(isinstance(each, int | float) for each in (weight, self.weights[-1])):
            return dataclasses.replace(self, weights=(*self.weights[:-1], self.weights[-1] * weight))
        return dataclasses.replace(self, weights=(*self.weights, weight))


class Objective:
    """A weighted sum of terms; `+`, `-` and a number times it combine.

    Args:
        terms: the terms; one whose name is taken is numbered.
    """

    def __init__(self, terms: Sequence[Term]):
        named: dict[str, Term] = {}
        for term in terms:
            name, count = term.name, 1
            while name in named:
                count += 1
                name = f"{term.name} {count}"
            named[name] = dataclasses.replace(term, name=name)
        self.terms = tuple(named.values())

    @property
    def layers(self) -> list[str]:
        """Names of the layers that the terms read, each once, the picture left out."""
        return list(dict.fromkeys(layer for term in self.terms for layer in term.layers if layer != IMAGE))

    def evaluate(self, endpoints: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Give each term, weighted: {name: [N] float32}; they add up to the value."""
        values = {}
        for term in self.terms:
            inputs = {layer: tf.cast(endpoints[layer], tf.float32) for layer in term.layers}
            values[term.name] = term.function(inputs)
            for weight in term.weights:
                values[term.name] = tf.cast(weight, tf.float32) * values[term.name]
        return values

    def __call__(self, endpoints: dict[str, tf.Tensor]) -> tf.Tensor:
        return tf.add_n(list(self.evaluate(endpoints).values()))

    def __add__(self, other: "Objective") -> "Objective":
        return Objective(self.terms + other.terms)

    def __sub__(self, other: "Objective") -> "Objective":
        return self + (-1.0) * other

    def __mul__(self, weight: float | tf.Tensor | tf.Variable) -> "Objective":
        return Objective([term.times(weight) for term in self.terms])

    def __rmul__(self, weight: float) -> "Objective":
        if tf.is_tensor(weight) and not isinstance(weight, tf.Variable):
            # TensorFlow reads a variable on the left before it asks here: its value would be that of now for ever.
            # A TypeError or ValueError would be replaced by TensorFlow's own.
            raise RuntimeError("a tensor or tf.Variable stands on the right: objective * variable")
        return self * weight

    def __neg__(self) -> "Objective":
        return (-1.0) * self


def of(name: str, layers: str | Sequence[str], function: Callable[..., tf.Tensor]) -> Objective:
    """Make an objective of one's own.

    Args:
        name: what the term is called in the history.
        layers: the layer or layers it reads; IMAGE is the picture.
        function: takes those layers' tensors, [N, ...] each, in that order, and gives [N].
    """
    layers = (layers,) if isinstance(layers, str) else tuple(layers)
    return Objective([Term(name, layers, lambda endpoints: function(*(endpoints[key] for key in layers)))])


def _mean(values: tf.Tensor) -> tf.Tensor:
    """Mean of all but the first axis."""
    return tf.reduce_mean(values, axis=list(range(1, values.shape.rank)))


def _sum(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(values, axis=list(range(1, values.shape.rank)))


def _chosen(values: tf.Tensor, index) -> tf.Tensor:
    """One column of [N, C] for each row: [N]; `index` is a number or [N]."""
    index = tf.broadcast_to(tf.cast(index, tf.int32), tf.shape(values)[:1])
    return tf.gather(values, index, axis=1, batch_dims=1)


def logit(classes: int | Sequence[int] | Value, layer: str = "logits") -> Objective:
    """Score of a class, before softmax where the layer is the logits; a map of scores [N, h, w, K] is averaged.

    Args:
        classes: a class index, or one for each picture: int [N].
        layer: the layer of scores, [N, K] or [N, h, w, K].
    """

    def score(scores):
        return _chosen(tf.reduce_mean(scores, axis=list(range(1, scores.shape.rank - 1))), classes)

    return of(layer, layer, score)


def cross_entropy(classes: int | Sequence[int] | Value, layer: str = "logits") -> Objective:
    """Cross-entropy of the logits with a class: -log softmax(logits)[class].

    Args:
        classes: a class index, or one for each picture: int [N].
        layer: the layer of logits [N, K].
    """

    def loss(logits):
        index = tf.broadcast_to(tf.cast(classes, tf.int32), tf.shape(logits)[:1])
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=index, logits=logits)

    return of("cross_entropy", layer, loss)


def channel(layer: str, index: int | Sequence[int] | Value) -> Objective:
    """Mean of one channel's map; `index` is a number, or one for each picture: int [N]."""
    return logit(index, layer)


def neuron(
    layer: str, index: int | Sequence[int] | Value, location: tuple[int, int] | None = None
) -> Objective:
    """One channel at one location.

    Args:
        layer: a layer [N, h, w, C].
        index: the channel, or one for each picture: int [N].
        location: row and column on the layer's map; None is the centre (of an even side the later of the two).
    """

    def activation(features):
        row, column = location or (tf.shape(features)[1] // 2, tf.shape(features)[2] // 2)
        return _chosen(features[:, row, column], index)

    return of(layer, layer, activation)


def mean_square(layer: str) -> Objective:
    """Mean square of a layer: DeepDream's objective, whose gradient points along the activations
    themselves.
    """
    return of(layer, layer, lambda features: _mean(tf.square(features)))


def squared_distance(values: tf.Tensor, target: Value, relative: bool = False) -> tf.Tensor:
    """Mean squared difference of values [N, ...] from a target [N or 1, ...]: [N].

    Args:
        values: [N, ...].
        target: [N, ...] or [1, ...].
        relative: divide by the target's own mean square.
    """
    target = tf.cast(target, tf.float32)
    distance = _mean(tf.math.squared_difference(values, target))
    return distance / _mean(tf.square(target)) if relative else distance


def feature_match(layer: str, target: Value, *, relative: bool = False) -> Objective:
    """Mean squared distance of a layer from a target.

    Args:
        layer: a layer [N, ...].
        target: its values to reach, [N, ...] or [1, ...].
        relative: divide by the target's own mean square, as inversion does: |F - P|^2 / |P|^2.
    """

    return of(f"match {layer}", layer, lambda features: squared_distance(features, target, relative))


def gram_matrix(features: tf.Tensor) -> tf.Tensor:
    """Products of all pairs of channels, averaged over locations and divided by the channels: [N, h, w, C] ->
    [N, C, C].

    Source: Gatys, Ecker, Bethge; the division by C h w is that of jcjohnson/neural-style.
    """
    shape = tf.shape(features)
    rows = tf.reshape(features, [shape[0], shape[1] * shape[2], features.shape[-1]])
    return _products(rows) / tf.cast(tf.reduce_prod(shape[1:]), features.dtype)


@tf.custom_gradient
def _products(rows: tf.Tensor):
    """rows^T rows, [N, h w, C] -> [N, C, C]; its gradient takes one product where the general one takes
    two.
    """

    def gradient(upstream):
        return tf.matmul(rows, upstream + tf.linalg.matrix_transpose(upstream))

    return tf.matmul(rows, rows, transpose_a=True), gradient


def gram_match(layer: str, target: Value, *, relative: bool = False) -> Objective:
    """Mean squared distance of a layer's Gram matrix from a target's: style.

    Args:
        layer: a layer [N, h, w, C].
        target: the Gram matrix to reach, [N, C, C] or [1, C, C].
        relative: divide by the target's own mean square, so that layers compare.
    """

    return of(
        f"style {layer}", layer, lambda features: squared_distance(gram_matrix(features), target, relative)
    )


def total_variation(beta: float = 2.0) -> Objective:
    """Roughness of the picture: the mean over locations and colours of ((right - x)^2 + (below - x)^2)^(beta /
    2).

    The border is replicated, so the last difference of a row is 0. For beta below 2 the gradient has no bound
    where a picture is flat; squares are floored at 1e-5 there.

    Source: Mahendran & Vedaldi 2015, section 3; aravindhm/deep-goggle.
    """

    def roughness(image):
        right = tf.pad(image[:, :, 1:] - image[:, :, :-1], [[0, 0], [0, 0], [0, 1], [0, 0]])
        below = tf.pad(image[:, 1:] - image[:, :-1], [[0, 0], [0, 1], [0, 0], [0, 0]])
        squares = tf.square(right) + tf.square(below)
        return _mean(squares if beta == 2 else tf.maximum(squares, 1e-5) ** (beta / 2))

    return of("total_variation", IMAGE, roughness)


def alpha_norm(alpha: float = 6.0, zero: Sequence[float] = (127.5, 127.5, 127.5)) -> Objective:
    """Mean of |x - zero|^alpha: keeps pixels near the net's zero; a high alpha is a soft box.

    Args:
        alpha: the power; the paper's 6.
        zero: the colour that the net sees as zero (`backbone.zero_rgb`).
    """

    def norm(image):
        return _mean(tf.abs(image - tf.constant(zero, tf.float32)) ** alpha)

    return of("alpha_norm", IMAGE, norm)


def l2(zero: Sequence[float] = (127.5, 127.5, 127.5)) -> Objective:
    """Mean square of the picture's difference from the net's zero (`backbone.zero_rgb`)."""
    return of("l2", IMAGE, lambda image: _mean(tf.square(image - tf.constant(zero, tf.float32))))


def distance(target: Value) -> Objective:
    """Mean squared distance of the picture from another, [N, H, W, 3] or [1, H, W, 3]: attacks keep it
    small.
    """
    return of(
        "distance", IMAGE, lambda image: _mean(tf.math.squared_difference(image, tf.cast(target, tf.float32)))
    )


def feature_statistics(net: keras.Model) -> Objective | None:
    """Distance of each channel's mean and spread over the picture from the moving ones of its batch norm.

    A channel's share is (mean - m)^2 / v + (sqrt(variance / v) - 1)^2, with m and v the moving mean and variance;
    the value is the mean over channels, then over layers: 0 for a picture whose every channel answers as
    photographs make it on average. Batch norms behind a dense convolution count; those behind a convolution of each
    channel for itself see the same maps again.

    Args:
        net: a flat functional model.

    Returns:
        The objective, or None where the net has no such batch norm.

    Source: Yin et al. 2020, "Dreaming to distill", DeepInversion's feature regularisation, here for each picture by
    itself and in units of the deviation.
    """
    convolutions = (keras.layers.Conv2D, keras.layers.SeparableConv2D)
    norms = {
        call.operation.name + INPUT: call.operation
        for call in calls(net)
        if isinstance(call.operation, keras.layers.BatchNormalization)
        and isinstance(made_by(call.inputs[0]).operation, convolutions)
    }
    if not norms:
        return None

    def distance(*maps):
        shares = []
        for features, norm in zip(maps, norms.values(), strict=True):
            mean, variance = tf.nn.moments(features, [1, 2])
            spread = norm.moving_variance + norm.epsilon
            shift = tf.square(mean - norm.moving_mean) / spread
            stretch = tf.square(tf.sqrt(variance / spread + 1e-6) - 1.0)
            shares.append(tf.reduce_mean(shift + stretch, axis=-1))
        return tf.add_n(shares) / len(shares)

    return of("statistics", list(norms), distance)
