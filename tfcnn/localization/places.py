"""A box from all locations of a map: each predicts a box round itself and a weight, and their mean is the box.

N pictures, h w the map, n boxes of a picture (1, K objects, or one of each of C classes).

Source: the four distances from a location to a box's sides are those of Tian, Shen, Chen, He, "FCOS", ICCV 2019; the
mean by a softmax over locations is that of Sun, Xiao, Wei, Liang, Wei, "Integral Human Pose Regression", ECCV 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

LEAST = -60.0  # of a weight's logarithm below the greatest's: a window of weak locations has a mean, too


@keras.saving.register_keras_serializable(package="tfcnn")
class MeanOfPlaces(keras.layers.Layer):
    """Gives the mean of the boxes that the locations of a window predict, weighted by a softmax over them.

    Call it on a map [N, H, W, 5 n], H >= h and W >= w: of each location n weights' logits, then n times four numbers d,
    left, top, right, bottom; log(1 + exp(d)) / 2 is the distance from the location's centre to that side, in sides of
    the window. It gives float32 [N, (H - h) / s + 1, (W - w) / s + 1, 4 n]: unit_boxes of every window of h x w
    locations, one window where the map has that size.

    Args:
        size: (h, w), the locations of a window.
        stride: s, locations from one window to the next.
    """

    def __init__(self, size: Sequence[int], stride: int = 1, **options):
        super().__init__(**options)
        self.size, self.stride = tuple(size), stride

    def call(self, numbers: tf.Tensor) -> tf.Tensor:
        numbers = tf.cast(numbers, tf.float32)
        count, shape = numbers.shape[-1] // 5, tf.shape(numbers)
        logits = numbers[..., :count, None]
        weights = tf.exp(tf.maximum(logits - tf.reduce_max(logits, axis=(1, 2), keepdims=True), LEAST))
        # sides of a window in locations: w, h, w, h
        sides = tf.constant([self.size[1], self.size[0]] * 2, tf.float32)
        distances = tf.reshape(numbers[..., count:], [shape[0], shape[1], shape[2], count, 4])
        distances = tf.nn.softplus(distances) / 2 * sides
        corners = self._grid(shape[1], shape[2])[:, :, None] + 0.5 + distances * [-1.0, -1.0, 1.0, 1.0]
        total = tf.reshape(weights * corners, [shape[0], shape[1], shape[2], 4 * count])
        height, width = self._windows(shape[1], shape[2])
        means = tf.reshape(self._pooled(total), [shape[0], height, width, count, 4])
        means /= self._pooled(weights[..., 0])[..., None]
        boxes = (means - self.stride * self._grid(height, width)[:, :, None]) / sides
        return tf.reshape(boxes, [shape[0], height, width, 4 * count])

    def _grid(self, height, width):
        """The upper left corner of each location, twice: float32 [height, width, 4], in locations."""
        x, y = tf.meshgrid(tf.range(width), tf.range(height))
        return tf.cast(tf.stack([x, y, x, y], axis=-1), tf.float32)

    def _pooled(self, values):
        return tf.nn.avg_pool2d(values, self.size, self.stride, "VALID")

    def _windows(self, height, width):
        """Rows and columns of windows on a map."""
        return [
            None if side is None else (side - own) // self.stride + 1
            for side, own in zip((height, width), self.size, strict=True)
        ]

    def compute_output_shape(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return (shape[0], *self._windows(*shape[1:3]), shape[-1] // 5 * 4)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"size": self.size, "stride": self.stride}
