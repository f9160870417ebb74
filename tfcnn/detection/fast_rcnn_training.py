"""Fast R-CNN in training: the regions of a step, their targets and losses.

Letters: N images, R proposals of an image, S sampled regions of an image, M padded ground-truth boxes, K classes.

Source: Girshick, "Fast R-CNN", 2015, section 2.3; constants of fast-rcnn and py-faster-rcnn.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from tfcnn.detection.fast_rcnn import BOX_MEANS, BOX_STDS, background_first
from tfcnn.detection.rpn import inside_ignored, rows, smooth_l1
from tfcnn.ops import boxes as box_ops
from tfcnn.ops import coders, matching


def sample_regions(
    proposals: tf.Tensor,
    boxes: tf.Tensor,
    labels: tf.Tensor,
    seed: tf.Tensor,
    *,
    ignore: tf.Tensor | None = None,
    count: int = 128,
    positive_share: float = 0.25,
    positive: float = 0.5,
    negative: tuple[float, float] = (0.1, 0.5),
    add_truth: bool = True,
    ignore_overlap: float = 0.7,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Draw the regions that one training step looks at, and their targets.

    A region is foreground, of its best box's class, at IoU `positive` or more; background inside `negative`, unless it
    lies inside an ignored object.

    Args:
        proposals: float32 [N, R, 4], pixels; rows of zeros are padding and are never drawn.
        boxes: float32 [N, M, 4]; labels: int32 [N, M], -1 is padding; M may be 0.
        seed: int32 [2], of the draw, or int64 [N, 2], of each picture's.
        ignore: bool [N, M], boxes of crowds and difficult objects: neither found nor background; None: none.
        count: S; positive_share: at most this share is foreground (the paper: 128 of two images, and a quarter).
        positive: the paper's 0.5.
        negative: (low, high), low included; the paper's 0.1 mines hard examples in its words, py-faster-rcnn's joint
            training takes 0.
        add_truth: the ground-truth boxes join the proposals.
        ignore_overlap: of `rpn.inside_ignored`.

    Returns:
        (regions [N, S, 4], columns int32 [N, S] of the softmax with -1 for an entry that could not be filled,
        matched int32 [N, S], the box of each). Foreground comes first.

    Source: section 2.3, mini-batch sampling.
    """
    wanted = labels >= 0 if ignore is None else (labels >= 0) & ~ignore
    real = box_ops.area(proposals) > 0
    if add_truth:
        proposals = tf.concat([proposals, boxes], axis=1)
        real = tf.concat([real, wanted], axis=1)
    low, high = negative
    iou = box_ops.iou(proposals, boxes)  # [N, R, M]
    matched, label = matching.match(iou, wanted, positive, high, best_for_each=False, lowest=low)
    if ignore is not None:
        real &= (label != 0) | ~inside_ignored(proposals, boxes, ignore, ignore_overlap)
    index, label = matching.sample(tf.where(real, label, -1), count, positive_share, seed)
    take = rows(matched, index)
    columns = background_first(rows(labels, take))
    columns = tf.where(label == 1, columns, label)  # 0 is background, -1 is not drawn
    return rows(proposals, index), columns, take


def region_losses(
    logits: tf.Tensor,
    deltas: tf.Tensor,
    regions: tf.Tensor,
    columns: tf.Tensor,
    matched: tf.Tensor,
    hardest: int = 0,
    means: Sequence = BOX_MEANS,
    stds: Sequence = BOX_STDS,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The two losses of the region head, for each image.

    Args:
        logits: float32 [N, S, K + 1]; deltas: float32 [N, S, 4] or [N, S, 4 K].
        regions, columns: of `sample_regions`.
        matched: float32 [N, S, 4], the ground-truth box of each region.
        hardest: only so many regions of each image count, those of the greatest loss (online hard example mining,
            Shrivastava et al. 2016); 0: all.
        means, stds: of the box targets, 4 numbers or [K, 4].

    Returns:
        (class loss [N]: cross-entropy averaged over the regions that count; box loss [N]: smooth L1 of the foreground,
        summed, divided by the same number; exactly 0 without objects).

    Source: section 2.3, equations 1 to 3.
    """
    counts = tf.cast(columns >= 0, tf.float32)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.maximum(columns, 0), logits=logits)
    foreground, label = columns >= 1, tf.maximum(columns - 1, 0)
    mean, std = (_of_label(numbers, label) for numbers in (means, stds))
    target = (coders.encode(matched, regions) - mean) / std
    target = tf.where(foreground[..., None], target, 0.0)
    distance = tf.reduce_sum(smooth_l1(of_class(deltas, label) - target), axis=-1)
    distance *= tf.cast(foreground, tf.float32)
    if hardest:
        loss = tf.stop_gradient((entropy + distance) * counts)
        counts *= tf.cast(loss >= tf.math.top_k(loss, hardest).values[:, -1:], tf.float32)
    number = tf.maximum(tf.reduce_sum(counts, axis=-1), 1.0)
    return (
        tf.reduce_sum(entropy * counts, axis=-1) / number,
        tf.reduce_sum(distance * counts, axis=-1) / number,
    )


def _of_label(numbers, label):
    """Means or standard deviations, 4 numbers or [K, 4], of each region's class [N, S]: broadcasts with [N, S, 4]."""
    numbers = tf.constant(numbers, tf.float32)
    return numbers if numbers.shape.rank == 1 else tf.gather(numbers, label)


def of_class(deltas: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The four deltas of each region's class: [N, S, 4 K] and labels [N, S] to [N, S, 4]; [N, S, 4] stays."""
    if deltas.shape[-1] == 4:
        return deltas
    by_class = tf.reshape(deltas, tf.concat([tf.shape(deltas)[:-1], [deltas.shape[-1] // 4, 4]], axis=0))
    return tf.gather(by_class, labels, batch_dims=2)


def box_statistics(
    pictures: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], classes: int, positive: float = 0.5
) -> tuple[list[list[float]], list[list[float]]]:
    """Mean and standard deviation of each class's box targets: what Fast R-CNN normalises them by.

    Args:
        pictures: of each (proposals [R, 4], ground-truth boxes [M, 4], labels [M]) in pixels of any size.
        classes: K.
        positive: least IoU of a region with the box that it is regressed to.

    Returns:
        (means [K, 4], standard deviations [K, 4]) over all regions, boxes themselves among them, and their mirror
        images, which training shows too; those of joint training for a class with fewer than two different regions.

    Source: Fast R-CNN, section 2.3; py-faster-rcnn, lib/roi_data_layer/roidb.py, add_bbox_regression_targets.
    """
    found = [np.zeros((0, 4), np.float32)]
    columns = [np.zeros(0, np.int32)]
    for proposals, boxes, labels in pictures:
        if not len(boxes):
            continue
        regions = tf.constant(np.concatenate([proposals, boxes]), tf.float32)
        overlap = box_ops.iou(regions, boxes).numpy()
        taken, best = overlap.max(axis=1) >= positive, overlap.argmax(axis=1)
        found.append(coders.encode(boxes[best], regions).numpy()[taken])
        columns.append(labels[best][taken])
    targets, columns = np.concatenate(found).astype(np.float64), np.concatenate(columns)
    means, stds = np.tile(BOX_MEANS, (classes, 1)), np.tile(BOX_STDS, (classes, 1))
    for label in range(classes):
        own = targets[columns == label]
        own = np.concatenate([own, own * (-1, 1, 1, 1)])
        if len(own) and (own.std(axis=0) > 0).all():
            means[label], stds[label] = own.mean(axis=0), own.std(axis=0)
    return means.tolist(), stds.tolist()
