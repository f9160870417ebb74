"""GIoU and CIoU: by hand, their bounds, and gradients where boxes do not touch."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcnn.ops import box_losses
from tfcnn.ops import boxes as bx

A = np.array([0.0, 0.0, 2.0, 2.0], np.float32)
BOXES = st.lists(
    st.tuples(*[st.floats(0, 50, width=32)] * 2, *[st.floats(0.5, 50, width=32)] * 2), min_size=1, max_size=5
)


def corners(rows):
    rows = np.array(rows, np.float32)
    return np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], axis=1)


def test_by_hand():
    other = np.array([1.0, 1.0, 3.0, 3.0], np.float32)  # shared 1, union 7, enclosing 9
    assert box_losses.giou(A, other).numpy() == pytest.approx(1 / 7 - 2 / 9)
    assert box_losses.ciou(A, other).numpy() == pytest.approx(
        1 / 7 - 2 / 18
    )  # centres sqrt 2 apart, diagonal^2 18
    tall = np.array([0.5, 0.0, 1.5, 2.0], np.float32)  # the same centre, half the width: IoU 1/2
    aspect = (2 / math.pi * (math.pi / 4 - math.atan(0.5))) ** 2
    wanted = 0.5 - aspect**2 / (0.5 + aspect)
    assert box_losses.ciou(A, tall).numpy() == pytest.approx(wanted, rel=1e-5)


def test_boxes_apart_are_told_from_boxes_further_apart():
    near, far = np.array([3.0, 0, 5, 2], np.float32), np.array([13.0, 0, 15, 2], np.float32)
    for loss in (box_losses.giou, box_losses.ciou):
        assert loss(A, far) < loss(A, near) < 0
        x = tf.Variable(near)
        with tf.GradientTape() as tape:
            value = loss(x, tf.constant(A))
        gradient = tape.gradient(value, x).numpy()
        assert np.all(np.isfinite(gradient)) and gradient[0] + gradient[2] < 0  # to the left is better


@given(BOXES)
@settings(deadline=None, max_examples=50)
def test_bounds_and_equality(rows):
    boxes = corners(rows)
    for loss in (box_losses.giou, box_losses.ciou):
        np.testing.assert_allclose(loss(boxes, boxes), 1, atol=1e-4)
        values = loss(boxes, boxes[::-1].copy()).numpy()
        assert np.all(values <= bx.aligned_iou(boxes, boxes[::-1].copy()).numpy() + 1e-5) and np.all(
            values >= -2
        )


def test_empty_and_degenerate_boxes_give_finite_values_and_gradients():
    for loss in (box_losses.giou, box_losses.ciou):
        assert loss(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32)).shape == (0,)
        x = tf.Variable(np.array([[1.0, 1.0, 1.0, 1.0], [3.0, 3.0, 1.0, 1.0]], np.float32))
        with tf.GradientTape() as tape:
            value = loss(x, tf.constant([A, A]))
        assert np.all(np.isfinite(value)) and np.all(np.isfinite(tape.gradient(value, x)))
