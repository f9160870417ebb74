"""A net cut at its layers: which names there are, and that each leads to its tensor in this very model."""

import keras
import numpy as np
import pytest

from tfcnn.backbones import all_layers, classifier, layer_names, tap
from tfcnn.backbones.graph import calls, made_by, require_gradient
from tfcnn.errors import InputError

PICTURE = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def net():
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", name="stem_conv")(image)
    y = keras.layers.Conv2D(12, 3, padding="same", name="block_conv")(keras.ops.relu(x))
    z = keras.layers.Dense(5, name="head")(keras.layers.GlobalAveragePooling2D(name="pool")(y))
    return keras.Model(image, {"logits": z, "low/stem": x}, name="small")


def test_layers_outputs_and_what_goes_into_a_layer_are_reached(net):
    answers = tap(net, ["block_conv", "logits", "low_stem", "block_conv:input", "head"])(PICTURE)
    assert answers["block_conv"].shape == (2, 8, 8, 12)
    np.testing.assert_array_equal(answers["low_stem"], net(PICTURE)["low/stem"])
    np.testing.assert_array_equal(answers["block_conv:input"], np.maximum(answers["low_stem"], 0))
    np.testing.assert_array_equal(answers["head"], answers["logits"])
    names = layer_names(net)
    assert names[:2] == ["logits", "low/stem"] and set(names) >= {"stem_conv", "block_conv", "pool", "head"}


def test_a_wrong_name_is_answered_by_the_nearest(net):
    with pytest.raises(
        InputError, match="'blok_conv'; the nearest are block_conv, .*--list_layers shows all"
    ):
        tap(net, ["blok_conv"], "--list_layers shows all")


def test_an_endpoint_of_the_table_comes_before_a_layer_of_its_name():
    tiny = classifier("tiny", None)
    picture = np.resize(PICTURE, (1, 64, 64, 3))
    answers = tap(tiny, ["conv1", "relu1", "norm1:input"])(picture)
    np.testing.assert_array_equal(answers["conv1"], answers["relu1"])
    assert answers["norm1:input"].numpy().min() < 0
    np.testing.assert_array_equal(tap(tiny, ["conv1"]).zero_rgb, [127.5] * 3)


def test_a_shared_layer_is_cut_in_the_model_that_is_asked(net):
    other = keras.Input((16, 16, 3))
    doubled = keras.Model(other, net.get_layer("stem_conv")(other * 2.0), name="doubled")
    np.testing.assert_allclose(
        tap(doubled, ["stem_conv"])(PICTURE)["stem_conv"], net(2 * PICTURE)["low/stem"], rtol=1e-4, atol=1e-3
    )


def test_calls_come_after_those_that_they_read_from(net):
    made = calls(net)
    seen = set()
    for call in made:
        assert all(id(tensor) in seen for tensor in call.inputs)
        seen |= {id(tensor) for tensor in call.outputs}
    assert len(made) == len(net.operations)
    assert made_by(net.output["logits"]).operation is net.get_layer("head")


def test_layers_inside_layers_and_models_are_listed(net):
    image = keras.Input((4, 16, 16, 3))
    outer = keras.Model(image, keras.layers.TimeDistributed(net.get_layer("stem_conv"))(image))
    assert net.get_layer("stem_conv") in all_layers(outer)


def test_a_picture_of_whole_numbers_has_no_gradient(net):
    require_gradient(net)
    image = keras.Input((8, 8, 3), dtype="uint8")
    with pytest.raises(InputError, match="whole takes uint8 pictures"):
        require_gradient(keras.Model(image, keras.layers.Rescaling(2.0)(image), name="whole"))
