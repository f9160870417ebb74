"""HOG look-alikes: the descriptor is reached, the picture stays, and a HOG gives back the edges that it came from."""

import numpy as np
import pytest

from tfcnn.fooling import hog_lookalike
from tfcnn.ops.hog import cell_weights


@pytest.fixture(scope="module")
def pair():
    """A disc and slanting waves, 48 x 40, with a little noise."""
    y, x = np.mgrid[:48, :40]
    disc = np.where(np.hypot(y - 24, x - 20) < 13, 200.0, 60.0)
    waves = 128 + 60 * np.sin(0.25 * x + 0.15 * y)
    texture = np.random.default_rng(0).normal(0, 3, [48, 40])
    return [np.repeat(np.rint(each + texture)[..., None], 3, axis=2) for each in (disc, waves)]


def test_distance_is_relative():
    blocks = np.full([2, 2, 36], 2.0)
    assert hog_lookalike.distance(blocks, blocks) == 0
    assert hog_lookalike.distance(1.5 * blocks, blocks) == pytest.approx(0.5)


def test_a_picture_takes_on_the_hog_of_another_and_stays_nearer_to_itself(pair):
    source, start = pair
    target = hog_lookalike.descriptor(source)
    assert target.shape == (5, 4, 36)
    result = hog_lookalike.lookalike(source, start, steps=120)
    made = np.rint(result.image[0])
    before, after = (hog_lookalike.distance(hog_lookalike.descriptor(each), target) for each in (start, made))
    assert after < 0.3 < 0.6 < before
    assert np.abs(made - start).mean() < 0.6 * np.abs(made - source).mean()
    assert 0 <= made.min() and made.max() <= 255
    entry = result.final_entry(0)
    assert entry["value"] == pytest.approx(entry["hog"] + entry["distance"], rel=1e-5)
    assert entry["hog"] == pytest.approx(
        hog_lookalike.distance(hog_lookalike.descriptor(result.image[0]), target) ** 2, rel=1e-3
    )
    loose = hog_lookalike.lookalike(source, start, steps=120, keep=5.0).image[0]
    assert np.abs(loose - start).mean() < np.abs(made - start).mean()


def test_a_hog_gives_back_the_directions_of_edges(pair):
    _, waves = pair
    target = hog_lookalike.descriptor(waves)
    made = hog_lookalike.inverse(target, 48, 40, steps=150).image[0]
    assert (made == made[..., :1]).all() and made.min() == 0 and made.max() == 255
    blocks = hog_lookalike.descriptor(made)
    assert hog_lookalike.distance(blocks, target) < 0.35
    strongest = [cell_weights(each[None]).numpy()[0].argmax(-1) for each in (blocks, target)]
    assert (strongest[0] == strongest[1]).mean() > 0.8
