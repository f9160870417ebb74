"""Margins that become log-odds: Platt's sigmoid, and which windows it is fitted on."""

import numpy as np
import pytest

from tfcnn import datasets
from tfcnn.detection import calibration, dpm, pyramid


def test_platt_gives_back_the_sigmoid_that_drew_the_truth():
    rng = np.random.default_rng(0)
    margins = rng.normal(-1, 1, 20000)
    right = rng.random(20000) < 1 / (1 + np.exp(-(3 * margins - 0.5)))
    a, b = calibration.platt(margins, right)
    assert a == pytest.approx(3, abs=0.1) and b == pytest.approx(-0.5, abs=0.1)


def test_a_margin_that_says_nothing_keeps_its_order():
    margins, right = np.array([1.0, 2, 3, 4]), np.array([True, True, False, False])
    assert calibration.platt(margins, right)[0] == calibration.FLATTEST


def test_the_constant_by_hand():
    """All margins 0, one right of four: Platt's targets are 2/3 once and 1/5 three times, on average 0.3167."""
    a, b = calibration.platt(np.zeros(4), np.array([True, False, False, False]))
    assert b == pytest.approx(np.log(0.316667 / 0.683333), abs=1e-4)


def test_a_template_with_few_objects_takes_its_classes_sigmoid():
    rng = np.random.default_rng(1)

    def rows(template, count, slope):
        margins = rng.normal(0, 1, count)
        return np.stack(
            [np.full(count, template), margins, rng.random(count) < 1 / (1 + np.exp(-slope * margins))], 1
        )

    many, few = rows(0, 500, 4), rows(1, 3, 4)
    (one, other, alone) = calibration.sigmoids(np.concatenate([many, few]), [0, 0, 1])
    pooled = calibration.platt(*np.concatenate([many, few])[:, 1:].T)
    assert other == pytest.approx(np.array(pooled) / pyramid.SLOPE) and one != other
    assert alone == pytest.approx(np.array(pooled) / pyramid.SLOPE)  # no window of its class: that of all
    assert calibration.sigmoids(few[:0], [0]) == [(1.0, 0.0)]


def test_what_is_judged():
    boxes = np.array(
        [[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [0, 0, 10, 10], [80, 0, 90, 10]], float
    )
    record = datasets.Record("a", "a", 100, 100, lambda: b"")
    record.boxes = np.float32([[0, 0, 10, 11], [80, 0, 90, 10]])
    record.labels, record.difficult, record.crowd = (
        np.array([0, 0]),
        np.array([False, True]),
        np.zeros(2, bool),
    )
    margins, owners, labels = (
        np.array([2.0, 1, 0.5, 0, 3]),
        np.array([0, 0, 0, 1, 0]),
        np.array([0, 0, 0, 1, 0]),
    )
    rows = calibration.judged(boxes, margins, owners, labels, record, record.boxes)
    # The second is suppressed by the first, the last lies on a difficult object; the fourth is another class's.
    assert sorted(map(tuple, rows)) == [(0, 0.5, 0), (0, 2, 1), (1, 0, 0)]
    # A crowd over the third one: a window in it says nothing, of its own class.
    record.boxes, record.crowd = np.float32([[0, 0, 10, 11], [40, 40, 100, 100]]), np.array([False, True])
    record.difficult = np.zeros(2, bool)
    rows = calibration.judged(boxes, margins, owners, labels, record, record.boxes)
    assert sorted(map(tuple, rows)) == [(0, 2, 1), (0, 3, 0), (1, 0, 0)]
    record.boxes, record.labels = np.zeros([0, 4]), np.zeros(0, int)
    record.difficult = record.crowd = np.zeros(0, bool)
    assert not calibration.judged(boxes, margins, owners, labels, record, record.boxes)[:, 2].any()


def test_a_calibrated_component_scores_in_proportion():
    rng = np.random.default_rng(0)
    normal = [rng.normal(size=s).astype(np.float32) for s in ((3, 2, 5), (2, 2, 2, 5))]
    costs = np.float32([[0.2, 0.1, 0.3, 0], [0.1, 0, 0.1, 0.05]])
    one = dpm.Component(0, *normal, np.array([[0, 1], [3, 2]]), costs, 0.3)
    maps = [rng.normal(size=s).astype(np.float32) for s in ((5, 4, 5), (10, 8, 5))]
    found = dpm.score_map(one.calibrated(1.7, -0.4), *maps, radius=2)
    np.testing.assert_allclose(found, 1.7 * dpm.score_map(one, *maps, radius=2) - 0.4, atol=1e-4)
