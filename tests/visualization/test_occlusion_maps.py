"""Occlusion by hand on a linear model, places and sizes, and what the patch shows."""

import keras
import numpy as np
import pytest

from tfcnn.errors import InputError
from tfcnn.visualization.occlusion import filled, occlusion

layers = keras.layers


@pytest.fixture(scope="module")
def net():
    """Class 0 has the sum of red as its logit, class 1 that of green; a picture of any size."""
    image = keras.Input((None, None, 3))
    totals = keras.ops.sum(image, axis=(1, 2))
    logits = totals[:, :2] / 100
    return keras.Model(
        image, {"logits": logits, "scores": layers.Softmax(name="scores")(logits)}, name="sums"
    )


def picture(height=6, width=8):
    image = np.zeros((height, width, 3), np.float32)
    image[1, 2, 0] = 200  # what class 0 lives on
    image[4, 6, 1] = 100
    return image


def softmax(red, green):
    return 1 / (1 + np.exp((green - red) / 100))


def test_probabilities_by_hand_at_every_place(net):
    found = occlusion(net, patch=2, stride=2)(picture())
    assert found.scores.shape == (3, 4, 2) and found.patch == 2
    assert found.whole[0] == pytest.approx(softmax(200, 100))
    expected = np.full((3, 4), softmax(200, 100))
    expected[0, 1] = softmax(0, 100)  # rows 0 and 1, columns 2 and 3
    expected[2, 3] = softmax(200, 0)
    np.testing.assert_allclose(found.map(0), expected, rtol=1e-5)
    assert found.centres[0, 1].tolist() == [3, 1]
    least, place = found.least(0)
    assert least == pytest.approx(softmax(0, 100), rel=1e-5) and place == (3, 1)
    assert found.best.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    drop = found.drop(0, (6, 8))
    assert drop[1, 2] == pytest.approx(softmax(200, 100) - softmax(0, 100), rel=1e-5)
    assert drop[3, 3] == pytest.approx(0, abs=1e-6)


def test_the_last_place_is_at_the_edge_and_batches_change_nothing(net):
    image = np.random.default_rng(0).uniform(0, 5, (7, 9, 3)).astype(np.float32)
    whole = occlusion(net, patch=3, stride=3)(image)
    assert whole.centres[:, 0, 1].tolist() == [1.5, 4.5, 5.5] and whole.centres[0, :, 0].tolist() == [
        1.5,
        4.5,
        7.5,
    ]
    for batch_size in (1, 4, 1000):
        same = occlusion(net, patch=3, stride=3, batch_size=batch_size)(image)
        np.testing.assert_allclose(same.scores, whole.scores, rtol=1e-6)
    hidden = image.copy()
    hidden[4:7, 6:9] = 0
    np.testing.assert_allclose(whole.scores[2, 2], net(hidden[None])["scores"][0], rtol=1e-6)
    assert occlusion(net)(np.zeros((64, 64, 3))).scores.shape == (
        13,
        13,
        2,
    )  # a quarter, and a quarter of that
    with pytest.raises(InputError, match="patch of 8 pixels does not fit into 9x7"):
        occlusion(net, patch=8)(image)
    with pytest.raises(InputError, match="'black' is none of zeros"):
        occlusion(net, fill="black")


def test_what_the_patch_shows():
    image = np.random.default_rng(0).uniform(0, 255, (20, 30, 3)).astype(np.float32)
    zero = np.array([120, 110, 100], np.float32)
    assert filled(image, "zeros", 5, zero)[7, 3].tolist() == [120, 110, 100]
    assert filled(image, "grey", 5, zero)[7, 3].tolist() == [127.5] * 3
    np.testing.assert_allclose(filled(image, "mean", 5, zero)[7, 3], image.mean((0, 1)), rtol=1e-5)
    blurred = filled(image, "blur", 5, zero)
    assert blurred.std() < image.std() / 3 and blurred.mean() == pytest.approx(image.mean(), rel=0.05)


def test_a_channel_instead_of_a_class_and_a_net_that_hides_its_logits():
    image = keras.Input((8, 8, 3))
    maps = layers.Conv2D(2, 1, kernel_initializer="ones", name="maps")(image)
    net = keras.Model(image, layers.Softmax()(layers.Dense(2)(layers.GlobalAveragePooling2D()(maps))))
    bright = np.full((8, 8, 3), 10, np.float32)
    found = occlusion(net, patch=4, stride=4, channel_of="maps")(bright)
    assert found.whole.tolist() == [30, 30] and found.scores[..., 1].tolist() == [[22.5, 22.5], [22.5, 22.5]]


def test_values_are_spread_over_the_picture_from_the_patches_middles(net):
    found = occlusion(net, patch=2, stride=2)(picture())
    values = np.arange(12.0).reshape(3, 4)
    spread = found.spread(values, (6, 8))
    assert spread.shape == (6, 8) and spread[0, 0] == 0 and spread[5, 7] == 11
    assert spread[0, 2] == pytest.approx(0.75)  # the middle of column 2 is 2.5, those of the places 1 and 3
    nearest = found.spread(np.arange(12).reshape(3, 4), (6, 8), nearest=True)
    assert nearest[0, 1] == 0 and nearest[0, 2] == 1 and nearest[5, 7] == 11
