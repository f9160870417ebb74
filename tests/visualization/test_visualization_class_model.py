"""Class models: his step against his program in NumPy, each method on a small net, natural statistics by hand."""

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from tfcnn.backbones import any_size
from tfcnn.imageopt import (
    Phase,
    Problem,
    maximize,
    minimize,
    objectives,
    optimizers,
    parameters,
    through,
)
from tfcnn.imageopt.objectives import feature_statistics
from tfcnn.visualization import class_model

ZERO = np.array([120.0, 110.0, 100.0], np.float32)
SIZE = 28


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(1)
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 60, -2)(image)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", name="stem")(x)
    x = keras.layers.ReLU(name="stem_relu")(keras.layers.BatchNormalization(name="stem_bn")(x))
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = keras.layers.BatchNormalization(name="depthwise_bn")(x)
    x = keras.layers.Conv2D(12, 3, padding="same", activation="swish", name="last")(x)
    logits = keras.layers.Dense(5, name="logits")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, {"logits": logits}, name="small")
    rng = np.random.default_rng(0)
    for name in ("stem_bn", "depthwise_bn"):
        layer = model.get_layer(name)
        layer.set_weights([rng.uniform(0.5, 1.5, np.shape(w)) for w in layer.get_weights()])
    return model


def ascents(net, objective):
    return {
        "simonyan": class_model.simonyan(net, objective, SIZE, ZERO, iterations=8, l2=1e-4),
        "yosinski": class_model.yosinski(net, objective, SIZE, ZERO, iterations=8, rate=5000.0, decay=0.01),
        "fourier": class_model.fourier(
            net, objective, SIZE, iterations=24, statistics=0.1, smooth=0.01, noise=2.0
        ),
    }


@pytest.mark.parametrize("name", ["simonyan", "yosinski", "fourier"])
def test_an_ascent_raises_each_class_and_a_batch_equals_its_members(net, name):
    def run(classes):
        ascent = ascents(net, objectives.logit(classes))[name]
        return ascent, ascent.run([10 + index for index in classes], seed=3)

    ascent, together = run([0, 3])
    assert together.image.shape == (2, SIZE, SIZE, 3)
    assert together.value.shape == (ascent.steps, 2)
    assert (together.terms["logits"][-1] > together.terms["logits"][0]).all()
    assert together.image.min() >= 0 and together.image.max() <= 255
    for position, index in enumerate([0, 3]):
        alone = run([index])[1]
        np.testing.assert_allclose(alone.image[0], together.image[position], atol=0.5)
        np.testing.assert_allclose(
            alone.terms["logits"][0, 0], together.terms["logits"][0, position], rtol=1e-4
        )


def test_simonyan_starts_at_the_zero_and_lambda_holds_it_there(net):
    free, held = (
        class_model.simonyan(net, objectives.logit(1), SIZE, ZERO, iterations=10, l2=l2).run([0]).image
        for l2 in (0.0, 1.0)
    )
    start = class_model.simonyan(net, objectives.logit(1), SIZE, ZERO).start([0]).numpy()
    np.testing.assert_array_equal(start, np.broadcast_to(ZERO, start.shape))
    assert np.abs(held - ZERO).mean() < 0.5 * np.abs(free - ZERO).mean()


def his_step(x, grad, t, last, lr, p):
    """optimize/gradient_optimizer.py, step 6, on one picture [H, W, 3] minus its mean; grad is up the score."""
    if t == last:
        return x
    x = x + lr * grad
    x = x * (1 - p["decay"])
    if p["blur_every"] and t % p["blur_every"] == 0:
        x = np.stack([scipy.ndimage.gaussian_filter(x[..., c], p["blur_radius"]) for c in range(3)], -1)
    x = np.where(abs(x) < np.percentile(abs(x), p["small_val_percentile"]), 0, x)
    norms = np.linalg.norm(x, axis=-1)
    x = np.where((norms < np.percentile(norms, p["small_norm_percentile"]))[..., None], 0, x)
    benefit = (grad * -x).sum(-1)
    x = np.where((benefit < np.percentile(benefit, p["px_benefit_percentile"]))[..., None], 0, x)
    benefit = abs((grad * -x).sum(-1))
    return np.where((benefit < np.percentile(benefit, p["px_abs_benefit_percentile"]))[..., None], 0, x)


@pytest.mark.parametrize("t", [0, 1, 4, 9])
@pytest.mark.parametrize("wanted", [None, 2.0])
def test_a_step_is_his(t, wanted):
    rng = np.random.default_rng(5)
    p = {
        "decay": 0.1,
        "blur_radius": 0.8,
        "blur_every": 4,
        "small_val_percentile": 10.0,
        "small_norm_percentile": 20.5,
        "px_benefit_percentile": 15.0,
        "px_abs_benefit_percentile": 30.0,
    }
    x, grad = rng.normal(size=(2, 9, 7, 3)) * 30, rng.normal(size=(2, 9, 7, 3))
    step = class_model.Regularized(tuple(ZERO.tolist()), 9, rate=3.0, progress=wanted, **p)
    ours, _ = step.update(
        tf.constant(x + ZERO, tf.float32), tf.constant(-grad, tf.float32), step.init(None), tf.constant(t)
    )
    for i in range(2):
        lr = 3.0 if wanted is None else min(3.0, wanted / (grad[i] ** 2).sum())
        np.testing.assert_allclose(ours[i] - ZERO, his_step(x[i], grad[i], t, 9, lr, p), atol=2e-3)


