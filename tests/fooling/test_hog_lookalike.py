"""HOG look-alikes: the descriptor is reached, the picture stays, and a HOG gives back the edges that it came from."""

import numpy as np
import pytest

from tfcnn import images
from tfcnn.fooling import hog_lookalike
from tfcnn.ops.hog import cell_weights


@pytest.fixture(scope="module")
def pair():
    """A cat and an astronaut, 56 x 64 pixels."""
    return [images.resize(images.read(each), 64)[0][:56] for each in images.packaged()[:2]]


def test_distance_is_relative():
    blocks = np.full([2, 2, 36], 2.0)
    assert hog_lookalike.distance(blocks, blocks) == 0
    assert hog_lookalike.distance(1.5 * blocks, blocks) == pytest.approx(0.5)


def test_a_picture_takes_on_the_hog_of_another_and_stays_nearer_to_itself(pair):
    source, start = pair
    target = hog_lookalike.descriptor(source)
    assert target.shape == (6, 7, 36)
    result = hog_lookalike.lookalike(source, start, steps=100)
    made = np.rint(result.image[0])
    before, after = (hog_lookalike.distance(hog_lookalike.descriptor(each), target) for each in (start, made))
    assert after < 0.4 * before and before > 0.5
    assert np.abs(made - start).mean() < 0.6 * np.abs(made - source).mean()
    assert 0 <= made.min() and made.max() <= 255
    entry = result.final_entry(0)
    assert entry["value"] == pytest.approx(entry["hog"] + entry["distance"], rel=1e-5)
    assert entry["hog"] == pytest.approx(
        hog_lookalike.distance(hog_lookalike.descriptor(result.image[0]), target) ** 2, rel=1e-3
    )
    loose = hog_lookalike.lookalike(source, start, steps=100, keep=5.0).image[0]
    assert np.abs(loose - start).mean() < np.abs(made - start).mean()


def test_the_change_is_no_grain(pair):
    """Of the change's energy, the share that a mean over 2 x 2 pixels takes away: of white noise it would be 3/4."""
    source, start = pair
    change = hog_lookalike.lookalike(source, start, steps=60).image[0] - start
    coarse = change.reshape(28, 2, 32, 2, 3).mean(axis=(1, 3))
    assert 1 - np.square(coarse).mean() / np.square(change).mean() < 0.6


def test_a_hog_gives_back_the_directions_of_edges(pair):
    target = hog_lookalike.descriptor(pair[0])
    made = hog_lookalike.inverse(target, 56, 64, steps=200).image[0]
    assert (made == made[..., :1]).all() and made.min() == 0 and made.max() == 255
    blocks = hog_lookalike.descriptor(made)
    strongest = [cell_weights(each[None]).numpy()[0].argmax(-1) for each in (blocks, target)]
    found = hog_lookalike.distance(blocks, target), (strongest[0] == strongest[1]).mean()
    assert found[0] < 0.5 and found[1] > 0.6, found
