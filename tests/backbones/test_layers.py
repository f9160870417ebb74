"""The nets' own layers against loops written plainly, and by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcnn.backbones import classifier
from tfcnn.backbones.layers import CeilMaxPooling2D, GroupedConv2D, LocalResponseNormalization, Preprocess
from tfcnn.backbones.table import NETS, PREPROCESSINGS


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_preprocess_by_hand():
    row = NETS["vgg16"].preprocessing
    layer = Preprocess(row.order, row.mean, row.scale)
    red = np.array([[[[255.0, 0.0, 0.0]]]], np.float32)
    np.testing.assert_allclose(layer(red)[0, 0, 0], [-103.939, -116.779, 255 - 123.68], rtol=1e-6)
    np.testing.assert_allclose(layer.zero_rgb, [123.68, 116.779, 103.939])
    tf_mode = PREPROCESSINGS["tf"]
    np.testing.assert_allclose(
        Preprocess(tf_mode.order, tf_mode.mean, tf_mode.scale)(red)[0, 0, 0], [1, -1, -1]
    )


@pytest.mark.parametrize("name", NETS)
def test_zero_rgb_is_what_the_net_sees_as_zero(name):
    row = NETS[name].preprocessing
    layer = Preprocess(row.order, row.mean, row.scale)
    assert np.abs(layer(layer.zero_rgb[None, None, None])).max() < 1e-6


@pytest.mark.parametrize("mean, size", [((127, 127, 127), 1), ((127, 127, 126), 3)])
def test_equal_means_are_one_number_for_litert(mean, size):
    layer = Preprocess(mean=mean, scale=(128,) * 3)
    spec = tf.TensorSpec([1, 8, 8, 3])
    graph = tf.function(layer).get_concrete_function(spec).graph
    constants = [op.outputs[0].shape.num_elements() for op in graph.get_operations() if op.type == "Const"]
    assert sorted(constants) == sorted([1, size])
    image = np.random.default_rng(0).uniform(0, 255, (1, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(layer(image), (image - np.float32(mean)) / 128, rtol=1e-6)


def test_preprocess_keeps_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        image = keras.Input((None, None, 3))
        layer = Preprocess(mean=(127.5,) * 3)
        model = keras.Model(image, layer(image))
    finally:
        keras.config.set_dtype_policy("float32")
    values = np.full((1, 1, 1, 3), 200.1, np.float32)
    np.testing.assert_allclose(np.asarray(model(values), np.float64), 72.6, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_classifiers_end_in_float32_under_mixed_precision(random, policy):
    keras.config.set_dtype_policy(policy)
    try:
        nets = [classifier(name, None, classes=5, size=99) for name in ("alexnet", "mobilenet_v2")]
    finally:
        keras.config.set_dtype_policy("float32")
    picture = random.uniform(0, 255, (1, 99, 99, 3)).astype(np.float32)
    for net in nets:
        for values in net(picture).values():
            assert values.dtype == tf.float32 and np.isfinite(values).all()


def test_local_response_normalization_is_caffes(random):
    x = random.normal(0, 30, (2, 3, 4, 9)).astype(np.float32)
    expected = np.empty_like(x)
    for channel in range(9):
        neighbours = x[..., max(0, channel - 2) : channel + 3].astype(np.float64)
        expected[..., channel] = x[..., channel] / (1 + 1e-4 / 5 * (neighbours**2).sum(-1)) ** 0.75
    np.testing.assert_allclose(LocalResponseNormalization()(x), expected, rtol=1e-5)


@pytest.mark.parametrize("height,width", [(5, 5), (6, 7), (8, 9), (13, 2), (55, 56)])
def test_ceil_pooling_is_caffes(random, height, width):
    x = random.normal(-50, 1, (2, height, width, 3)).astype(np.float32)
    rows, columns = int(np.ceil((height - 3) / 2)) + 1, int(np.ceil((width - 3) / 2)) + 1
    expected = np.empty((2, rows, columns, 3), np.float32)
    for i in range(rows):
        for j in range(columns):
            expected[:, i, j] = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2))
    layer = CeilMaxPooling2D(3, 2)
    assert layer.compute_output_shape(x.shape) == expected.shape
    np.testing.assert_array_equal(layer(x), expected)
    dynamic = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 3))])
    np.testing.assert_array_equal(dynamic(x), expected)


def test_a_grouped_convolution_is_convolutions_side_by_side(random):
    x = random.normal(0, 1, (2, 7, 8, 6)).astype(np.float32)
    layer = GroupedConv2D(4, 3, padding="same", groups=2, activation="relu")
    layer.build(x.shape)
    kernel, bias = random.normal(0, 1, (3, 3, 3, 4)), random.normal(0, 1, 4)
    layer.set_weights([kernel, bias])
    for group in range(2):
        alone = keras.layers.Conv2D(2, 3, padding="same", activation="relu")
        alone.build((2, 7, 8, 3))
        alone.set_weights([kernel[..., 2 * group : 2 * group + 2], bias[2 * group : 2 * group + 2]])
        half = alone(x[..., 3 * group : 3 * group + 3])
        np.testing.assert_allclose(layer(x)[..., 2 * group : 2 * group + 2], half, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        Preprocess("bgr", (1, 2, 3), (4, 5, 6), name="a"),
        LocalResponseNormalization(3, 2.0, 1e-3, 0.5),
        CeilMaxPooling2D(3, 2),
        GroupedConv2D(4, 3, groups=2),
    ],
)
def test_configurations_come_back(layer):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
