"""What detectors on a pyramid share, HOG windows and deformable parts: what their maps mean, and the search.

Letters: N images, K classes, kh kw a window's sides in cells, n locations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcnn.detection import pyramid as levels_of
from tfcnn.detection.options import PLAIN, DetectorOptions
from tfcnn.detection.pyramid import OnPyramid, Pyramid
from tfcnn.errors import InputError


class Windows(keras.layers.Layer):
    """The last layer: which class, window and box belong to each location of each map. Its call changes nothing.

    Args:
        classes: K.
        shapes: (kh, kw) of each map's windows, cells, the margin included.
        labels: of each map, the class of each of its channels.
        margin: cells round the object that belong to the window.
        pad: cells by which a window may stick out of the picture.
        cell: pixels of a cell.
        largest, per_octave: of `Pyramid`.
        score_threshold: least score, 0..1.
        nms_threshold: IoU above which the lower of two boxes of a class goes.
        max_detections: of a picture.
    """

    def __init__(
        self,
        classes: int,
        shapes: Sequence[Sequence[int]],
        labels: Sequence[Sequence[int]],
        *,
        pad: int,
        cell: int,
        largest: float,
        per_octave: int,
        score_threshold: float,
        nms_threshold: float,
        max_detections: int,
        margin: int = 0,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        self.classes, self.shapes, self.labels = classes, [tuple(s) for s in shapes], labels
        self.margin, self.pad, self.cell = margin, pad, cell
        least = max(4, max(map(max, shapes)) - 2 * pad)  # a window fits into the last level
        self.pyramid = Pyramid(largest, per_octave, cell, least)
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.max_detections = max_detections

    def call(self, maps: list[tf.Tensor]) -> list[tf.Tensor]:
        return [tf.identity(each) for each in maps]

    def compute_output_shape(self, shapes: list[Sequence[int | None]]) -> list[Sequence[int | None]]:
        return shapes

    def get_config(self) -> dict[str, Any]:
        names = ("classes", "shapes", "labels", "pad", "cell")
        names += ("score_threshold", "nms_threshold", "max_detections")
        own = {name: getattr(self, name) for name in names}
        own |= {"largest": self.pyramid.largest, "per_octave": self.pyramid.per_octave}
        return super().get_config() | own

    def windows(
        self, shape: int, rows: np.ndarray, columns: np.ndarray, scale: float | np.ndarray
    ) -> np.ndarray:
        """The boxes of objects that fill windows, without their margin.

        Args:
            shape: index of the map.
            rows, columns: int [n], locations in the map.
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


class PyramidDetector:
    """A model whose last layer is `Windows` at work: the part of a `tfcnn.predictor.Predictor` that is its own.

    Args:
        models: one; its weights may be trained on between two calls.
        options: the thresholds; all others must be off: the pyramid has all scales.

    Attributes:
        classes: K.
        zero_rgb: the colour beside a picture, which is not looked at.
        layer: the kind of its model's last layer.
        what: such a model in words.
        first_map: outputs of the model before those that `Windows` speaks of.

    Raises:
        InputError: the model is another, there are several, or an option is on that it does not have.
    """

    needs_proposals = False
    zero_rgb = (0.0, 0.0, 0.0)
    layer: type[Windows] = Windows
    what = "detector on a pyramid"
    first_map = 1

    def __init__(self, models: Sequence[keras.Model], options: DetectorOptions = PLAIN):
        if len(models) > 1:
            raise InputError("Detectors on a pyramid form no ensemble: give one model.")
        options.only("A detector of HOG windows or deformable parts")
        self.model = models[0]
        self.output = self.model.layers[-1]
        if not isinstance(self.output, self.layer):
            raise InputError(f"The model {self.model.name} is no {self.what}: its last layer is other.")
        self.classes = self.output.classes
        score, self.overlap, self.most = options.thresholds(self.output)
        self.least = levels_of.margin_of(score)
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
        return levels_of.stacked([self.find(picture[:h, :w])[:3] for picture, (h, w) in pairs])

    def best(
        self, picture: np.ndarray
    ) -> tuple[list[levels_of.Level], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The levels of a picture uint8 [h, w, 3], and of `above` what suppression leaves, best first."""
        levels = self.on_pyramid(picture)
        places, boxes, margins, labels = self.above(levels, self.least)
        kept = levels_of.best_indices(margins, labels)
        kept = kept[levels_of.suppressed(boxes[kept], margins[kept], labels[kept], self.overlap, self.most)]
        return levels, places[kept], boxes[kept], margins[kept], labels[kept]

    def above(
        self, levels: Sequence[levels_of.Level], least: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All windows above a margin.

        Returns:
            int [n, 5] places (level, shape, row, column, channel of the shape's map), float64 [n, 4] boxes in pixels
            of the picture, float32 [n] margins, int [n] labels.
        """
        places, boxes, margins, labels = [], [], [], []
        for number, level in enumerate(levels):
            for shape, margin in enumerate(level.maps[self.first_map :]):
                rows, columns, own = np.nonzero(margin > least)
                ones = np.ones_like(rows)
                places.append(np.stack([number * ones, shape * ones, rows, columns, own], axis=1))
                boxes.append(self.output.windows(shape, rows, columns, level.scale))
                margins.append(margin[rows, columns, own])
                labels.append(np.asarray(self.output.labels[shape], int)[own])
        return tuple(np.concatenate(each) for each in (places, boxes, margins, labels))
