"""The pointing game and masks' IoU by hand."""

import numpy as np
import pytest

from tfcnn.evaluation import pointing


def test_a_hit_lies_on_the_object_or_near_it():
    mask = np.zeros((40, 50), bool)
    mask[10:20, 10:20] = True
    assert pointing.is_hit((10, 10), mask) and pointing.is_hit((34, 12), mask)  # 15 pixels below row 19
    assert not pointing.is_hit((35, 12), mask) and pointing.is_hit((35, 12), mask, 16)
    assert not pointing.is_hit((31, 31), mask) and pointing.is_hit(
        (22, 24), mask, 6
    )  # 3-4-5 from the corner (19, 19)
    assert not pointing.is_hit((0, 0), np.zeros((4, 4), bool))


def test_the_maximum_of_a_plateau_is_its_middle():
    values = np.zeros((5, 9))
    values[2, 2:7] = 3
    assert pointing.maximum(values) == (2, 4)
    values[4, 8] = 4
    assert pointing.maximum(values) == (4, 8)


def test_classes_count_alike_in_the_mean():
    figures = pointing.accuracy([(3, True), (3, True), (3, True), (3, False), (5, False)])
    assert figures == {
        "mean": pytest.approx(0.375),
        "all": pytest.approx(0.6),
        "per_class": {3: 0.75, 5: 0.0},
    }
    assert pointing.accuracy([])["mean"] == 0


def test_iou_of_masks():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert pointing.mask_iou(a, b) == 1
    a[:2], b[1:3] = True, True
    assert pointing.mask_iou(a, b) == pytest.approx(4 / 12)
