"""Detection as classification of all windows: HOG, a linear classifier a template, and suppression.

A template is a window of cells with a weight for each of their features. Its score at a location is their product, so
all locations of a picture are one convolution of the HOG map with the template; all templates of a shape, of all
classes, are the filters of one convolution. A class has a template for each of its aspects (side views and front views
differ), and a mirrored one beside each.

Letters: N images, K classes, T templates of a shape, kh kw a template's sides in cells, D features of a cell,
n locations.

Source: Dalal & Triggs 2005; the features, components by aspect and mirror images are those of Felzenszwalb et al. 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfcnn.detection import pyramid as levels_of
from tfcnn.detection.pyramid import HogCells
from tfcnn.detection.pyramid_detector import PyramidDetector, Windows
from tfcnn.ops import hog


def hog_svm(
    classes: int,
    labels: dict[tuple[int, int], Sequence[int]],
    *,
    features: str = "felzenszwalb",
    cell: int = 8,
    margin: int = 1,
    pad: int = 3,
    mirrored: bool = False,
    largest: float = 1.5,
    per_octave: int = 4,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.3,
    max_detections: int = 100,
) -> keras.Model:
    """The net of one pyramid level; its templates are 0 until they are trained.

    Args:
        classes: K.
        labels: {(kh, kw) of a window in cells, its margin included: the class of each of its T templates}.
        features, cell: of `HogCells`.
        margin: cells round the object that belong to the window: its surroundings help.
        pad: cells by which a window may stick out of the picture.
        mirrored: every second template of a shape is the mirror image of the one before it.
        largest, per_octave: of `Pyramid`.
        score_threshold: least score, 0..1: the logistic function of twice the margin.
        nms_threshold: IoU above which the lower of two boxes of a class goes.
        max_detections: of a picture.

    Returns:
        keras.Model from image [N, H, W, 3], float32, below 0 beside the picture, to a list: the HOG map, and a map
        [N, h, w, T] of margins for each shape, at [y, x] that of the window whose upper left cell it is.
    """
    image = keras.Input([None, None, 3], name="image")
    cells = HogCells(features, cell, (pad, pad), name="hog")(image)
    block = int(features == "dalal_triggs")
    maps = [
        keras.layers.Conv2D(len(own), (h - block, w - block), name=f"templates_{h}x{w}", dtype="float32")(
            cells
        )
        for (h, w), own in labels.items()
    ]
    windows = HogWindows(
        classes,
        [list(shape) for shape in labels],
        [list(map(int, own)) for own in labels.values()],
        mirrored=mirrored,
        margin=margin,
        pad=pad,
        cell=cell,
        largest=largest,
        per_octave=per_octave,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        max_detections=max_detections,
        name="windows",
    )
    model = keras.Model(image, windows([cells, *maps]), name="hog_svm")
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.set_weights([np.zeros(weight.shape, np.float32) for weight in layer.get_weights()])
    return model


@keras.saving.register_keras_serializable(package="tfcnn")
class HogWindows(Windows):
    """The last layer of `hog_svm`, with a box regression for each template.

    Args:
        mirrored: every second template of a shape is the mirror image of the one before it, and has its regression.
        Others as of `Windows`.
    """

    def __init__(self, *args: Any, mirrored: bool = False, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.mirrored = mirrored

    def build(self, shapes: Sequence[Sequence[int | None]]) -> None:
        """A linear regression of the box from a window's features, for each template: weights and constants."""
        block = int(shapes[0][-1] == levels_of.depth("dalal_triggs"))
        self.box_weights, self.box_constants = [], []
        for index, ((h, w), labels) in enumerate(zip(self.shapes, self.labels, strict=True)):
            size, count = (h - block) * (w - block) * shapes[0][-1], len(labels) // (1 + self.mirrored)
            shape = {"box_weights": [count, size, 4], "box_constants": [count, 4]}
            for name, own in shape.items():
                weight = self.add_weight(
                    name=f"{name}_{index}", shape=own, initializer="zeros", trainable=False
                )
                getattr(self, name).append(weight)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"margin": self.margin, "mirrored": self.mirrored}

    def window_features(self, cells: np.ndarray, shape: int, row: int, column: int) -> np.ndarray:
        """The features [kh, kw, D] of one window in a level's HOG map."""
        h, w = self.shapes[shape]
        block = int(cells.shape[-1] == levels_of.depth("dalal_triggs"))
        return cells[row : row + h - block, column : column + w - block]

    def regressed(self, shape: int, template: int, features: np.ndarray, box: np.ndarray) -> np.ndarray:
        """The object's box [4] by the template's regression, from a window's features and its box."""
        template, mirror = divmod(template, 2) if self.mirrored else (template, 0)
        weights, constants = (
            each[shape].numpy()[template] for each in (self.box_weights, self.box_constants)
        )
        features = hog.mirrored(features) if mirror else features
        deltas = features.reshape(-1).astype(np.float32) @ weights + constants
        return moved(box, mirrored_deltas(deltas) if mirror else deltas)


def mirrored_deltas(deltas: np.ndarray) -> np.ndarray:
    """What moves the edges of a mirrored box, float [4], from what moves those of the box."""
    return deltas[[2, 1, 0, 3]] * [-1, 1, -1, 1]


def moved(box: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Boxes [..., 4] whose edges are moved by deltas [..., 4], shares of their sides: windows are near already."""
    sides = box[..., 2:] - box[..., :2]
    return box + deltas * np.concatenate([sides, sides], axis=-1)


class HogSvm(PyramidDetector):
    """A model of `hog_svm` at work; arguments and attributes as of `PyramidDetector`."""

    layer = HogWindows
    what = "HOG detector"

    def find(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes [n, 4], scores [n] and labels [n] in a picture uint8 [h, w, 3], best first."""
        levels, places, boxes, margins, labels = self.best(picture)
        for index, (level, shape, row, column, template) in enumerate(places):
            features = self.output.window_features(levels[level].maps[0], shape, row, column)
            boxes[index] = self.output.regressed(shape, template, features, boxes[index])
        return boxes, levels_of.score_of(margins), labels
