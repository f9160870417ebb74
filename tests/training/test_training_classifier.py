import dataclasses
import json

import keras
import numpy as np
import pytest
import small_training as small
import tensorflow as tf

from tfcnn.errors import InputError
from tfcnn.training.classifier import Classifier, ClassifierConfig, rank, train_classifier


class Fixed(keras.layers.Layer):
    """Gives the same logits for every picture."""

    def call(self, image):
        return tf.tile(tf.constant([[2.0, 1.0, 0.0]]), [tf.shape(image)[0], 1])


def fixed():
    image = keras.Input((small.SIDE, small.SIDE, 3))
    return keras.Model(image, {"logits": Fixed()(image)})


def batch(labels):
    return {
        "image": np.zeros((len(labels), small.SIDE, small.SIDE, 3), np.float32),
        "label": np.int32(labels),
    }


def test_figures_by_hand():
    """Softmax of (2, 1, 0) is (.6652, .2447, .0900); a label of -1 pads."""
    trainee = Classifier(fixed(), lambda: [batch([0, 1, 0, -1]), batch([2, -1])], list("abc"))
    figures = trainee.validate()
    assert figures["top1"] == 0.5
    assert figures["loss"] == pytest.approx(-np.log([0.6652, 0.2447, 0.6652, 0.0900]).mean(), abs=1e-3)
    assert "top5" not in figures


def test_losses_are_sums_and_smoothing_spreads_a_label():
    plain = Classifier(fixed(), None, list("abc")).losses(batch([0, 1]))
    assert float(plain["softmax"]) == pytest.approx(-np.log(0.6652) - np.log(0.2447), abs=1e-3)
    smooth = Classifier(fixed(), None, list("abc"), smoothing=0.3).losses(batch([0]))
    expected = -(0.8 * np.log(0.6652) + 0.1 * np.log(0.2447) + 0.1 * np.log(0.09))
    assert float(smooth["softmax"]) == pytest.approx(expected, abs=1e-3)


def test_the_sheet_shows_real_pictures_only():
    trainee = Classifier(fixed(), lambda: [batch([0, 1, -1, -1])], list("abc"))
    (sheet,) = trainee.pictures()
    assert sheet.dtype == np.uint8 and sheet.shape[1] == 4 + 2 * (small.SIDE + 4)  # two cells in a row


def test_a_net_that_says_nothing_is_not_right():
    image = keras.Input((small.SIDE, small.SIDE, 3))
    silent = keras.Model(image, {"logits": keras.layers.Rescaling(0.0)(Fixed()(image))})
    assert Classifier(silent, lambda: [batch([0, 1, 2, 2])], list("abc")).validate()["top1"] == 0.25


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_wrong_answers(bad):
    scores = np.zeros((2, 12), np.float32)
    scores[0, 3] = bad
    scores[1, 2] = 1.0
    assert rank(scores, np.array([3, 2])).tolist() == [12, 0]


def test_a_net_of_nans_is_right_nowhere():
    image = keras.Input((small.SIDE, small.SIDE, 3))
    broken = keras.Model(image, {"logits": keras.layers.Rescaling(np.nan)(Fixed()(image))})
    figures = Classifier(broken, lambda: [batch([0, 1, 2])], list("abc")).validate()
    assert figures["top1"] == 0.0 and np.isnan(figures["loss"])


def test_a_split_without_a_readable_picture_is_said():
    with pytest.raises(InputError, match="No picture of the validation split can be read"):
        Classifier(fixed(), lambda: [batch([-1, -1])], list("abc")).validate()


@pytest.fixture(scope="module")
def stripes():
    """Twelve pictures of stripes a class: lying, or upright."""
    from tfcnn.datasets.example import Dataset, Record

    rng = np.random.default_rng(0)
    records = []
    for k in range(24):
        wave = np.sin(np.arange(32) * rng.uniform(0.4, 0.9) + rng.uniform(0, 6)) * 100 + 128
        grey = np.broadcast_to(np.expand_dims(wave, k % 2), (32, 32))
        image = np.repeat(grey[..., None], 3, 2).astype(np.uint8)
        records.append(Record(k, f"{k}.png", 32, 32, lambda image=image: image, label=k % 2))
    return Dataset("stripes", ["upright", "lying"], [1, 2], records)


