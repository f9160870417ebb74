"""Each objective against its formula in NumPy; combining; gradients against finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from tfcnn.imageopt import IMAGE, objectives

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(2, 4, 5, 3)).astype(np.float32)
SCORES = RNG.normal(size=(2, 7)).astype(np.float32)
PICTURE = RNG.uniform(0, 255, (2, 6, 5, 3)).astype(np.float32)
ENDPOINTS = {"conv": tf.constant(FEATURES), "logits": tf.constant(SCORES), IMAGE: tf.constant(PICTURE)}


def roughness(picture, beta):
    total = np.zeros(len(picture))
    n, height, width, colours = picture.shape
    for i in range(n):
        for y in range(height):
            for x in range(width):
                for c in range(colours):
                    right = picture[i, y, min(x + 1, width - 1), c] - picture[i, y, x, c]
                    below = picture[i, min(y + 1, height - 1), x, c] - picture[i, y, x, c]
                    total[i] += max(right**2 + below**2, 1e-5) ** (beta / 2)
    return total / (height * width * colours)


def gram_by_loops(features):
    n, height, width, channels = features.shape
    gram = np.zeros((n, channels, channels))
    for a in range(channels):
        for b in range(channels):
            gram[:, a, b] = (features[..., a] * features[..., b]).sum((1, 2)) / (height * width * channels)
    return gram


TARGET = RNG.normal(size=(1, 4, 5, 3)).astype(np.float32)
GRAM = gram_by_loops(TARGET).astype(np.float32)
CASES = {
    "logit of one class": (objectives.logit(3), SCORES[:, 3]),
    "logit of each": (objectives.logit([1, 6]), SCORES[[0, 1], [1, 6]]),
    "logit of a map": (objectives.logit(2, "conv"), FEATURES[..., 2].mean((1, 2))),
    "cross-entropy": (
        objectives.cross_entropy([1, 6]),
        -np.log(np.exp(SCORES) / np.exp(SCORES).sum(1, keepdims=True))[[0, 1], [1, 6]],
    ),
    "channel": (objectives.channel("conv", 1), FEATURES[..., 1].mean((1, 2))),
    "neuron": (objectives.neuron("conv", 1, (3, 0)), FEATURES[:, 3, 0, 1]),
    "central neuron": (objectives.neuron("conv", 1), FEATURES[:, 2, 2, 1]),
    "neuron of each": (objectives.neuron("conv", [0, 2], (1, 4)), FEATURES[[0, 1], 1, 4, [0, 2]]),
    "channel of each": (objectives.channel("conv", [0, 2]), FEATURES[[0, 1], :, :, [0, 2]].mean((1, 2))),
    "mean square": (objectives.mean_square("conv"), (FEATURES**2).mean((1, 2, 3))),
    "match": (objectives.feature_match("conv", TARGET), ((FEATURES - TARGET) ** 2).mean((1, 2, 3))),
    "relative match": (
        objectives.feature_match("conv", TARGET, relative=True),
        ((FEATURES - TARGET) ** 2).sum((1, 2, 3)) / (TARGET**2).sum(),
    ),
    "style": (objectives.gram_match("conv", GRAM), ((gram_by_loops(FEATURES) - GRAM) ** 2).mean((1, 2))),
    "relative style": (
        objectives.gram_match("conv", GRAM, relative=True),
        ((gram_by_loops(FEATURES) - GRAM) ** 2).sum((1, 2)) / (GRAM**2).sum(),
    ),
    "total variation": (objectives.total_variation(), roughness(PICTURE, 2.0)),
    "total variation, beta 1": (objectives.total_variation(1.0), roughness(PICTURE, 1.0)),
    "alpha norm": (objectives.alpha_norm(4.0, (1, 2, 3)), (np.abs(PICTURE - [1, 2, 3]) ** 4).mean((1, 2, 3))),
    "l2": (objectives.l2((1, 2, 3)), ((PICTURE - [1, 2, 3]) ** 2).mean((1, 2, 3))),
    "distance": (objectives.distance(PICTURE[:1]), ((PICTURE - PICTURE[:1]) ** 2).mean((1, 2, 3))),
}


@pytest.mark.parametrize("case", CASES)
def test_value(case):
    objective, expected = CASES[case]
    np.testing.assert_allclose(objective(ENDPOINTS), expected, rtol=2e-5)


def test_flat_picture_has_no_roughness_and_a_finite_gradient():
    flat = tf.fill([1, 4, 4, 3], 9.0)
    for beta in (1.0, 2.0):
        with tf.GradientTape() as tape:
            tape.watch(flat)
            value = objectives.total_variation(beta)({IMAGE: flat})
        assert float(value[0]) <= 1e-5 ** (beta / 2)
        assert np.isfinite(tape.gradient(value, flat)).all()


def test_terms_combine_and_add_up():
    objective = 2.0 * (objectives.logit(3) - 0.5 * objectives.l2()) + objectives.mean_square("conv")
    terms = objective.evaluate(ENDPOINTS)
    np.testing.assert_allclose(terms["logits"], 2 * SCORES[:, 3], rtol=1e-6)
    np.testing.assert_allclose(terms["l2"], -((PICTURE - 127.5) ** 2).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(objective(ENDPOINTS), sum(terms.values()), rtol=1e-6)
    np.testing.assert_allclose((-objective)(ENDPOINTS), -objective(ENDPOINTS), rtol=1e-6)
    assert objective.layers == ["logits", "conv"]


def test_terms_of_one_name_are_numbered():
    objective = objectives.logit(1) + objectives.logit(2) + objectives.logit(3)
    assert [term.name for term in objective.terms] == ["logits", "logits 2", "logits 3"]


def test_half_precision_layers_give_float32_values():
    half = {"conv": tf.cast(FEATURES * 100, tf.float16)}
    value = objectives.mean_square("conv")(half)
    assert value.dtype == tf.float32 and np.isfinite(value).all()


@pytest.mark.parametrize("beta", [2.0, 1.5])
def test_gradient_of_total_variation(beta):
    picture = PICTURE[:1, :3, :3].astype(np.float64)
    with tf.GradientTape() as tape:
        x = tf.constant(picture, tf.float32)
        tape.watch(x)
        value = objectives.total_variation(beta)({IMAGE: x})
    slope = tape.gradient(value, x).numpy()
    for place in [(0, 0, 0, 0), (0, 2, 2, 1), (0, 1, 2, 2)]:
        up, down = picture.copy(), picture.copy()
        up[place] += 1e-3
        down[place] -= 1e-3
        difference = (roughness(up, beta) - roughness(down, beta)) / 2e-3
        np.testing.assert_allclose(slope[place], difference[0], rtol=1e-3)


@pytest.mark.parametrize("order", ["once", "twice", "minus"])
def test_a_variable_weight_may_change_later(order):
    """Also in a compiled function, and after further numbers."""
    weight = tf.Variable(2.0)
    score = objectives.logit(3)
    objective, factor = {
        "once": (score * weight, 1),
        "twice": (0.5 * ((3 * score) * weight) + 0.0 * score, 1.5),
        "minus": (-(score * weight), -1),
    }[order]
    value = tf.function(lambda: objective(ENDPOINTS))
    for now in (2.0, 5.0, 0.0):
        weight.assign(now)
        np.testing.assert_allclose(value(), now * factor * SCORES[:, 3], rtol=1e-6)


def test_a_variable_on_the_left_is_refused_since_its_value_would_be_frozen():
    with pytest.raises(RuntimeError, match=r"objective \* variable"):
        tf.Variable(2.0) * objectives.logit(3)
