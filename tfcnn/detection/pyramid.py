"""A picture at many sizes, and a net of one size of objects run over all of them: HOG windows, deformable parts.

A picture lies at the upper left of a square canvas of S pixels a side, and each level shows the canvas at another size.
Pixels beside the picture are below 0 (BESIDE): `HogCells` sees no gradients there.

Letters: N images, H W a level's sides in pixels, h w its sides in cells, D features of a cell, n windows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcnn import images
from tfcnn.datasets import Record
from tfcnn.detection.rpn import inside_ignored
from tfcnn.errors import InputError
from tfcnn.ops import hog, nms

BESIDE = -1.0  # the value of pixels beside the picture
SLOPE = 2.0  # a score is the logistic function of so many times a classifier's margin
MOST = 400  # windows of a class that enter suppression


@dataclasses.dataclass(frozen=True)
class Pyramid:
    """The sizes at which a picture is looked at.

    Attributes:
        largest: scale of the first level; above 1, smaller objects than a template are found.
        per_octave: levels until the size is halved (the papers' lambda).
        cell: pixels of a cell; the sides of levels are multiples of it.
        least: cells a side of the last level.
    """

    largest: float = 1.5
    per_octave: int = 4
    cell: int = 8
    least: int = 6

    def sides(self, canvas: int) -> list[int]:
        """The sides of the levels of a canvas, pixels, the largest first."""
        sides, level = [], 0
        while True:
            cells = round(canvas * self.largest * 2 ** (-level / self.per_octave) / self.cell)
            if cells < self.least:
                return sides or [self.least * self.cell]
            if cells * self.cell not in sides:
                sides.append(cells * self.cell)
            level += 1


@dataclasses.dataclass(frozen=True, eq=False)
class Level:
    """A net's answers on one level.

    Attributes:
        scale: from pixels of the picture to those of the level.
        maps: float32 [h, w, ...] each, the net's outputs.
    """

    scale: float
    maps: list[np.ndarray]


class OnPyramid:
    """A net run on all levels of a picture, in one compiled function.

    Args:
        net: from image float32 [N, H, W, 3], BESIDE beside the picture, to a list of maps [N, h, w, ...].
        pyramid: the levels.
    """

    def __init__(self, net: keras.Model, pyramid: Pyramid):
        self.pyramid = pyramid

        def run(canvas, size):
            answers = []
            for side in pyramid.sides(canvas.shape[0]):
                image = tf.image.resize(tf.cast(canvas, tf.float32)[None], [side, side], antialias=True)
                ends = tf.cast(size, tf.float32) * (side / canvas.shape[0])
                places = tf.range(1, side + 1, dtype=tf.float32)
                inside = (places <= ends[0])[:, None] & (places <= ends[1])
                answers.append(net(tf.where(inside[None, ..., None], image, BESIDE), training=False))
            return answers

        self._run = tf.function(run)

    def __call__(self, picture: np.ndarray) -> list[Level]:
        """The net's answers on a picture uint8 [h, w, 3]; one program a longest side is compiled."""
        side = max(picture.shape[:2])
        canvas = np.zeros([side, side, 3], np.uint8)
        canvas[: picture.shape[0], : picture.shape[1]] = picture
        answers = self._run(tf.constant(canvas), tf.constant(picture.shape[:2]))
        return [
            Level(level / side, [each.numpy()[0] for each in maps])
            for level, maps in zip(self.pyramid.sides(side), answers, strict=True)
        ]


@keras.saving.register_keras_serializable(package="tfcnn")
class HogCells(keras.layers.Layer):
    """HOG of pictures [N, H, W, 3], whose pixels below 0 lie beside the picture: [N, h, w, D].

    Args:
        features: "felzenszwalb", D = 32 with the truncation feature, or "dalal_triggs", D = 36 of a block of 2 x 2
            cells, of which there is one less a side than cells.
        cell: pixels a side. A picture whose sides are no multiples is filled up at its right and lower side.
        pad: cells put before (above, left) and after (below, right); below 0 as many are cut off.
    """

    def __init__(
        self, features: str = "felzenszwalb", cell: int = 8, pad: Sequence[int] = (0, 0), **kwargs: Any
    ):
        super().__init__(autocast=False, **kwargs)
        self.features, self.cell, self.pad = features, cell, tuple(pad)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        height, width = images.shape[1:3]
        fill = [[0, 0], [0, -height % self.cell], [0, -width % self.cell], [0, 0]]
        images = tf.pad(images, fill, constant_values=BESIDE)
        inside = images[..., 0] >= 0
        if self.features == "felzenszwalb":
            cells = hog.felzenszwalb(images, self.cell, inside, self.pad)
            return tf.concat([cells, hog.truncation(inside, self.cell, self.pad)], axis=-1)
        blocks = hog.dalal_triggs(images, self.cell, inside=inside)
        before, after = self.pad
        if before < 0 or after < 0:
            return blocks[:, -before : after or None, -before : after or None]
        return tf.pad(blocks, [[0, 0], [before, after], [before, after], [0, 0]])

    def compute_output_shape(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        more = sum(self.pad) - (self.features == "dalal_triggs")
        sides = [None if side is None else -(-side // self.cell) + more for side in shape[1:3]]
        return (shape[0], *sides, depth(self.features))

    def get_config(self) -> dict[str, Any]:
        own = {"features": self.features, "cell": self.cell, "pad": list(self.pad)}
        return super().get_config() | own


def depth(features: str) -> int:
    """D, the features of a cell.

    Raises:
        InputError: another name than felzenszwalb and dalal_triggs.
    """
    known = {"felzenszwalb": 32, "dalal_triggs": 36}
    if features not in known:
        raise InputError(f"features={features!r} is none of {', '.join(known)}.")
    return known[features]


def cut(picture: np.ndarray, box: Sequence[float], height: int, width: int) -> np.ndarray:
    """What lies in a box, stretched to a size.

    Args:
        picture: uint8 [h, w, 3].
        box: (x1, y1, x2, y2), pixels, rounded to whole ones; parts beside the picture become BESIDE.
        height, width: of the result, pixels.

    Returns:
        float32 [height, width, 3].
    """
    x1, y1, x2, y2 = np.rint(box).astype(int)
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    rows = np.clip(np.arange(y1, y2), 0, picture.shape[0] - 1)  # the border is repeated, then marked
    columns = np.clip(np.arange(x1, x2), 0, picture.shape[1] - 1)
    part = images.resize(picture[rows][:, columns], (height, width))[0].astype(np.float32)
    y = y1 + (np.arange(height) + 0.5) * (y2 - y1) / height
    x = x1 + (np.arange(width) + 0.5) * (x2 - x1) / width
    inside = ((y >= 0) & (y < picture.shape[0]))[:, None] & (x >= 0) & (x < picture.shape[1])
    return np.where(inside[..., None], part, np.float32(BESIDE))


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU [n, m] of boxes [n, 4] with others [m, 4], pixels; in NumPy, for the many small lists of a search."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (boxes, others)]
    return shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1e-9)


def ignored(windows: np.ndarray, objects: np.ndarray, record: Record, label: int) -> np.ndarray:
    """The windows that lie inside a crowd or a difficult object of a class, and are no background of it.

    Args:
        windows: float [n, 4], pixels of a picture.
        objects: float [M, 4], the record's boxes in these pixels.
        record: the picture's annotation.
        label: of the class.

    Returns:
        bool [n].
    """
    unclear = (record.difficult | record.crowd) & (record.labels == label)
    return inside_ignored(np.float32(windows), np.float32(objects[None]), unclear[None])[0].numpy()


def margin_of(score: float) -> float:
    """The classifier's margin at which the score, 0..1, is reached; see SLOPE."""
    score = min(max(score, 1e-6), 1 - 1e-6)
    return float(np.log(score / (1 - score)) / SLOPE)


def score_of(margin: np.ndarray) -> np.ndarray:
    """Scores 0..1 of a classifier's margins; only their order means anything."""
    return 1 / (1 + np.exp(-SLOPE * margin))


def best_indices(margins: np.ndarray, labels: np.ndarray, most: int = MOST) -> np.ndarray:
    """The best `most` windows of each class: indices int [m] into margins [n] and labels [n]."""
    order = np.argsort(-margins, kind="stable")
    order = order[np.argsort(labels[order], kind="stable")]  # class after class, each best first
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return order[rank < most]


def suppressed(
    boxes: np.ndarray, margins: np.ndarray, labels: np.ndarray, iou_threshold: float, most: int
) -> np.ndarray:
    """Greedy suppression within each class: indices of the best `most` that are kept, by falling margin.

    Args:
        boxes: float32 [n, 4], pixels.
        margins: float32 [n].
        labels: int [n].
        iou_threshold: above which the lower goes.
        most: detections.
    """
    if not len(boxes):
        return np.zeros(0, int)
    apart = (boxes.max() - boxes.min() + 1) * labels[:, None]  # classes side by side never overlap
    kept = nms.nms(np.float32(boxes + apart), np.float32(margins), iou_threshold, len(boxes))
    return kept.numpy()[:most]


def stacked(found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """(boxes [n, 4], scores [n], labels [n]) of each picture as `tfcnn.predictor.Method` gives them."""
    most = max([1, *(len(scores) for _, scores, _ in found)])
    result = {
        "boxes": np.zeros((len(found), most, 4), np.float32),
        "scores": np.zeros((len(found), most), np.float32),
        "labels": np.full((len(found), most), -1, np.int32),
        "count": np.array([len(scores) for _, scores, _ in found], np.int32),
    }
    for row, (boxes, scores, labels) in enumerate(found):
        result["boxes"][row, : len(scores)] = boxes
        result["scores"][row, : len(scores)] = scores
        result["labels"][row, : len(scores)] = labels
    return result
