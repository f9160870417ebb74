"""Non-maximum suppression: of boxes that overlap, keep the one with the highest score.

Shape letters: B pictures, N boxes of a picture, K classes, L = max_outputs. Everywhere: greedy, a box is
dropped when its IoU with a kept one is above the threshold (not at it), only scores above `score_threshold`
take part, and of equal scores the lower index (box first, then class) goes first. Gradients reach boxes and
scores through the gathers only.
"""

import tensorflow as tf

from tfcnn.ops.boxes import iou


def nms(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    iou_threshold: float,
    max_outputs: int,
    score_threshold: float = float("-inf"),
) -> tf.Tensor:
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


def batched_nms(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    iou_threshold: float,
    max_outputs: int,
    score_threshold: float = float("-inf"),
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
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


def class_nms(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    iou_threshold: float,
    max_outputs: int,
    score_threshold: float = float("-inf"),
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
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
    boxes = tf.convert_to_tensor(boxes)
    if boxes.shape.rank == 3:
        boxes = boxes[:, :, None]
    boxes, scores, _, classes, count = _per_class(boxes, scores, iou_threshold, max_outputs, score_threshold)
    return boxes, scores, classes, count


def soft_nms(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    max_outputs: int,
    sigma: float = 0.5,
    score_threshold: float = 0.001,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Soft suppression in one list: overlap lowers a box's score by exp(-IoU^2 / sigma) and drops nothing.

    Args:
        boxes: float32 [N, 4], pixels.
        scores: float32 [N], at least 0.
        max_outputs: keep at most so many.
        sigma: above 0; the smaller, the harder.
        score_threshold: lowered scores must be above this.

    Returns:
        indices: int32 [n], by falling lowered score.
        scores: float32 [n], lowered.

    Source: Bodla et al. 2017 (Soft-NMS), section 3, the Gaussian form.
    """
    return tf.image.non_max_suppression_with_scores(
        _ordered(boxes),
        scores,
        max_outputs,
        iou_threshold=1.0,  # nothing is dropped for its overlap alone
        score_threshold=score_threshold,
        soft_nms_sigma=sigma / 2,  # the kernel has exp(-IoU^2 / (2 sigma))
    )


def vote(kept: tf.Tensor, boxes: tf.Tensor, weights: tf.Tensor, iou_threshold: float = 0.5) -> tf.Tensor:
    """Box voting: each kept box becomes the weighted mean of all boxes that overlap it well.

    Args:
        kept: float32 [..., L, 4], pixels.
        boxes: float32 [..., N, 4], all boxes before suppression, pixels.
        weights: float32, at least 0, broadcasts with [..., L, N]: [..., 1, N] for one class; where there are
            several, the scores of each kept box's class. Padded rows weigh 0.
        iou_threshold: boxes of at least this IoU vote.

    Returns:
        float32 [..., L, 4]; a kept box for which nothing votes stays.

    Source: Gidaris & Komodakis 2015, section 5; He et al. 2015 (ResNet), appendix B.
    """
    votes = tf.where(iou(kept, boxes) >= iou_threshold, weights, 0)  # [..., L, N]
    total = tf.reduce_sum(votes, axis=-1, keepdims=True)
    return tf.where(total > 0, tf.matmul(votes, boxes) / tf.where(total > 0, total, 1), kept)


def _per_class(
    boxes: tf.Tensor, scores: tf.Tensor, iou_threshold: float, max_outputs: int, score_threshold: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """`class_nms` of boxes [B, N, K or 1, 4] with the index of each kept box beside it.

    A candidate is a box of a class, box * K + class. Suppression only looks at better candidates, so the best
    few decide when they already give all outputs; only otherwise is the rest looked at.
    """
    # One more row that never takes part, so that the gathers below find a row in a picture without boxes.
    boxes = tf.pad(boxes, [[0, 0], [0, 1], [0, 0], [0, 0]])
    scores = tf.pad(scores, [[0, 0], [0, 1], [0, 0]], constant_values=float("-inf"))
    able = tf.math.count_nonzero(scores > score_threshold, axis=[1, 2], dtype=tf.int32)
    able = tf.maximum(tf.reduce_max(able), 0)  # the maximum of no pictures is negative

    def best(candidates):
        return _of_best(boxes, scores, candidates, iou_threshold, max_outputs, score_threshold)

    few = tf.minimum(able, 8 * max_outputs)
    candidate, count = best(few)
    enough = (few == able) | tf.reduce_all(count == max_outputs)
    candidate, count = tf.cond(enough, lambda: (candidate, count), lambda: best(able))

    valid = tf.sequence_mask(count, max_outputs)  # [B, L]
    classes = tf.shape(scores)[2]
    index, label = candidate // classes, candidate % classes
    of_class = tf.zeros_like(label) if boxes.shape[2] == 1 else label
    box = tf.gather_nd(boxes, tf.stack([index, of_class], axis=-1), batch_dims=1)
    score = tf.gather_nd(scores, tf.stack([index, label], axis=-1), batch_dims=1)
    box, score = tf.where(valid[..., None], box, 0), tf.where(valid, score, 0)
    return box, score, index, tf.where(valid, label, -1), count


def _of_best(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    candidates: tf.Tensor,
    iou_threshold: float,
    max_outputs: int,
    score_threshold: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The candidates kept of so many best, by falling score, then zeros: int32 [B, L], and their count [B].

    The kernel of TensorFlow gives back scores but no indices, and breaks ties as it likes. So it gets a
    candidate's place from the end instead of its score (exact in float32 below 2 ** 24): that is unique, and
    says where it came from.
    """
    batch, total = tf.shape(scores)[0], tf.reduce_prod(tf.shape(scores)[1:])
    value, order = tf.math.top_k(tf.reshape(scores, [batch, total]), candidates)  # of equals the first
    place = tf.where(value > score_threshold, candidates - tf.range(candidates), 0)
    picture = tf.broadcast_to(tf.range(batch)[:, None], tf.shape(order))
    places = tf.scatter_nd((picture * total + order)[..., None], place, [batch * total])
    kept = tf.image.combined_non_max_suppression(
        _ordered(boxes),
        tf.reshape(tf.cast(places, tf.float32), tf.shape(scores)),
        max_output_size_per_class=max_outputs,
        max_total_size=max_outputs,
        iou_threshold=iou_threshold,
        score_threshold=0.5,
        clip_boxes=False,
    )
    count = kept.valid_detections
    rank = candidates - tf.cast(kept.nmsed_scores, tf.int32)
    rank = tf.where(tf.sequence_mask(count, max_outputs), rank, candidates)
    order = tf.pad(order, [[0, 0], [0, 1]])
    return tf.gather(order, rank, batch_dims=1), count


def _ordered(boxes: tf.Tensor) -> tf.Tensor:
    """Degenerate boxes made empty: the kernels would read x2 < x1 as a box with its corners exchanged."""
    return tf.maximum(boxes, tf.gather(boxes, [0, 1, 0, 1], axis=-1))
