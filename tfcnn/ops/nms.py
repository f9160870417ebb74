"""Non-maximum suppression: of boxes that overlap, keep the one with the highest score.

Shape letters: B pictures, N boxes of a picture, K classes, L = max_outputs. Everywhere: greedy, a box is
dropped when its IoU with a kept one is above the threshold (not at it), only scores above `score_threshold`
take part, and of equal scores the lower index (box first, then class) goes first. Gradients reach boxes and
scores through the gathers only.
"""

import tensorflow as tf


def nms(boxes, scores, iou_threshold, max_outputs, score_threshold=float("-inf")):
    """Greedy suppression in one list.

    Args:
        boxes: float32 [N, 4], pixels.
        scores: float32 [N].
        iou_threshold: 0..1.
        max_outputs: keep at most so many.
        score_threshold: boxes must score more than this; padded rows score -inf.

    Returns:
        int32 [n], indices of the kept boxes by falling score.
    """
    return tf.image.non_max_suppression(_ordered(boxes), scores, max_outputs, iou_threshold, score_threshold)


def batched_nms(boxes, scores, iou_threshold, max_outputs, score_threshold=float("-inf")):
    """Greedy suppression in the list of each picture, with results of a fixed size.

    Args:
        boxes: float32 [B, N, 4], pixels.
        scores: float32 [B, N].
        iou_threshold: 0..1.
        max_outputs: L.
        score_threshold: boxes must score more than this; padded rows score -inf.

    Returns:
        boxes: float32 [B, L, 4], by falling score, then zeros.
        scores: float32 [B, L], then zeros.
        indices: int32 [B, L] into the N boxes, then zeros.
        count: int32 [B], how many are kept.
    """
    boxes, scores, indices, _, count = _per_class(
        boxes[:, :, None], scores[:, :, None], iou_threshold, max_outputs, score_threshold
    )
    return boxes, scores, indices, count


def class_nms(boxes, scores, iou_threshold, max_outputs, score_threshold=float("-inf")):
    """Greedy suppression within each class of each picture, then the best over all classes.

    Args:
        boxes: float32 [B, N, K, 4], or [B, N, 1, 4] or [B, N, 4] where the classes share them, pixels.
        scores: float32 [B, N, K].
        iou_threshold: 0..1.
        max_outputs: L, over all classes.
        score_threshold: scores must be above this; padded rows score -inf.

    Returns:
        boxes: float32 [B, L, 4], by falling score, then zeros.
        scores: float32 [B, L], then zeros.
        classes: int32 [B, L], then -1.
        count: int32 [B], how many are kept.
    """
    if boxes.shape.rank == 3:
        boxes = boxes[:, :, None]
    boxes, scores, _, classes, count = _per_class(boxes, scores, iou_threshold, max_outputs, score_threshold)
    return boxes, scores, classes, count


def _per_class(boxes, scores, iou_threshold, max_outputs, score_threshold):
    """`class_nms` of boxes [B, N, K or 1, 4] with the index of each kept box beside it.

    The kernel of TensorFlow gives back scores but no indices, and breaks ties as it likes. So each
    candidate's score is replaced by its place from the end (exact in float32 below 2 ** 24), which is
    unique and says where it came from.
    """
    # One more row that never takes part, so that the gathers below find a row in a picture without boxes.
    boxes = tf.pad(boxes, [[0, 0], [0, 1], [0, 0], [0, 0]])
    scores = tf.pad(scores, [[0, 0], [0, 1], [0, 0]], constant_values=float("-inf"))
    shape = tf.shape(scores)
    batch, classes = shape[0], shape[2]
    total = shape[1] * classes
    flat = tf.reshape(scores, [batch, total])  # candidate = box * K + class
    order = tf.argsort(flat, direction="DESCENDING", stable=True)
    rank = tf.argsort(order)
    value = tf.cast(tf.where(flat > score_threshold, total - rank, 0), tf.float32)
    kept = tf.image.combined_non_max_suppression(
        _ordered(boxes),
        tf.reshape(value, shape),
        max_outputs,
        max_outputs,
        iou_threshold,
        score_threshold=0.5,
        clip_boxes=False,
    )
    count = kept.valid_detections
    valid = tf.sequence_mask(count, max_outputs)  # [B, L]
    place = tf.where(valid, total - tf.cast(kept.nmsed_scores, tf.int32), 0)
    candidate = tf.gather(order, place, batch_dims=1)
    index, label = candidate // classes, candidate % classes
    if boxes.shape[2] == 1:
        box = tf.gather(boxes[:, :, 0], index, batch_dims=1)
    else:
        box = tf.gather(tf.reshape(boxes, [batch, total, 4]), candidate, batch_dims=1)
    box = tf.where(valid[..., None], box, 0)
    score = tf.where(valid, tf.gather(flat, candidate, batch_dims=1), 0)
    return box, score, tf.where(valid, index, 0), tf.where(valid, label, -1), count


def _ordered(boxes):
    """Degenerate boxes made empty: the kernels would read x2 < x1 as a box with its corners exchanged."""
    low = boxes[..., :2]
    return tf.concat([low, tf.maximum(low, boxes[..., 2:])], axis=-1)
