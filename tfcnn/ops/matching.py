"""Which anchor is assigned to which ground-truth box, and which anchors are drawn for a loss.

Shape letters: ... any leading dimensions, A anchors (or proposals), M ground-truth boxes.
"""

import tensorflow as tf

from tfcnn.ops import draws


def match(
    iou: tf.Tensor,
    valid: tf.Tensor,
    positive: float = 0.7,
    negative: float = 0.3,
    best_for_each: bool = True,
    lowest: float = 0.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Matches every anchor with the ground-truth box that it overlaps most, and labels it by that IoU.

    Args:
        iou: float [..., A, M], anchors by boxes.
        valid: bool [..., M], False for padded boxes; they match nothing.
        positive: an anchor with at least this IoU is positive.
        negative: an anchor whose best IoU is below this is negative; between the two it is ignored.
        best_for_each: a box's best anchors (all that share its best IoU, if above 0) are positive too, each
            for the box that the anchor itself overlaps most.
        lowest: an anchor whose best IoU is below this is ignored: Fast R-CNN's 0.1, for hard negatives.

    Returns:
        index: int32 [..., A], the box of each anchor (of equals the first; 0 where there is none).
        label: int32 [..., A], 1 positive, 0 negative, -1 ignored.

    Source: Ren et al. 2015 (Faster R-CNN), section 3.1.2; py-faster-rcnn, lib/rpn/anchor_target_layer.py.
    """
    iou = tf.where(valid[..., None, :], iou, -1)
    # One more column of nothing, so that a picture without boxes has a maximum too.
    padded = tf.pad(iou, [[0, 0]] * (iou.shape.rank - 1) + [[0, 1]], constant_values=-1)
    index = tf.argmax(padded, axis=-1, output_type=tf.int32)
    best = tf.nn.relu(tf.reduce_max(padded, axis=-1))
    label = tf.where(best >= positive, 1, tf.where((best < negative) & (best >= lowest), 0, -1))
    if best_for_each:
        top = tf.reduce_max(iou, axis=-2, keepdims=True)  # [..., 1, M]
        is_top = tf.reduce_any((iou == top) & (top > 0), axis=-1)
        label = tf.where(is_top, 1, label)
    return index, label


def sample(
    label: tf.Tensor, count: int, positive_share: float, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws a balanced set: so many positives at most, negatives for the rest, without repeats.

    Args:
        label: int32 [..., A], 1 positive, 0 negative, -1 ignored.
        count: anchors to draw.
        positive_share: at most round(count * positive_share) of them are positive.
        seed: int32 [2]; the draw is a function of it and of the labels' shape and values alone. Or int64 [N, 2], one
            for each row of the labels [N, A], whose draw then does not depend on the other rows.

    Returns:
        index: int32 [..., count], positives first, then negatives, then padding (index 0).
        label: int32 [..., count], 1, 0, and -1 for the padding: fewer are drawn where the labels have no
            more.

    Source: Ren et al. 2015 (Faster R-CNN), section 3.1.3.
    """
    label = tf.convert_to_tensor(label)
    positives = round(count * positive_share)
    luck = draws.uniform(tf.shape(label), seed)  # [..., A] in [0, 1)
    widen = [[0, 0]] * (label.shape.rank - 1) + [[0, count]]  # top_k needs at least `count` columns
    positive_key, positive_index = tf.math.top_k(
        tf.pad(tf.where(label == 1, luck, -1), widen, constant_values=-1), positives
    )
    negative_key, negative_index = tf.math.top_k(
        tf.pad(tf.where(label == 0, luck, -1), widen, constant_values=-1), count
    )
    # Of both lists in this order, the first `count` that were really drawn.
    index = tf.concat([positive_index, negative_index], axis=-1)
    drawn = tf.concat([positive_key, negative_key], axis=-1) >= 0
    picked = tf.concat([tf.ones_like(positive_index), tf.zeros_like(negative_index)], axis=-1)
    picked = tf.where(drawn, picked, -1)
    _, order = tf.math.top_k(tf.cast(drawn, tf.int32), count)  # stable: of equals the lower index first
    index, picked = (
        tf.gather(index, order, axis=-1, batch_dims=-1),
        tf.gather(picked, order, axis=-1, batch_dims=-1),
    )
    return tf.where(picked < 0, 0, index), picked