def test_starts(net):
    def start(where):
        return (
            class_model.yosinski(net, objectives.logit(0), SIZE, ZERO, start_at=where).start([4, 5]).numpy()
        )

    np.testing.assert_array_equal(start("mean")[0, 3, 3], ZERO)
    np.testing.assert_allclose(start("mean_plus_rand").std((1, 2)), 10.0, rtol=0.15)
    uniform = start("randu")
    assert uniform.min() < 10 and uniform.max() > 245 and np.abs(uniform[0] - uniform[1]).max() > 50


def test_feature_statistics_by_hand(net):
    objective = feature_statistics(net)
    assert objective.layers == ["stem_bn:input"], "batch norms behind dense convolutions only"
    norm = net.get_layer("stem_bn")
    mean, variance = np.array(norm.moving_mean), np.array(norm.moving_variance) + norm.epsilon
    maps = np.random.default_rng(2).normal(size=(2, 6, 5, 8)).astype(np.float32)
    m, v = maps.mean((1, 2)), maps.var((1, 2))
    expected = ((m - mean) ** 2 / variance + (np.sqrt(v / variance) - 1) ** 2).mean(-1)
    np.testing.assert_allclose(objective({"stem_bn:input": maps}), expected, rtol=1e-4)
    natural = (maps - m[:, None, None]) / np.sqrt(v)[:, None, None] * np.sqrt(variance) + mean
    np.testing.assert_allclose(objective({"stem_bn:input": natural.astype(np.float32)}), 0, atol=1e-4)


def test_a_net_without_batch_norm_has_no_statistics_and_one_of_one_size_is_shown_enlarged():
    image = keras.Input((16, 16, 3))
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, strides=4, activation="swish")(image))
    net = keras.Model(image, {"logits": keras.layers.Dense(3, name="logits")(x)}, name="dense")
    assert feature_statistics(net) is None and any_size(net) is None
    small = parameters.Enlarged(parameters.Pixels(), (8, 8), (16, 16))
    grey = np.full((1, 16, 16, 3), 77.0, np.float32)
    assert small.from_image(grey).shape == (1, 8, 8, 3)
    np.testing.assert_allclose(small.to_image(small.from_image(grey)), grey, rtol=1e-6)
    result = class_model.fourier(net, objectives.logit(2), 16, iterations=9, noise=1.0, smooth=0.0).run([0])
    assert result.image.shape == (1, 16, 16, 3)
    assert result.terms["logits"][-1, 0] > result.terms["logits"][0, 0]


def test_a_picture_of_few_pixels_stays_of_that_size(net):
    result = class_model.fourier(any_size(net), objectives.logit(2), 5, iterations=3).run([0])
    assert result.image.shape == (1, 5, 5, 3) and np.isfinite(result.image).all()


def test_any_size_keeps_the_weights(net):
    copy = any_size(net)
    picture = np.random.default_rng(0).uniform(0, 255, (1, SIZE, SIZE, 3)).astype(np.float32)
    np.testing.assert_allclose(copy(picture)["logits"], net(picture)["logits"], rtol=1e-5)
    assert copy(picture[:, :20, :12])["logits"].shape == (1, 5)
    assert any_size(copy) is copy


def test_phases_count_through_and_stop(net):
    problem = Problem(any_size(net), objectives.logit(0), optimizer=optimizers.Adam(1.0))
    seen = []
    phases = (Phase(problem, 2, 8), Phase(problem, 3, 12))
    start = np.full((1, 8, 8, 3), 90.0, np.float32)
    result = through(phases, start, maximize, callback=lambda m: seen.append((m.step, m.image().shape[1])))
    assert seen == [(1, 8), (2, 8), (3, 12), (4, 12), (5, 12)]
    assert result.image.shape == (1, 12, 12, 3) and len(result.history()) == 5
    assert through(phases, start, minimize).value[-1, 0] < result.value[-1, 0]
    assert len(through(phases, start, maximize, callback=lambda m: m.step == 1).history()) == 1


@pytest.mark.slow
def test_a_goldfish_is_one_to_the_net_it_was_made_on():
    from tfcnn.backbones import classifier

    net = classifier("efficientnet_lite0")
    image = class_model.fourier(net, objectives.logit(1), 224).run([1]).image
    scores = net(np.round(np.clip(image, 0, 255)))["scores"][0]
    assert scores[1] >= 0.99
