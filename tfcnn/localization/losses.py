"""Losses of boxes, and which of K boxes answers for which object.

N pictures, K boxes, M objects of a picture (M <= K). All boxes are unit_boxes (x1, y1, x2, y2).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfcnn.ops import box_losses
from tfcnn.ops import boxes as ops

BETA = 0.1  # of smooth L1: a tenth of the picture's side, beyond which an error counts linearly


def l2(predicted: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
    """Sum of the squared differences of the four numbers, the lecture's loss: float [..., 4] twice -> [...]."""
    return tf.reduce_sum(tf.square(predicted - truth), axis=-1)


def smooth_l1(predicted: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
    """Sum of d^2 / (2 BETA) up to BETA and d - BETA / 2 beyond: float [..., 4] twice -> [...].

    Source: Girshick, "Fast R-CNN", 2015, equation 3.
    """
    d = tf.abs(predicted - truth)
    return tf.reduce_sum(tf.where(d < BETA, d * d / (2 * BETA), d - BETA / 2), axis=-1)


def iou(predicted: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
    """1 - IoU: float [..., 4] twice -> [...]; no gradient where the boxes do not touch."""
    return 1 - ops.aligned_iou(ordered(predicted), truth)


def giou(predicted: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
    """1 - generalized IoU, which falls as boxes that do not touch come nearer: float [..., 4] twice -> [...], 0..2."""
    return 1 - box_losses.giou(ordered(predicted), truth)


LOSSES: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "l2": l2,
    "smooth_l1": smooth_l1,
    "iou": iou,
    "giou": giou,
}


def ordered(boxes: tf.Tensor) -> tf.Tensor:
    """Boxes with x1 <= x2 and y1 <= y2: float [..., 4]."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return tf.concat([tf.minimum(low, high), tf.maximum(low, high)], axis=-1)


def objects_loss(
    name: str, predicted: tf.Tensor, truth: tf.Tensor, present: tf.Tensor, matched: bool
) -> tf.Tensor:
    """The loss of K boxes of each picture against its objects, summed over the objects that are there.

    Args:
        name: of LOSSES.
        predicted: float [N, K, 4].
        truth: float [N, M, 4].
        present: bool [N, M], False in padding.
        matched: False: box k answers for object k; True: for that of the assignment of least loss, found anew for
            each picture by the Hungarian method.

    Returns:
        float [N].
    """
    loss = LOSSES[name]
    if matched:
        pairs = loss(predicted[:, :, None], truth[:, None])  # [N, K, M]
        box = tf.numpy_function(assignment, [tf.stop_gradient(pairs), present], tf.int32, stateful=False)
        box.set_shape(truth.shape[:2])
        each = tf.gather(tf.transpose(pairs, [0, 2, 1]), box, batch_dims=2)
    else:
        each = loss(predicted[:, : truth.shape[1]], truth)
    return tf.reduce_sum(tf.where(present, each, 0.0), axis=1)


def assignment(cost: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Which box answers for which object, so that the sum of the costs is least and no box answers twice.

    Args:
        cost: float [N, K, M]; what is not finite counts as very large.
        present: bool [N, M].

    Returns:
        int32 [N, M], 0..K-1; 0 in padding.

    Source: the Hungarian method, as scipy.optimize.linear_sum_assignment.
    """
    from scipy.optimize import linear_sum_assignment

    boxes = np.zeros(present.shape, np.int32)
    for row, costs, there in zip(boxes, np.nan_to_num(cost, nan=1e9, posinf=1e9), present, strict=True):
        objects = np.flatnonzero(there)
        chosen, which = linear_sum_assignment(costs[:, objects])
        row[objects[which]] = chosen
    return boxes
