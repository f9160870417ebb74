"""Detection as classification of all windows: HOG, a linear classifier a template, and suppression.

A template is a window of cells with a weight for each of their features. Its score at a place is their product, so all
places of a picture are one convolution of the HOG map with the template; all templates of a shape, of all classes, are
the filters of one convolution. A class has a template for each of its aspects (side views and front views differ), and
a mirrored one beside each.

Letters: N images, K classes, T templates of a shape, kh kw a template's sides in cells, D features of a cell, n places.

Source: Dalal & Triggs 2005; the features, components by aspect and mirror images are those of Felzenszwalb et al. 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcnn.detection import pyramid as levels_of
from tfcnn.detection.pyramid import HogCells, OnPyramid, Pyramid
from tfcnn.errors import InputError


def hog_svm(
    classes: int,
    labels: dict[tuple[int, int], Sequence[int]],
    *,
    features: str = "felzenszwalb",
    cell: int = 8,
    margin: int = 1,
    pad: int = 3,
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
class HogWindows(keras.layers.Layer):
    """What the maps of margins mean: which class, window and box belong to each place. Its call changes nothing.

    Args:
        classes: K.
        shapes: (kh, kw) of each map's windows, cells, the margin included.
        labels: of each map, the class of each of its templates.
        margin, pad, cell, largest, per_octave, score_threshold, nms_threshold, max_detections: of `hog_svm`.
    """

    def __init__(
        self,
        classes: int,
        shapes: Sequence[Sequence[int]],
        labels: Sequence[Sequence[int]],
        *,
        margin: int,
        pad: int,
        cell: int,
        largest: float,
        per_octave: int,
        score_threshold: float,
        nms_threshold: float,
        max_detections: int,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        self.classes, self.shapes, self.labels = classes, [tuple(s) for s in shapes], labels
        self.margin, self.pad, self.cell = margin, pad, cell
        least = max(4, max(map(max, shapes)) - 2 * pad)  # a window fits into the last level
        self.pyramid = Pyramid(largest, per_octave, cell, least)
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.max_detections = max_detections

    def build(self, shapes: Sequence[Sequence[int | None]]) -> None:
        """A linear regression of the box from a window's features, for each template: weights and constants."""
        block = int(shapes[0][-1] == levels_of.depth("dalal_triggs"))
        self.box_weights, self.box_constants = [], []
        for index, ((h, w), labels) in enumerate(zip(self.shapes, self.labels, strict=True)):
            size = (h - block) * (w - block) * shapes[0][-1]
            shape = {"box_weights": [len(labels), size, 4], "box_constants": [len(labels), 4]}
            for name, own in shape.items():
                weight = self.add_weight(
                    name=f"{name}_{index}", shape=own, initializer="zeros", trainable=False
                )
                getattr(self, name).append(weight)

    def call(self, maps: list[tf.Tensor]) -> list[tf.Tensor]:
        return [tf.identity(each) for each in maps]

    def compute_output_shape(self, shapes: list[Sequence[int | None]]) -> list[Sequence[int | None]]:
        return shapes

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("classes", "shapes", "labels", "margin", "pad", "cell")}
        own |= {"largest": self.pyramid.largest, "per_octave": self.pyramid.per_octave}
        own |= {n: getattr(self, n) for n in ("score_threshold", "nms_threshold", "max_detections")}
        return super().get_config() | own

    def windows(
        self, shape: int, rows: np.ndarray, columns: np.ndarray, scale: float | np.ndarray
    ) -> np.ndarray:
        """The boxes of objects that fill windows, without their margin.

        Args:
            shape: index of the map.
            rows, columns: int [n], places in the map.
            scale: of the level, a number or [n].

        Returns:
            float64 [n, 4], pixels of the picture.
        """
        h, w = self.shapes[shape]
        edge = self.margin - self.pad
        x, y = columns + edge, rows + edge
        sides = [h - 2 * self.margin, w - 2 * self.margin]
        corners = np.stack([x, y, x + sides[1], y + sides[0]], axis=-1) * self.cell
        return corners / np.reshape(scale, [-1, 1])

    def window_features(self, cells: np.ndarray, shape: int, row: int, column: int) -> np.ndarray:
        """The features [kh, kw, D] of one window in a level's HOG map."""
        h, w = self.shapes[shape]
        block = int(cells.shape[-1] == levels_of.depth("dalal_triggs"))
        return cells[row : row + h - block, column : column + w - block]

    def regressed(self, shape: int, template: int, features: np.ndarray, box: np.ndarray) -> np.ndarray:
        """The object's box [4] by the template's regression, from a window's features and its box."""
        weights, constants = (
            each[shape].numpy()[template] for each in (self.box_weights, self.box_constants)
        )
        deltas = features.reshape(-1).astype(np.float32) @ weights + constants
        return moved(box, deltas)


