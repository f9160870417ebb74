"""TF-Slim's checkpoints, written here as a training leaves them: names, shapes, answers, and what does not fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcnn.backbones.importers import slim, slim_nets
from tfcnn.backbones.importers.slim_nets import Plan
from tfcnn.backbones.rows import TF
from tfcnn.errors import InputError

# Weights without the classes, batch norm's statistics counted: Inception's as TF-Slim's own tests have it,
# MobileNet's as Keras has it, AlexNet's by hand. Of ResNet-50 those that are trained, with 1000 classes, as published.
WEIGHTS = {
    "inception_v1": 5_607_184,
    "inception_v2": 10_173_112,
    "mobilenet_v1": 3_228_864,
    "alexnet_v2": 46_206_912,
}
TRAINED = {"resnet_v1_50": 25_557_032}


def plan_of(name, classes, size=64, **options):
    """A plan and its model, random."""
    row = slim.NETS[name]
    scaled = not name.startswith("inception")
    plan = Plan(row.scope, row.epsilon, scaled, row.cap, [f"{row.scope}/Conv2d_1a_7x7/biases"])
    image = keras.Input((size, size, 3))
    build = row.build
    logits = build(plan, image, classes, **options)
    return plan, keras.Model(image, logits)


def variables(plan, seed=0):
    """{name: random values} that fill a plan's layers."""
    random = np.random.default_rng(seed)
    values = {}
    for layer, names in plan.filled:
        for name, weight in zip(names, layer.weights, strict=True):
            shape = tuple(weight.shape)
            if isinstance(layer, keras.layers.Dense) and len(shape) == 2:
                shape = (1, 1, *shape)  # TF-Slim's are convolutions
            one = "variance" in name or "gamma" in name
            values[name] = (
                random.uniform(0.5, 1.5, shape) if one else 0.1 * random.normal(size=shape)
            ).astype("f4")
    return values


