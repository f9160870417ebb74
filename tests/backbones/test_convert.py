"""Dense layers as convolutions, and models taken apart."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcnn.backbones import (
    NETS,
    any_size,
    average_pooling,
    backbone,
    classifier,
    flat,
    float_input,
    folded,
    folded_in_training,
    fully_convolutional,
    of_size,
    separate_activations,
    tap,
)
from tfcnn.errors import InputError
from tfcnn.training.freezing import freeze_batch_norm


def pictures(height, width, count=1):
    return np.random.default_rng(0).uniform(0, 255, (count, height, width, 3)).astype(np.float32)


# net, last map, its size at the net's own, a larger picture, the size of the map of answers, options
HEADS = [
    ("alexnet", "pool5", 6, (291, 323), (3, 4), {}),
    ("vgg16", "block5_pool", 7, (256, 289), (2, 3), {}),
    ("overfeat_fast", "pool5", 6, (263, 295), (2, 3), {"hidden": (96, 64)}),
    ("overfeat_accurate", "pool6", 5, (257, 293), (2, 3), {"hidden": (96, 64)}),
]


@pytest.mark.parametrize("name,last,window,size,places,options", HEADS)
def test_every_place_is_the_dense_head_on_its_window(name, last, window, size, places, options):
    dense = classifier(name, None, **options)
    convolutional = fully_convolutional(dense)
    head = keras.Model(dense.get_layer(last).output, dense.output["logits"])
    picture = pictures(*size)
    outputs = tap(convolutional, [last])(picture)[last].numpy()
    logits = convolutional(picture)["logits"].numpy()
    assert logits.shape[1:3] == places
    scale = np.abs(logits).max()
    for i in range(places[0]):
        for j in range(places[1]):
            answer = head(outputs[:, i : i + window, j : j + window])
            np.testing.assert_allclose(logits[:, i, j], answer, atol=1e-4 * scale)
    own = pictures(NETS[name].size, NETS[name].size)
    np.testing.assert_allclose(convolutional(own)["logits"][:, 0, 0], dense(own)["logits"], atol=1e-4 * scale)
    sizes = sorted(weight.shape.num_elements() for weight in dense.weights)
    assert sizes == sorted(weight.shape.num_elements() for weight in convolutional.weights)
    np.testing.assert_array_equal(convolutional.zero_rgb, dense.zero_rgb)


def test_without_padding_scores_equal_those_of_crops():
    """Stride 4, field 22: place (i, j) of the map is the crop at (4 i, 4 j)."""
    image = keras.Input((22, 22, 3))
    x = keras.layers.Conv2D(8, 3, 2, activation="relu")(image)
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Conv2D(6, 2, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(0.5)(keras.layers.Dense(16, activation="relu")(x))
    logits = keras.layers.Dense(5)(x)
    scores = keras.layers.Activation("softmax")(logits)
    net = keras.Model(image, {"logits": logits, "scores": scores})
    picture = pictures(34, 30, 2)
    answers = fully_convolutional(net)(picture)
    assert answers["scores"].shape == (2, 4, 3, 5)
    for i in range(4):
        for j in range(3):
            crop = net(picture[:, 4 * i : 4 * i + 22, 4 * j : 4 * j + 22])
            for key in ("logits", "scores"):
                np.testing.assert_allclose(answers[key][:, i, j], crop[key], rtol=1e-4, atol=1e-4)


def test_an_average_over_the_picture_becomes_one_over_windows():
    net = classifier("efficientnet_lite0", None)
    convolutional = fully_convolutional(net)
    picture = pictures(256, 288)
    features = tap(convolutional, ["head_relu"])(picture)["head_relu"].numpy()
    kernel, bias = net.get_layer("logits").get_weights()
    logits = convolutional(picture)["logits"].numpy()
    assert logits.shape == (1, 2, 3, 1000)
    for i in range(2):
        for j in range(3):
            expected = features[:, i : i + 7, j : j + 7].mean((1, 2)) @ kernel + bias
            np.testing.assert_allclose(logits[:, i, j], expected, atol=1e-4 * np.abs(expected).max())


def test_no_convolutional_form():
    with pytest.raises(InputError, match="avg_pool sees a map of no fixed size"):
        fully_convolutional(classifier("tiny", None, size=(None, None)))
    image = keras.Input((8, 8, 3))
    x = keras.layers.Dense(2)(keras.layers.Reshape((192,), name="vector")(image))
    with pytest.raises(InputError, match="vector reshapes"):
        fully_convolutional(keras.Model(image, x))


def nested():
    """Two models inside one, with a name of a layer in both, and one of them called twice."""
    first = keras.Sequential(
        [keras.Input((None, None, 3)), keras.layers.Conv2D(4, 3, name="conv"), keras.layers.ReLU()],
        name="first",
    )
    inner = keras.Input((None, None, 4))
    y = keras.layers.Conv2D(4, 3, padding="same", name="conv")(inner)
    second = keras.Model(inner, keras.layers.Add()([y, inner]), name="second")
    image = keras.Input((16, 16, 3), name="image")
    x = second(second(first(image / 255.0)))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(3, activation="softmax")(x), name="nested")


def test_models_inside_are_taken_apart():
    model = nested()
    apart = flat(model)
    assert not any(isinstance(layer, keras.Model) for layer in apart.layers)
    assert {"conv", "second_conv"} <= {layer.name for layer in apart.layers}
    picture = pictures(16, 16, 2)
    np.testing.assert_allclose(apart(picture), model(picture), rtol=1e-6)
    assert tap(apart, ["conv"])(picture)["conv"].shape == (2, 14, 14, 4)
    assert apart.count_params() == model.count_params()
    for layer in apart.layers:
        if layer.weights:
            layer.set_weights([weight * 0 for weight in layer.get_weights()])
    np.testing.assert_allclose(apart(picture), np.full((2, 3), 1 / 3), rtol=1e-6)
    assert np.abs(model(picture) - 1 / 3).max() > 1e-4, "the model that was given keeps its weights"


def test_a_model_whose_layers_cannot_be_seen_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return 2 * x

    image = keras.Input((8, 8, 3))
    with pytest.raises(InputError, match="The model mine inside .* is of the class Own"):
        flat(keras.Model(image, Own(name="mine")(image)))


def norms(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def shaken(model):
    """The model, its batch norm as after a training."""
    rng = np.random.default_rng(1)
    for norm in norms(model):
        norm.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in norm.get_weights()])
    return model


@pytest.mark.parametrize("net", ["mobilenet_v2", "inception_v3", "efficientnet_lite0"])
def test_batch_norm_goes_into_the_convolutions(net):
    model = shaken(backbone(net, None))
    without = folded(model)
    assert norms(model) and not norms(without)
    picture = pictures(96, 128)
    for name, value in model(picture).items():
        scale = float(np.abs(value).max())
        np.testing.assert_allclose(without(picture)[name], value, atol=1e-4 * scale, err_msg=name)


def test_batch_norm_that_is_not_a_convolutions_own_stays():
    image = keras.Input((16, 16, 3))
    used_twice = keras.layers.Conv2D(4, 3, padding="same", name="twice")(image)
    one = keras.layers.BatchNormalization(name="one")(used_twice)
    active = keras.layers.Conv2D(4, 3, activation="relu")(keras.layers.Add()([one, used_twice]))
    two = keras.layers.BatchNormalization(name="two")(active)
    shared, three = keras.layers.DepthwiseConv2D(3, depth_multiplier=2), keras.layers.BatchNormalization()
    both = keras.layers.Add()([three(shared(two)), three(shared(keras.layers.ReLU()(two)))])
    alone = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(both)
    out = keras.layers.BatchNormalization(scale=False, center=False, name="four")(alone)
    model = shaken(keras.Model(image, [out, keras.layers.Conv2D(2, 1)(out)]))
    without = folded(model)
    assert len(norms(without)) == 3 and "four" not in {norm.name for norm in norms(without)}
    for value, expected in zip(without(pictures(16, 16)), model(pictures(16, 16)), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("net", ["mobilenet_v2", "efficientnet_lite0"])
def test_frozen_batch_norm_is_worked_in_at_every_call(net):
    model = shaken(backbone(net, None))
    freeze_batch_norm(model)
    sooner = folded_in_training(model)
    assert norms(model) and not [layer for layer in sooner.layers if layer in norms(model)]
    picture = tf.constant(pictures(64, 96))
    answers, gradients = [], []
    for each in (sooner, model):
        with tf.GradientTape() as tape:
            last = list(each(picture, training=True).values())[-1]
            total = tf.reduce_sum(last * tf.sin(tf.range(last.shape[-1], dtype=tf.float32)))
        answers.append(last)
        gradients.append(tape.gradient(total, model.trainable_variables))
    np.testing.assert_allclose(*answers, atol=1e-4 * np.abs(answers[1]).max())
    for ours, plain, weight in zip(*gradients, model.trainable_variables, strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-3 * np.abs(plain).max(), err_msg=weight.path)


def test_only_frozen_batch_norm_is_worked_in_and_weights_stay_shared():
    image = keras.Input((16, 16, 3))
    x = keras.layers.BatchNormalization(name="frozen")(keras.layers.Conv2D(4, 3, name="first")(image))
    x = keras.layers.BatchNormalization(name="live")(keras.layers.DepthwiseConv2D(3, name="second")(x))
    model = shaken(keras.Model(image, keras.layers.ReLU()(x)))
    model.get_layer("frozen").trainable = False
    sooner = folded_in_training(model)
    assert "live" in {norm.name for norm in norms(sooner)} and model.get_layer("frozen") not in norms(sooner)
    before = np.array(model.get_layer("live").moving_mean)
    sooner(pictures(16, 16), training=True)
    assert (np.array(model.get_layer("live").moving_mean) != before).any()
    model.get_layer("first").kernel.assign(model.get_layer("first").kernel * 2)
    np.testing.assert_allclose(sooner(pictures(16, 16)), model(pictures(16, 16)), atol=1e-3)


def test_activations_become_layers_of_their_own():
    image = keras.Input((16, 16, 3), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = keras.layers.DepthwiseConv2D(3, activation="relu6", name="depthwise")(x)
    x = keras.layers.Activation("relu", name="active")(keras.layers.Conv2D(4, 1, name="plain")(x))
    x = keras.activations.relu(keras.ops.relu6(keras.ops.relu(x)), negative_slope=0.25)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    x = keras.layers.Dense(6, activation="swish", name="dense")(x)
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax", name="scores")(x))
    apart = separate_activations(model)
    rectifiers = [layer for layer in apart.layers if isinstance(layer, keras.layers.ReLU)]
    assert [(each.max_value, each.negative_slope) for each in rectifiers] == [
        (None, 0), (6.0, 0), (None, 0), (None, 0), (6.0, 0), (None, 0.25),
    ]  # fmt: skip
    assert [each.name for each in rectifiers[:3]] == ["conv", "depthwise", "active"]
    assert not any(
        layer.activation is not keras.activations.linear
        for layer in apart.layers
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense))
    )
    picture = pictures(16, 16, 2)
    np.testing.assert_allclose(apart(picture), model(picture), rtol=1e-5)
    names = ["conv", "depthwise", "active", "mean", "dense", "scores"]
    before, after = tap(model, names)(picture), tap(apart, names)(picture)
    for name in names:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-5, atol=1e-6, err_msg=name)
    inner = tap(apart, ["conv:input", "conv_linear"])(picture)
    np.testing.assert_array_equal(inner["conv:input"], inner["conv_linear"])
    assert inner["conv:input"].numpy().min() < 0
    assert separate_activations(apart) is apart and separate_activations(model) is not model


def test_average_pooling_and_any_size_share_their_layers_and_can_be_cut():
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(image)
    model = keras.Model(image, keras.layers.MaxPooling2D(3, 2, padding="same", name="pool")(x))
    averaged, opened = average_pooling(model), any_size(model)
    picture = pictures(16, 16)
    features = tap(model, ["conv"])(picture)["conv"]
    np.testing.assert_allclose(averaged(picture), tf.nn.avg_pool2d(features, 3, 2, "SAME"), rtol=1e-5)
    for net in (averaged, opened):
        assert net.get_layer("conv") is model.get_layer("conv")
        np.testing.assert_allclose(tap(net, ["conv"])(picture)["conv"], features, rtol=1e-6)
    assert tap(opened, ["conv"])(pictures(20, 9))["conv"].shape == (1, 18, 7, 4)
    assert any_size(opened) is opened
    dense = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(model.output)))
    assert any_size(dense) is None and of_size(dense, 20, 20) is None
    assert of_size(dense, 16, 16) is dense
    larger = of_size(model, 20, 20)
    assert larger.input_shape == (None, 20, 20, 3) and larger.get_layer("conv") is model.get_layer("conv")


def test_a_net_of_whole_numbers_takes_floats_and_a_gradient_reaches_its_picture():
    image = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Conv2D(2, 3)(keras.layers.Rescaling(1 / 255.0)(image))
    model = keras.Model(image, keras.ops.cast(x, "float32"))
    floats = float_input(model)
    picture = np.rint(pictures(8, 8))
    np.testing.assert_allclose(floats(picture), model(picture.astype(np.uint8)), rtol=1e-5)
    x = tf.constant(picture)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(floats(x))
    assert np.abs(tape.gradient(total, x)).max() > 0
    assert float_input(floats) is floats
