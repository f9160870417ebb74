"""No boxes, no ground truth, no pictures: every op gives a result of the right shape, and gradients."""

import numpy as np
import pytest
import tensorflow as tf

from tfcnn.ops import anchors, coders, matching, nms, roi
from tfcnn.ops import boxes as bx
from tfcnn.ops.position_sensitive import ps_roi_align

NONE, SOME = tf.zeros([2, 0, 4]), tf.constant([[[1.0, 1, 9, 9]] * 3] * 2)  # of two pictures
NO_SCORES, SEED = tf.zeros([2, 0]), tf.constant([1, 2])
MAPS = tf.ones([2, 5, 6, 8])


@pytest.mark.parametrize(
    ("result", "shape"),
    [
        (lambda: bx.area(NONE), (2, 0)),
        (lambda: bx.intersection(NONE, SOME), (2, 0, 3)),
        (lambda: bx.iou(SOME, NONE), (2, 3, 0)),
        (lambda: bx.iou(NONE, NONE), (2, 0, 0)),
        (lambda: bx.aligned_iou(NONE, NONE), (2, 0)),
        (lambda: bx.clip(NONE, 8, 8), (2, 0, 4)),
        (lambda: bx.flip(NONE, 8), (2, 0, 4)),
        (lambda: bx.from_unit(bx.to_unit(NONE, 8, 8), 8, 8), (2, 0, 4)),
        (lambda: bx.from_xywh(bx.to_xywh(NONE)), (2, 0, 4)),
        (lambda: bx.from_center(bx.to_center(NONE)), (2, 0, 4)),
        (lambda: anchors.grid(0, 3, 16, anchors.base_anchors([8], [1])), (0, 4)),
        (lambda: anchors.grid(2, 2, 16, anchors.base_anchors([], [1])), (0, 4)),
        (lambda: anchors.inside(NONE[0], 8, 8), (0,)),
        (lambda: coders.encode(NONE, NONE), (2, 0, 4)),
        (lambda: coders.decode(NONE, NONE), (2, 0, 4)),
        (lambda: coders.encode_yolo(NONE, NO_SCORES > 0)[0], (2, 7, 7)),
        (lambda: coders.encode_yolo(NONE, NO_SCORES > 0)[1], (2, 7, 7, 4)),
        (lambda: coders.decode_yolo(tf.zeros([0, 7, 7, 2, 4])), (0, 7, 7, 2, 4)),
        (lambda: matching.match(bx.iou(SOME, NONE), NO_SCORES > 0)[0], (2, 3)),
        (lambda: matching.match(bx.iou(NONE, SOME), tf.ones([2, 3], bool))[1], (2, 0)),
        (lambda: matching.match(bx.iou(NONE, NONE), NO_SCORES > 0)[1], (2, 0)),
        (lambda: matching.sample(tf.zeros([2, 0], tf.int32), 4, 0.5, SEED)[0], (2, 4)),
        (lambda: nms.nms(NONE[0], NO_SCORES[0], 0.5, 5), (0,)),
        (lambda: nms.batched_nms(NONE, NO_SCORES, 0.5, 5)[0], (2, 5, 4)),
        (lambda: nms.batched_nms(NONE[:0], NO_SCORES[:0], 0.5, 5)[0], (0, 5, 4)),
        (lambda: nms.class_nms(NONE, tf.zeros([2, 0, 3]), 0.5, 5)[0], (2, 5, 4)),
        (lambda: nms.soft_nms(NONE[0], NO_SCORES[0], 5)[0], (0,)),
        (lambda: nms.vote(NONE, SOME, tf.ones([2, 1, 3])), (2, 0, 4)),
        (lambda: nms.vote(SOME, NONE, tf.ones([2, 1, 0])), (2, 3, 4)),
        (lambda: roi.roi_align(MAPS, NONE, 2, 3), (2, 0, 3, 3, 8)),
        (lambda: roi.roi_max_pool(MAPS, NONE, 0.5, 3), (2, 0, 3, 3, 8)),
        (lambda: ps_roi_align(MAPS, NONE, 2, 2), (2, 0, 2, 2, 2)),
        (lambda: roi.roi_align(MAPS[:0], NONE[:0], 2, 3), (0, 0, 3, 3, 8)),
        (lambda: roi.roi_max_pool(MAPS[:0], NONE[:0], 0.5, 3), (0, 0, 3, 3, 8)),
        (lambda: ps_roi_align(MAPS[:0], NONE[:0], 2, 2), (0, 0, 2, 2, 2)),
    ],
)
@pytest.mark.parametrize("run", [lambda f: f(), lambda f: tf.function(f)()], ids=["eager", "graph"])
def test_a_result_of_the_right_shape(run, result, shape):
    given = run(result)
    assert given.shape == shape and not np.isnan(np.asarray(given, np.float64)).any()


@pytest.mark.parametrize("pool", [roi.roi_align, roi.roi_max_pool, ps_roi_align])
def test_no_region_gives_a_gradient_of_zeros(pool):
    with tf.GradientTape() as tape:
        tape.watch(MAPS)
        total = tf.reduce_sum(pool(MAPS, NONE, 1.0, 2))
    assert (tape.gradient(total, MAPS).numpy() == 0).all()


def test_no_ground_truth_makes_every_anchor_a_negative():
    index, label = matching.match(bx.iou(SOME, NONE), NO_SCORES > 0)
    assert (index.numpy() == 0).all() and (label.numpy() == 0).all()
