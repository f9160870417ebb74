"""Scores and what they were before softmax, of classifiers that end in every usual way."""

import keras
import numpy as np
import pytest

from tfcnn.backbones.graph import tap
from tfcnn.backbones.heads import with_logits
from tfcnn.errors import InputError

layers = keras.layers


def base():
    image = keras.Input((12, 12, 3))
    return image, layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(image))


def ends():
    """Each way to end, with the squashing function that its scores are of."""
    image, x = base()
    yield "dense", keras.Model(image, layers.Dense(5, activation="softmax")(x)), keras.ops.softmax
    yield "layer", keras.Model(image, layers.Softmax()(layers.Dense(5)(x))), keras.ops.softmax
    yield (
        "activation",
        keras.Model(image, layers.Activation("softmax")(layers.Dense(5)(x))),
        keras.ops.softmax,
    )
    yield "sigmoid", keras.Model(image, layers.Dense(5, activation="sigmoid")(x)), keras.ops.sigmoid
    yield "logits", keras.Model(image, layers.Dense(5)(x)), None
    yield "dict", keras.Model(image, {"answer": layers.Dense(5, activation="softmax")(x)}), keras.ops.softmax
    inner = keras.Sequential([keras.Input((400,)), layers.Dense(5, activation="softmax")])
    yield "nested", keras.Model(image, inner(x)), keras.ops.softmax
    stack = [keras.Input((12, 12, 3)), layers.Flatten(), layers.Dense(5, activation="softmax")]
    yield "sequential", keras.Sequential(stack), keras.ops.softmax


@pytest.mark.parametrize("end", [name for name, *_ in ends()])
def test_scores_are_the_models_own_and_logits_lie_before_them(end):
    model, squash = {name: rest for name, *rest in ends()}[end]
    pictures = np.random.default_rng(0).normal(size=(3, 12, 12, 3)).astype(np.float32)
    both = with_logits(model)(pictures)
    (own,) = keras.tree.flatten(model(pictures))
    if squash is None:
        assert np.allclose(both["logits"], own, atol=1e-6)
        assert np.allclose(both["scores"], keras.ops.softmax(own), atol=1e-6)
    else:
        assert np.allclose(both["scores"], own, atol=1e-6)
        assert np.allclose(squash(both["logits"]), own, atol=1e-6)
        assert not np.allclose(both["logits"], own, atol=1e-2)
    assert set(both) == {"logits", "scores"}


def test_the_last_layer_is_found_by_its_own_name():
    image, x = base()
    model = keras.Model(image, layers.Dense(5, activation="softmax", name="answer")(x))
    pictures = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)
    tapped = tap(with_logits(model), ["answer", "answer_logits"])(pictures)
    assert np.allclose(tapped["answer"], model(pictures), atol=1e-6)
    assert np.allclose(keras.ops.softmax(tapped["answer_logits"]), tapped["answer"], atol=1e-6)


def test_a_model_with_both_is_left_alone_and_others_are_refused():
    image, x = base()
    logits = layers.Dense(5)(x)
    both = keras.Model(image, {"logits": logits, "scores": layers.Softmax()(logits)})
    assert with_logits(both) is both
    with pytest.raises(InputError, match="2 outputs"):
        with_logits(keras.Model(image, [logits, x]))
    with pytest.raises(InputError, match="no classifier"):
        with_logits(keras.Model(image, layers.Conv2D(2, 3)(image)))
    hidden = layers.Dropout(0.5)(layers.Dense(5, activation="softmax")(x))
    hiding = keras.Model(image, hidden)
    with pytest.raises(InputError, match="probabilities"):
        with_logits(hiding)
    scores_only = with_logits(hiding, may_hide=True)
    assert set(scores_only.output) == {"scores"}
    with pytest.raises(InputError, match="probabilities"):
        with_logits(scores_only)


def test_a_head_of_one_unit_is_two_classes_by_the_sigmoid():
    image, x = base()
    pictures = np.random.default_rng(0).normal(size=(3, 12, 12, 3)).astype(np.float32)
    z = layers.Dense(1)(x)
    dense = layers.Dense(1, activation="sigmoid")
    answers = {
        "logit": (keras.Model(image, z), keras.Model(image, keras.ops.sigmoid(z))),
        "layer": (keras.Model(image, layers.Activation("sigmoid")(z)),) * 2,
        "operation": (keras.Model(image, keras.ops.sigmoid(z)),) * 2,
        "dense": (keras.Model(image, dense(x)),) * 2,
    }
    for end, (model, probability) in answers.items():
        both = with_logits(model)(pictures)
        p = keras.ops.convert_to_numpy(probability(pictures))
        np.testing.assert_allclose(both["scores"], np.concatenate([1 - p, p], -1), atol=1e-6, err_msg=end)
        np.testing.assert_allclose(both["logits"][:, 0], -both["logits"][:, 1], err_msg=end)
        np.testing.assert_allclose(both["scores"], keras.ops.sigmoid(both["logits"]), atol=1e-6, err_msg=end)


def test_hidden_sigmoids_are_probabilities_too():
    image, x = base()
    pictures = np.random.default_rng(0).normal(size=(3, 12, 12, 3)).astype(np.float32)
    for units in (1, 4):
        hiding = keras.Model(image, layers.Dropout(0.5)(layers.Dense(units, activation="sigmoid")(x)))
        own = keras.ops.convert_to_numpy(hiding(pictures))
        with pytest.raises(InputError, match="hides what they were before softmax or sigmoid"):
            with_logits(hiding)
        scores = with_logits(hiding, may_hide=True)(pictures)["scores"]
        expected = np.concatenate([1 - own, own], -1) if units == 1 else own
        np.testing.assert_allclose(scores, expected, atol=1e-6)
    passed_on = keras.Model(image, layers.Activation("linear", dtype="float32")(layers.Dense(5)(x)))
    assert set(with_logits(passed_on).output) == {"logits", "scores"}
