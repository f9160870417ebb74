"""Caffe's files: every layer against OpenCV's dnn module, and files that are damaged or do not fit."""

import gzip

import cv2
import keras
import numpy as np
import pytest
from caffe_files import blob, caffemodel, field, prototxt, varint

import tfcnn
from tfcnn.backbones import any_size
from tfcnn.backbones.importers import caffe, caffe_reference, protobuf
from tfcnn.backbones.layers import CaffePooling2D, SpatialResponseNormalization
from tfcnn.backbones.rows import Preprocessing
from tfcnn.errors import InputError

RANDOM = np.random.default_rng(0)


def normal(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def positive(*shape):
    return RANDOM.uniform(0.5, 2, shape).astype(np.float32)


# name: (size, layers, weights). A blob's order is Caffe's: out, in / groups, height, width.
NETS = {
    "groups": (
        (4, 9, 11),
        [
            (
                "Convolution",
                "a",
                "data",
                "convolution_param { num_output: 6 kernel_size: 3 group: 2 pad: 1 stride: 2}",
            ),
            ("Convolution", "b", "a", "convolution_param { num_output: 12 kernel_size: 3 pad: 1 group: 6 }"),
            ("ReLU", "c", "b", "relu_param { negative_slope: 0.1 }"),
        ],
        {"a": [normal(6, 2, 3, 3), normal(6)], "b": [normal(12, 1, 3, 3), normal(12)]},
    ),
    "dilation": (
        (3, 15, 13),
        [
            (
                "Convolution",
                "a",
                "data",
                "convolution_param { num_output: 4 kernel_size: 3 dilation: 2 pad: 2 }",
            ),
            (
                "Convolution",
                "b",
                "a",
                "convolution_param { num_output: 5 kernel_h: 1 kernel_w: 3 pad_h: 0 pad_w: 2 bias_term: false }",
            ),
            (
                "Convolution",
                "c",
                "b",
                "convolution_param { num_output: 2 kernel_size: 2 dilation: 3 stride: 2 }",
            ),
        ],
        {
            "a": [normal(4, 3, 3, 3), normal(4)],
            "b": [normal(5, 4, 1, 3)],
            "c": [normal(2, 5, 2, 2), normal(2)],
        },
    ),
    "pools": (
        (3, 13, 10),
        [
            (
                "Convolution",
                "z",
                "data",
                "convolution_param { num_output: 3 kernel_size: 1 bias_term: false }",
            ),
            ("Pooling", "a", "z", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }"),
            ("Pooling", "b", "z", "pooling_param { pool: MAX kernel_size: 3 stride: 2 pad: 1 }"),
            ("Pooling", "c", "z", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"),
            ("Pooling", "d", "z", "pooling_param { pool: AVE kernel_size: 4 stride: 3 }"),
            (
                "Pooling",
                "e",
                "data",
                "pooling_param { pool: MAX kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 1 }",
            ),
        ],
        {"z": [normal(3, 3, 1, 1)]},
    ),
    "dense": (
        (3, 6, 5),
        [
            ("Pooling", "a", "data", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"),
            ("InnerProduct", "b", "a", "inner_product_param { num_output: 7 }"),
            ("PReLU", "c", "b", ""),
            ("Dropout", "d", "c", "dropout_param { dropout_ratio: 0.4 }"),
            ("InnerProduct", "e", "d", "inner_product_param { num_output: 4 bias_term: false }"),
            ("Softmax", "f", "e", ""),
        ],
        {"b": [normal(7, 27), normal(7)], "c": [normal(7)], "e": [normal(4, 7)]},
    ),
    "norms": (
        (6, 7, 8),
        [
            ("LRN", "a", "data", "lrn_param { local_size: 5 alpha: 0.3 beta: 0.75 }"),
            ("BatchNorm", "b", "a", "batch_norm_param { use_global_stats: true eps: 0.001 }"),
            ("Scale", "c", "b", "scale_param { bias_term: true }"),
            ("BatchNorm", "d", "c", ""),
            ("PReLU", "e", "d", ""),
            ("Scale", "f", "e", "scale_param { bias_term: true }"),
        ],
        {
            "b": [normal(6), positive(6), np.array([2.0])],
            "c": [positive(6), normal(6)],
            "d": [normal(6), positive(6), np.array([1.0])],
            "e": [normal(6)],
            "f": [normal(6), normal(6)],
        },
    ),
    "joins": (
        (4, 6, 6),
        [
            ("Convolution", "a", "data", "convolution_param { num_output: 4 kernel_size: 1 }"),
            ("TanH", "b", "a", ""),
            ("Sigmoid", "c", "data", ""),
            ("Eltwise", "d", "b c", "eltwise_param { operation: SUM coeff: 1 coeff: -0.5 }"),
            ("Eltwise", "e", "d data", "eltwise_param { operation: MAX }"),
            ("Eltwise", "f", "e c", "eltwise_param { operation: PROD }"),
            ("Concat", "g", "f a b", ""),
            ("Flatten", "h", "g", ""),
            ("InnerProduct", "i", "h", "inner_product_param { num_output: 3 }"),
        ],
        {"a": [normal(4, 4, 1, 1), normal(4)], "i": [normal(3, 432), normal(3)]},
    ),
    "global": (
        (3, 9, 9),
        [
            ("Convolution", "a", "data", "convolution_param { num_output: 5 kernel_size: 3 }"),
            ("Pooling", "b", "a", "pooling_param { pool: AVE global_pooling: true }"),
            ("Softmax", "c", "b", ""),
        ],
        {"a": [normal(5, 3, 3, 3), normal(5)]},
    ),
}


@pytest.fixture
def files(tmp_path):
    """A function from a net's size, layers and weights to its two files."""

    def write(size, layers, weights, old=False):
        (tmp_path / "net.prototxt").write_text(layers if isinstance(layers, str) else prototxt(size, *layers))
        (tmp_path / "net.caffemodel").write_bytes(caffemodel(weights, old))
        return tmp_path / "net.prototxt", tmp_path / "net.caffemodel"

    return write


@pytest.mark.parametrize("name", NETS)
def test_every_layer_answers_as_in_opencv(files, name):
    size, layers, weights = NETS[name]
    paths = files(size, layers, weights)
    imported = caffe.load(*paths)
    pictures = normal(2, size[1], size[2], size[0])
    outputs = imported.model(pictures)
    outputs = outputs if isinstance(outputs, dict) else {next(iter(imported.outputs)): outputs}
    expected = caffe_reference.answers(*paths, pictures, list(imported.outputs.values()))
    assert len(expected) == len(outputs) >= 1
    for own, other in zip(outputs.values(), expected, strict=True):
        np.testing.assert_allclose(own, other.reshape(own.shape), atol=1e-4)
    assert not any(isinstance(layer, keras.Model) for layer in imported.model.layers)
    assert {each["from"] for each in imported.layers} == set(weights) and not imported.left_over


def test_a_batch_norm_and_its_scale_are_one_layer(files):
    size, layers, weights = NETS["norms"]
    model = caffe.load(*files(size, layers, weights)).model
    norm = model.get_layer("b")
    gamma, beta, mean, variance = norm.get_weights()
    np.testing.assert_array_equal(gamma, weights["c"][0])
    np.testing.assert_array_equal(beta, weights["c"][1])
    np.testing.assert_allclose(mean, weights["b"][0] / 2)  # the third blob counts what was summed
    np.testing.assert_allclose(variance, weights["b"][1] / 2)
    assert norm.epsilon == 0.001 and "c" not in [layer.name for layer in model.layers]
    assert model.get_layer("d").scale is False and type(model.get_layer("f")) is keras.layers.DepthwiseConv2D


def test_a_global_pool_before_the_classes_gives_a_vector_and_any_size(files):
    model = caffe.load(*files(*NETS["global"])).model
    assert model.output_shape == (None, 5)
    assert any_size(model)(normal(1, 20, 30, 3)).shape == (1, 5)


@pytest.mark.parametrize("mode", ["max", "mean"])
@pytest.mark.parametrize("ceil", [True, False])
@pytest.mark.parametrize("window,stride,pad", [(3, 2, 1), (2, 3, 1), (3, 1, 2), (2, 2, 0), (4, 3, 0)])
def test_pooling_against_loops(mode, ceil, window, stride, pad):
    height, width = 8, 11
    x = normal(1, height, width, 2)
    counts = []
    for size in (height, width):
        steps = (size + 2 * pad - window) / stride
        count = int(np.ceil(steps) if ceil else np.floor(steps)) + 1
        counts.append(count - 1 if pad and (count - 1) * stride >= size + pad else count)
    expected = np.zeros((1, *counts, 2))
    for i in range(counts[0]):
        for j in range(counts[1]):
            top, left = i * stride - pad, j * stride - pad
            below, right = min(top + window, height + pad), min(left + window, width + pad)
            part = x[0, max(top, 0) : min(below, height), max(left, 0) : min(right, width)]
            area = (below - top) * (right - left)
            expected[0, i, j] = part.max((0, 1)) if mode == "max" else part.sum((0, 1)) / area
    layer = CaffePooling2D((window,) * 2, (stride,) * 2, (pad,) * 2, mode, ceil)
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)
    assert layer.compute_output_shape(x.shape) == expected.shape
    image = keras.Input((None, None, 2))
    opened = keras.Model(image, type(layer).from_config(layer.get_config())(image))
    np.testing.assert_allclose(opened(x), expected, atol=1e-5)


def test_normalization_within_a_channel_by_hand():
    x = np.zeros((1, 3, 3, 1), np.float32)
    x[0, 1, 1], x[0, 0, 0] = 3, 1
    y = SpatialResponseNormalization(3, alpha=2.0, beta=0.5)(x)[0, ..., 0]
    np.testing.assert_allclose(y[1, 1], 3 / np.sqrt(1 + 2 * (9 + 1) / 9), rtol=1e-6)
    np.testing.assert_allclose(y[0, 0], 1 / np.sqrt(1 + 2 * (9 + 1) / 9), rtol=1e-6)
    assert y[2, 2] == 0


def test_files_of_before_2014(files):
    text = """
    input: "data" input_dim: 1 input_dim: 2 input_dim: 5 input_dim: 4
    layers { name: 'conv' type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 blobs_lr: 2
             convolution_param { num_output: 3 kernel_size: 3 } }
    layers { name: "relu" type: RELU bottom: "conv" top: "conv" }
    layers { name: "fc" type: INNER_PRODUCT bottom: "conv" top: "fc" inner_product_param { num_output: 2 } }
    layers { name: "loss" type: SOFTMAX_LOSS bottom: "fc" bottom: "label" top: "loss" include: { phase: TRAIN } }
    """
    kernel, bias, matrix, shift = normal(3, 2, 3, 3), normal(3), normal(2, 18), normal(2)
    imported = caffe.load(*files(None, text, {"conv": [kernel, bias], "fc": [matrix, shift]}, old=True))
    x = normal(1, 5, 4, 2)
    maps = np.zeros((3, 3, 2))
    for f in range(3):
        for i in range(3):
            for j in range(2):
                maps[f, i, j] = max(
                    0, np.sum(kernel[f] * x[0, i : i + 3, j : j + 3].transpose(2, 0, 1)) + bias[f]
                )
    np.testing.assert_allclose(imported.model(x)[0], matrix @ maps.reshape(-1) + shift, atol=1e-4)


def test_preprocessing_is_inside_and_the_model_is_saved_and_read(files, tmp_path):
    paths = files(*NETS["dense"])
    plain = caffe.load(*paths).model
    model = caffe.load(*paths, preprocessing=Preprocessing("bgr", (30.0, 20.0, 10.0), (4.0,) * 3)).model
    rgb = RANDOM.uniform(0, 255, (2, 6, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(model(rgb), plain((rgb[..., ::-1] - [10, 20, 30]) / 4), atol=1e-5)
    np.testing.assert_array_equal(model.zero_rgb, [30, 20, 10])
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(tfcnn.load_model(tmp_path / "model.keras")(rgb), model(rgb))
    with pytest.raises(InputError, match="reads 3 channels, and pictures in the order grey have 1"):
        caffe.load(*paths, preprocessing=Preprocessing("grey"))


def test_endpoints_leave_out_what_lies_above_them(files):
    size, layers, weights = NETS["dense"]
    strange = ("Python", "proposal", "a", 'python_param { module: "rpn" }')
    paths = files(size, [*layers, strange, ("ROIPooling", "roi", "proposal", "")], weights)
    with pytest.raises(InputError, match=r"not known: Python \(proposal\), ROIPooling \(roi\)"):
        caffe.load(*paths)
    imported = caffe.load(*paths, endpoints=["c", "a"])
    assert list(imported.model.output) == ["c", "a"] and imported.left_over == ["e"]
    with pytest.raises(InputError, match="unknown blob .* 'cc'; the nearest are c"):
        caffe.load(*paths, endpoints=["cc"])


CONV = ("Convolution", "a", "data", "convolution_param { num_output: 4 kernel_size: 3 }")
FITTING = {"a": [normal(4, 3, 3, 3), normal(4)]}
MISFITS = {
    "kernel": (
        {"a": [normal(4, 3, 5, 5), normal(4)]},
        "first layer that differs is a, 4x3x3x3 . 4 .* 4x3x5x5 . 4",
    ),
    "bias": ({"a": [normal(4, 3, 3, 3)]}, "first layer that differs is a"),
    "absent": ({"b": FITTING["a"]}, "has no weights for the layer a"),
    "left over": ({**FITTING, "loss1/fc": [normal(2, 2)]}, "layers that .* lacks: loss1/fc"),
    "not finite": ({"a": [np.full((4, 3, 3, 3), np.nan), normal(4)]}, "not finite in a"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_weights_that_do_not_fit(files, case):
    weights, reason = MISFITS[case]
    with pytest.raises(InputError, match=reason):
        caffe.load(*files((3, 8, 8), [CONV], weights))


def test_what_is_left_over_may_be_allowed(files):
    imported = caffe.load(*files((3, 8, 8), [CONV], {**FITTING, "loss": [normal(2)]}), allow_left_over=True)
    assert imported.left_over == ["loss"]


def test_layers_whose_names_are_alike_get_names_of_their_own(files):
    layers = [
        ("Convolution", "a/b", "data", "convolution_param { num_output: 3 kernel_size: 1 }"),
        ("Convolution", "a_b", "a/b", "convolution_param { num_output: 3 kernel_size: 1 }"),
        ("ReLU", "r", "a_b", ""),
        ("TanH", "r", "r", ""),
    ]
    weights = {"a/b": [normal(3, 3, 1, 1), normal(3)], "a_b": [normal(3, 3, 1, 1), normal(3)]}
    imported = caffe.load(*files((3, 8, 8), layers, weights))
    assert [each["to"] for each in imported.layers] == ["a_b", "a_b_2"]
    assert [layer.name for layer in imported.model.layers[1:]] == ["a_b", "a_b_2", "r", "r_2"]
    twice = [CONV, ("Convolution", CONV[1], CONV[1], CONV[3])]
    with pytest.raises(InputError, match=f"two layers with weights that are named {CONV[1]}"):
        caffe.load(*files((3, 8, 8), twice, FITTING))


def test_a_name_that_keras_takes_itself_is_a_line(files):
    with pytest.raises(InputError, match="Keras cannot build the net"):
        caffe.load(*files((3, 8, 8), [("ReLU", "image", "data", "")], FITTING), allow_left_over=True)


WRONG = {
    "layer { name: 'a'": "line 1: the end of the text stands where",
    "layer { name: 'a' } }": "line 1: '}' stands where",
    "layer { name }": "name has no value",
    "layer: [1, 2": "line 1: the list of layer has no end",
    "\x00": "not expected",
    "layer { " * 40: "32 deep",
    "name: 'nothing'": "describes no layers",
    "layer: 3": "describes no layers",
}


@pytest.mark.parametrize("text", WRONG)
def test_text_that_is_no_prototxt(files, text):
    with pytest.raises(InputError, match=WRONG[text]):
        caffe.load(*files(None, text, FITTING))


@pytest.mark.parametrize(
    "options,reason",
    [
        ("convolution_param { num_output: 4 }", "it has no kernel_size"),
        ("convolution_param { num_output: 4 kernel_size: -3 }", "kernel_size is -3"),
        ("convolution_param { num_output: 1e9 kernel_size: 3 }", "num_output is 1000000000.0"),
        (
            "convolution_param { num_output: 1000000000 kernel_size: 3 }",
            "1000000000x3x3x3 .* prototxt and 4x3x3x3",
        ),
        ("convolution_param { num_output: 4 kernel_size: 9 }", "nothing is left of its map"),
        ("convolution_param { num_output: 4 kernel_size: 3 group: 3 }", "cannot be split into 3 groups"),
        ("convolution_param: 3", "is no message"),
    ],
)
def test_options_that_make_no_sense(files, options, reason):
    layer = (*CONV[:3], options)
    with pytest.raises(InputError, match=reason):
        caffe.load(*files((3, 8, 8), [layer], FITTING))


@pytest.mark.parametrize("name", ["missing", "broken", "short", "no layers", "empty"])
def test_files_that_are_no_caffemodel(files, tmp_path, name):
    text, path = files((3, 8, 8), [CONV], FITTING)
    whole = path.read_bytes()
    content = {"broken": b"\xff" * 30, "short": whole[:-7], "no layers": field(1, b"name"), "empty": b""}
    if name == "missing":
        path.unlink()
    else:
        path.write_bytes(content[name])
    with pytest.raises(InputError, match="net.caffemodel"):
        caffe.load(text, path)


def test_every_cut_of_a_caffemodel_is_refused_in_a_line(files):
    text, path = files((3, 8, 8), [CONV], FITTING)
    whole = path.read_bytes()
    for end in [*range(1, 60), len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match="^[^\n]+$"):
            caffe.load(text, path)


def test_a_blob_claims_no_more_numbers_than_it_holds(files):
    text, path = files((3, 8, 8), [CONV], FITTING)
    huge = field(7, field(1, varint(1 << 40) + varint(1 << 40))) + field(5, b"\0" * 8)
    path.write_bytes(field(100, field(1, b"a") + field(7, huge)))
    with pytest.raises(InputError, match="1099511627776x1099511627776 holds 2 numbers"):
        caffe.load(text, path)


def test_numbers_that_are_not_packed():
    parts = [value.tobytes() for value in np.array([1.5, -2], "<f4")]
    np.testing.assert_array_equal(protobuf.floats(parts), [1.5, -2])
    with pytest.raises(protobuf.Malformed):
        protobuf.floats([b"123"])


def test_the_mean_of_a_mean_picture(tmp_path):
    picture = np.arange(12.0).reshape(1, 3, 2, 2)
    (tmp_path / "mean.binaryproto").write_bytes(blob(picture, old=True))
    assert caffe.mean_of(tmp_path / "mean.binaryproto") == (1.5, 5.5, 9.5)


# ------------------------------------------------------------------------------------- trained nets


def test_lenet_reads_mnist_as_it_does_in_caffe(data):
    paths = data("caffe/lenet.prototxt"), data("caffe/lenet.caffemodel")
    model = caffe.load(*paths, preprocessing=Preprocessing("grey", scale=(256.0,) * 3)).model
    pixels = gzip.decompress(data("mnist/t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = np.frombuffer(
        gzip.decompress(data("mnist/t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8
    )
    pictures = np.frombuffer(pixels, np.uint8).reshape(-1, 28, 28, 1).repeat(3, axis=-1)
    found = [np.argmax(model(part.astype(np.float32)), -1) for part in np.split(pictures, 10)]
    assert (np.concatenate(found) == labels).mean() == 0.9914


@pytest.mark.parametrize("number,size", [(1, 12), (2, 24), (3, 48)])
def test_mtcnn_answers_as_in_opencv(data, number, size):
    paths = data(f"caffe/mtcnn_det{number}.prototxt"), data(f"caffe/mtcnn_det{number}.caffemodel")
    imported = caffe.load(*paths)
    pictures = normal(3, size, size, 3)
    outputs = imported.model(pictures)
    assert set(outputs) == {"prob", "bbox_pred", "landmark_pred"}
    expected = caffe_reference.answers(*paths, pictures, list(imported.outputs.values()))
    for own, other in zip(outputs.values(), expected, strict=True):
        np.testing.assert_allclose(own, other.reshape(own.shape), atol=1e-4)


def test_opencv_says_in_a_line_what_it_cannot_read(files):
    text, path = files((3, 8, 8), [CONV], FITTING)
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(InputError, match="OpenCV's dnn module cannot"):
        caffe_reference.answers(text, path, normal(1, 8, 8, 3), ["a"])
    assert cv2.__version__
