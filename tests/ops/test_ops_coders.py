"""Coders: by hand, against loops, and encode with decode as inverses."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_cases import assert_gradient, awkward_boxes, random_boxes

from tfcnn.ops import boxes as bx
from tfcnn.ops import coders

MEANS, STDS = (0.1, -0.1, 0.2, 0), (0.1, 0.1, 0.2, 0.2)


def slow_encode(box, anchor, means, stds):
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    if min(width, height, box[2] - box[0], box[3] - box[1]) <= 0:
        return [0] * 4
    deltas = [
        ((box[0] + box[2]) / 2 - (anchor[0] + anchor[2]) / 2) / width,
        ((box[1] + box[3]) / 2 - (anchor[1] + anchor[3]) / 2) / height,
        math.log((box[2] - box[0]) / width),
        math.log((box[3] - box[1]) / height),
    ]
    return [(delta - mean) / std for delta, mean, std in zip(deltas, means, stds, strict=True)]


def test_deltas_by_hand():
    anchor, box = tf.constant([0.0, 0, 10, 20]), tf.constant([5.0, 10, 25, 20])
    # Centre from (5, 10) to (15, 15): 10 / 10 and 5 / 20; width twice, height half.
    deltas = coders.encode(box, anchor)
    np.testing.assert_allclose(deltas, [1, 0.25, math.log(2), math.log(0.5)], rtol=1e-6)
    np.testing.assert_allclose(coders.decode(deltas, anchor), box, rtol=1e-6)
    scaled = coders.encode(box, anchor, stds=(0.1, 0.1, 0.2, 0.2))
    np.testing.assert_allclose(scaled, [10, 2.5, math.log(2) / 0.2, math.log(0.5) / 0.2], rtol=1e-6)


def test_encode_equals_a_loop():
    rng = np.random.default_rng(0)
    boxes, anchors = awkward_boxes(rng, 60), awkward_boxes(rng, 60)
    expected = [
        slow_encode(b, a, MEANS, STDS)
        for b, a in zip(boxes.astype(float), anchors.astype(float), strict=True)
    ]
    np.testing.assert_allclose(coders.encode(boxes, anchors, MEANS, STDS), expected, rtol=1e-3, atol=1e-3)


@given(st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_decode_undoes_encode(seed):
    rng = np.random.default_rng(seed)
    boxes, anchors = random_boxes(rng, 2, 5) + [0, 0, 1, 1], random_boxes(rng, 5) + [0, 0, 2, 2]
    boxes, anchors = tf.constant(boxes, tf.float32), tf.constant(anchors, tf.float32)
    there = coders.encode(boxes, anchors, MEANS, STDS)
    np.testing.assert_allclose(coders.decode(there, anchors, MEANS, STDS, max_log_scale=9), boxes, atol=0.01)


def test_an_untrained_net_makes_no_infinite_box():
    box = coders.decode(tf.constant([0.0, 0, 1e4, -1e4]), tf.constant([0.0, 0, 16, 16]))
    np.testing.assert_allclose(bx.to_center(box), [8, 8, 1000, 0], rtol=1e-5)


def test_padded_and_degenerate_boxes_give_zeros_and_finite_gradients():
    anchors = tf.constant([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 0, 0], [5, 5, 1, 1]])
    boxes = tf.Variable([[0.0, 0, 0, 0], [9, 9, 3, 20], [0, 0, 10, 10], [0, 0, 10, 10]])
    with tf.GradientTape() as tape:
        deltas = coders.encode(boxes, anchors, MEANS, STDS)
    np.testing.assert_array_equal(deltas, np.zeros([4, 4]))
    assert np.isfinite(tape.gradient(deltas, boxes)).all()
    assert coders.encode(tf.zeros([2, 0, 4]), tf.zeros([0, 4])).shape == (2, 0, 4)


def test_gradients_equal_finite_differences():
    rng = np.random.default_rng(3)
    anchors = random_boxes(rng, 4).astype(float)
    assert_gradient(lambda b: coders.encode(b, tf.constant(anchors)), random_boxes(rng, 4))
    deltas = rng.normal(size=(2, 4, 4))
    deltas[0, 0, 2] = 6  # above the limit: no gradient
    assert_gradient(
        lambda d, a: coders.decode(d, a, MEANS, STDS, max_log_scale=1.0), deltas, anchors, tolerance=1e-4
    )
    assert_gradient(coders.decode_yolo, rng.normal(size=(3, 3, 2, 4)))


def test_a_yolo_cell_by_hand():
    # Centre (0.5, 0.4) of a 7 x 7 grid: column 3.5 -> 3, row 2.8 -> 2; a quarter wide, 0.16 high.
    boxes = bx.from_center(tf.constant([[0.5, 0.4, 0.25, 0.16]]))
    owner, targets = coders.encode_yolo(boxes, tf.constant([True]))
    expected = np.full([7, 7], -1)
    expected[2, 3] = 0
    np.testing.assert_array_equal(owner, expected)
    np.testing.assert_allclose(targets[2, 3], [0.5, 0.8, 0.5, 0.4], rtol=1e-5)
    assert np.count_nonzero(targets) == 4
    np.testing.assert_allclose(coders.decode_yolo(targets[:, :, None])[2, 3, 0], boxes[0], atol=1e-6)


@pytest.mark.parametrize(
    ("cells", "box", "row", "column", "x", "y"),
    [
        (
            2,
            [0.25, 0.25, 0.75, 0.75],
            1,
            1,
            0,
            0,
        ),  # centre (1/2, 1/2), where four cells meet: the next of both
        (8, [0.25, 0.5, 0.5, 0.75], 5, 3, 0, 0),  # centre (3/8, 5/8)
        (3, [0, 1 / 3, 2 / 3, 1], 2, 1, 0, 0),  # centre (1/3, 2/3)
        (7, [2 / 7, 5 / 7, 4 / 7, 1], 6, 3, 0, 0),  # centre (3/7, 6/7)
        (2, [0.1875, 0.25, 0.6875, 0.75], 1, 0, 0.875, 0),  # centre (7/16, 1/2): 7/8 of the first column
        (7, [0.25, 0.25, 0.5, 0.5], 2, 2, 0.625, 0.625),  # centre 3/8, 21/8 cells from the corner
        (8, [0.5, 0.125, 1.5, 0.5], 2, 7, 1, 0.5),  # centre (1, 5/16), on the right border: 8, cut to 7; 5/2
        (7, [0.5, 0.25, 1.5, 0.5], 2, 6, 1, 0.625),  # centre (1, 3/8)
        (8, [0.25, 0.5, 0.375, 1.5], 7, 2, 0.5, 1),  # centre (5/16, 1), on the lower border
        (7, [0.25, 0.5, 0.5, 1.5], 6, 2, 0.625, 1),
        (7, [-0.25, -0.125, 0.25, 0.125], 0, 0, 0, 0),  # centre (0, 0), the corner of the first cell
    ],
)
def test_which_cell_is_responsible_for_a_centre_on_a_border(cells, box, row, column, x, y):
    owner, targets = coders.encode_yolo(tf.constant([box], tf.float32), tf.constant([True]), cells)
    np.testing.assert_array_equal(np.argwhere(owner == 0), [[row, column]])
    np.testing.assert_allclose(targets[row, column, :2], [x, y], atol=1e-6)


def test_one_object_a_cell_the_first():
    boxes = bx.from_center(
        tf.constant(
            [
                [0.1, 0.1, 0.2, 0.2],  # padded
                [0.1, 0.1, 0.2, 0.004],  # too thin
                [0.2, 0.2, 0.1, 0.1],  # the first of cell (0, 0) on a 2 x 2 grid
                [0.3, 0.3, 0.4, 0.4],
                [1.0, 1.0, 0.4, 0.4],  # on the far edge: the last cell
            ]
        )
    )
    owner, _ = coders.encode_yolo(boxes, tf.constant([False, True, True, True, True]), cells=2)
    np.testing.assert_array_equal(owner, [[2, -1], [-1, 4]])


def test_yolo_equals_a_loop_in_a_batch_with_padding_and_without_boxes():
    rng = np.random.default_rng(4)
    boxes = np.clip(random_boxes(rng, 3, 20, side=1, longest=0.5), 0, 1)
    valid = rng.random((3, 20)) < 0.8
    valid[2] = False
    boxes[~valid] = 0
    owner, targets = coders.encode_yolo(boxes, valid, cells=5)
    for b in range(3):
        expected, values = np.full([5, 5], -1), np.zeros([5, 5, 4])
        for m, (x1, y1, x2, y2) in enumerate(boxes[b]):
            x, y = np.float32((x1 + x2) / 2) * 5, np.float32((y1 + y2) / 2) * 5
            if valid[b, m] and min(x2 - x1, y2 - y1) >= 0.005 and expected[int(y), int(x)] < 0:
                expected[int(y), int(x)] = m
                values[int(y), int(x)] = x % 1, y % 1, math.sqrt(x2 - x1), math.sqrt(y2 - y1)
        np.testing.assert_array_equal(owner[b], expected)
        np.testing.assert_allclose(targets[b], values, atol=1e-5)
    none, nothing = coders.encode_yolo(tf.zeros([2, 0, 4]), tf.zeros([2, 0], tf.bool))
    assert (none.numpy() == -1).all() and not nothing.numpy().any() and nothing.shape == (2, 7, 7, 4)
