"""Receptive fields: the papers' numbers, and the pixels that a location's value really depends on."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcnn import backbones
from tfcnn.backbones.layers import CeilMaxPooling2D
from tfcnn.errors import InputError
from tfcnn.visualization.receptive_field import receptive_field


def branches(height, width, pool, ones=True):
    """A net of two branches, "same" and "valid", a dilated, a separable and a strided convolution."""
    options = {"kernel_initializer": "ones", "use_bias": False} if ones else {}
    image = keras.Input((height, width, 3))
    x = layers.Conv2D(2, 3, strides=2, padding="same", name="stem", **options)(image)
    left = layers.Conv2D(2, 3, dilation_rate=2, padding="same", name="left", **options)(x)
    right = layers.ZeroPadding2D(((1, 0), (2, 1)))(x)
    right = layers.Conv2D(2, (2, 4), name="right", **options)(right)
    x = layers.Concatenate(name="both")([left, layers.Activation("relu")(right)])
    x = pool(3, 2, name="pool")(x)
    separable = {"depthwise_initializer": "ones", "pointwise_initializer": "ones", "use_bias": False}
    x = layers.SeparableConv2D(2, 3, padding="same", name="separable", **separable)(x)
    x = layers.Add(name="sum")([x, layers.Cropping2D(0)(x)])
    return keras.Model(image, layers.Dense(2, name="end", **options)(layers.Flatten()(x)))


def alive(model, layer, location):
    """Pixels from which a location's value has a gradient: bool [H, W]."""
    tapped = backbones.tap(model, [layer])
    picture = tf.ones([1, *model.input_shape[1:]])
    with tf.GradientTape() as tape:
        tape.watch(picture)
        value = tf.reduce_sum(tapped(picture)[layer][(0, *location)])
    return np.abs(tape.gradient(value, picture)[0]).sum(-1) > 0


def box_of(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("size", [(33, 40), (32, 41)])
def test_fields_are_where_gradients_are(size):
    model = branches(*size, layers.AveragePooling2D)
    for layer in ("stem", "left", "right", "both", "pool", "separable", "sum"):
        field = receptive_field(model, layer)
        height, width = backbones.tap(model, [layer]).output[layer].shape[1:3]
        for location in [(0, 0), (height // 2, width // 2), (height - 1, width - 1)]:
            (box,) = field.boxes([location[0]], [location[1]], clip=True)
            assert box.tolist() == box_of(alive(model, layer, location)), (layer, location)
    whole = receptive_field(model, "end")
    assert whole.boxes([0], [0]).tolist() == [[0, 0, size[1], size[0]]] and whole.stride == (0, 0)


@pytest.mark.parametrize("pool", [layers.MaxPooling2D, CeilMaxPooling2D])
def test_fields_of_max_pooling_are_the_pixels_that_a_location_answers_to(pool):
    """A net without biases and with positive weights answers to a single white pixel where its field holds it."""
    height, width = 21, 24
    model = branches(height, width, pool)
    pixels = np.zeros((height * width, height, width, 3), np.float32)
    pixels.reshape(height * width, -1, 3)[np.arange(height * width), np.arange(height * width)] = 1
    answers = np.array(backbones.tap(model, ["separable"])(pixels)["separable"])[..., 0] > 0
    field = receptive_field(model, "separable")
    for row in range(answers.shape[1]):
        for column in range(answers.shape[2]):
            (box,) = field.boxes([row], [column], clip=True)
            assert box.tolist() == box_of(answers[:, row, column].reshape(height, width))


def test_upsampled_maps_are_within_their_field():
    image = keras.Input((24, 24, 3))
    x = layers.Conv2D(1, 3, 2, padding="same", kernel_initializer="ones")(image)
    up = layers.UpSampling2D(2, name="up")(layers.Conv2D(1, 3, 2, "same", kernel_initializer="ones")(x))
    back = layers.Conv2DTranspose(1, 4, 2, "same", kernel_initializer="ones", name="back")(up)
    model = keras.Model(image, layers.Add(name="sum")([up, x]))
    wide = keras.Model(image, back)
    for net, layer in ((model, "up"), (model, "sum"), (wide, "back")):
        field = receptive_field(net, layer)
        assert field.stride == ((1.0, 1.0) if layer == "back" else (2.0, 2.0))
        for place in (3, 4, 5, 6):
            (box,) = field.boxes([place], [place], clip=True)
            found = box_of(alive(net, layer, (place, place)))
            assert (box[:2] <= found[:2]).all() and (box[2:] >= found[2:]).all()
            assert np.abs(box - found).max() <= 3


def test_fields_of_alexnet_and_vgg_are_the_published_ones():
    alexnet = backbones.backbone("alexnet", weights=None)
    table = {
        "conv1": (11, 4, 5.5),
        "pool1": (19, 8, 9.5),
        "conv2": (51, 8, 9.5),
        "pool2": (67, 16, 17.5),
        "conv3": (99, 16, 17.5),
        "conv5": (163, 16, 17.5),
        "pool5": (195, 32, 33.5),  # Girshick et al. 2014: 195 x 195 of 227 x 227
    }
    for layer, numbers in table.items():
        field = receptive_field(alexnet, layer, 227)
        assert (field.size[0], field.stride[0], field.offset[0]) == numbers, layer
    vgg = receptive_field(backbones.backbone("vgg16", weights=None), "block5_pool", (224, 256))
    assert (vgg.size, vgg.stride, vgg.offset) == ((212, 212), (32, 32), (16, 16))
    assert vgg.boxes([6], [7]).tolist() == [[134, 102, 346, 314]]
    assert vgg.boxes([6], [7], clip=True).tolist() == [[134, 102, 256, 224]]


def test_a_conversion_moves_nothing():
    """A model that had another inside it is flattened with the inner one's conversion of its input."""
    image = keras.Input((16, 16, 3))
    x = keras.ops.convert_to_tensor(layers.Conv2D(2, 3, strides=2, padding="same")(image))
    net = keras.Model(image, layers.Conv2D(2, 3, padding="same", name="end")(x))
    field = receptive_field(net, "end")
    assert field.size == (7, 7) and field.stride == (2, 2)


def test_what_is_not_known_is_said():
    image = keras.Input((None, None, 3))
    rolled = layers.RandomFlip(name="strange")(image)
    model = keras.Model(image, layers.Conv2D(1, 3, name="conv")(rolled))
    with pytest.raises(InputError, match="any size"):
        receptive_field(model, "conv")
    with pytest.raises(InputError, match="strange.*RandomFlip"):
        receptive_field(model, "conv", 16)
    with pytest.raises(InputError, match="conv"):
        receptive_field(model, "cnov", 16)
