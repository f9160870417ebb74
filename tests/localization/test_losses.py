"""Losses of boxes by hand, and which box answers for which object."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfcnn.localization import losses

TRUTH = np.float32([0.0, 0.0, 0.5, 0.5])
SHIFTED = np.float32([0.25, 0.0, 0.75, 0.5])  # half of it lies on the truth


@pytest.mark.parametrize(
    "name, value",
    [
        ("l2", 2 * 0.25**2),
        ("smooth_l1", 2 * (0.25 - 0.05)),
        ("iou", 1 - 1 / 3),
        ("giou", 1 - 1 / 3),  # the hull is the union
    ],
)
def test_a_box_moved_by_half_its_width(name, value):
    assert float(losses.LOSSES[name](SHIFTED, TRUTH)) == pytest.approx(value, abs=1e-6)


def test_smooth_l1_of_a_small_error_is_quadratic():
    assert float(losses.smooth_l1(TRUTH + np.float32(0.05), TRUTH)) == pytest.approx(
        4 * 0.05**2 / 0.2, abs=1e-6
    )


def test_giou_pulls_boxes_together_that_do_not_touch():
    """A hull of 1 x 0.5 with two boxes of 0.25 x 0.5 in it is half empty."""
    far = tf.Variable([0.75, 0.0, 1.0, 0.5])
    truth = tf.constant([0.0, 0.0, 0.25, 0.5])
    with tf.GradientTape(persistent=True) as tape:
        own, plain = losses.giou(far, truth), losses.iou(far, truth)
    assert float(own) == pytest.approx(1.5, abs=1e-6) and float(plain) == 1.0
    assert tape.gradient(own, far).numpy()[0] > 0 and not tape.gradient(plain, far).numpy().any()


def test_swapped_corners_are_a_box_still():
    assert float(losses.iou(TRUTH[[2, 3, 0, 1]], TRUTH)) == pytest.approx(0, abs=1e-6)


TWO = np.float32([[[0.6, 0.6, 1, 1], [0, 0, 0.4, 0.4]]])  # what the net says of two objects
OBJECTS = np.float32([[[0, 0, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]]])


def test_fixed_order_compares_box_by_box_and_matched_order_crosses_them():
    fixed = losses.objects_loss("l2", TWO, OBJECTS, np.array([[True, True]]), matched=False)
    assert fixed.numpy() == pytest.approx([2 * 0.6**2 + 2 * 0.5**2 + 2 * 0.6**2 + 2 * 0.5**2], abs=1e-5)
    matched = losses.objects_loss("l2", TWO, OBJECTS, np.array([[True, True]]), matched=True)
    assert matched.numpy() == pytest.approx([2 * 0.1**2 + 2 * 0.1**2], abs=1e-5)


@pytest.mark.parametrize("matched", [False, True])
def test_padding_has_no_loss(matched):
    padded = np.concatenate([OBJECTS[:, 1:], np.zeros((1, 1, 4), np.float32)], axis=1)
    value = losses.objects_loss("l2", TWO, padded, np.array([[True, False]]), matched=matched)
    assert value.numpy() == pytest.approx([2 * 0.1**2], abs=1e-5)
    nothing = losses.objects_loss("l2", TWO, padded * 0, np.array([[False, False]]), matched=matched)
    assert nothing.numpy().tolist() == [0]


def test_the_gradient_of_the_matched_order_reaches_the_chosen_box():
    boxes = tf.Variable(TWO)
    with tf.GradientTape() as tape:
        value = losses.objects_loss("l2", boxes, OBJECTS[:, :1], np.array([[True]]), matched=True)
    gradient = tape.gradient(value, boxes).numpy()
    assert not gradient[0, 0].any()
    assert gradient[0, 1] == pytest.approx([0, 0, -0.2, -0.2], abs=1e-5)


def test_the_assignment_is_the_best_of_all_permutations():
    cost = np.random.default_rng(0).random((5, 4, 3))
    present = np.ones((5, 3), bool)
    found = losses.assignment(cost, present)
    for costs, boxes in zip(cost, found, strict=True):
        best = min(sum(costs[b, m] for m, b in enumerate(p)) for p in itertools.permutations(range(4), 3))
        assert sum(costs[b, m] for m, b in enumerate(boxes)) == pytest.approx(best)
        assert len(set(boxes.tolist())) == 3


def test_costs_that_are_not_finite_end_no_training():
    cost = np.array([[[np.nan, np.nan], [1.0, 2.0]]])
    assert sorted(losses.assignment(cost, np.ones((1, 2), bool))[0].tolist()) == [0, 1]


def test_a_box_whose_corners_are_exchanged_is_the_same_box():
    truth = np.array([[0.1, 0.2, 0.5, 0.9]], np.float32)
    box = np.array([[0.2, 0.1, 0.6, 0.8]], np.float32)
    for loss in (losses.iou, losses.giou):
        np.testing.assert_allclose(loss(box[:, [2, 3, 0, 1]], truth), loss(box, truth), atol=1e-6)
        np.testing.assert_allclose(loss(box[:, [2, 1, 0, 3]], truth), loss(box, truth), atol=1e-6)
