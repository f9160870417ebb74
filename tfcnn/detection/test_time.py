"""From pictures to detections, with what He et al. add at test time: refined boxes, box voting, several scales,
mirrored pictures, several models. With one view it is the model itself.

Letters: N images, V views (a model, a size, mirrored or not), R regions of an image, Q candidate boxes, D detections,
K classes. Boxes are in pixels of the first size's picture until the caller takes them to the file's.

Source: He, Zhang, Ren, Sun, "Deep residual learning", 2015, appendix B; Gidaris and Komodakis, "Object detection via a
multi-region CNN", 2015, section 5 (voting).
"""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from tfcnn.detection import fast_rcnn, outputs
from tfcnn.detection.stages import Stages
from tfcnn.ops import boxes as box_ops
from tfcnn.ops import nms


@dataclasses.dataclass(frozen=True)
class View:
    """A look at the pictures: by which network, at which of the sizes, mirrored or not."""

    stages: Stages
    scale: int
    flip: bool


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What a view's network makes of the pictures: their real sizes int32 [N, 2] in its arrays, its pixels for one of
    the file float32 [N], and what `Stages.first` gives."""

    view: View
    size: tf.Tensor
    scale: tf.Tensor
    first: dict


def find(
    views: Sequence[View],
    pictures: Sequence[tf.Tensor],
    sizes: Sequence[tf.Tensor],
    shapes: tf.Tensor,
    precomputed: tf.Tensor | None = None,
    *,
    refine: int = 0,
    box_voting: bool = False,
    proposals: int = 300,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.3,
    max_detections: int = 100,
) -> dict[str, tf.Tensor]:
    """Detections of pictures from all views together.

    The proposals of all views are put together and suppressed at 0.7; every view classifies and regresses every
    proposal, and scores and boxes are averaged, as He et al. do for an ensemble.

    Args:
        views: the first one's scale has to be 0.
        pictures: float32 [N, H, W, 3], the same images at each scale, padded at the right and below.
        sizes: int32 [N, 2], height and width of each real picture inside its array, for each scale.
        shapes: int32 [N, 2], of the files.
        precomputed: float32 [N, R, 4], proposals in pixels of pictures[0], padded with zeros; None: the networks' own.
        refine: so many times the boxes found become regions, and what is found from them joins the candidates.
        box_voting: each detection's box becomes the mean of the candidates of its class with IoU 0.5 or more, weighted
            by their scores.
        proposals: kept of all views together, and of each.
        score_threshold, nms_threshold, max_detections: of the detections.

    Returns:
        {boxes float32 [N, D, 4] in pixels of pictures[0], scores [N, D], labels int32 [N, D], count int32 [N]}; of Mask
        R-CNN also masks float32 [N, up to D, 28, 28], the mean probabilities of the views that have masks.
    """
    seen = [_see(view, pictures[view.scale], sizes[view.scale], shapes) for view in views]
    regions = precomputed if precomputed is not None else _proposed(seen, sizes[0], proposals)
    found = [_classified(seen, regions, sizes[0])]
    for _ in range(refine):
        scores, boxes = found[-1]
        best = (
            tf.argmax(scores, axis=-1, output_type=tf.int32) % boxes.shape[2]
        )  # 0 where classes share a box
        found.append(_classified(seen, tf.gather(boxes, best, batch_dims=2), sizes[0]))
    scores = tf.concat([s for s, _ in found], axis=1)  # [N, Q, K]
    boxes = tf.concat([b for _, b in found], axis=1)  # [N, Q, K or 1, 4]
    answer = outputs.best_of_each_class(scores, boxes, score_threshold, nms_threshold, max_detections)
    if box_voting:
        answer["boxes"] = vote(answer["boxes"], answer["labels"], boxes, scores)
    masked = [look for look in seen if look.view.stages.mask_head is not None]
    if masked:
        answer["masks"] = _masks(masked, answer, sizes[0])
    return answer


def propose(
    stages: Stages, picture: tf.Tensor, size: tf.Tensor, shapes: tf.Tensor, count: int | None = None
) -> tf.Tensor:
    """One network's own proposals, float32 [N, R, 4], R of them or the network's own number; pictures as of `find` at
    one scale."""
    return _proposed([_see(View(stages, 0, False), picture, size, shapes)], size, count)


def vote(kept: tf.Tensor, labels: tf.Tensor, boxes: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """Box voting among the candidates of each detection's own class.

    Args:
        kept: float32 [N, D, 4].
        labels: int32 [N, D], -1 is padding.
        boxes: float32 [N, Q, K or 1, 4], the candidates before suppression.
        scores: float32 [N, Q, K], theirs.

    Returns:
        float32 [N, D, 4]; padding stays zeros.
    """
    label = tf.maximum(labels, 0)
    weights = tf.gather(tf.transpose(scores, [0, 2, 1]), label, batch_dims=1)  # [N, D, Q]
    if boxes.shape[2] == 1:
        voted = nms.vote(kept, boxes[:, :, 0], weights)
    else:
        own = tf.gather(tf.transpose(boxes, [0, 2, 1, 3]), label, batch_dims=1)  # [N, D, Q, 4]
        voted = nms.vote(kept[:, :, None], own, weights[:, :, None])[:, :, 0]
    return tf.where((labels >= 0)[..., None], voted, kept)


def _see(view, picture, size, shapes):
    if view.flip:  # the real picture is mirrored, the padding stays at its right
        picture = tf.reverse_sequence(picture, size[:, 1], seq_axis=2, batch_axis=0)
    scale = tf.reduce_min(tf.cast(size / shapes, tf.float32), axis=1)
    return _Seen(view, size, scale, view.stages.first(picture))


def _proposed(seen, base, count):
    """Proposals of all views together, in pixels of `base`: those of one view as they are, of several suppressed."""
    boxes, scores = [], []
    for look in seen:
        height, width = tf.unstack(look.size, axis=1)
        own, own_scores = look.view.stages.propose(look.first, height, width, count, scale=look.scale)
        boxes.append(between(own, look.size, base, look.view.flip))
        scores.append(own_scores)
    if len(seen) == 1:
        return boxes[0]
    return nms.batched_nms(tf.concat(boxes, axis=1), tf.concat(scores, axis=1), 0.7, count)[0]


def _classified(seen, regions, base):
    """Scores [N, R, K] and boxes [N, R, K or 1, 4] of regions, averaged over the views, in pixels of `base`.

    A view in which a box is empty (regressed out of the picture) has none to average.
    """
    all_scores, all_boxes = [], []
    for look in seen:
        own = between(regions, base, look.size, look.view.flip)
        stages, (height, width) = look.view.stages, tf.unstack(look.size, axis=1)
        logits, deltas = stages.regions(own, look.first["pool_maps"])
        targets = stages.output.means, stages.output.stds
        scores, boxes = fast_rcnn.decode_regions(logits, deltas, own, height, width, *targets)
        all_scores.append(scores)
        all_boxes.append(between(boxes, look.size, base, look.view.flip))
    if len(seen) == 1:
        return all_scores[0], all_boxes[0]
    real = [tf.cast(box_ops.area(boxes) > 0, tf.float32)[..., None] for boxes in all_boxes]
    total = sum(weight * boxes for weight, boxes in zip(real, all_boxes, strict=True))
    return sum(all_scores) / len(seen), tf.math.divide_no_nan(total, sum(real))


def _masks(seen, answer, base):
    """Probabilities float32 [N, most, S, S] of the detections' classes in their boxes, averaged over the views."""
    most = tf.maximum(tf.reduce_max(answer["count"]), 1)
    boxes, labels = answer["boxes"][:, :most], answer["labels"][:, :most]
    total = 0.0
    for look in seen:
        own = between(boxes, base, look.size, look.view.flip)
        masks = tf.sigmoid(look.view.stages.masks(own, labels, look.first["mask_maps"]))
        total += tf.reverse(masks, [-1]) if look.view.flip else masks
    return total / len(seen)


def between(boxes: tf.Tensor, of: tf.Tensor, to: tf.Tensor, flip: bool) -> tf.Tensor:
    """Boxes [N, R, (K,) 4] of pictures of sizes [N, 2] in pixels of others, mirrored where the view is.

    Empty ones become zeros, but where there is nothing to do.
    """
    if of is to and not flip:
        return boxes
    real = box_ops.area(boxes) > 0
    unit = box_ops.to_unit(boxes, *_sides(of, boxes))
    unit = box_ops.flip(unit, 1.0) if flip else unit
    return tf.where(real[..., None], box_ops.from_unit(unit, *_sides(to, boxes)), 0.0)


def _sides(size, boxes):
    """Height and width, each to be broadcast with boxes[..., 0]."""
    shape = [-1] + [1] * (boxes.shape.rank - 2)
    return [tf.reshape(side, shape) for side in tf.unstack(size, axis=1)]
