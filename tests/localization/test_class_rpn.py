"""ResNet's localizer by hand: anchors of each class, the loss of the picture's own class, and any size of picture."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcnn
from tfcnn import backbones
from tfcnn.datasets import shapes
from tfcnn.errors import InputError
from tfcnn.localization import LocalizerConfig, class_rpn, heads, train_localizer, with_class_rpn
from tfcnn.localization.class_rpn import AnchorWindow, BestAnchors

CLASSES, SIZE = 3, 64


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(2)
    return with_class_rpn(backbones.classifier("tiny", None, classes=CLASSES, size=SIZE), channels=8)


def layer(**options):
    return BestAnchors(**{"classes": 2, "sizes": [16], "ratios": [1.0], "size": 32, "stride": 16} | options)


def test_the_best_anchor_of_each_class_by_hand():
    """A 2 x 2 map of anchors of 16 pixels. Class 0 answers at the upper right, class 1 at the lower left, moved by a
    quarter of its width."""
    logits, offsets = np.zeros((1, 2, 2, 2), np.float32), np.zeros((1, 2, 2, 2, 4), np.float32)
    logits[0, 0, 1, 0] = logits[0, 1, 0, 1] = 5
    offsets[0, 1, 0, 1, 0] = 0.25
    boxes = layer()([logits, offsets.reshape(1, 2, 2, 8)])
    np.testing.assert_allclose(boxes[0], [[0.5, 0, 1, 0.5], [0.125, 0.5, 0.625, 1]], atol=1e-6)


def test_only_the_pictures_own_class_is_in_the_loss():
    """Logits 0 give log 2, whatever class; those of the other class change nothing, and no object no loss."""
    logits, offsets = np.zeros((2, 2, 2, 2), np.float32), np.zeros((2, 2, 2, 8), np.float32)
    truth, present = tf.constant([[[0.5, 0, 1, 0.5]], [[0, 0, 0, 0]]]), tf.constant([[True], [False]])
    label, seed = tf.constant([1, 0]), tf.constant([1, 2])

    def loss():
        found = {"objectness": tf.constant(logits), "offsets": tf.constant(offsets)}
        return class_rpn.losses(layer(), found, truth, present, label, seed).numpy()

    np.testing.assert_allclose(loss(), [np.log(2), 0], atol=1e-5)
    logits[..., 0] = 7
    np.testing.assert_allclose(loss(), [np.log(2), 0], atol=1e-5)
    logits[0, ..., 1], logits[0, 0, 1, 1] = -20, 20  # one anchor is the object, three are not
    np.testing.assert_allclose(loss(), [0, 0], atol=1e-5)


def test_it_is_a_localizer_with_a_box_a_class(model):
    assert heads.form(model) == heads.Form("rpn", CLASSES, 1)
    assert heads.box_layers(model) == {"box_conv", "box_objectness", "box_offsets"}
    picture = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    (guesses,) = tfcnn.localizer(model, top=2)([picture])
    assert len(guesses) == 2 and (guesses.boxes[:, 2:] > guesses.boxes[:, :2]).all()


def test_a_saved_one_gives_the_same_boxes(model, tmp_path):
    model.save(tmp_path / "net.keras")
    picture = np.random.default_rng(0).uniform(0, 255, (1, SIZE, SIZE, 3)).astype(np.float32)
    again = tfcnn.load_model(tmp_path / "net.keras")
    np.testing.assert_allclose(again(picture)["boxes"], model(picture)["boxes"], atol=1e-5)


def test_anchors_of_a_larger_picture(model):
    """At the net's own size the best anchor of a class is the model's box; at 64 x 128 there are twice the anchors."""
    window = AnchorWindow(model)
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    looks = window(image, SIZE)
    assert looks.size == (64, 64) and looks.scores.shape == (2 * 2 * 9, 1, CLASSES)
    own = model(image[None].astype(np.float32))
    for label in range(CLASSES):
        boxes, scores = looks.of_class(label)
        expected = np.clip(own["boxes"][0, label] * SIZE, 0, SIZE)
        np.testing.assert_allclose(boxes[scores.argmax()], expected, atol=1e-2)
    assert (looks.scores.max(axis=0)[0] <= own["scores"][0].numpy() + 1e-6).all()
    wide = window(np.repeat(image, 2, axis=1), SIZE, flip=True)
    assert wide.size == (64, 128) and len(wide.scores) == 2 * len(looks.scores)


def test_a_handful_of_shapes_is_learned(tmp_path):
    """One shape a picture, eight of them: the boxes of the ground-truth classes lie on them at the end."""
    data = shapes.read(count=60, side=64)
    data = dataclasses.replace(data, examples=[r for r in data.examples if len(r.boxes) == 1][:8])
    net = with_class_rpn(backbones.classifier("tiny", None, classes=5, size=64), channels=32)
    config = LocalizerConfig(
        tensorboard=False,
        validate_epochs=0,
        batch_size=8,
        steps=120,
        average=0.9,
        fine_tune=True,
        optimizer="adamw",
        learning_rate=3e-3,
        warmup=10,
        augment="none",
        classifier_epochs=0,
    )
    trained = train_localizer(net, data, data, config, tmp_path, say=lambda sentence: None)
    assert trained.metrics["last"]["mean_iou"] > 0.6, trained.metrics


def test_another_model_is_refused():
    with pytest.raises(InputError, match="no localizer"):
        AnchorWindow(backbones.classifier("tiny", None, classes=3, size=64))
    with pytest.raises(InputError, match="no one square size"):
        with_class_rpn(backbones.classifier("tiny", None, classes=3, size=(None, None)))
