"""Files of Keras 1, of Keras 2 on Theano and of early Keras 2, written here as those did: their nets give the numbers
that NumPy or a net built by hand gives.
"""

import itertools
import json

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcnn
from tfcnn.errors import InputError
from tfcnn.importing import import_model

RNG = np.random.default_rng(1)
PICTURE = np.random.default_rng(0).uniform(-1, 1, (2, 7, 6, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def same_numbers():
    RNG.bit_generator.state = np.random.default_rng(1).bit_generator.state


def draw(*shape):
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def layer(kind, name, **config):
    """A layer as Keras 1 describes it in a chain."""
    return {"class_name": kind, "config": {"name": name, "trainable": True, **config}}


def first(size, kind, name, **config):
    return layer(kind, name, batch_input_shape=[None, *size], input_dtype="float32", **config)


def conv(filters, size, *, order="tf", **config):
    """The fields of a Convolution2D of Keras 1.2.2."""
    rows, columns = size
    fields = {"nb_filter": filters, "nb_row": rows, "nb_col": columns, "init": "glorot_uniform", "bias": True}
    fields |= {"activation": "linear", "border_mode": "valid", "subsample": [1, 1], "dim_ordering": order}
    fields |= {"W_regularizer": {"name": "WeightRegularizer", "l1": 0.0, "l2": 0.01}, "b_regularizer": None}
    fields |= {"activity_regularizer": None, "W_constraint": None, "b_constraint": None}
    return {**fields, **config}


def norm(name, size, axis=-1):
    """A BatchNormalization of Keras 1.2.2, and its weights: gamma, beta, mean, variance."""
    config = {"epsilon": 0.01, "mode": 0, "axis": axis, "gamma_regularizer": None, "beta_regularizer": None}
    values = [draw(size), draw(size), draw(size), RNG.uniform(0.5, 2, size).astype(np.float32)]
    return layer("BatchNormalization", name, momentum=0.99, **config), values


def dense(name, units, activation="linear", **config):
    return layer("Dense", name, output_dim=units, init="uniform", activation=activation, bias=True, **config)


def node(kind, name, *before, **config):
    """A layer as Keras 1 describes it in a graph; each of `before` is (layer, call, output) or a list of such."""
    calls = [[list(one)] if isinstance(one[0], str) else [list(each) for each in one] for one in before]
    return {**layer(kind, name, **config), "name": name, "inbound_nodes": calls}


def source(name, *size):
    return node("InputLayer", name, batch_input_shape=[None, *size], input_dtype="float32", sparse=False)


def graph(layers, *outputs, inputs=("image",)):
    ends = [[name, 0, 0] for name in outputs]
    config = {"layers": layers, "input_layers": [[name, 0, 0] for name in inputs], "output_layers": ends}
    return {"class_name": "Model", "config": {"name": "net", **config}}


def chain(*layers):
    return {"class_name": "Sequential", "config": list(layers)}


def write(path, config, weights, version="1.2.2", backend=None):
    """An .h5 file as Keras 1 wrote it, or Keras 2 where it says the backend."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = version.encode()
        file.attrs["model_config"] = json.dumps(config).encode()
        if backend:
            file.attrs["backend"] = backend.encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in weights]
        for name, values in weights.items():
            held = group.create_group(name)
            names = [f"{name}_{ending}" for ending in ("W", "b", "running_mean", "running_std", "x", "y")]
            names = names[: len(values)]
            held.attrs["weight_names"] = [each.encode() for each in names]
            for each, value in zip(names, values, strict=True):
                held[each] = value
    return path


def normed(x, values, axis=-1):
    """Batch normalization in NumPy."""
    shape = [1] * x.ndim
    shape[axis] = -1
    gamma, beta, mean, variance = (value.reshape(shape) for value in values)
    return (x - mean) / np.sqrt(variance + 0.01) * gamma + beta


def test_a_chain_of_keras_1(tmp_path):
    """Its layers beside those of Keras 3 with the same weights."""
    bn, of_bn = norm("bn", 4)
    config = chain(
        first((7, 6, 3), "Convolution2D", "a", **conv(4, (3, 2), subsample=[2, 1], border_mode="same")),
        bn,
        layer("Activation", "relu", activation="relu"),
        layer("ZeroPadding2D", "pad", padding=[1, 2]),
        layer(
            "AtrousConvolution2D", "b", **conv(5, (2, 2), bias=False, activation="tanh"), atrous_rate=[2, 2]
        ),
        layer(
            "AveragePooling2D", "ave", pool_size=[2, 2], strides=[1, 1], border_mode="same", dim_ordering="tf"
        ),
        layer("UpSampling2D", "up", size=[2, 1]),
        layer("Cropping2D", "crop", cropping=[[1, 0], [0, 1]]),
        layer(
            "MaxPooling2D", "max", pool_size=[2, 2], strides=[2, 2], border_mode="valid", dim_ordering="tf"
        ),
        layer("Dropout", "drop", p=0.5),
        layer("Flatten", "flat"),
        dense("c", 6, "softplus"),
        dense("d", 3, "softmax"),
    )
    weights = {"a": [draw(3, 2, 3, 4), draw(4)], "bn": of_bn, "b": [draw(2, 2, 4, 5)]}
    expected = keras.Sequential(
        [
            keras.Input((7, 6, 3)),
            keras.layers.Conv2D(4, (3, 2), strides=(2, 1), padding="same", name="a"),
            keras.layers.BatchNormalization(epsilon=0.01, name="bn"),
            keras.layers.ReLU(),
            keras.layers.ZeroPadding2D((1, 2)),
            keras.layers.Conv2D(5, 2, dilation_rate=2, use_bias=False, activation="tanh", name="b"),
            keras.layers.AveragePooling2D(2, strides=1, padding="same"),
            keras.layers.UpSampling2D((2, 1)),
            keras.layers.Cropping2D(((1, 0), (0, 1))),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(6, activation="softplus", name="c"),
            keras.layers.Dense(3, activation="softmax", name="d"),
        ]
    )
    weights |= {"c": [draw(*expected.get_layer("c").kernel.shape), draw(6)], "d": [draw(6, 3), draw(3)]}
    for name, values in weights.items():
        expected.get_layer(name).set_weights(values)
    path = write(tmp_path / "one.h5", config, weights)
    model = tfcnn.load_model(path)
    np.testing.assert_allclose(model(PICTURE), expected(PICTURE), atol=1e-6)
    assert [each["from"] for each in import_model(path).layers] == ["a", "bn", "b", "c", "d"]


def test_a_file_that_does_not_say_its_version(tmp_path):
    kernel = draw(1, 1, 3, 2)
    config = chain(first((7, 6, 3), "Convolution2D", "a", **conv(2, (1, 1), bias=False)))
    path = write(tmp_path / "old.h5", config, {"a": [kernel]})
    with h5py.File(path, "r+") as file:
        del file.attrs["keras_version"]
    np.testing.assert_allclose(tfcnn.load_model(path)(PICTURE), PICTURE @ kernel[0, 0], atol=1e-6)


def test_a_graph_with_every_kind_of_merge(tmp_path):
    def merge(name, mode, *before, axis=-1):
        return node("Merge", name, list(before), mode=mode, mode_type="raw", concat_axis=axis, dot_axes=-1)

    pair = [("one", 0, 0), ("two", 0, 0)]
    layers = [
        source("image", 7, 6, 3),
        node("PReLU", "one", ("image", 0, 0), init="zero", shared_axes=[1, 2]),
        node("Convolution2D", "two", ("image", 0, 0), ("two", 0, 0), **conv(3, (1, 1), bias=False)),  # shared
        *(merge(mode, mode, *pair) for mode in ("sum", "mul", "ave", "max")),
        merge("wide", "concat", ("sum", 0, 0), ("two", 1, 0), axis=2),
        merge("deep", "concat", ("mul", 0, 0), ("ave", 0, 0), ("max", 0, 0)),
        node("ELU", "elu", ("wide", 0, 0), alpha=0.5),
        node("LeakyReLU", "leaky", ("deep", 0, 0), alpha=0.1),
        node("ThresholdedReLU", "over", ("leaky", 0, 0), theta=0.2),
        node("GlobalAveragePooling2D", "mean", ("over", 0, 0), dim_ordering="tf"),
    ]
    alpha, kernel = draw(1, 1, 3), draw(1, 1, 3, 3)
    config = graph(layers, "elu", "mean")
    path = write(tmp_path / "graph.h5", config, {"image": [], "one": [alpha], "two": [kernel], "sum": []})
    one, two = np.where(PICTURE > 0, PICTURE, alpha * PICTURE), PICTURE @ kernel[0, 0]
    wide = np.concatenate([one + two, two @ kernel[0, 0]], 2)
    deep = np.concatenate([one * two, (one + two) / 2, np.maximum(one, two)], -1)
    leaky = np.where(deep > 0, deep, 0.1 * deep)
    elu, mean = tfcnn.load_model(path)(PICTURE)
    np.testing.assert_allclose(elu, np.where(wide > 0, wide, 0.5 * np.expm1(wide)), atol=1e-6)
    np.testing.assert_allclose(mean, np.where(leaky > 0.2, leaky, 0).mean((1, 2)), atol=1e-6)


def convolved(x, kernel, bias, stride, flip, pads):
    """A convolution of [N, C, h, w] by Keras 1's kernel [F, C, h, w], in loops; Theano's is turned (`flip`)."""
    kernel = kernel[:, :, ::-1, ::-1] if flip else kernel
    x = np.pad(x, ((0, 0), (0, 0), *pads))
    high, wide = (
        (size - side) // stride + 1 for size, side in zip(x.shape[2:], kernel.shape[2:], strict=True)
    )
    y = np.zeros((len(x), len(kernel), high, wide), np.float32)
    for i, j in itertools.product(range(high), range(wide)):
        part = x[:, :, i * stride :, j * stride :][:, :, : kernel.shape[2], : kernel.shape[3]]
        y[:, :, i, j] = np.einsum("nchw,fchw->nf", part, kernel) + bias
    return y


@pytest.mark.parametrize("backend", ["theano", "tensorflow"])
@pytest.mark.parametrize("head", ["dense", "norm", "inside", "merge", "output"])
def test_channels_first(tmp_path, backend, head):
    """Maps, weights and the rows of a dense layer are turned; Theano's kernels and padding are its own."""
    theano = backend == "theano"
    bn, of_bn = norm("bn", 4, axis=1)
    flat_bn, of_flat_bn = norm("flat_bn", 4 * 2 * 1)
    a, b, alpha = [draw(4, 3, 3, 3), draw(4)], [draw(4, 4, 2, 2), draw(4)], draw(4, 4, 3)
    fields = {"order": "th", "border_mode": "same", "subsample": [2, 2]}
    config = [
        first((3, 7, 6), "Convolution2D", "a", **conv(4, (3, 3), **fields)),
        layer("PReLU", "prelu", init="zero", shared_axes=None),
        bn,
        layer("Convolution2D", "b", **conv(4, (2, 2), order="th", border_mode="same")),
        layer(
            "MaxPooling2D", "max", pool_size=[2, 2], strides=[2, 2], border_mode="valid", dim_ordering="th"
        ),
        layer("Flatten", "flat"),
        layer("Activation", "tanh", activation="tanh"),
    ]
    weights = {"a": a, "prelu": [alpha], "bn": of_bn, "b": b}
    x = PICTURE.transpose(0, 3, 1, 2)
    # of 7 rows and 6 columns: TensorFlow adds (1, 1) rows and (0, 1) columns, Theano half a kernel everywhere
    x = convolved(x, *a, 2, theano, ((1, 1), (1, 1) if theano else (0, 1)))
    x = normed(np.where(x > 0, x, alpha * x), of_bn, 1)
    x = convolved(x, *b, 1, theano, ((1, 0), (1, 0)) if theano else ((0, 1), (0, 1)))
    x = np.tanh(x[:, :, :4, :2].reshape(2, 4, 2, 2, 1, 2).max((3, 5)).reshape(2, -1))
    if head == "norm":
        config.append(flat_bn)
        weights["flat_bn"] = of_flat_bn
        x = normed(x, of_flat_bn)
    if head in ("dense", "norm", "inside"):
        config.append(chain(dense("dense", 5)) if head == "inside" else dense("dense", 5))
        weights["dense"] = [draw(8, 5), draw(5)]
        x = x @ weights["dense"][0] + weights["dense"][1]
    if head == "merge":
        config += [layer("Reshape", "shape", target_shape=[2, 4]), layer("Permute", "turn", dims=[2, 1])]
        x = x.reshape(2, 2, 4).transpose(0, 2, 1)
    path = write(tmp_path / "first.h5", chain(*config), weights, backend=backend)
    model = tfcnn.load_model(path)
    np.testing.assert_allclose(model(PICTURE), x, atol=1e-5)
    if head == "dense":
        kinds = [type(each).__name__ for each in model.layers]
        assert "Permute" not in kinds, "the rows of the dense layer were turned, not the map"


def test_axes_of_maps_whose_channels_are_first(tmp_path):
    """Concatenation, reshaping and permuting are as in the file; maps come out with channels last."""
    layers = [
        source("image", 3, 7, 6),
        node("MaxPooling2D", "max", ("image", 0, 0), pool_size=[1, 1], strides=[1, 1], border_mode="valid",
             dim_ordering="th"),
        node("Merge", "deep", [("image", 0, 0), ("max", 0, 0)], mode="concat", mode_type="raw", concat_axis=1),
        node("Merge", "wide", [("deep", 0, 0), ("deep", 0, 0)], mode="concat", mode_type="raw", concat_axis=-1),
        node("Reshape", "shape", ("wide", 0, 0), target_shape=[7, 6, 12]),
        node("Permute", "turn", ("shape", 0, 0), dims=[3, 1, 2]),
        node("Flatten", "left", ("image", 0, 0)),
        node("Flatten", "right", ("image", 0, 0)),
        node("Merge", "both", [("left", 0, 0), ("right", 0, 0)], mode="concat", mode_type="raw", concat_axis=1),
    ]  # fmt: skip
    config = graph(layers, "wide", "turn", "both")
    wide, turn, both = tfcnn.load_model(write(tmp_path / "axes.h5", config, {}))(PICTURE)
    x = PICTURE.transpose(0, 3, 1, 2)
    expected = np.concatenate([np.concatenate([x, x], 1)] * 2, 3)
    np.testing.assert_array_equal(wide, expected.transpose(0, 2, 3, 1))
    turned = expected.reshape(2, 7, 6, 12).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(turn, turned.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(both, np.concatenate([x.reshape(2, -1)] * 2, 1))


def takes_no_padding_of_zero():
    """Whether this Keras is one, like 3.9, whose transposed convolutions add a line on both axes or on none."""
    try:
        keras.layers.Conv2DTranspose(1, 3, strides=2, output_padding=(0, 1))
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("order", ["tf", "th"])
@pytest.mark.parametrize(
    "border,output", [("valid", (15, 13)), ("valid", (16, 14)), ("same", (14, 12)), ("same", (13, 12))]
)
def test_deconvolution(tmp_path, order, border, output):
    kernel, bias = draw(3, 3, 3, 4), draw(4)  # h, w, C, F
    fields = conv(4, (3, 3), order=order, border_mode=border, subsample=[2, 2])
    size = [None, 4, *output] if order == "th" else [None, *output, 4]
    shape = (3, 7, 6) if order == "th" else (7, 6, 3)
    config = chain(first(shape, "Deconvolution2D", "up", **fields, output_shape=size))
    held = kernel.transpose(3, 2, 0, 1) if order == "th" else kernel
    path = write(tmp_path / "up.h5", config, {"up": [held, bias]}, backend="tensorflow")
    if output == (13, 12) and takes_no_padding_of_zero():
        with pytest.raises(InputError, match="output_padding"):
            tfcnn.load_model(path)
        return
    turned = kernel.transpose(0, 1, 3, 2)
    expected = tf.nn.conv2d_transpose(PICTURE, turned, (2, *output, 4), 2, border.upper()) + bias
    np.testing.assert_allclose(tfcnn.load_model(path)(PICTURE), expected, atol=1e-5)


@pytest.mark.parametrize("order", ["tf", "th"])
def test_convolutions_of_other_kinds(tmp_path, order):
    """Separable ones, and those over a line and a volume."""
    deep, point, bias = draw(3, 3, 3, 2), draw(1, 1, 6, 4), draw(4)
    fields = conv(4, (3, 3), order=order) | {"depth_multiplier": 2}
    shape = (3, 7, 6) if order == "th" else (7, 6, 3)
    config = chain(first(shape, "SeparableConvolution2D", "apart", **fields))
    held = [each.transpose(3, 2, 0, 1) if order == "th" else each for each in (deep, point)]
    path = write(tmp_path / "apart.h5", config, {"apart": [*held, bias]}, backend="tensorflow")
    expected = tf.nn.separable_conv2d(PICTURE, deep, point, (1, 1, 1, 1), "VALID") + bias
    np.testing.assert_allclose(tfcnn.load_model(path)(PICTURE), expected, atol=1e-5)

    volume, kernel = draw(1, 4, 5, 3, 2), draw(2, 2, 2, 2, 3)
    fields = {"nb_filter": 3, "kernel_dim1": 2, "kernel_dim2": 2, "kernel_dim3": 2, "border_mode": "same"}
    fields |= {"subsample": [1, 1, 1], "dim_ordering": order, "bias": False, "activation": "linear"}
    shape = (2, 4, 5, 3) if order == "th" else (4, 5, 3, 2)
    held = kernel.transpose(4, 3, 0, 1, 2) if order == "th" else kernel
    config = chain(first(shape, "Convolution3D", "volume", **fields))
    path = write(tmp_path / "volume.h5", config, {"volume": [held]}, backend="tensorflow")
    expected = tf.nn.conv3d(volume, kernel, (1,) * 5, "SAME")
    np.testing.assert_allclose(tfcnn.load_model(path)(volume), expected, atol=1e-5)

    line, kernel = draw(2, 9, 3), draw(4, 3, 5)
    fields = {
        "nb_filter": 5,
        "filter_length": 4,
        "subsample_length": 2,
        "border_mode": "valid",
        "bias": False,
    }
    config = chain(first((9, 3), "Convolution1D", "line", **fields, activation="relu", input_dim=3))
    held = kernel.transpose(2, 1, 0)[..., None] if order == "th" else kernel[:, None]  # before 1.2, and 1.2
    path = write(tmp_path / "line.h5", config, {"line": [held]}, backend="tensorflow")
    expected = tf.nn.relu(tf.nn.conv1d(line, kernel, 2, "VALID"))
    np.testing.assert_allclose(tfcnn.load_model(path)(line), expected, atol=1e-5)


def test_models_inside_models(tmp_path):
    """A model's weights are in one list: first what is trained, and what a frozen layer has comes after it."""
    (bn, of_bn), (frozen, of_frozen) = norm("bn", 2), norm("frozen", 2)
    frozen["config"]["trainable"] = False
    kernel, other, last = draw(1, 1, 3, 2), draw(1, 1, 2, 2), [draw(2, 2), draw(2)]
    inner = chain(layer("Convolution2D", "two", **conv(2, (1, 1), bias=False)), bn)  # a chain without a name
    outer = [
        source("start", 7, 6, 3),
        node("Convolution2D", "one", ("start", 0, 0), **conv(2, (1, 1), bias=False)),
        {**frozen, "inbound_nodes": [[["one", 0, 0]]]} | {"name": "frozen"},
        {**inner, "name": "inner", "inbound_nodes": [[["frozen", 0, 0]]]},
        node("Activation", "soft", ("inner", 1, 0), activation="softsign"),
    ]
    net = graph(outer, "soft", inputs=("start",))
    config = chain(net, layer("GlobalMaxPooling2D", "max", dim_ordering="tf"), dense("one", 2))
    order = [kernel, other, *of_bn[:2], *of_frozen, *of_bn[2:]]
    group = {"net": order, "one": last}
    with h5py.File(write(tmp_path / "inside.h5", config, {}), "r+") as file:
        held = file["model_weights"]
        held.attrs["layer_names"] = [b"net", b"one"]
        for name, values in group.items():
            one = held.create_group(name)
            one.attrs["weight_names"] = [f"w{i}".encode() for i in range(len(values))]
            for i, value in enumerate(values):
                one[f"w{i}"] = value
    x = normed(normed(PICTURE @ kernel[0, 0], of_frozen) @ other[0, 0], of_bn)
    model = tfcnn.load_model(tmp_path / "inside.h5")
    np.testing.assert_allclose(
        model(PICTURE), (x / (1 + np.abs(x))).max((1, 2)) @ last[0] + last[1], atol=1e-5
    )
    assert model.get_layer("one").kernel.shape == (1, 1, 3, 2) and not any(
        isinstance(each, keras.Model) for each in model.layers
    )


def test_hard_sigmoid_is_that_of_keras_1(tmp_path):
    config = chain(first((7, 6, 3), "Activation", "hard", activation="hard_sigmoid"))
    path = write(tmp_path / "hard.h5", config, {}, version="1.1.0")
    np.testing.assert_allclose(tfcnn.load_model(path)(5 * PICTURE), np.clip(PICTURE + 0.5, 0, 1), atol=1e-6)


def test_what_is_not_read_is_named_on_one_line(tmp_path):
    layers = [
        source("image", 7, 6, 3),
        node("Lambda", "double", ("image", 0, 0), function="4wEAAA==", function_type="lambda"),
        node("Convolution2D", "a", ("double", 0, 0), **conv(2, (1, 1), activation="swish")),
        node("BatchNormalization", "bn", ("a", 0, 0), mode=2, axis=-1, epsilon=0.001),
        node("Merge", "dot", [("a", 0, 0), ("bn", 0, 0)], mode="dot", mode_type="raw", concat_axis=-1),
        node(
            "Merge", "own", [("a", 0, 0), ("bn", 0, 0)], mode="4wEAAA==", mode_type="lambda", concat_axis=-1
        ),
        node("Highway", "high", ("own", 0, 0)),
    ]
    path = write(tmp_path / "strange.h5", graph(layers, "high"), {})
    named = r"Lambda \(double\), Conv2D of the activation swish \(a\), BatchNormalization of mode 2 \(bn\), "
    named += r"Merge of mode dot \(dot\), Merge of mode function \(own\), Highway \(high\)$"
    for allowed in (False, True):
        with pytest.raises(InputError, match=rf"strange.h5: it has layers .* not read: {named}"):
            tfcnn.load_model(path, allow_custom_objects=allowed)


BAD = {
    "shape": (
        "the layer a has weights of the shape .1, 1, 3, 3., and needs .1, 1, 3, 2.",
        {},
        [draw(1, 1, 3, 3)],
    ),
    "huge": ("the layer a has weights of the shape .* and needs", {"nb_filter": 10**12}, [draw(1, 1, 3, 2)]),
    "count": ("a has 2 arrays of weights, and needs 1", {}, [draw(1, 1, 3, 2), draw(2)]),
    "full": (
        "the layer a has the border mode 'full', which is not read",
        {"border_mode": "full"},
        [draw(1, 1, 3, 2)],
    ),
    "size": ("the layer a has the kernel_size", {"nb_row": "1"}, [draw(1, 1, 3, 2)]),
    "damaged": (
        "cannot be read as a net of Keras 1: .*dilation",
        {"subsample": [2, 2], "atrous_rate": [2, 2]},
        [draw(1, 1, 3, 2)],
    ),
    "nothing": ("it has weights of 0 layers, and its net has 1 with weights", {}, []),
    "infinite": ("holds weights that are not finite in a/kernel", {}, [np.full((1, 1, 3, 2), np.inf)]),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_do_not_fit_are_one_line(tmp_path, case):
    reason, fields, values = BAD[case]
    config = chain(first((7, 6, 3), "Convolution2D", "a", **conv(2, (1, 1), bias=False, **fields)))
    path = write(tmp_path / "bad.h5", config, {"a": values})
    with pytest.raises(InputError, match=rf"^\S+bad.h5:? .*{reason}") as caught:
        tfcnn.load_model(path)
    assert "\n" not in str(caught.value)


def test_weights_outside_the_file_are_not_read(tmp_path):
    kernel = draw(1, 1, 3, 2)
    config = chain(first((7, 6, 3), "Convolution2D", "a", **conv(2, (1, 1), bias=False)))
    write(tmp_path / "other.h5", config, {"a": [kernel]})
    path = write(tmp_path / "link.h5", config, {"a": [kernel]})
    with h5py.File(path, "r+") as file:
        del file["model_weights/a/a_W"]
        file["model_weights/a/a_W"] = h5py.ExternalLink("other.h5", "model_weights/a/a_W")
    with pytest.raises(InputError, match="the weights of a are not in the file itself"):
        tfcnn.load_model(path)


def test_what_only_the_backend_tells(tmp_path):
    """Keras 1 did not say its backend: kernels of more than a pixel are guessed only where channels are last."""
    kernel = draw(2, 3, 3, 3)
    config = chain(first((3, 7, 6), "Convolution2D", "a", **conv(2, (3, 3), order="th", bias=False)))
    path = write(tmp_path / "first.h5", config, {"a": [kernel]})
    with pytest.raises(InputError, match="whether Theano or TensorFlow .* its attribute backend"):
        tfcnn.load_model(path)
    with h5py.File(path, "r+") as file:
        file.attrs["backend"] = "theano"
    expected = convolved(PICTURE.transpose(0, 3, 1, 2), kernel, 0, 1, True, ((0, 0), (0, 0)))
    np.testing.assert_allclose(tfcnn.load_model(path)(PICTURE), expected.transpose(0, 2, 3, 1), atol=1e-5)

    mixed = chain(
        first((3, 7, 6), "Convolution2D", "a", **conv(2, (1, 1), order="th", bias=False)),
        layer(
            "MaxPooling2D", "max", pool_size=[2, 2], strides=[2, 2], border_mode="valid", dim_ordering="tf"
        ),
    )
    with pytest.raises(InputError, match="some of its layers have the channels first, and some last"):
        tfcnn.load_model(write(tmp_path / "mixed.h5", mixed, {"a": [draw(2, 3, 1, 1)]}))

    pooled = chain(
        first(
            (7, 6, 3),
            "MaxPooling2D",
            "max",
            pool_size=[2, 2],
            strides=[2, 2],
            border_mode="same",
            dim_ordering="tf",
        )
    )
    with pytest.raises(InputError, match="the layer max pads as only Theano does"):
        tfcnn.load_model(write(tmp_path / "pooled.h5", pooled, {}, backend="theano"))


# ------------------------------------------------------------------------------------------ Keras 2


def conv_2(filters, size, **config):
    fields = {"filters": filters, "kernel_size": list(size), "strides": [1, 1], "padding": "valid"}
    fields |= {
        "data_format": "channels_last",
        "dilation_rate": [1, 1],
        "activation": "linear",
        "use_bias": True,
    }
    return {**fields, "kernel_initializer": {"class_name": "Zeros", "config": {}}, **config}


def sized(entry, *size):
    """The first layer of a chain of Keras 2."""
    return {**entry, "config": {**entry["config"], "batch_input_shape": [None, *size], "dtype": "float32"}}


@pytest.mark.parametrize("form", ["list", "named", "inside", "model"])
def test_chains_of_early_keras_2(tmp_path, form):
    """2.0 to 2.2.2 wrote a chain as a list, 2.2.3 and 2.2.4 with a name, none of them with an InputLayer."""
    values, dense_values = [draw(3, 3, 3, 4), draw(4)], [draw(4, 2), draw(2)]
    a = sized(layer("Conv2D", "a", **conv_2(4, (3, 3), activation="relu")), 7, 6, 3)
    rest = [layer("GlobalAveragePooling2D", "mean", data_format="channels_last")]
    rest.append(layer("Dense", "b", units=2, activation="linear", use_bias=True))
    config, first_name = chain(a, *rest), "a"
    if form == "named":
        config = {"class_name": "Sequential", "config": {"name": "net", "layers": [a, *rest]}}
    if form == "inside":
        config = chain(chain(a), *rest)
    if form == "model":
        described = {**a, "name": "a", "inbound_nodes": [[["image", 0, 0, {}]]]}
        start = node("InputLayer", "image", batch_input_shape=[None, 7, 6, 3], dtype="float32", sparse=False)
        config, first_name = chain(graph([start, described], "a"), *rest), "net"
    weights = {first_name: values, "mean": [], "b": dense_values}
    path = write(tmp_path / "two.h5", config, weights, version="2.0.8", backend="tensorflow")
    x = tf.nn.relu(tf.nn.conv2d(PICTURE, values[0], 1, "VALID") + values[1])
    expected = np.mean(x, (1, 2)) @ dense_values[0] + dense_values[1]
    np.testing.assert_allclose(tfcnn.load_model(path)(PICTURE), expected, atol=1e-5)


def test_hard_sigmoid_of_keras_2_is_refused(tmp_path):
    """Keras 3 has another function of this name: the numbers would be others, and nothing would say so."""
    a = sized(layer("Conv2D", "a", **conv_2(4, (3, 3), activation="hard_sigmoid")), 7, 6, 3)
    values = {"a": [draw(3, 3, 3, 4), draw(4)]}
    path = write(tmp_path / "hard.h5", chain(a), values, version="2.3.1", backend="tensorflow")
    with pytest.raises(
        InputError, match="is of Keras 2, whose hard_sigmoid in a is another function in Keras 3"
    ):
        tfcnn.load_model(path)
    assert not np.allclose(keras.activations.hard_sigmoid(np.array([1.0])), 0.2 + 0.5), "it can be opened now"


def test_keras_2_on_theano(tmp_path):
    """Its kernels are turned, and its padding is Theano's; the rows below a Flatten are in either order."""
    kernel, bias = draw(3, 3, 3, 4), draw(4)
    fields = conv_2(4, (3, 3), padding="same", strides=[2, 2], data_format="channels_first")
    a = sized(layer("Conv2D", "a", **fields), 3, 7, 6)
    rows, x = draw(4 * 4 * 3, 2), PICTURE.transpose(0, 3, 1, 2)
    x = convolved(x, kernel.transpose(3, 2, 0, 1), bias, 2, True, ((1, 1), (1, 1)))
    for number, format_ in enumerate(
        ({}, {"data_format": "channels_first"})
    ):  # the latter flattens with channels last
        b = layer("Dense", "b", units=2, activation="linear", use_bias=False)
        config = chain(a, layer("Flatten", "flat", **format_), b)
        path = write(tmp_path / f"{number}.h5", config, {"a": [kernel, bias], "b": [rows]}, "2.1.6", "theano")
        flat = (x.transpose(0, 2, 3, 1) if format_ else x).reshape(2, -1)
        np.testing.assert_allclose(tfcnn.load_model(path)(PICTURE), flat @ rows, atol=1e-5)