def write(path, values):
    """A checkpoint as tf.train.Saver leaves it, with what a training has beside the net."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        held = {name: tf.compat.v1.get_variable(name, initializer=value) for name, value in values.items()}
        session.run(tf.compat.v1.global_variables_initializer())
        return tf.compat.v1.train.Saver(list(held.values())).save(session, str(path))


@pytest.mark.parametrize("name", [*WEIGHTS, *TRAINED])
def test_the_published_number_of_weights(name):
    options = {"width": 1.0} if name == "mobilenet_v1" else {}
    plan, model = plan_of(name, 1000, slim.NETS[name].size, **options)
    logits = {id(weight) for weight in model.get_layer("logits").weights}
    own = sum(np.prod(weight.shape) for weight in model.weights if id(weight) not in logits)
    trained = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    assert (own if name in WEIGHTS else trained) == {**WEIGHTS, **TRAINED}[name]
    names = [each for _, filled in plan.filled for each in filled]
    assert len(names) == len(set(names)) == len(model.weights)
    assert all(each.startswith(slim.NETS[name].scope + "/") for each in names)


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    """(path, variables) of a MobileNet a quarter as wide, with 7 classes."""
    plan, _ = plan_of("mobilenet_v1", 7, width=0.25)
    values = variables(plan)
    beside = {
        "global_step": np.int64(3),
        "MobilenetV1/Conv2d_0/weights/RMSProp_1": np.zeros(3, "f4"),
        "MobilenetV1/Conv2d_0/weights/ExponentialMovingAverage": np.zeros(3, "f4"),
    }
    return write(tmp_path_factory.mktemp("slim") / "model.ckpt", values | beside), values


def in_plain_tensorflow(values, x):
    """MobileNet v1 in TensorFlow's own operations, as TF-Slim's program says it."""

    def end(y, scope):
        of = {key: values[f"MobilenetV1/{scope}/BatchNorm/{key}"] for key in ("gamma", *slim_nets.NORM)}
        y = (y - of["moving_mean"]) / np.sqrt(of["moving_variance"] + 0.001) * of["gamma"] + of["beta"]
        return tf.nn.relu6(y)

    x = x / 127.5 - 1
    x = end(tf.nn.conv2d(x, values["MobilenetV1/Conv2d_0/weights"], 2, "SAME"), "Conv2d_0")
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
    for number, stride in enumerate(strides, 1):
        scope = f"Conv2d_{number}_depthwise"
        kernel = values[f"MobilenetV1/{scope}/depthwise_weights"]
        x = end(tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], "SAME"), scope)
        scope = f"Conv2d_{number}_pointwise"
        x = end(tf.nn.conv2d(x, values[f"MobilenetV1/{scope}/weights"], 1, "SAME"), scope)
    kernel, bias = (values[f"MobilenetV1/Logits/Conv2d_1c_1x1/{each}"] for each in ("weights", "biases"))
    return tf.reduce_mean(x, axis=(1, 2)) @ kernel[0, 0] + bias


def test_mobilenet_answers_as_in_plain_tensorflow(mobilenet):
    path, values = mobilenet
    imported = slim.load(path)
    pictures = np.random.default_rng(1).uniform(0, 255, (2, 224, 224, 3)).astype("f4")
    found = imported.model(pictures)
    expected = in_plain_tensorflow(values, pictures)
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(found["scores"], tf.nn.softmax(expected), atol=1e-3)
    assert imported.left_over == [
        "MobilenetV1/Conv2d_0/weights/ExponentialMovingAverage",
        "MobilenetV1/Conv2d_0/weights/RMSProp_1",
        "global_step",
    ]
    first = {
        "from": "MobilenetV1/Conv2d_0/weights",
        "to": "Conv2d_0",
        "shape": [3, 3, 3, 8],
    }
    assert imported.layers[0] == first and len(imported.layers) == len(values)
    np.testing.assert_array_equal(imported.model.zero_rgb, [127.5] * 3)


def test_a_unit_of_resnet_with_a_stride_by_hand():
    """The last unit of a block: the shortcut takes every second pixel, the 3x3 convolution has the stride."""
    whole_plan, model = plan_of("resnet_v1_50", 5)
    values = variables(whole_plan)
    for layer, names in whole_plan.filled:
        layer.set_weights([values[n].reshape(w.shape) for n, w in zip(names, layer.weights, strict=True)])
    scope = "block1_unit_3_bottleneck_v1"
    inside = keras.Model(
        model.input, [model.get_layer("block1_unit_2_bottleneck_v1").output, model.get_layer(scope).output]
    )
    before, after = inside(np.random.default_rng(2).normal(size=(1, 64, 64, 3)).astype("f4"))

    def conv(y, name, stride=1, active=True):
        at = f"resnet_v1_50/block1/unit_3/bottleneck_v1/{name}"
        kernel = values[f"{at}/weights"]
        pad = kernel.shape[0] // 2
        y = tf.nn.conv2d(tf.pad(y, [(0, 0), (pad, pad), (pad, pad), (0, 0)]), kernel, stride, "VALID")
        of = {key: values[f"{at}/BatchNorm/{key}"] for key in ("gamma", *slim_nets.NORM)}
        y = (y - of["moving_mean"]) / np.sqrt(of["moving_variance"] + 1e-5) * of["gamma"] + of["beta"]
        return tf.nn.relu(y) if active else y

    expected = conv(conv(conv(before, "conv1"), "conv2", 2), "conv3", active=False) + before[:, ::2, ::2]
    np.testing.assert_allclose(after, tf.nn.relu(expected), rtol=1e-3, atol=1e-3)


def test_scopes_of_inception_v3_are_those_of_its_94_convolutions():
    scopes = slim.inception_v3_scopes()
    assert len(scopes) == len(set(scopes)) == 94
    assert scopes[5] == "Mixed_5b/Branch_0/Conv2d_0a_1x1"
    for odd in (
        "Mixed_5c/Branch_1/Conv_1_0c_5x5",
        "Mixed_6a/Branch_0/Conv2d_1a_1x1",
        "Mixed_7c/Branch_1/Conv2d_0c_3x1",
    ):
        assert odd in scopes


def test_vgg_lies_on_the_factorys_net_red_and_blue_exchanged(monkeypatch, tmp_path):
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Conv2D(2, 3, padding="same", name="block1_conv1")(image)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(16)(x))
    logits = keras.layers.Dense(3, name="predictions")(keras.layers.Dense(4, name="fc1")(x))
    small = keras.Model(image, {"logits": logits, "scores": keras.layers.Softmax()(logits)}, name="vgg16")
    monkeypatch.setattr(slim, "classifier", lambda *_, **__: small)
    random = np.random.default_rng(0)
    shapes = {"conv1/conv1_1": (3, 3, 3, 2), "fc6": (2, 2, 2, 4), "fc8": (1, 1, 4, 3)}
    values = {f"vgg_16/{k}/weights": random.normal(size=s).astype("f4") for k, s in shapes.items()}
    values |= {f"vgg_16/{k}/biases": random.normal(size=s[-1]).astype("f4") for k, s in shapes.items()}
    model = slim.load(write(tmp_path / "vgg", values)).model
    rgb = random.normal(size=(1, 32, 32, 3)).astype("f4")
    y = (
        tf.nn.conv2d(rgb, values["vgg_16/conv1/conv1_1/weights"], 1, "SAME")
        + values["vgg_16/conv1/conv1_1/biases"]
    )
    y = tf.nn.max_pool2d(y, 16, 16, "VALID")
    y = tf.nn.conv2d(y, values["vgg_16/fc6/weights"], 1, "VALID") + values["vgg_16/fc6/biases"]
    y = tf.nn.conv2d(y, values["vgg_16/fc8/weights"], 1, "VALID") + values["vgg_16/fc8/biases"]
    np.testing.assert_allclose(model(rgb[..., ::-1])["logits"], y[:, 0, 0], atol=1e-4)


def changed(values, **changes):
    values = {**values, **changes}
    return {name: value for name, value in values.items() if value is not None}


CONV = "MobilenetV1/Conv2d_3_pointwise/weights"
WRONG = {
    "another scope": (
        lambda v: {f"tower/{k}": x for k, x in v.items()},
        "of the scope tower, and not of one of alex",
    ),
    "missing": (lambda v: changed(v, **{CONV: None}), f"lacks the variable {CONV}"),
    "no classes": (
        lambda v: changed(v, **{"MobilenetV1/Logits/Conv2d_1c_1x1/weights": None}),
        "no whole classifier",
    ),
    "shape": (
        lambda v: changed(v, **{CONV: np.zeros((1, 1, 9, 32), "f4")}),
        f"does not fit: {CONV} is 1x1x9x32",
    ),
    "left over": (
        lambda v: changed(v, **{"MobilenetV1/extra/w": np.zeros(2, "f4")}),
        "lacks: MobilenetV1/extra/w;",
    ),
    "not finite": (
        lambda v: changed(v, **{CONV: np.full((1, 1, 32, 32), np.nan, "f4")}),
        "not finite in Mob",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_checkpoints_that_do_not_fit(mobilenet, tmp_path, case):
    change, reason = WRONG[case]
    with pytest.raises(InputError, match=reason):
        slim.load(write(tmp_path / "model", change(mobilenet[1])))


def test_damaged_data_of_a_checkpoint_is_a_line(mobilenet, tmp_path):
    path = write(tmp_path / "model", mobilenet[1])
    (data,) = tmp_path.glob("model.data-*")
    whole = bytearray(data.read_bytes())
    data.write_bytes(whole[:-4])
    with pytest.raises(InputError, match="^[^\n]+ cut short[^\n]*$"):
        slim.load(path)
    data.write_bytes(whole[:100])
    with pytest.raises(InputError, match="numbers, and its files have 100 bytes"):
        slim.load(path)
    whole[len(whole) // 2] ^= 1
    data.write_bytes(whole)
    with pytest.raises(InputError, match="damaged or cut short at Mob[^\n]*$"):
        slim.load(path)


def test_a_net_that_is_not_known_or_not_in_the_file(mobilenet, tmp_path):
    with pytest.raises(InputError, match="the nearest are mobilenet_v1"):
        slim.load(mobilenet[0], "mobilenet")
    with pytest.raises(InputError, match="of the scope MobilenetV1, and not of resnet_v1_50"):
        slim.load(mobilenet[0], "resnet_v1_50")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(InputError, match="no checkpoint that TensorFlow reads"):
        slim.load(tmp_path / "text.ckpt")
    assert slim.NETS["inception_v1"].preprocessing == TF
