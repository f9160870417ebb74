"""The box head: where it begins, what it gives, and what it reads."""

import keras
import numpy as np
import pytest

from tfcnn import backbones
from tfcnn.errors import InputError
from tfcnn.localization import heads
from tfcnn.localization.heads import with_box_head

PICTURES = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)


def small():
    """A net with two hidden dense layers, as AlexNet and VGG have: map 8 x 8 x 6, then 10 and 7 units."""
    image = keras.Input((64, 64, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(6, 8, strides=8, activation="relu", name="conv")(x)
    x = keras.layers.Dense(10, activation="relu", name="fc6")(keras.layers.Flatten()(x))
    x = keras.layers.Dense(7, name="fc7")(keras.layers.Dropout(0.5)(x))
    x = keras.layers.Dropout(0.5)(keras.layers.ReLU(name="relu7")(x))
    logits = keras.layers.Dense(3, name="classes")(x)
    return keras.Model(image, {"logits": logits, "scores": keras.layers.Softmax()(logits)}, name="small")


def tiny():
    return backbones.classifier("tiny", None, classes=5, size=64)


@pytest.mark.parametrize(
    "options, kind, shape",
    [
        ({}, "agnostic", (2, 4)),
        ({"per_class": True}, "per_class", (2, 5, 4)),
        ({"objects": 3}, "objects", (2, 3, 4)),
        ({"per_place": True, "convolutions": (6,)}, "agnostic", (2, 4)),
        ({"per_place": True, "per_class": True}, "per_class", (2, 5, 4)),
        ({"per_place": True, "objects": 3}, "objects", (2, 3, 4)),
        ({"per_place": True, "finer": True}, "agnostic", (2, 4)),
        ({"finer": True, "hidden": (3,)}, "agnostic", (2, 4)),
    ],
)
def test_the_forms(options, kind, shape):
    model = with_box_head(tiny(), **options)
    found = model(PICTURES)
    assert {name: value.shape for name, value in found.items()} == {
        "logits": (2, 5),
        "scores": (2, 5),
        "boxes": shape,
    }
    assert heads.form(model) == heads.Form(kind, 5, options.get("objects", 1))
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)


@pytest.mark.parametrize(
    "attach, hidden, weights",
    [
        ("conv", (), 8 * 8 * 6 * 4 + 4),  # the map after the last convolution
        ("fc", (), 7 * 4 + 4),  # the last hidden dense layer
        ("fc", (9, 5), 7 * 9 + 9 + 9 * 5 + 5 + 5 * 4 + 4),
    ],
)
def test_where_the_head_begins(attach, hidden, weights):
    classifier = small()
    model = with_box_head(classifier, attach=attach, hidden=hidden)
    own = heads.box_layers(model)
    assert sum(layer.count_params() for layer in model.layers if layer.name in own) == weights
    assert model.count_params() == classifier.count_params() + weights
    assert np.allclose(model(PICTURES)["logits"], classifier(PICTURES)["logits"], atol=1e-6)


def test_convolutions_and_dropout_come_before_the_hidden_layers():
    classifier = small()
    model = with_box_head(classifier, convolutions=(5, 4), hidden=(3,), dropout=0.5)
    own = heads.box_layers(model)
    weights = (9 * 6 + 6 * 5 + 5) + (9 * 5 + 5 * 4 + 4) + (8 * 8 * 4 * 3 + 3) + (3 * 4 + 4)
    assert sum(layer.count_params() for layer in model.layers if layer.name in own) == weights
    body, head = heads.split(model)
    assert body.output["features"].shape[1:] == (8, 8, 6)
    assert np.allclose(head(body(PICTURES)["features"])["boxes"], model(PICTURES)["boxes"], atol=1e-6)
    assert head.get_layer("box_dropout1").rate == 0.5


def test_dense_layers_of_each_place_are_read_without_the_others():
    classifier = small()
    model = with_box_head(classifier, per_place=True, hidden=(3,))
    own = heads.box_layers(model)
    assert sum(layer.count_params() for layer in model.layers if layer.name in own) == (6 * 3 + 3) + (
        3 * 5 + 5
    )
    body, head = heads.split(model)
    assert np.allclose(head(body(PICTURES)["features"])["boxes"], model(PICTURES)["boxes"], atol=1e-6)


def test_the_finer_map_is_the_last_one_enlarged_with_the_last_of_that_side():
    model = with_box_head(backbones.classifier("efficientnet_lite0", None, classes=2, size=64), finer=True)
    assert model.get_layer("box_enlarged").input.shape[1:] == (2, 2, heads.JOINED)
    narrow = model.get_layer("box_narrow").input
    assert narrow.shape[1:3] == (4, 4) and narrow is model.get_layer("block11_expand_relu").output
    body, head = heads.split(model)
    assert body.output["features"] is narrow
    found, whole = head(body(PICTURES)["features"]), model(PICTURES)
    for name in ("logits", "boxes"):
        assert np.allclose(found[name], whole[name], atol=1e-4)


def test_a_map_beside_which_another_path_runs_is_no_narrow_map():
    """The last map of twice the side is passed by a shortcut; the one before the shortcut is taken."""
    image = keras.Input((64, 64, 3))
    stem = keras.layers.Conv2D(4, 4, 4, name="stem")(image)  # 16 x 16
    x = keras.layers.Conv2D(4, 3, 1, padding="same", name="inner")(stem)
    x = keras.layers.Conv2D(4, 2, 2, name="down")(x)
    x = keras.layers.Add()([x, keras.layers.Conv2D(4, 2, 2, name="shortcut")(stem)])
    assert heads.narrow_map(x) is stem
    with pytest.raises(InputError, match="no map of 32 x 32"):
        heads.narrow_map(stem)


def test_the_papers_heads_have_the_papers_numbers_of_weights():
    """AlexNet: 16,388 numbers for one box after fc7, 16,388,000 for one of each of 1000 classes."""
    alexnet = backbones.classifier("alexnet", None)
    for per_class, count in ((False, 16_388), (True, 16_388_000)):
        model = with_box_head(alexnet, attach="fc", per_class=per_class, hidden=())
        assert model.get_layer("box_numbers").count_params() == count


def test_a_net_without_a_hidden_dense_layer_is_given_one():
    classifier = tiny()
    model = with_box_head(classifier, attach="fc", fc_units=11)
    assert model.get_layer("head_fc").output.shape == (None, 11)
    assert model.get_layer("box_fc1").input is model.get_layer("head_fc").output
    assert model(PICTURES)["scores"].numpy().sum(axis=1) == pytest.approx([1, 1], abs=1e-5)


@pytest.mark.parametrize(
    "classifier, attach, untrained, shape",
    [
        (small, "conv", (), (8, 8, 6)),
        (small, "fc", (), (7,)),
        (tiny, "fc", (), (512,)),
        (tiny, "fc", ("head_fc", "head_classes"), (128,)),  # the new layer is trained, too
        (tiny, "conv", (), (2, 2, 128)),
    ],
)
def test_body_and_head_together_are_the_model(classifier, attach, untrained, shape):
    model = with_box_head(classifier(), attach=attach)
    body, head = heads.split(model, set(untrained))
    assert body.output["features"].shape[1:] == shape
    assert set(untrained) <= {layer.name for layer in head.layers}
    found, whole = head(body(PICTURES)["features"]), model(PICTURES)
    for name in ("logits", "scores", "boxes"):
        assert np.allclose(found[name], whole[name], atol=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"attach": "pool"}, "attach"),
        ({"objects": 0}, "objects=0"),
        ({"objects": 2, "per_class": True}, "objects=2"),
        ({"attach": "fc", "convolutions": (8,)}, "has no map, which is what convolutions would"),
        ({"attach": "fc", "per_place": True}, "which is what per_place would"),
    ],
)
def test_what_cannot_be_is_said(options, message):
    with pytest.raises(InputError, match=message):
        with_box_head(tiny(), **options)


def test_a_net_of_open_size_and_a_model_without_box_head_are_refused():
    with pytest.raises(InputError, match="one square size"):
        with_box_head(backbones.classifier("tiny", None, classes=5, size=(None, None)))
    with pytest.raises(InputError, match="is no localizer"):
        heads.form(tiny())
