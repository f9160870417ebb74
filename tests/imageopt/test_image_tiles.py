"""Tiles: each pixel covered once, and the gradient of a whole picture from its windows."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcnn.art.style_problem import Layers, StyleProblem
from tfcnn.errors import InputError
from tfcnn.imageopt import lbfgs, minimize, objectives
from tfcnn.imageopt.tiles import MULTIPLE, TiledProblem, windows

PICTURE = np.random.default_rng(0).uniform(0, 255, (1, 320, 352, 3)).astype(np.float32)
STYLE = np.random.default_rng(1).uniform(0, 255, (1, 256, 288, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="swish", name="low")(x)
    y = keras.layers.Conv2D(6, 3, strides=2, padding="same", activation="swish", name="high")(x)
    return keras.Model(image, {"low": x, "high": y}, name="small")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([0, 32, 50, 100, 500]))
def test_cores_cover_each_pixel_once(height, width, tile):
    seen = np.zeros((1, height, width, 1))
    for window in windows(height, width, tile):
        seen[:, window.core_rows, window.core_columns] += 1
        core = window.core(window.cut(np.arange(height * width).reshape(1, height, width, 1)))
        assert core.shape[1:3] == seen[:, window.core_rows, window.core_columns].shape[1:3]
        assert core[0, 0, 0, 0] == window.core_rows.start * width + window.core_columns.start
        assert window.core_rows.start % MULTIPLE == window.core_columns.start % MULTIPLE == 0
        assert not tile or max(core.shape[1:3]) <= -(-tile // MULTIPLE) * MULTIPLE
    assert (seen == 1).all()


def test_a_dream_in_tiles_has_the_gradient_of_the_whole(net):
    what = objectives.mean_square("high") + 2.0 * objectives.mean_square("low")
    whole, tiled = (TiledProblem(net, what, tile=tile) for tile in (0, 100))
    seed = tf.constant([3, 4])
    terms, gradient = tiled.value_and_gradient(tf.constant(PICTURE), seed)
    shift = tf.random.stateless_uniform([2], seed, 0, 352, tf.int32)
    rolled = tf.roll(PICTURE, shift, [1, 2])
    expected_terms, expected = whole.value_and_gradient(rolled, seed)
    np.testing.assert_allclose(gradient, tf.roll(expected, -shift, [1, 2]), rtol=1e-3, atol=1e-10)
    for name in terms:
        np.testing.assert_allclose(terms[name], expected_terms[name], rtol=2e-2)
        np.testing.assert_allclose(tiled.evaluate(PICTURE)[name], whole.evaluate(PICTURE)[name], rtol=2e-2)


@pytest.fixture(scope="module", params=[True, False])
def pair(net, request):
    problems = []
    for tile in (0, 100):
        layers = Layers(("high",), ("low", "high"))
        problem = StyleProblem(net, layers, tv_weight=1e-4, relative=request.param, tile=tile)
        problem.set_content(PICTURE)
        problem.set_styles([STYLE, PICTURE[:, ::-1]], [3.0, 1.0])
        problems.append(problem)
    return problems


def test_style_in_tiles_has_the_value_and_gradient_of_the_whole(pair):
    whole, tiled = pair
    np.testing.assert_allclose(tiled.contents["high"], whole.contents["high"], atol=1e-5)
    for layer in whole.grams:
        np.testing.assert_allclose(tiled.grams[layer], whole.grams[layer], rtol=1e-4)
    x = tf.constant(PICTURE[:, ::-1] * 0.5)
    terms, gradient = tiled.value_and_gradient(x, None)
    expected_terms, expected = whole.value_and_gradient(x, tf.constant([0, 0]))
    assert list(terms) == list(expected_terms) == ["style low", "style high", "match high", "total_variation"]
    for name in terms:
        np.testing.assert_allclose(terms[name], expected_terms[name], rtol=1e-3)
        np.testing.assert_allclose(tiled.evaluate(x)[name], expected_terms[name], rtol=1e-3)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(gradient / scale, expected / scale, atol=1e-3)


def test_the_loop_runs_in_tiles(pair):
    whole, tiled = pair
    for run in (lambda p: minimize(p, PICTURE * 0.5, 3), lambda p: lbfgs(p, PICTURE * 0.5, 4)):
        np.testing.assert_allclose(run(tiled).value, run(whole).value, rtol=2e-3)


def test_normalized_gradients_need_the_whole(net):
    problem = StyleProblem(net, Layers(("high",), ("low",)), normalize_gradients=True, tile=100)
    problem.set_content(PICTURE)
    problem.set_styles([STYLE])
    with pytest.raises(InputError, match="normalize_gradients needs the whole picture"):
        minimize(problem, PICTURE, 1)