def moved(box: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Boxes [..., 4] whose edges are moved by deltas [..., 4], shares of their sides: windows are near already."""
    sides = box[..., 2:] - box[..., :2]
    return box + deltas * np.concatenate([sides, sides], axis=-1)


class HogSvm:
    """A model of `hog_svm` at work: the part of a `tfcnn.predictor.Predictor` that is its own.

    Args:
        models: one of `hog_svm`; its weights may be trained on between two calls.
        scales: must be 1: the pyramid has all scales.
        score_threshold, nms_threshold, max_detections: None takes the model's own.
        runtime: "tf".
        threads, calibration: of other runtimes.
        flip, refine, box_voting, proposals: must be off.

    Attributes:
        classes: K.
        zero_rgb: the colour beside a picture, which is not looked at.

    Raises:
        InputError: the model is another, there are several, or an option is on that it does not have.
    """

    needs_proposals = False
    zero_rgb = (0.0, 0.0, 0.0)

    def __init__(
        self,
        models: Sequence[keras.Model],
        scales: int = 1,
        *,
        flip: bool = False,
        refine: int = 0,
        box_voting: bool = False,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
        runtime: str = "tf",
        threads: int = 1,
        calibration: Sequence[np.ndarray] = (),
        proposals: int | None = None,
    ):
        levels_of.check_single(
            models, scales, runtime, flip=flip, refine=refine, box_voting=box_voting, proposals=proposals
        )
        self.model = models[0]
        self.output = self.model.layers[-1]
        if not isinstance(self.output, HogWindows):
            raise InputError(f"The model {self.model.name} is no HOG detector: its last layer is other.")
        self.classes = self.output.classes
        score = self.output.score_threshold if score_threshold is None else score_threshold
        self.least = levels_of.margin_of(score)
        self.overlap = self.output.nms_threshold if nms_threshold is None else nms_threshold
        self.most = self.output.max_detections if max_detections is None else max_detections
        self.on_pyramid = OnPyramid(self.model, self.output.pyramid)

    def __call__(
        self,
        pictures: list[np.ndarray],
        sizes: list[np.ndarray],
        shapes: np.ndarray,
        proposals: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Detections of a batch, as `tfcnn.predictor.Method` says; one picture after the other."""
        pairs = zip(pictures[0], sizes[0], strict=True)
        return levels_of.stacked([self.find(picture[:h, :w]) for picture, (h, w) in pairs])

    def find(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes [n, 4], scores [n] and labels [n] in a picture uint8 [h, w, 3], best first."""
        levels = self.on_pyramid(picture)
        places, boxes, margins, labels = self.above(levels, self.least)
        kept = levels_of.best_indices(margins, labels)
        kept = kept[levels_of.suppressed(boxes[kept], margins[kept], labels[kept], self.overlap, self.most)]
        for index in kept:
            level, shape, row, column, template = places[index]
            features = self.output.window_features(levels[level].maps[0], shape, row, column)
            boxes[index] = self.output.regressed(shape, template, features, boxes[index])
        return boxes[kept], levels_of.score_of(margins[kept]), labels[kept]

    def above(
        self, levels: Sequence[levels_of.Level], least: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All windows above a margin.

        Returns:
            int [n, 5] places (level, shape, row, column, template), float64 [n, 4] boxes in pixels of the picture,
            float32 [n] margins, int [n] labels.
        """
        places, boxes, margins, labels = [], [], [], []
        for number, level in enumerate(levels):
            for shape, margin in enumerate(level.maps[1:]):
                rows, columns, templates = np.nonzero(margin > least)
                ones = np.ones_like(rows)
                places.append(np.stack([number * ones, shape * ones, rows, columns, templates], axis=1))
                boxes.append(self.output.windows(shape, rows, columns, level.scale))
                margins.append(margin[rows, columns, templates])
                labels.append(np.asarray(self.output.labels[shape], int)[templates])
        return tuple(np.concatenate(each) for each in (places, boxes, margins, labels))
