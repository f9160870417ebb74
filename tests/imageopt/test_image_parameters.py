"""What is optimised in place of a picture: there and back, boxes, the spectrum's scale, noise by seed."""

import numpy as np
import pytest
import tensorflow as tf

from tfcnn.imageopt import parameters

PICTURE = np.random.default_rng(0).uniform(2, 253, (2, 7, 9, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "way",
    [parameters.Pixels(), parameters.TanhBox(), parameters.TanhBox(-10, 300), parameters.Fourier(7, 9)],
    ids=str,
)
def test_there_and_back(way):
    np.testing.assert_allclose(way.to_image(way.from_image(PICTURE)), PICTURE, atol=0.02)


@pytest.mark.parametrize("size", [(8, 8), (8, 7), (7, 8), (1, 5)])
def test_fourier_keeps_any_size(size):
    picture = np.random.default_rng(1).uniform(5, 250, (1, *size, 3)).astype(np.float32)
    way = parameters.Fourier(*size)
    np.testing.assert_allclose(way.to_image(way.from_image(picture)), picture, atol=0.02)


def test_extreme_values_stay_finite():
    corners = np.zeros((1, 4, 4, 3), np.float32)
    corners[:, ::2] = 255.0
    for way in (parameters.TanhBox(), parameters.Fourier(4, 4)):
        there = way.from_image(corners)
        assert np.isfinite(there).all()
        back = way.to_image(there).numpy()
        assert back.min() >= 0 and back.max() <= 255
        np.testing.assert_allclose(back, corners, atol=0.1)


def test_tanh_never_leaves_the_box():
    pixels = parameters.TanhBox(20, 30).to_image(tf.constant([-1e9, -3.0, 0.0, 3.0, 1e9]))
    assert pixels.numpy().min() >= 20 and pixels.numpy().max() <= 30


def test_equal_coefficients_give_large_structures_more_amplitude():
    way = parameters.Fourier(64, 64)
    amplitude = []
    for frequency in (1, 4, 16):
        spectrum = np.zeros((1, 3, 64, 33, 2), np.float32)
        spectrum[0, 0, 0, frequency, 0] = 1e-3
        amplitude.append(np.ptp(way.to_image(spectrum).numpy()))
    np.testing.assert_allclose(np.array(amplitude) / amplitude[0], [1, 1 / 4, 1 / 16], rtol=1e-3)


def test_first_colour_direction_is_grey_and_second_is_not():
    way = parameters.Fourier(4, 4)
    spectrum = np.zeros((2, 3, 4, 3, 2), np.float32)
    spectrum[0, 0, 0, 0, 0] = spectrum[1, 1, 0, 0, 0] = 0.02
    change = way.to_image(spectrum).numpy()[:, 0, 0] - 127.5
    assert (change[0] > 0).all() and np.ptp(change[0]) < 0.1 * change[0].max()
    assert change[1][0] > 0 > change[1][2]


def test_noise_follows_its_seeds():
    way = parameters.Fourier(8, 8)
    together = way.noise([4, 5]).numpy()
    np.testing.assert_allclose(together[1], way.noise([5]).numpy()[0], rtol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 0.1
    white = parameters.normal_noise([0], 64, 64, mean=(10, 20, 30), deviation=5.0).numpy()[0]
    np.testing.assert_allclose(white.mean((0, 1)), [10, 20, 30], atol=0.5)
    np.testing.assert_allclose(white.std((0, 1)), 5.0, rtol=0.05)
