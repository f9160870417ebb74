"""The layers of a deformable part model as a net: distance-transform pooling, object geometry filter, maxout.

Letters: N images, h w a map's sides, P parts, C components of a root's shape, K classes, R the radius.

Source: Girshick, Iandola, Darrell, Malik 2015, Deformable Part Models are Convolutional Neural Networks, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcnn.detection.pyramid_detector import Windows
from tfcnn.ops.distance_transform import NEVER, distance_transform_pooling


@keras.saving.register_keras_serializable(package="tfcnn")
class DistanceTransformPooling(keras.layers.Layer):
    """`tfcnn.ops.distance_transform.distance_transform_pooling` with a cost of its own for each channel.

    Args:
        radius: R.
    """

    def __init__(self, radius: int = 4, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.radius = radius

    def build(self, shape: Sequence[int | None]) -> None:
        self.deformation = self.add_weight(name="deformation", shape=[shape[-1], 4], initializer="zeros")

    def call(self, values: tf.Tensor) -> tf.Tensor:
        return distance_transform_pooling(values, tf.convert_to_tensor(self.deformation), self.radius)

    def compute_output_shape(self, shape: Sequence[int | None]) -> Sequence[int | None]:
        return shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"radius": self.radius}


@keras.saving.register_keras_serializable(package="tfcnn")
class ObjectGeometry(keras.layers.Layer):
    """The object geometry filter: a convolution with stride 2 whose filters have one 1 a part, at its anchor.

    Call it on [roots [N, h, w, C], pooled parts [N, h', w', P]]: it adds to the root at [y, x] each of its parts at
    [2 y + row, 2 x + column].

    Args:
        anchors: C lists of (row, column).
        first: index of the first of these parts among the P; they follow each other.
    """

    def __init__(self, anchors: Sequence[Sequence[Sequence[int]]], first: int, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.anchors, self.first = anchors, first

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        roots, pooled = inputs
        n, h, w = tf.unstack(tf.shape(roots)[:3])
        sizes = [len(own) for own in self.anchors]
        rows, columns = np.array([place for own in self.anchors for place in own]).T
        own = pooled[..., self.first : self.first + sum(sizes)]
        height, width = tf.unstack(tf.shape(own)[1:3])
        lines = tf.reshape(tf.transpose(own, [0, 3, 1, 2]), [n, sum(sizes), height * width])
        y = tf.minimum(2 * tf.range(h) + rows[:, None], height - 1)  # [P, h]
        x = tf.minimum(2 * tf.range(w) + columns[:, None], width - 1)
        places = tf.reshape(y[:, :, None] * width + x[:, None], [1, sum(sizes), h * w])
        at_anchors = tf.gather(lines, tf.tile(places, [n, 1, 1]), batch_dims=2)  # [N, P, h w]
        sums = tf.stack(
            [tf.reduce_sum(each, axis=1) for each in tf.split(at_anchors, sizes, axis=1)], axis=-1
        )
        return roots + tf.reshape(sums, [n, h, w, len(sizes)])

    def compute_output_shape(self, shapes: list[Sequence[int | None]]) -> Sequence[int | None]:
        return shapes[0]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"anchors": self.anchors, "first": self.first}


@keras.saving.register_keras_serializable(package="tfcnn")
class Maxout(keras.layers.Layer):
    """The best component of each class at each location; maps of smaller roots are larger, and the rest is NEVER.

    Args:
        classes: K.
        labels: of each map, the class of each of its components.
    """

    def __init__(self, classes: int, labels: Sequence[Sequence[int]], **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.classes, self.labels = classes, labels

    def call(self, maps: list[tf.Tensor]) -> tf.Tensor:
        height, width = (tf.reduce_max([tf.shape(each)[axis] for each in maps]) for axis in (1, 2))
        of_class: list[list[tf.Tensor]] = [[] for _ in range(self.classes)]
        for each, labels in zip(maps, self.labels, strict=True):
            below = [[0, 0], [0, height - tf.shape(each)[1]], [0, width - tf.shape(each)[2]], [0, 0]]
            for label, own in zip(
                labels, tf.unstack(tf.pad(each, below, constant_values=NEVER), axis=-1), strict=True
            ):
                of_class[label].append(own)
        nothing = tf.fill([tf.shape(maps[0])[0], height, width], NEVER)
        return tf.stack([tf.reduce_max([nothing, *own], axis=0) for own in of_class], axis=-1)

    def compute_output_shape(self, shapes: list[Sequence[int | None]]) -> tuple[int | None, ...]:
        sides = [[shape[axis] for shape in shapes] for axis in (1, 2)]
        return (shapes[0][0], *(None if None in own else max(own) for own in sides), self.classes)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"classes": self.classes, "labels": self.labels}


@keras.saving.register_keras_serializable(package="tfcnn")
class PartWindows(Windows):
    """The last layer of `dpm_net`, with a box prediction for each component.

    Args:
        classes: K.
        shapes: (kh, kw) of the roots of each map.
        labels, anchors: of each map, class and parts' anchors of each of its components.
        side: of a part in cells of the fine map.
        radius: of `dpm_net`.
        **kwargs: of `Windows`.
    """

    def __init__(
        self,
        classes: int,
        shapes: Sequence[Sequence[int]],
        labels: Sequence[Sequence[int]],
        anchors: Sequence[Sequence[Sequence[Sequence[int]]]],
        *,
        side: int,
        radius: int,
        **kwargs: Any,
    ):
        super().__init__(classes, shapes, labels, **kwargs)
        self.anchors, self.side, self.radius = anchors, side, radius

    def build(self, shapes: Sequence[Sequence[int | None]]) -> None:
        """Each component's linear prediction of the box from where its parts are; see `inputs_of_box`."""
        count = sum(len(own) for own in self.labels)
        inputs = 2 * max(len(own) for anchors in self.anchors for own in anchors) + 1
        self.box_weights = self.add_weight(
            name="box_weights", shape=[count, inputs, 4], initializer="zeros", trainable=False
        )

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {n: getattr(self, n) for n in ("anchors", "side", "radius")}

    def part_windows(
        self, shape: int, column: int, row: int, col: int, moves: np.ndarray, scale: float
    ) -> np.ndarray:
        """The parts' boxes float64 [P, 4] of a component's root at (row, col), in pixels of the picture."""
        places = 2 * (np.array([row, col]) - self.pad) + np.array(self.anchors[shape][column]) + moves
        corners = np.concatenate([places[:, ::-1], places[:, ::-1] + self.side], axis=1)
        return corners * (self.cell / 2 / scale)
