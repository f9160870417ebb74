"""What He et al. add at test time: refined boxes, box voting, several scales, mirrored pictures, several models.

Letters: N images, V views (a model, a size, mirrored or not), R regions of an image, Q candidate boxes, D detections,
K classes. Boxes are in pixels of the first view's picture until the caller brings them home.

Source: He, Zhang, Ren, Sun, "Deep residual learning", 2015, appendix B; Gidaris and Komodakis, "Object detection via a
multi-region CNN", 2015, section 5 (voting).
"""

import dataclasses

import tensorflow as tf

from tfcnn.detection import fast_rcnn
from tfcnn.ops import boxes as box_ops
from tfcnn.ops import nms


@dataclasses.dataclass(frozen=True)
class View:
    """One look at the pictures: by which network, at which of the sizes, mirrored or not."""

    stages: object
    size: int
    flip: bool


def find(
    views,
    pictures,
    given=None,
    *,
    refine=0,
    box_voting=False,
    proposals=300,
    score_threshold=0.05,
    nms_threshold=0.3,
    max_detections=100,
):
    """Detections of pictures from all views together.

    The proposals of all views are put together and suppressed at 0.7; every view names every proposal, and scores and
    boxes are averaged, as He et al. do for an ensemble. With one view this is the plain detector.

    Args:
        views: list of View; `size` is an index into `pictures`.
        pictures: list of float32 [N, H, W, 3], the same images at each size.
        given: float32 [N, R, 4], proposals in pixels of pictures[0], padded with zeros, instead of the networks' own.
        refine: so many times the regions are taken from the boxes found, named again and added to the candidates.
        box_voting: each detection's box becomes the mean of the candidates of its class with IoU 0.5 or more, weighted
            by their scores.
        proposals: kept of all views together, and of each.
        score_threshold, nms_threshold, max_detections: of the detections.

    Returns:
        dict: boxes float32 [N, D, 4] in pixels of pictures[0], scores [N, D], labels int32 [N, D], count int32 [N].
    """
    looks = []
    for view in views:
        picture = pictures[view.size]
        looks.append((view, picture, view.stages.first(tf.reverse(picture, [2]) if view.flip else picture)))
    regions = given if given is not None else _proposed(looks, pictures[0], proposals)

    found = [_named(looks, regions, pictures[0])]
    for _ in range(refine):
        scores, boxes = found[-1]
        best = (
            tf.argmax(scores, axis=-1, output_type=tf.int32) % boxes.shape[2]
        )  # 0 where classes share a box
        found.append(_named(looks, tf.gather(boxes, best, batch_dims=2), pictures[0]))
    scores = tf.concat([s for s, _ in found], axis=1)  # [N, Q, K]
    boxes = tf.concat([b for _, b in found], axis=1)  # [N, Q, K or 1, 4]
    kept, kept_scores, labels, count = nms.class_nms(
        boxes, scores, nms_threshold, max_detections, score_threshold
    )
    if box_voting:
        kept = vote(kept, labels, boxes, scores)
    return {"boxes": kept, "scores": kept_scores, "labels": labels, "count": count}


def vote(kept, labels, boxes, scores):
    """Box voting among the candidates of each detection's own class.

    Args:
        kept: float32 [N, D, 4]; labels: int32 [N, D], -1 is padding.
        boxes: float32 [N, Q, K or 1, 4]; scores: float32 [N, Q, K]: the candidates before suppression.

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


def _proposed(looks, base, count):
    """Proposals of all views together, in pixels of `base`: those of one view as they are, of several suppressed."""
    boxes, scores = [], []
    for view, picture, first in looks:
        own, own_scores = view.stages.propose(first, picture, count)
        boxes.append(_between(own, picture, base, view.flip))
        scores.append(own_scores)
    if len(looks) == 1:
        return boxes[0]
    return nms.batched_nms(tf.concat(boxes, axis=1), tf.concat(scores, axis=1), 0.7, count)[0]


def _named(looks, regions, base):
    """Scores [N, R, K] and boxes [N, R, K or 1, 4] of regions, averaged over the views, in pixels of `base`."""
    all_scores, all_boxes = [], []
    for view, picture, first in looks:
        own = _between(regions, base, picture, view.flip)
        logits, deltas = view.stages.regions(own, first["pool_maps"])
        height, width = tf.shape(picture)[1], tf.shape(picture)[2]
        scores, boxes = fast_rcnn.decode_regions(logits, deltas, own, height, width)
        all_scores.append(scores)
        all_boxes.append(_between(boxes, picture, base, view.flip))
    return sum(all_scores) / len(looks), sum(all_boxes) / len(looks)


def _between(boxes, of, to, flip):
    """Boxes of one size of the pictures in pixels of another; mirrored where the view is. Padding stays zeros."""
    real = box_ops.area(boxes) > 0
    unit = box_ops.to_unit(boxes, *_size(of))
    unit = box_ops.flip(unit, 1.0) if flip else unit
    return tf.where(real[..., None], box_ops.from_unit(unit, *_size(to)), 0.0)


def _size(picture):
    return tf.unstack(tf.cast(tf.shape(picture)[1:3], tf.float32))
