"""Losses on the overlap of predicted and ground-truth boxes, in pairs."""

import math

import tensorflow as tf

from tfcnn.ops import boxes as box_ops


def giou(boxes: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
    """Generalized IoU of boxes in pairs: IoU less the share of the smallest enclosing box that neither covers.

    Args:
        boxes, truth: float [..., 4], pixels.

    Returns:
        float [...], -1..1; 1 where both are the same.

    Source: Rezatofighi et al. 2019 (GIoU), algorithm 1.
    """
    low, high = _enclosing(boxes, truth)
    around = tf.reduce_prod(high - low, axis=-1)
    iou = box_ops.aligned_iou(boxes, truth)
    union = (box_ops.area(boxes) + box_ops.area(truth)) / (1 + iou)  # shared = IoU * union
    return iou - tf.math.divide_no_nan(around - union, around)


def ciou(boxes: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
    """Complete IoU of boxes in pairs: IoU less the distance of the centres and the difference of the aspects.

    Args:
        boxes, truth: float [..., 4], pixels.

    Returns:
        float [...], at most 1; 1 where both are the same.

    Source: Zheng et al. 2020 (DIoU), equations 8 to 11.
    """
    low, high = _enclosing(boxes, truth)
    diagonal = tf.reduce_sum(tf.square(high - low), axis=-1)
    one, other = box_ops.to_center(boxes), box_ops.to_center(truth)
    distance = tf.reduce_sum(tf.square(one[..., :2] - other[..., :2]), axis=-1)
    iou = box_ops.aligned_iou(boxes, truth)
    aspect = tf.square(2 / math.pi * (_angle(one) - _angle(other)))  # v, 0..1
    weight = tf.stop_gradient(tf.math.divide_no_nan(aspect, 1 - iou + aspect))  # alpha
    return iou - tf.math.divide_no_nan(distance, diagonal) - weight * aspect


def _enclosing(boxes, truth):
    return tf.minimum(boxes[..., :2], truth[..., :2]), tf.maximum(boxes[..., 2:], truth[..., 2:])


def _angle(center_size):
    return tf.atan2(tf.nn.relu(center_size[..., 2]), tf.maximum(center_size[..., 3], 1e-6))
