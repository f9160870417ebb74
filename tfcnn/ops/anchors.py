"""Anchors: the reference boxes at every location of a feature map, which an RPN classifies and regresses.

Shape letters: A anchors a location, H and W rows and columns of the feature map. Anchors are continuous boxes
round the centre of a cell, ((column + 0.5) stride, (row + 0.5) stride).
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def base_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """Anchors of one location, round (0, 0): every ratio with every size, ratio outer, size inner.

    Args:
        sizes: square roots of the areas, pixels.
        ratios: height / width.

    Returns:
        NumPy float32 [A, 4] with A = len(ratios) * len(sizes).

    Source: Ren et al. 2015 (Faster R-CNN), section 3.1.1, without the rounding of the program.
    """
    sizes, ratios = np.asarray(sizes, np.float64), np.asarray(ratios, np.float64)
    width = (sizes[None, :] / np.sqrt(ratios)[:, None]).ravel()
    height = (sizes[None, :] * np.sqrt(ratios)[:, None]).ravel()
    return np.stack([-width, -height, width, height], axis=1).astype(np.float32) / 2


def py_faster_rcnn_anchors(
    sizes: Sequence[float] = (128, 256, 512), ratios: Sequence[float] = (0.5, 1, 2), base: int = 16
) -> np.ndarray:
    """The nine anchors of py-faster-rcnn, as continuous boxes round (0, 0), for a stride of 16; or others like them.

    The program works with inclusive pixels: its first anchor (-84, -40, 99, 55) covers 184 x 96 pixels, the
    continuous box (-84, -40, 100, 56) round (8, 8), which `grid` puts there again. Widths and heights of a box of
    `base` pixels are rounded as the program does it, halves to even, and then enlarged.

    Args:
        sizes: `base` times the program's scales (8, 16, 32), pixels.
        ratios: height / width.
        base: the program's base_size, the stride of the map, pixels.

    Returns:
        NumPy float32 [A, 4]: ratio outer, size inner.

    Source: py-faster-rcnn, lib/rpn/generate_anchors.py.
    """
    anchors = []
    for ratio in ratios:
        width = np.round(np.sqrt(base * base / ratio))
        height = np.round(width * ratio)
        for scale in np.asarray(sizes) / base:
            anchors.append([-width * scale, -height * scale, width * scale, height * scale])
    return np.array(anchors, np.float32) / 2


def grid(
    height: int | tf.Tensor, width: int | tf.Tensor, stride: float, base: np.ndarray | tf.Tensor
) -> tf.Tensor:
    """The anchors of a feature map.

    Args:
        height: rows of the map, a number or an int tensor.
        width: columns of the map, likewise.
        stride: pixels from one location to the next.
        base: float [A, 4], anchors round (0, 0).

    Returns:
        float32 [height * width * A, 4], pixels: rows outer, columns, anchors inner.
    """
    base = tf.cast(base, tf.float32)
    x = (tf.range(width, dtype=tf.float32) + 0.5) * stride
    y = (tf.range(height, dtype=tf.float32) + 0.5) * stride
    x, y = tf.meshgrid(x, y)  # [H, W]
    centers = tf.stack([x, y, x, y], axis=-1)
    return tf.reshape(centers[:, :, None] + base, [-1, 4])  # [H, W, A, 4]


def inside(
    anchors: tf.Tensor, height: float | tf.Tensor, width: float | tf.Tensor, border: float = 0
) -> tf.Tensor:
    """Which anchors lie within the picture.

    Args:
        anchors: float [N, 4], pixels.
        height: pixels, a number or a tensor that broadcasts with anchors[..., 0].
        width: likewise.
        border: pixels by which an anchor may cross the edge.

    Returns:
        bool [N].

    Source: py-faster-rcnn, lib/rpn/anchor_target_layer.py (border 0 in training).
    """
    x1, y1, x2, y2 = tf.unstack(anchors, axis=-1)
    height, width = tf.cast(height, anchors.dtype), tf.cast(width, anchors.dtype)
    return (x1 >= -border) & (y1 >= -border) & (x2 <= width + border) & (y2 <= height + border)
