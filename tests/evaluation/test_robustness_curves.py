"""Error curves worked out by hand."""

import numpy as np
import pytest

from tfcnn.evaluation import robustness

IMAGES = np.array([10, 40, 60, 90, 120, 180, 200, 250], np.uint8).reshape(8, 1, 1, 1).repeat(3, axis=3)
LABELS = np.array([0, 0, 0, 0, 0, 1, 1, 1])  # bright or not; the net's border is 100, so one is wrong before


def bright(pictures):
    return (pictures[:, 0, 0, 0] >= 100).astype(int)


def worst(pictures, labels, eps):
    change = np.where(labels == 0, eps, -eps)[:, None, None, None]
    return np.clip(pictures + change, 0, 255).astype(np.uint8)


def test_a_curve_by_hand():
    seen = []
    curve = robustness.error_curve(
        bright, worst, IMAGES, LABELS, [0, 15, 50, 120], callback=lambda *each: seen.append(each)
    )
    assert [entry["eps"] for entry in curve] == [0, 15, 50, 120]
    # wrong before: 120. By 15 also 90; by 50 also 60; by 120 all but 250.
    assert [entry["error"] for entry in curve] == [1 / 8, 2 / 8, 3 / 8, 7 / 8]
    assert curve[0]["noise_error"] == 1 / 8
    assert seen[0][0] == 0 and (seen[0][1] == IMAGES).all() and (seen[1][2] == bright(seen[1][1])).all()


def test_noise_has_the_attacks_size_and_other_signs_for_each_value():
    images = np.full([2, 40, 40, 3], 100, np.uint8)
    noisy = robustness.noisy(images, 7.9)
    assert set(np.unique(noisy)) == {93, 107} and (noisy > 100).mean() == pytest.approx(0.5, abs=0.03)
    assert (noisy[0] != noisy[1]).any() and (noisy == robustness.noisy(images, 7)).all()
    assert robustness.noisy(np.array([[[[0, 3, 255]]]], np.uint8), 9).max() <= 255
    assert (robustness.noisy(images, 0) == images).all()


def test_other_nets_are_measured_on_the_same_pictures():
    nets = {"same": bright, "never": lambda pictures: np.zeros(len(pictures), int)}
    attacked = worst(IMAGES, LABELS, 15)
    found = robustness.transferred(nets, attacked, LABELS)
    assert found == {"same": 2 / 8, "never": 3 / 8}


def test_a_curve_is_drawn():
    curve = [{"eps": eps, "error": eps / 8, "noise_error": 0.1} for eps in (0.0, 4.0, 8.0)]
    picture = robustness.plot(curve, "a net")
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and len(np.unique(picture)) > 20
