"""Boxes: by hand, against loops, and what must hold for any boxes."""

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from ops_cases import assert_gradient, awkward_boxes, random_boxes

from tfcnn.ops import boxes as bx

coordinates = st.floats(-50, 150, width=32, allow_subnormal=False)  # TensorFlow flushes those
any_boxes = npst.arrays(np.float32, st.tuples(st.integers(0, 6), st.just(4)), elements=coordinates)


def slow_area(box):
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def slow_intersection(a, b):
    return slow_area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def slow_iou(a, b):
    shared = slow_intersection(a, b)
    union = slow_area(a) + slow_area(b) - shared
    return shared / union if union > 0 else 0.0


def test_iou_by_hand():
    a = tf.constant([[0.0, 0, 2, 2]])
    b = tf.constant([[1.0, 1, 3, 3], [0, 0, 2, 2], [2, 0, 4, 2], [0, 0, 1, 2], [5, 5, 6, 6]])
    np.testing.assert_allclose(bx.iou(a, b), [[1 / 7, 1, 0, 0.5, 0]], rtol=1e-6)
    np.testing.assert_allclose(bx.intersection(a, b), [[1, 4, 0, 2, 0]])
    np.testing.assert_allclose(bx.area(b), [4, 4, 4, 2, 1])


def test_overlaps_equal_a_loop():
    rng = np.random.default_rng(0)
    a, b = awkward_boxes(rng, 40), awkward_boxes(rng, 30)
    shared = [[slow_intersection(x, y) for y in b.astype(float)] for x in a.astype(float)]
    overlap = [[slow_iou(x, y) for y in b.astype(float)] for x in a.astype(float)]
    np.testing.assert_allclose(bx.intersection(a, b), shared, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(bx.iou(a, b), overlap, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(bx.aligned_iou(a[:30], b), np.diagonal(overlap), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(bx.area(a), [slow_area(x) for x in a.astype(float)], rtol=1e-4, atol=1e-4)


def test_anchors_without_a_batch_meet_boxes_with_one():
    rng = np.random.default_rng(1)
    anchors, boxes = random_boxes(rng, 7), random_boxes(rng, 3, 5)
    together = bx.iou(anchors, boxes)
    assert together.shape == (3, 7, 5)
    for one, overlap in zip(boxes, together, strict=True):
        np.testing.assert_array_equal(overlap, bx.iou(anchors, one))


@given(any_boxes, any_boxes)
@settings(max_examples=40, deadline=None)
def test_iou_is_a_share_and_symmetric(a, b):
    overlap = bx.iou(a, b).numpy()
    assert overlap.shape == (len(a), len(b))
    assert ((overlap >= 0) & (overlap <= 1 + 1e-4)).all()
    np.testing.assert_array_equal(overlap, bx.iou(b, a).numpy().T)
    width, height = a[:, 2] - a[:, 0], a[:, 3] - a[:, 1]
    with_itself = bx.aligned_iou(a, a).numpy()
    real = (width > 0.01) & (height > 0.01)
    np.testing.assert_allclose(with_itself[real], 1, atol=1e-4)
    assert not overlap[(width <= 0) | (height <= 0)].any()


@given(any_boxes)
@settings(max_examples=40, deadline=None)
def test_clip_stays_inside_and_flip_twice_is_the_identity(boxes):
    clipped = bx.clip(boxes, height=60, width=100).numpy()
    assert (clipped >= 0).all() and (clipped <= [100, 60, 100, 60]).all()
    np.testing.assert_array_equal(bx.clip(clipped, 60, 100), clipped)
    inside = (boxes >= 0).all(axis=1) & (boxes <= [100, 60, 100, 60]).all(axis=1)
    np.testing.assert_array_equal(clipped[inside], boxes[inside])
    np.testing.assert_allclose(bx.flip(bx.flip(boxes, 100), 100), boxes, atol=1e-4)
    np.testing.assert_allclose(bx.area(bx.flip(boxes, 100)), bx.area(boxes), atol=0.05)


@given(any_boxes)
@settings(max_examples=25, deadline=None)
def test_every_conversion_has_its_inverse(boxes):
    np.testing.assert_allclose(bx.from_unit(bx.to_unit(boxes, 60, 100), 60, 100), boxes, atol=1e-3)
    np.testing.assert_allclose(bx.from_xywh(bx.to_xywh(boxes)), boxes, atol=1e-3)
    np.testing.assert_allclose(bx.from_center(bx.to_center(boxes)), boxes, atol=1e-3)


def test_conversions_by_hand():
    box = tf.constant([10.0, 20, 30, 60])
    np.testing.assert_array_equal(bx.to_xywh(box), [10, 20, 20, 40])
    np.testing.assert_array_equal(bx.to_center(box), [20, 40, 20, 40])
    np.testing.assert_allclose(bx.to_unit(box, height=100, width=50), [0.2, 0.2, 0.6, 0.6])
    np.testing.assert_array_equal(bx.flip(box, width=50), [20, 20, 40, 60])
    np.testing.assert_array_equal(bx.clip(box, height=50, width=25), [10, 20, 25, 50])


def test_each_picture_of_a_batch_has_its_own_size():
    boxes = tf.constant([[[-5.0, -5, 500, 500]], [[-5, -5, 500, 500]]])
    height, width = tf.constant([[100], [200]]), tf.constant([[150], [50]])
    expected = [[[0, 0, 150, 100]], [[0, 0, 50, 200]]]
    np.testing.assert_array_equal(bx.clip(boxes, height, width), expected)
    np.testing.assert_allclose(bx.to_unit(tf.constant(expected, tf.float32), height, width)[..., 2:], 1)
    np.testing.assert_array_equal(bx.flip(boxes, width)[..., 2], [[155], [55]])


def test_gradients_equal_finite_differences():
    rng = np.random.default_rng(2)
    a, b = random_boxes(rng, 4).astype(float), random_boxes(rng, 3).astype(float)
    assert_gradient(bx.iou, a, b)
    assert_gradient(bx.aligned_iou, a[:3], b)
    assert_gradient(bx.area, a)
    assert_gradient(lambda x: bx.to_unit(bx.clip(x, 60, 100), 60, 100), a)


def test_gradients_of_degenerate_boxes_are_finite():
    boxes = tf.Variable([[0.0, 0, 0, 0], [5, 5, 5, 9], [8, 8, 2, 2], [1, 1, 4, 4]])
    for overlap in (bx.iou, bx.aligned_iou):
        with tf.GradientTape() as tape:
            value = overlap(boxes, boxes)
        assert np.isfinite(tape.gradient(value, boxes)).all()
