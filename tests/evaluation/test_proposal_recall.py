"""Recall of proposals, and whether they come back from a changed picture."""

import numpy as np
import pytest

from tfcnn.evaluation import proposal_recall as proposals
from tfcnn.evaluation import repeatability


def test_no_region_is_given_to_two_boxes():
    overlap = np.array([[0.9, 0.8], [0.6, 0.2], [0.1, 0.3]])
    assert proposals.one_to_one(overlap).tolist() == [0.9, 0.3]
    assert proposals.one_to_one(overlap.T).tolist() == [0.9, 0.0, 0.3]
    assert proposals.one_to_one(np.zeros((0, 2))).tolist() == [0, 0]


def test_average_recall_is_twice_the_area_under_the_curve():
    best = np.random.default_rng(0).random(500)
    steps = np.linspace(0.5, 1, 5001)
    curve = [(best >= t).mean() for t in steps]
    assert proposals.average_recall(best) == pytest.approx(2 * np.trapezoid(curve, steps), abs=1e-3)


def test_recall_counts_the_best_so_many_of_each_picture():
    recall = proposals.Recall(counts=(1, 2), thresholds=(0.5, 0.8))
    regions = np.float32([[0, 0, 10, 10], [20, 0, 30, 10]])
    recall.add(regions, np.float32([[0, 0, 10, 9], [20, 0, 30, 6]]))  # IoU 0.9 and 0.6
    recall.add(regions, np.zeros((0, 4), np.float32))  # nothing to find
    recall.add(np.zeros((0, 4), np.float32), np.float32([[0, 0, 5, 5]]))  # nothing proposed
    found = recall.figures()
    assert found["1"]["recall"] == {"0.5": pytest.approx(1 / 3), "0.8": pytest.approx(1 / 3)}
    assert found["2"]["recall"] == {"0.5": pytest.approx(2 / 3), "0.8": pytest.approx(1 / 3)}
    assert found["2"]["average_recall"] == pytest.approx(2 / 3 * (0.4 + 0.1), abs=1e-5)
    assert len(found["2"]["curve"]) == 11 and proposals.Recall().figures()["100"] is None


def stripes():
    image = np.zeros((60, 90, 3), np.uint8)
    image[20:40, 30:50] = 255
    return image


def bright(image):
    """Proposes the box around what is bright."""
    y, x = np.nonzero(image[..., 0] > 127)
    return np.float32([[x.min(), y.min(), x.max() + 1, y.max() + 1, 1.0]])


@pytest.mark.parametrize("kind", [kind for kind in repeatability.CHANGES if kind != "noise"])
def test_a_box_that_follows_the_picture_comes_back(kind):
    found = repeatability.repeatability([stripes()], bright, [kind])[kind]
    assert set(found) == {f"{amount:g}" for amount in repeatability.CHANGES[kind]}
    least = 0.6 if kind == "rotation" else 0.85  # a turned square's box is larger
    assert min(found.values()) > least


def test_turned_boxes_come_back_to_where_they_were():
    first, second, back = repeatability.changed(stripes(), "rotation", 20)
    assert first.shape == second.shape
    middle = [(box[:2] + box[2:4]) / 2 for box in (bright(first)[0], back(bright(second)[:, :4])[0])]
    assert np.abs(middle[0] - middle[1]).max() < 1.0


def test_noise_changes_as_many_pixels_as_it_says():
    image = np.full((50, 50, 3), 100, np.uint8)
    _, noisy, _ = repeatability.changed(image, "noise", 100)
    assert (noisy != image).any(axis=2).sum() == 100
