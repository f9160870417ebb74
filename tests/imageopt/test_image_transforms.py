"""Random changes before the net: what each does, that draws follow the seed, and that gradients pass."""

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from tfcnn.imageopt import transforms

SEED = tf.constant([3, 4])
NOISE = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
RAMP = np.tile(np.arange(33, dtype=np.float32)[None, None, :, None], (1, 33, 1, 3))


def test_jitter_rolls_within_its_bounds_and_reaches_them():
    picture = np.zeros((1, 9, 9, 3), np.float32)
    picture[0, 4, 4] = 1
    places = set()
    for seed in range(80):
        rolled = transforms.jitter(1)(picture, tf.constant([seed, 0])).numpy()
        assert rolled.sum() == 3
        places.add(tuple(int(i) for i in np.argwhere(rolled[0, :, :, 0])[0] - 4))
    assert places == {(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)}


def test_pad_surrounds():
    for value in (7.0, "reflect"):
        padded = transforms.pad(2, value)(NOISE, SEED)
        assert padded.shape == (2, 12, 12, 3)
        np.testing.assert_array_equal(padded[:, 2:-2, 2:-2], NOISE)
    assert float(transforms.pad(1, 7.0)(NOISE, SEED)[0, 0, 0, 0]) == 7.0
    assert float(transforms.pad(1, "reflect")(NOISE, SEED)[0, 0, 0, 0]) == NOISE[0, 1, 1, 0]


def test_noise_is_white_of_the_said_size_and_new_each_seed():
    grey = np.full((2, 64, 64, 3), 9.0, np.float32)
    noisy = transforms.noise(5.0)(grey, SEED).numpy() - 9.0
    np.testing.assert_allclose([noisy.mean(), noisy.std()], [0, 5], atol=0.2)
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert np.abs(noisy - (transforms.noise(5.0)(grey, tf.constant([3, 5])) - 9.0)).max() > 1


def test_blur_is_scipys():
    picture = NOISE[:1]
    for deviation in (0.5, 1.0, 1.7):
        expected = scipy.ndimage.gaussian_filter(picture, (0, deviation, deviation, 0))
        np.testing.assert_allclose(transforms.gaussian_blur(picture, deviation), expected, rtol=1e-4)


def test_scale_zooms_round_the_centre():
    larger = transforms.scale([2.0])(RAMP, SEED).numpy()
    np.testing.assert_allclose(larger[0, 5, :, 0], 16 + (np.arange(33) - 16) / 2, atol=1e-3)
    smaller = transforms.scale([0.5])(RAMP, SEED).numpy()
    np.testing.assert_allclose(smaller[0, 16, 9:24, 0], 16 + (np.arange(9, 24) - 16) * 2, atol=1e-3)


def test_rotate_turns_round_the_centre():
    turned = transforms.rotate([90.0])(RAMP, SEED).numpy()[0, :, :, 0]
    quarter_turns = [np.rot90(RAMP[0, :, :, 0], k) for k in (1, 3)]
    assert min(np.abs(turned - other).max() for other in quarter_turns) < 1e-2
    np.testing.assert_allclose(transforms.rotate([0.0])(NOISE, SEED), NOISE, atol=1e-3)


def test_every_choice_is_drawn():
    drawn = {
        round(float(transforms.scale([0.8, 1.0, 1.25])(RAMP, tf.constant([s, 0]))[0, 16, 20, 0]), 2)
        for s in range(40)
    }
    assert drawn == {16 + 4 / 0.8, 20.0, 16 + 4 / 1.25}


ALL = {
    "jitter": transforms.jitter(2),
    "pad": transforms.pad(3, 0.0),
    "mirror": transforms.pad(3, "reflect"),
    "noise": transforms.noise(0.0),
    "scale": transforms.scale([0.9, 1.0, 1.1]),
    "rotate": transforms.rotate([-10, 0, 10]),
    "all": transforms.compose(transforms.jitter(2), transforms.scale([0.9, 1.1]), transforms.rotate([5.0])),
}


@pytest.mark.parametrize("name", ALL)
def test_a_batch_gets_what_each_gets_alone_and_a_seed_repeats(name):
    together = ALL[name](NOISE, SEED).numpy()
    alone = np.concatenate([ALL[name](NOISE[i : i + 1], SEED).numpy() for i in range(2)])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, ALL[name](NOISE, SEED))
    assert np.isfinite(together).all() and together.min() >= 0 and together.max() <= 255.001


@pytest.mark.parametrize("name", ALL)
def test_gradient(name):
    x = tf.constant(np.random.default_rng(2).uniform(50, 200, (1, 8, 8, 3)), tf.float32)
    weight = tf.constant(np.random.default_rng(3).normal(size=ALL[name](x, SEED).shape), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_sum(weight * ALL[name](x, SEED))
    gradient = tape.gradient(value, x).numpy()
    # Linear in x, so the value's change along a direction is gradient . direction.
    if name in ("scale", "rotate", "all"):
        smooth = tf.ones_like(x)
        numeric = tf.reduce_sum(ALL[name](smooth, SEED))
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(ALL[name](x, SEED))
        np.testing.assert_allclose(tf.reduce_sum(tape.gradient(value, x)), numeric, rtol=0.1)
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0.1
    else:
        np.testing.assert_allclose((gradient * x.numpy()).sum(), value, rtol=1e-4)


def test_composed_draws_differ():
    picture = np.zeros((1, 65, 65, 3), np.float32)
    picture[0, 32, 32] = 1
    twice = transforms.compose(transforms.jitter(8), transforms.jitter(8))
    shifts = [np.argwhere(twice(picture, tf.constant([s, 0])).numpy()[0, :, :, 0])[0] - 32 for s in range(20)]
    assert any((shift % 2).any() for shift in shifts), "both rolls drew the same shift"
