"""Adversarial training on stripes: what is attacked, what is learned, and what it costs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from fooling_nets import curved_net, linear_net, pictures

from tfcnn import fooling
from tfcnn.backbones.heads import with_logits
from tfcnn.datasets.mnist import pictures as as_dataset
from tfcnn.errors import InputError
from tfcnn.fooling import defence
from tfcnn.training import ClassifierConfig, train_classifier

EPS = 24.0


def test_perturbed_is_fgsm():
    model, images = curved_net(), pictures()
    labels = model.predict(images.astype(np.float32), verbose=0).argmax(axis=1).astype(np.int32)
    expected = fooling.attack(model, images, labels, "fgsm", eps=5).images
    made = defence.perturbed(with_logits(model), tf.constant(images, tf.float32), labels, 5.0).numpy()
    assert (np.rint(made) != expected).mean() < 0.01  # signs of gradients near 0


def test_steps_stay_in_the_ball_and_do_more_than_one():
    model, images = curved_net(), pictures(4, low=0, high=256)
    net = with_logits(model)
    labels = model.predict(images.astype(np.float32), verbose=0).argmax(axis=1).astype(np.int32)
    x = tf.constant(images, tf.float32)

    def loss(found):
        logits = net(found)["logits"]
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits).numpy()

    one = defence.perturbed(net, x, labels, 12.0)
    many = defence.perturbed(net, x, labels, 12.0, 10, 3.0, tf.constant([1, 2]))
    for found in (one, many):
        assert (
            np.abs(found - x).max() <= 12 + 1e-4 and found.numpy().min() >= 0 and found.numpy().max() <= 255
        )
    assert loss(many).mean() > 0.95 * loss(one).mean() > loss(x).mean()


def test_the_loss_is_the_papers_mixture():
    """Of a linear net the attacked loss is known: each logit difference moves by eps times the L1 norm."""
    model, w = linear_net(classes=2)
    images, labels = pictures(3), np.array([0, 1, 1], np.int32)
    config = defence.RobustConfig(eps=2.0, clean_share=0.25)
    trainee = defence.RobustClassifier(with_logits(model), None, ["a", "b"], config=config)
    batch = {
        "image": tf.constant(images, tf.float32),
        "label": tf.constant(labels),
        "seed": tf.constant([0, 0]),
    }
    losses = trainee.losses(batch)
    logits = images.reshape(3, -1) / 255 @ w
    lead = np.where(labels == 0, 1, -1) * (logits[:, 0] - logits[:, 1])
    worst = lead - 2 / 255 * np.abs(w[:, 0] - w[:, 1]).sum()
    np.testing.assert_allclose(losses["clean"], 0.25 * np.log1p(np.exp(-lead)).sum(), rtol=1e-4)
    np.testing.assert_allclose(losses["attacked"], 0.75 * np.log1p(np.exp(-worst)).sum(), rtol=1e-4)


def test_answers_that_are_not_finite_are_right_nowhere():
    model, _ = linear_net(classes=2)
    broken = keras.Model(model.input, keras.layers.Rescaling(np.nan)(model.output))
    batch = {"image": pictures(3), "label": np.zeros(3, np.int32)}
    trainee = defence.RobustClassifier(
        with_logits(broken), lambda: [batch], ["a", "b"], config=defence.RobustConfig(eps=2.0)
    )
    assert trainee.validate()["robust_top1"] == 0.0


def test_no_gradient_flows_through_the_attack():
    net = with_logits(curved_net())
    config = defence.RobustConfig(eps=4.0, clean_share=0.0, attack="pgd", attack_steps=2)
    trainee = defence.RobustClassifier(net, None, list("abcd"), config=config)
    batch = {"image": tf.constant(pictures(2), tf.float32), "label": tf.constant([0, 1])}
    with tf.GradientTape() as tape:
        total = trainee.losses(batch | {"seed": tf.constant([3, 4])})["attacked"]
    found = tape.gradient(total, net.trainable_variables)
    step = 2.5 * 4.0 / 2
    fixed = defence.perturbed(net, batch["image"], batch["label"], 4.0, 2, step, tf.constant([3, 4]))
    with tf.GradientTape() as tape:
        expected = trainee.cross_entropy(net(fixed)["logits"], batch["label"])
    for one, other in zip(found, tape.gradient(expected, net.trainable_variables), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def data():
    """Stripes, upright or lying, and of a brightness that gives the class away but can be attacked."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 320)
    grey = np.zeros([320, 16, 16])
    for picture, label in zip(grey, labels, strict=True):
        wave = 70 * np.sin(np.arange(16) * random.uniform(0.7, 1.3) + random.uniform(0, 6))
        picture[:] = wave[:, None] if label else wave[None]
    pixels = np.clip(
        128 + grey + random.normal(0, 12, grey.shape) + 8 * (labels[:, None, None] - 0.5), 0, 255
    )
    pixels = pixels.astype(np.uint8)[..., None]
    parts = (slice(0, 240), slice(240, None))
    return [as_dataset("stripes", "all", pixels[part], labels[part], ["lying", "upright"]) for part in parts]


def small_net():
    keras.utils.set_random_seed(1)
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 5, strides=2, activation="relu")(
        keras.layers.Rescaling(1 / 128, offset=-1)(image)
    )
    x = keras.layers.Conv2D(8, 3, activation="relu")(x)
    logits = keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(x))
    return keras.Model(image, {"logits": logits})


def test_training_halves_the_error_under_the_attack(data, tmp_path):
    options = {"steps": 120, "batch_size": 24, "augment": "none", "learning_rate": 3e-3, "tensorboard": False}
    options |= {"validate_epochs": 0, "average": 0.0}
    labels = np.array([record.label for record in data[1].examples], np.int32)
    images = np.stack([record.image() for record in data[1].examples])
    errors = {}
    for name in ("plain", "robust"):
        model, told = small_net(), {"say": lambda line: None}
        if name == "plain":
            train_classifier(model, *data, ClassifierConfig(**options), tmp_path / name, **told)
        else:
            config = defence.RobustConfig(**options, eps=EPS)
            trained = defence.train_robust(model, *data, config, tmp_path / name, **told)
            assert trained.metrics["best"]["robust_top1"] > 0.8 and {"top1", "loss"} <= set(
                trained.metrics["last"]
            )
        attacked = defence.perturbed(model, tf.constant(images, tf.float32), labels, EPS)
        errors[name] = [
            (model(x)["logits"].numpy().argmax(1) != labels).mean() for x in (images * 1.0, attacked)
        ]
    assert errors["plain"][0] < 0.05 and errors["robust"][0] < 0.05
    assert errors["robust"][1] < 0.5 * errors["plain"][1], errors


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attack": "cw"}, "fgsm"),
        ({"eps": 0.0}, "above 0"),
        ({"clean_share": 1.5}, "0 to 1"),
        ({"attack_steps": 0}, "at least 1"),
        ({"cache_features": "here"}, "no features"),
    ],
)
def test_settings_that_cannot_be_are_said(options, words):
    with pytest.raises(InputError, match=words):
        defence.RobustConfig(**options)
