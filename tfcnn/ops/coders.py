"""Box encodings, which a net regresses: R-CNN's deltas to an anchor, and YOLO's coordinates within a cell.

Shape letters: ... any leading dimensions, M boxes of a picture, S cells on a side, B boxes a cell.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

MAX_LOG_SCALE = math.log(1000 / 16)  # a box grows at most from 16 px to 1000 px


def encode(
    boxes: tf.Tensor,
    anchors: tf.Tensor,
    means: Sequence[float] = (0, 0, 0, 0),
    stds: Sequence[float] = (1, 1, 1, 1),
) -> tf.Tensor:
    """The deltas (dx, dy, dw, dh) that turn each anchor into its box.

    Args:
        boxes: float [..., 4], pixels.
        anchors: float [..., 4], pixels; shapes broadcast.
        means: 4 numbers, subtracted from the deltas.
        stds: 4 numbers that then divide them; (0.1, 0.1, 0.2, 0.2) in Faster R-CNN's detector.

    Returns:
        deltas: float [..., 4]; zeros where the box or the anchor is degenerate.

    Source: Girshick et al. 2014 (R-CNN), appendix C; widths are x2 - x1, of continuous boxes.
    """
    center, size = _center_size(boxes)
    anchor_center, anchor_size = _center_size(anchors)
    real = tf.reduce_all((size > 0) & (anchor_size > 0), axis=-1, keepdims=True)
    size = tf.where(real, size, 1)  # before dividing, so that gradients stay finite too
    anchor_size = tf.where(real, anchor_size, 1)
    deltas = tf.concat([(center - anchor_center) / anchor_size, tf.math.log(size / anchor_size)], axis=-1)
    deltas = (deltas - tf.constant(means, deltas.dtype)) / tf.constant(stds, deltas.dtype)
    return tf.where(real, deltas, 0)


def decode(
    deltas: tf.Tensor,
    anchors: tf.Tensor,
    means: Sequence[float] = (0, 0, 0, 0),
    stds: Sequence[float] = (1, 1, 1, 1),
    max_log_scale: float = MAX_LOG_SCALE,
) -> tf.Tensor:
    """The boxes that deltas make of anchors; the inverse of `encode`.

    Args:
        deltas: float [..., 4].
        anchors: float [..., 4], pixels; shapes broadcast (anchors[..., None, :] for deltas a class).
        means: 4 numbers, as given to `encode`.
        stds: 4 numbers, as given to `encode`.
        max_log_scale: dw and dh above this count as this, so that an untrained net makes no infinite box.

    Returns:
        boxes: float [..., 4], pixels, not clipped to a picture.

    Source: Girshick et al. 2014 (R-CNN), appendix C.
    """
    deltas = deltas * tf.constant(stds, deltas.dtype) + tf.constant(means, deltas.dtype)
    anchor_center, anchor_size = _center_size(anchors)
    center = anchor_center + deltas[..., :2] * anchor_size
    half = tf.exp(tf.minimum(deltas[..., 2:], max_log_scale)) * anchor_size / 2
    return tf.concat([center - half, center + half], axis=-1)


def encode_yolo(
    unit_boxes: tf.Tensor, valid: tf.Tensor, cells: int = 7, min_side: float = 0.005
) -> tuple[tf.Tensor, tf.Tensor]:
    """Which ground-truth box each cell of YOLO's grid is responsible for, and its regression targets.

    A cell holds the boxes whose centres lie in it: column int(S x), row int(S y). Of several it takes the
    first in the list (the program shuffles the list before), so one object a cell.

    Args:
        unit_boxes: float [..., M, 4], fractions of the picture's sides.
        valid: bool [..., M], False for padded rows.
        cells: S, cells on a side.
        min_side: boxes with a shorter side, as a fraction of the picture's, are left out, as in the program.

    Returns:
        owner: int32 [..., S, S], the index of the cell's box, -1 for none.
        targets: float [..., S, S, 4]: centre within the cell (x, y in 0..1), square roots of width and
            height as fractions of the picture's sides; zeros where owner is -1.

    Source: Redmon et al. 2016 (YOLO), section 2; darknet's fill_truth_region.
    """
    unit_boxes = tf.convert_to_tensor(unit_boxes)
    center, size = _center_size(unit_boxes)
    cell = tf.clip_by_value(tf.floor(center * cells), 0, cells - 1)  # [..., M, 2] column, row
    column, row = tf.unstack(tf.cast(cell, tf.int32), axis=-1)
    usable = valid & tf.reduce_all(size >= min_side, axis=-1)
    count = tf.shape(unit_boxes)[-2]
    inside = (row * cells + column)[..., None] == tf.range(cells * cells)  # [..., M, S * S]
    index = tf.where(inside & usable[..., None], tf.range(count)[:, None], tf.int32.max)
    owner = tf.reduce_min(index, axis=-2)  # [..., S * S]
    owner = tf.where(owner == tf.int32.max, -1, owner)
    values = tf.concat([center * cells - cell, tf.sqrt(tf.nn.relu(size))], axis=-1)  # [..., M, 4]
    chosen = tf.cast(owner[..., None] == tf.range(count), values.dtype)  # [..., S * S, M]
    targets = tf.matmul(chosen, values)
    grid = tf.concat([tf.shape(owner)[:-1], [cells, cells]], axis=0)
    return tf.reshape(owner, grid), tf.reshape(targets, tf.concat([grid, [4]], axis=0))


def decode_yolo(predictions: tf.Tensor) -> tf.Tensor:
    """The boxes that YOLO's cells predict; the inverse of `encode_yolo`.

    Args:
        predictions: float [..., S, S, B, 4]: centre within the cell, square roots of width and height.

    Returns:
        unit_boxes: float [..., S, S, B, 4], fractions of the picture's sides.

    Source: Redmon et al. 2016 (YOLO), section 2; darknet squares the predicted width and height.
    """
    predictions = tf.convert_to_tensor(predictions)
    cells = predictions.shape[-3]
    steps = tf.range(cells, dtype=predictions.dtype)
    corner = tf.stack(tf.meshgrid(steps, steps), axis=-1)[:, :, None]  # [S, S, 1, 2] column, row
    center = (predictions[..., :2] + corner) / cells
    half = tf.square(predictions[..., 2:]) / 2
    return tf.concat([center - half, center + half], axis=-1)


def _center_size(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Centre (x, y) and size (width, height), each [..., 2]."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low
