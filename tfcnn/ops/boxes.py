"""Arithmetic of boxes: sizes, overlaps, conversions.

Shape letters: ... any leading dimensions, N and M boxes. A box is (x1, y1, x2, y2) in continuous pixels.
"""

import tensorflow as tf

TINY = 1e-20  # keeps 0 / 0 out of the IoU of two empty boxes; lost in the area of any real box


def area(boxes: tf.Tensor) -> tf.Tensor:
    """Area of each box, 0 for a degenerate one.

    Args:
        boxes: float [..., 4], pixels.

    Returns:
        float [...], pixels squared.
    """
    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    return tf.nn.relu(x2 - x1) * tf.nn.relu(y2 - y1)


def intersection(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Area that each box of one list shares with each box of another.

    Args:
        a: float [..., N, 4], pixels.
        b: float [..., M, 4], pixels; leading dimensions broadcast with those of a.

    Returns:
        float [..., N, M], pixels squared.
    """
    ax1, ay1, ax2, ay2 = tf.unstack(a[..., :, None, :], axis=-1)  # each [..., N, 1]
    bx1, by1, bx2, by2 = tf.unstack(b[..., None, :, :], axis=-1)  # each [..., 1, M]
    width = tf.nn.relu(tf.minimum(ax2, bx2) - tf.maximum(ax1, bx1))  # [..., N, M]
    height = tf.nn.relu(tf.minimum(ay2, by2) - tf.maximum(ay1, by1))
    return width * height


def iou(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Intersection over union of each box of one list with each box of another.

    Args:
        a: float [..., N, 4], pixels.
        b: float [..., M, 4], pixels; leading dimensions broadcast with those of a.

    Returns:
        float [..., N, M] in 0..1; 0 where either box is degenerate.
    """
    shared = intersection(a, b)
    return shared / ((area(a) + TINY)[..., :, None] + area(b)[..., None, :] - shared)


def aligned_iou(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Intersection over union of boxes in pairs: the first with the first, and so on.

    Args:
        a: float [..., 4], pixels.
        b: float [..., 4], pixels; shapes broadcast.

    Returns:
        float [...] in 0..1; 0 where either box is degenerate.
    """
    ax1, ay1, ax2, ay2 = tf.unstack(a, axis=-1)
    bx1, by1, bx2, by2 = tf.unstack(b, axis=-1)
    width = tf.nn.relu(tf.minimum(ax2, bx2) - tf.maximum(ax1, bx1))
    height = tf.nn.relu(tf.minimum(ay2, by2) - tf.maximum(ay1, by1))
    shared = width * height
    return shared / (area(a) + TINY + area(b) - shared)


def clip(boxes: tf.Tensor, height: float | tf.Tensor, width: float | tf.Tensor) -> tf.Tensor:
    """Cuts boxes to the picture; a box outside it becomes degenerate, on the border.

    Args:
        boxes: float [..., 4], pixels.
        height: a number or a tensor that broadcasts with boxes[..., 0] ([B, 1] for boxes [B, N, 4]), pixels.
        width: likewise.

    Returns:
        float [..., 4] with 0 <= x <= width and 0 <= y <= height.
    """
    size = _sides(boxes, height, width)
    return tf.maximum(tf.minimum(boxes, size), 0)


def flip(boxes: tf.Tensor, width: float | tf.Tensor) -> tf.Tensor:
    """Mirrors boxes left to right; twice is the identity.

    Args:
        boxes: float [..., 4], pixels. Mask padded rows yourself: zeros become (width, 0, width, 0), still
            degenerate.
        width: width of the picture, a number or a tensor that broadcasts with boxes[..., 0].

    Returns:
        float [..., 4].
    """
    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    width = tf.cast(width, boxes.dtype)
    return tf.stack([width - x2, y1, width - x1, y2], axis=-1)


def to_unit(boxes: tf.Tensor, height: float | tf.Tensor, width: float | tf.Tensor) -> tf.Tensor:
    """From pixels to fractions of the picture's sides.

    Args:
        boxes: float [..., 4], pixels.
        height: a number or a tensor that broadcasts with boxes[..., 0], pixels.
        width: likewise.

    Returns:
        unit_boxes: float [..., 4], 0..1 inside the picture.
    """
    return boxes / _sides(boxes, height, width)


def from_unit(unit_boxes: tf.Tensor, height: float | tf.Tensor, width: float | tf.Tensor) -> tf.Tensor:
    """From fractions of the picture's sides to pixels; the inverse of `to_unit`.

    Args:
        unit_boxes: float [..., 4], 0..1 inside the picture.
        height: a number or a tensor that broadcasts with unit_boxes[..., 0], pixels.
        width: likewise.

    Returns:
        boxes: float [..., 4], pixels.
    """
    return unit_boxes * _sides(unit_boxes, height, width)


def to_xywh(boxes: tf.Tensor) -> tf.Tensor:
    """From corners (x1, y1, x2, y2) to COCO's corner and size (x, y, width, height): float [..., 4] both."""
    return tf.concat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def from_xywh(boxes: tf.Tensor) -> tf.Tensor:
    """From corner and size (x, y, width, height) to corners (x1, y1, x2, y2): float [..., 4] both."""
    return tf.concat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def to_center(boxes: tf.Tensor) -> tf.Tensor:
    """From corners (x1, y1, x2, y2) to centre and size (cx, cy, width, height): float [..., 4] both."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return tf.concat([(low + high) / 2, high - low], axis=-1)


def from_center(boxes: tf.Tensor) -> tf.Tensor:
    """From centre and size (cx, cy, width, height) to corners (x1, y1, x2, y2): float [..., 4] both."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return tf.concat([center - half, center + half], axis=-1)


def _sides(boxes: tf.Tensor, height: float | tf.Tensor, width: float | tf.Tensor) -> tf.Tensor:
    """(width, height, width, height) on the last axis, in the dtype of the boxes."""
    height, width = tf.cast(height, boxes.dtype), tf.cast(width, boxes.dtype)
    return tf.stack([width, height, width, height], axis=-1)