def test_a_classifier_is_trained_from_python_with_a_config_and_a_folder(stripes, tmp_path):
    from tfcnn import backbones

    said, shown, done = [], [], []
    model = backbones.classifier("tiny", None, classes=2, size=32)
    config = ClassifierConfig(epochs=20, batch_size=8, augment="none", validate_epochs=0, average=0.5)
    trained = train_classifier(
        model,
        stripes,
        stripes,
        config,
        tmp_path,
        say=said.append,
        show=lambda image, name, title: shown.append((name, image.dtype, image.ndim)),
        progress=lambda step, numbers: done.append((step, numbers["steps"], numbers["what"])),
    )
    assert trained.metrics["best"] == trained.metrics["last"] and trained.metrics["best"]["top1"] == 1.0
    assert trained.release == tmp_path / "release" and trained.unreadable == {}
    card = json.loads((trained.release / "card.json").read_text())
    assert card == trained.card
    assert (
        card["kind"] == "classifier" and card["classes"] == ["upright", "lying"] and card["image_size"] == 32
    )
    assert card["command"] == repr(config) and card["metrics"] == trained.metrics
    assert said == ["no layer with kernels is frozen; batch norm is live."]
    assert shown == [("first_batch", np.uint8, 3), ("answers", np.uint8, 3)]
    assert done[0] == (0, 60, "training") and done[-1] == (60, 60, "training")
    again = train_classifier(model, stripes, stripes, config, tmp_path, say=said.append)
    assert again.result.trained == 0 and again.metrics == trained.metrics


def test_other_classes_in_a_run_that_goes_on_are_said_before_any_work(stripes, tmp_path):
    from tfcnn import backbones

    config = ClassifierConfig(steps=1, batch_size=8, augment="none", validate_epochs=0)
    quiet = {"say": lambda text: None}
    train_classifier(
        backbones.classifier("tiny", None, classes=2, size=32), stripes, stripes, config, tmp_path, **quiet
    )
    renamed = dataclasses.replace(stripes, classes=["upright", "flat"])
    shown = []
    with pytest.raises(InputError, match="class lying is gone, class flat is new"):
        train_classifier(
            backbones.classifier("tiny", None, classes=2, size=32),
            renamed,
            renamed,
            dataclasses.replace(config, steps=2),
            tmp_path,
            show=lambda *picture: shown.append(picture),
            **quiet,
        )
    assert not shown


def test_a_single_class_is_said(stripes, tmp_path):
    from tfcnn import backbones

    one = dataclasses.replace(stripes, classes=["lying"], examples=stripes.examples[1::2])
    for record in one.examples:
        record.label = 0
    said = []
    config = ClassifierConfig(steps=1, batch_size=4, augment="none", validate_epochs=0)
    model = backbones.classifier("tiny", None, classes=1, size=32)
    train_classifier(model, one, one, config, tmp_path, say=said.append)
    assert any("one class only, lying" in sentence for sentence in said)


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 2**31},
        {"seed": -1},
        {"average": 1.0},
        {"batch_size": 0},
        {"steps": 0},
        {"learning_rate": np.nan},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_setting_out_of_range_is_said(fields):
    with pytest.raises(InputError, match=f"{next(iter(fields))} is .* must be"):
        ClassifierConfig(**fields)


def test_a_cache_has_mirror_images_as_augment_says_and_no_more(stripes, tmp_path, monkeypatch):
    from tfcnn import backbones
    from tfcnn.training import last_layer

    model = backbones.classifier("tiny", None, classes=2, size=32)
    monkeypatch.setattr(last_layer.freezing, "trained_layers", lambda model: {"conv1", "logits"})
    mirrors = []

    def cache(body, part, folder, config, size, mirror, **_):
        mirrors.append(mirror)
        raise InterruptedError

    monkeypatch.setattr(last_layer, "cache", cache)
    told = {"stop": None, "progress": None, "say": print}
    for augment in (None, "none", "flip"):
        config = ClassifierConfig(cache_features=str(tmp_path), augment=augment)
        with pytest.raises(InterruptedError):
            last_layer.on_features(model, stripes, stripes, config, 32, **told)
    assert mirrors == [True, False, True]
    config = ClassifierConfig(cache_features=str(tmp_path), augment="classification")
    with pytest.raises(InputError, match="augment can be none or flip"):
        last_layer.on_features(model, stripes, stripes, config, 32, **told)


def test_epochs_become_steps():
    config = ClassifierConfig(epochs=1.5, accumulate=2, validate_epochs=0.5)
    assert (config.total_steps(8), config.validation_steps(8)) == (6, 2)
    assert dataclasses.replace(config, steps=7).total_steps(8) == 7


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"optimizer": "adam"}, "unknown optimizer 'adam'; the nearest are adamw"),
        ({"augment": "fliip"}, "unknown augment 'fliip'"),
        ({"freeze": ["*"]}, "freezes every layer"),
        ({"freeze": ["conv9"]}, "unknown layer or endpoint to freeze 'conv9'"),
        ({"resize": "fit"}, "a classifier sees one"),
        ({"cache_features": "nowhere"}, "random features teach nothing"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_setting_that_cannot_be_is_said_before_any_work(stripes, tmp_path, fields, words):
    from tfcnn import backbones

    model = backbones.classifier("tiny", None, classes=2, size=32)
    with pytest.raises(InputError, match=words):
        train_classifier(model, stripes, stripes, ClassifierConfig(steps=1, **fields), tmp_path, say=print)
    assert not list(tmp_path.glob("*.jsonl"))
