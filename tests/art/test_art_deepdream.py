"""The dream's steps by hand, its octaves, its guide, its film."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcnn.art import deepdream
from tfcnn.errors import InputError

PICTURE = np.random.default_rng(0).uniform(60, 200, (64, 80, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", activation="swish", name="low")(x)
    y = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="swish", name="high")(x)
    return keras.Model(image, {"low": x, "high": y}, name="small")


def test_a_step_is_the_lectures(net):
    problem = deepdream.problem(net, deepdream.objective({"high": 1.0}), jitter=0, step_size=1.5)
    result = deepdream.dream(problem, PICTURE, steps=1, octave_n=1)
    x = tf.constant(PICTURE[None])
    with tf.GradientTape() as tape:
        tape.watch(x)
        features = net(x)["high"]
    gradient = tape.gradient(features, x, output_gradients=features)[0].numpy()  # objective_L2
    expected = np.clip(PICTURE + 1.5 * gradient / np.abs(gradient).mean(), 0, 255)
    np.testing.assert_allclose(result.image, expected, atol=1e-3)


def test_the_value_rises_at_every_octave_and_detail_is_carried_over(net):
    entries = []
    what = deepdream.objective({"high": 1.0, "low": 0.5})
    dream = deepdream.dream(
        deepdream.problem(net, what, jitter=4), PICTURE, steps=5, octave_n=3, callback=entries.append
    )
    assert dream.history == entries and [e["step"] for e in entries] == list(range(1, 16))
    assert [e["octave"] for e in entries] == [1] * 5 + [2] * 5 + [3] * 5
    for entry in entries:
        assert entry["value"] == pytest.approx(entry["high"] + entry["low"], rel=1e-5)
    assert [(o["height"], o["width"]) for o in dream.octaves] == [(33, 41), (46, 57), (64, 80)]
    assert all(octave["after"] > octave["before"] for octave in dream.octaves)
    alone = deepdream.dream(deepdream.problem(net, what, jitter=4), PICTURE, steps=5, octave_n=1)
    assert dream.octaves[-1]["before"] > 1.02 * alone.octaves[0]["before"], "nothing was carried over"
    assert 0 <= dream.image.min() and dream.image.max() <= 255 and dream.image.shape == PICTURE.shape


def test_channels_alone_are_raised(net):
    what = deepdream.objective({"high": 1.0}, [2, 5])
    dream = deepdream.dream(deepdream.problem(net, what, jitter=0), PICTURE, steps=8, octave_n=1)
    before, after = (
        tf.reduce_mean(net(x[None])["high"] ** 2, [0, 1, 2]).numpy() for x in (PICTURE, dream.image)
    )
    assert dream.final["high:2,5"] == pytest.approx(after[[2, 5]].mean(), rel=1e-4)
    assert after[[2, 5]].mean() > 1.5 * before[[2, 5]].mean()


def test_the_guides_vector_of_largest_product_is_the_gradient(net):
    guide_picture = np.random.default_rng(1).uniform(0, 255, (1, 20, 24, 3)).astype(np.float32)
    guide = net(guide_picture)
    (term,) = deepdream.guided_objective({"high": 1.0}, guide).terms
    features = tf.constant(np.random.default_rng(2).normal(size=(1, 3, 4, 8)).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(features)
        value = term.function({"high": features})
    gradient = tape.gradient(value, features).numpy() * features.shape[1] * features.shape[2]
    vectors = guide["high"].numpy().reshape(-1, 8)
    for row in range(3):
        for column in range(4):
            wanted = vectors[np.argmax(vectors @ features[0, row, column].numpy())]
            np.testing.assert_allclose(gradient[0, row, column], wanted, rtol=1e-4)


def test_a_guided_dream_ends_nearer_to_the_guide(net):
    guide_picture = np.zeros((1, 40, 40, 3), np.float32)
    guide_picture[:, ::4, :, 0] = 255
    guide = net(guide_picture)
    ends = []
    for what in (deepdream.guided_objective({"high": 1.0}, guide), deepdream.objective({"high": 1.0})):
        dream = deepdream.dream(deepdream.problem(net, what, jitter=2), PICTURE, steps=10, octave_n=2)
        ends.append(deepdream.guide_similarity(net(dream.image[None])["high"], guide["high"]))
    assert ends[0] > ends[1] + 0.02


def test_a_dream_in_tiles_covers_all_of_the_picture(net):
    what = deepdream.objective({"high": 1.0})
    start = np.random.default_rng(3).normal(120, 2, (100, 130, 3)).astype(np.float32)
    dream = deepdream.dream(deepdream.problem(net, what, tile=40), start, steps=6, octave_n=1)
    changed = np.abs(dream.image - start).mean(-1)
    assert (changed.reshape(10, 10, 13, 10).mean((1, 3)) > 0.4 * changed.mean()).all()
    assert dream.octaves[0]["after"] > dream.octaves[0]["before"]


def test_octaves_too_small_are_refused_with_what_would_do(net):
    with pytest.raises(InputError, match=r"30x20 pixels has no 4 octaves.*11x7, below 16.*at least 44"):
        deepdream.octave_sizes(20, 30, 4, 1.4)
    assert deepdream.octave_sizes(44, 66, 4, 1.4)[0] == (16, 24)


def test_the_zoom_goes_into_the_last_dream(net):
    problem = deepdream.problem(net, deepdream.objective({"low": 1.0}), jitter=0)
    dreams = list(deepdream.zoom(problem, PICTURE, 3, zoom=0.25, steps=1, octave_n=1))
    assert len(dreams) == 3
    problem = deepdream.problem(net, deepdream.objective({"low": 1.0}), jitter=0, step_size=0.0)
    _, second = deepdream.zoom(problem, PICTURE, 2, zoom=0.5, steps=1, octave_n=1)
    middle = tf.image.resize(PICTURE[16:48, 20:60], (64, 80)).numpy()
    assert np.corrcoef(middle.ravel(), second.image.ravel())[0, 1] > 0.8


def test_unclipped_dreams_are_shown_below_white():
    assert np.percentile(deepdream.shown(PICTURE * 7), 99.98) == pytest.approx(255)


def test_the_layers_that_dream_well_exist():
    from tfcnn.backbones import backbone, tap

    tap(backbone("efficientnet_lite0", weights=None), list(deepdream.LAYERS["efficientnet_lite0"]))
