"""OverFeat: a classifier and its box head slid over an image pyramid, and the boxes of all windows merged.

S the side of the net's window, h w the windows of a picture at one scale, K classes, B boxes of a window (1, or K where
each class has one), n windows. The steps are the paper's: dense layers as convolutions (section 3.5), the last pooling
at every offset (3.3), class and box maps at several scales (3.3, 4.1), greedy merging (4.3).

Source: Sermanet, Eigen, Zhang, Mathieu, Fergus, LeCun, "OverFeat", arXiv 1312.6229; VGG's variant: Simonyan and
Zisserman, arXiv 1409.1556, appendix A.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn import images
from tfcnn.backbones.convert import fully_convolutional
from tfcnn.backbones.graph import made_by
from tfcnn.backbones.heads import with_logits
from tfcnn.errors import InputError
from tfcnn.localization import heads

MERGE_THRESHOLD = 0.75  # t, which the paper does not give
MOST_WINDOWS = 300  # of a class, the best that are merged: pairs grow with the square


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a paper looks at a picture.

    Attributes:
        scales: shorter sides of the pyramid, in sides of the net's window.
        offsets: whether the last pooling is repeated at every offset.
    """

    scales: tuple[float, ...]
    offsets: bool


# OverFeat's 245, 281, 317 and 389 of 221 pixels (the winning entry has four scales); VGG's 352 and 384 of 224.
VARIANTS = {
    "overfeat": Variant((245 / 221, 281 / 221, 317 / 221, 389 / 221), True),
    "vgg": Variant((352 / 224, 384 / 224), False),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """What the net says of each window of a picture at one scale.

    Attributes:
        places: float32 [h, w, 4], the windows themselves, (x1, y1, x2, y2) in pixels of the file.
        scores: float32 [h, w, K].
        boxes: float32 [h, w, B, 4], in pixels of the file; a net without a box head gives the windows themselves.
        size: (height, width) of the picture as the net saw it.
    """

    places: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    size: tuple[int, int]

    def of_class(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes [h w, 4] and scores [h w] of one class."""
        boxes = self.boxes[:, :, min(index, self.boxes.shape[2] - 1)]
        return boxes.reshape(-1, 4), self.scores[..., index].reshape(-1)


class SlidingWindow:
    """A classifier, or a localizer of one box or a box a class, as a sliding window.

    Args:
        model: of `tfcnn.backbones.classifier` or `tfcnn.localization.with_box_head`, of pictures [N, S, S, 3].
        offsets: repeat the last max pooling at every offset, for a grid as many times finer; only where no layer after
            it has a stride, and not of a localizer whose `finer` head reads a map below it.

    Attributes:
        window: S, in pixels.
        step: pixels from one window to the next.
        offsets: how many offsets there are on an axis, 1 without.
        classes: K.

    Raises:
        InputError: the model has K objects, no square size, or a layer without a convolutional form.
    """

    def __init__(self, model: keras.Model, offsets: bool = True):
        outputs = self._outputs(model)
        self.window = model.input_shape[1]
        if not self.window or self.window != model.input_shape[2]:
            raise InputError(f"{model.name} takes pictures of no one square size: a window needs one")
        self.classes = outputs["scores"].shape[-1]
        convolutional = fully_convolutional(keras.Model(model.inputs[0], outputs, name=model.name))
        stride, self._pool = _strides(convolutional.output["scores"])
        if any(layer.name == heads.NARROW for layer in model.layers):
            self._pool = None
        self.offsets = self._pool.strides[0] if offsets and self._pool is not None else 1
        self.step = stride // self.offsets
        below, above = convolutional, None
        if self.offsets > 1:
            call = made_by(self._pool.output)
            below = keras.Model(convolutional.inputs[0], call.inputs[0])
            above = keras.Model(call.outputs[0], convolutional.output)
            self._side = below.compute_output_shape((1, self.window, self.window, 3))[1] // self.offsets
        self._below, self._above = (
            None
            if net is None
            else tf.function(functools.partial(net, training=False), reduce_retracing=True)
            for net in (below, above)
        )

    def _outputs(self, model):
        """Scores, and the numbers of the boxes before they are given their shape, which is no convolution."""
        if not isinstance(model.output, dict) or "boxes" not in model.output:
            return {"scores": with_logits(model).output["scores"]}
        if heads.form(model).kind == "objects":
            raise InputError(
                f"{model.name} has several boxes of no class: a sliding window has one, or one a class"
            )
        numbers = made_by(model.output["boxes"]).inputs[0]
        return {"scores": model.output["scores"], "numbers": numbers}

    def _parts(self, picture: tf.Tensor) -> list[dict[str, np.ndarray]]:
        """The maps [h', w', C] of each offset: the last map pooled from (dx, dy) on, for every offset within a pool.

        Source: section 3.3.
        """
        found = self._below(picture)
        if self._above is None:
            return [{name: each.numpy()[0] for name, each in found.items()}]
        parts = []
        for y in range(self.offsets):
            for x in range(self.offsets):
                pooled = self._pool(found[:, y:, x:])
                places = [max(0, side - self._side + 1) for side in pooled.shape[1:3]]
                if all(places):
                    parts.append({name: each.numpy()[0] for name, each in self._above(pooled).items()})
                else:  # no window fits from here on
                    parts.append(
                        {
                            name: np.zeros((*places, part.shape[-1]), np.float32)
                            for name, part in parts[0].items()
                        }
                    )
        return parts

    def size_of(self, height: int, width: int, shorter: int) -> tuple[int, int]:
        """The size at which a picture is looked at, so that its windows end at its edges.

        Args:
            height, width: of the picture, in pixels.
            shorter: wished length of the shorter side, in pixels.

        Returns:
            (height, width): each S plus a multiple of the step, the nearest to the wish.
        """
        scale = max(shorter, self.window) / min(height, width)
        steps = [max(0, round((side * scale - self.window) / self.step)) for side in (height, width)]
        return tuple(self.window + count * self.step for count in steps)

    def maps(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        """The net's answers to every window of a picture, in one pass.

        Args:
            picture: uint8 or float32 [H, W, 3], of S pixels a side or more.

        Returns:
            {"scores": float32 [h, w, K]} and, of a localizer, {"boxes": float32 [h, w, B, 4]}, unit_boxes of each
            window. Window (i, j) begins at (j, i) times the step.

        Raises:
            InputError: the picture is smaller than a window, or a number is not finite.
        """
        if min(picture.shape[:2]) < self.window:
            raise InputError(
                f"a picture of {picture.shape[1]}x{picture.shape[0]} is smaller than a window of {self.window}"
            )
        parts = self._parts(tf.constant(picture[None].astype(np.float32)))
        found = {name: interleaved([part[name] for part in parts], self.offsets) for name in parts[0]}
        if not all(np.isfinite(values).all() for values in found.values()):
            raise InputError("non-finite")
        if "numbers" in found:
            numbers = found.pop("numbers")
            found["boxes"] = numbers.reshape(*numbers.shape[:2], -1, 4)
        return found

    def __call__(self, image: np.ndarray, shorter: int, flip: bool = False) -> Windows:
        """Looks at a picture at one scale.

        Args:
            image: uint8 [H, W, 3].
            shorter: its shorter side as the net sees it, in pixels.
            flip: look at its mirror image, and mirror what is found.

        Raises:
            InputError: as `maps`, or as `images.check_pixels`.
        """
        height, width = image.shape[:2]
        size = self.size_of(height, width, shorter)
        images.check_pixels(size, height, width)
        picture, at = images.resize(image, size)
        found = self.maps(picture[:, ::-1] if flip else picture)
        rows, columns = found["scores"].shape[:2]
        y, x = np.meshgrid(
            *(self.step * np.arange(count, dtype=np.float32) for count in (rows, columns)), indexing="ij"
        )
        corner = np.stack([x, y, x, y], axis=-1)  # [h, w, 4]
        places = corner + np.float32([0, 0, self.window, self.window])
        boxes = places[:, :, None]
        if "boxes" in found:
            unit = found["boxes"]
            ordered = np.concatenate(
                [np.minimum(unit[..., :2], unit[..., 2:]), np.maximum(unit[..., :2], unit[..., 2:])], -1
            )
            boxes = corner[:, :, None] + ordered * self.window
        if flip:
            places, boxes = (_mirrored(each, size[1]) for each in (places, boxes))
        edges = np.float32([width, height, width, height])
        return Windows(
            np.clip(at.to_file(places), 0, edges), found["scores"], np.clip(at.to_file(boxes), 0, edges), size
        )


def interleaved(parts: Sequence[np.ndarray], offsets: int) -> np.ndarray:
    """The maps of all offsets as one finer map: part (dy, dx) has its rows dy, dy + offsets, ... and columns likewise.

    Args:
        parts: offsets * offsets arrays [h', w', C], dy outer, dx inner; those of a later offset may be one shorter.
        offsets: on an axis.

    Returns:
        [h, w, C].

    Source: section 3.3, figure 3.
    """
    height = sum(parts[y * offsets].shape[0] for y in range(offsets))
    width = sum(part.shape[1] for part in parts[:offsets])
    whole = np.empty((height, width, parts[0].shape[-1]), parts[0].dtype)
    for number, part in enumerate(parts):
        whole[number // offsets :: offsets, number % offsets :: offsets] = part
    return whole


def best_classes(scores: np.ndarray, count: int) -> np.ndarray:
    """The best classes of a picture at one scale, C_s: by their highest score of all windows, best first.

    Args:
        scores: [h, w, K].
        count: how many.

    Returns:
        int [min(count, K)].
    """
    return np.argsort(-scores.reshape(-1, scores.shape[-1]).max(axis=0), kind="stable")[:count]


def match_score(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How badly boxes match, 0 where they are the same.

    The paper: "the sum of the distance between the centers of the two bounding boxes and the intersection area of the
    boxes", without a scale, and with a sign that cannot be meant. Here: the distance of the centres in mean sides of
    the two boxes, plus one minus their intersection over union.

    Args:
        a, b: float [..., 4], which broadcast.

    Returns:
        float [...].

    Source: section 4.3.
    """
    sides_a, sides_b = np.maximum(a[..., 2:] - a[..., :2], 0), np.maximum(b[..., 2:] - b[..., :2], 0)
    areas = sides_a.prod(-1), sides_b.prod(-1)
    distance = np.linalg.norm((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2, axis=-1)
    shared = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0).prod(-1)
    overlap = shared / np.maximum(areas[0] + areas[1] - shared, 1e-9)
    return distance / np.maximum((np.sqrt(areas[0]) + np.sqrt(areas[1])) / 2, 1e-9) + 1 - overlap


def merge(
    boxes: np.ndarray, scores: np.ndarray, threshold: float = MERGE_THRESHOLD
) -> tuple[np.ndarray, np.ndarray]:
    """Merges boxes greedily: always the two that match best, until none match well.

    Args:
        boxes: float [n, 4].
        scores: float [n], of the windows that the boxes come from.
        threshold: t: the two best are merged while their match score is not above it.

    Returns:
        (boxes [m, 4], scores [m]), best first: a merged box is the mean of the two, its score the sum of those of all
        its windows.

    Source: section 4.3, the algorithm (d) to (f).
    """
    boxes, scores = np.array(boxes, np.float64).reshape(-1, 4), np.array(scores, np.float64).reshape(-1)
    pairs = match_score(boxes[:, None], boxes[None])
    pairs[np.tril_indices(len(boxes))] = np.inf
    alive = np.ones(len(boxes), bool)
    while len(boxes) > 1:
        first, second = np.unravel_index(np.argmin(pairs), pairs.shape)
        if pairs[first, second] > threshold or not np.isfinite(pairs[first, second]):
            break
        boxes[first] = (boxes[first] + boxes[second]) / 2
        scores[first] += scores[second]
        alive[second] = False
        pairs[second], pairs[:, second] = np.inf, np.inf
        again = np.where(alive, match_score(boxes[first], boxes), np.inf)
        pairs[first, first + 1 :], pairs[:first, first] = again[first + 1 :], again[:first]
    order = np.flatnonzero(alive)[np.argsort(-scores[alive], kind="stable")]
    return boxes[order], scores[order]


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """Boxes of several classes.

    Attributes:
        boxes: float64 [n, 4], pixels of the file.
        scores: float64 [n].
        labels: int32 [n].
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def localize(
    looks: Sequence[Windows], top: int = 5, min_score: float = 0.05, threshold: float = MERGE_THRESHOLD
) -> tuple[Found, Found]:
    """The boxes of a picture's best classes, before and after merging.

    Args:
        looks: the picture at each scale, and mirrored.
        top: k: classes of a scale.
        min_score: windows below it are left out; all classes keep their best window.
        threshold: of `merge`.

    Returns:
        (windows, merged): of the classes of all scales, the boxes of their windows (at most MOST_WINDOWS a class, the
        best), and the merged ones with accumulated scores; both best first.

    Source: section 4.3, (a) to (f).
    """
    chosen = [set(best_classes(look.scores, top).tolist()) for look in looks]
    before, after = [], []
    for label in sorted(set().union(*chosen)):
        parts = [look.of_class(label) for look, best in zip(looks, chosen, strict=True) if label in best]
        boxes, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(-scores, kind="stable")[:MOST_WINDOWS]
        order = order[: max(1, int((scores[order] >= min_score).sum()))]
        before.append((boxes[order], scores[order], label))
        after.append((*merge(boxes[order], scores[order], threshold), label))
    return _joined(before), _joined(after)


def _joined(parts: list[tuple[np.ndarray, np.ndarray, int]]) -> Found:
    boxes, scores = (np.concatenate([part[i] for part in parts]).astype(np.float64) for i in (0, 1))
    labels = np.concatenate([np.full(len(part[1]), part[2], np.int32) for part in parts])
    order = np.argsort(-scores, kind="stable")
    return Found(boxes[order], scores[order], labels[order])


def _mirrored(boxes: np.ndarray, width: int) -> np.ndarray:
    return np.stack([width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], axis=-1)


def _strides(tensor: keras.KerasTensor) -> tuple[int, keras.layers.MaxPooling2D | None]:
    """Pixels from one location of a map to the next, and the max pooling that is its last layer with a stride."""
    stride, pool, last = 1, None, True
    call = made_by(tensor)
    while call.inputs:
        layer = call.operation
        own = getattr(layer, "strides", 1)
        own = own if isinstance(own, int) else own[0]
        if own > 1 and last:
            plain = isinstance(layer, keras.layers.MaxPooling2D) and layer.pool_size[0] == own
            pool, last = layer if plain and layer.padding == "valid" else None, False
        stride *= own
        call = made_by(call.inputs[0])
    return stride, pool
