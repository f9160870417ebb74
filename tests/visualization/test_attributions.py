"""SmoothGrad, integrated gradients, gradient x input and Grad-CAM by hand; the sanity check by random weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import tfcnn
from tfcnn import datasets, images
from tfcnn.backbones import any_size, classifier, zero_rgb
from tfcnn.errors import InputError
from tfcnn.visualization import saliency
from tfcnn.visualization.attributions import gradient_x_input, integrated_gradients, smoothgrad
from tfcnn.visualization.grad_cam import grad_cam, guided_grad_cam, last_map
from tfcnn.visualization.gradients import BEST, class_gradients

layers = keras.layers


def squares():
    """A score that is the sum of squares of a picture, and one that is twice that: the gradients are 2 x and 4 x."""
    image = keras.Input((4, 5, 3))
    total = keras.ops.sum(image * image, axis=(1, 2, 3), keepdims=False)
    logits = keras.ops.stack([total, 2 * total], axis=-1)
    return keras.Model(image, {"logits": logits, "scores": keras.ops.softmax(logits)}, name="squares")


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(3)
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(6, 3, strides=2, activation="relu", name="low")(image / 255.0)
    x = layers.Conv2D(8, 3, activation="relu", name="high")(x)
    x = layers.Dense(5, name="top")(layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(x)))
    return keras.Model(image, layers.Softmax()(x), name="small")


def pictures(count, shape=(16, 16, 3), seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, *shape)).astype(np.float32)


def best(count):
    return np.full(count, BEST, np.int32)


def test_smoothgrad_is_the_mean_over_its_own_noise():
    find = class_gradients(squares())
    batch = pictures(2, (4, 5, 3))
    smooth, index, logits, _ = smoothgrad(find, samples=5, noise=0.2, seed=7)(
        batch, np.array([0, 1], np.int32)
    )
    draws = tf.random.stateless_normal([5, 4, 5, 3], [7, 0]).numpy()
    spread = np.ptp(batch, axis=(1, 2, 3))[:, None, None, None]
    noisy = batch + 0.2 * spread * draws.mean(axis=0)
    np.testing.assert_allclose(smooth, noisy * np.array([2, 4])[:, None, None, None], rtol=1e-4)
    assert np.array(index).tolist() == [0, 1]
    np.testing.assert_allclose(logits[:, 0], (batch**2).sum(axis=(1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("method", ["smoothgrad", "integrated_gradients"])
def test_neither_batches_nor_chunks_change_a_map(net, method):
    batch = pictures(3)
    together, chosen, *_ = saliency.explained(net, method, samples=7)(batch, best(3))
    for at_once in (1, 4):
        maps = saliency.explained(net, method, samples=7, at_once=at_once)
        np.testing.assert_allclose(maps(batch, best(3))[0], together, rtol=1e-4, atol=1e-7)
        alone, found, *_ = maps(batch[1:2], best(1))
        np.testing.assert_allclose(alone[0], together[1], rtol=1e-4, atol=1e-7)
        assert int(found[0]) == int(chosen[1])


def test_integrated_gradients_sum_to_the_difference_of_scores(net):
    zero = np.array([10, 20, 30], np.float32)
    batch = pictures(2)
    found, index, logits, _ = integrated_gradients(class_gradients(net), zero, steps=200)(batch, best(2))
    blank = class_gradients(net)(np.broadcast_to(zero, batch.shape).astype(np.float32), index)[2].numpy()
    difference = np.take_along_axis(logits.numpy() - blank, index.numpy()[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(np.sum(found, axis=(1, 2, 3)), difference, rtol=0.01)
    attribution, *_ = integrated_gradients(class_gradients(squares()), [0, 0, 0], steps=4)(
        pictures(1, (4, 5, 3)), np.zeros(1, np.int32)
    )
    np.testing.assert_allclose(
        attribution, pictures(1, (4, 5, 3)) ** 2, rtol=1e-4
    )  # the mean of 2 t x x is x x


def test_gradient_x_input_counts_from_the_nets_zero():
    batch = pictures(1, (4, 5, 3))
    product, *_ = gradient_x_input(class_gradients(squares()), [1, 2, 3])(batch, np.zeros(1, np.int32))
    np.testing.assert_allclose(product, 2 * batch * (batch - [1, 2, 3]), rtol=1e-5)
    maps, *_ = saliency.attribution_maps(lambda images, indices: (product, indices, indices, indices))(
        batch, [0]
    )
    np.testing.assert_allclose(maps, np.abs(np.sum(product, axis=-1)), rtol=1e-5)


def test_grad_cam_by_hand():
    """Two maps A_1, A_2 of 2 x 2; the class weighs their means by 3 and -1, so that a = (3, -1) / 4."""
    image = keras.Input((4, 4, 3))
    maps = layers.Conv2D(2, 2, strides=2, use_bias=False, name="maps")(image)
    net = keras.Model(image, layers.Dense(2, use_bias=False)(layers.GlobalAveragePooling2D()(maps)))
    kernel = np.zeros((2, 2, 3, 2), np.float32)
    kernel[0, 0, 0, 0] = kernel[0, 0, 1, 1] = 1  # A_1 is red, A_2 green, of each window's first pixel
    net.set_weights([kernel, np.array([[3, 0], [-1, 2]], np.float32)])
    picture = np.zeros((1, 4, 4, 3), np.float32)
    picture[0, ::2, ::2, 0] = [[8, 4], [0, 4]]
    picture[0, ::2, ::2, 1] = [[0, 4], [8, 12]]
    coarse = np.maximum((3 * picture[:, ::2, ::2, 0] - picture[:, ::2, ::2, 1]) / 4, 0)
    assert coarse.tolist() == [[[6, 2], [0, 0]]]
    found, index, *_ = grad_cam(net)(picture, np.zeros(1, np.int32))
    assert found.shape == (1, 4, 4) and found[0, 0, 0] == 6 and found[0, 3, 0] == 0
    assert found[0, 0, 1] == 5  # a quarter of the way from 6 to 2
    assert grad_cam(net, "maps")(picture, best(1))[1][0] == 1  # logits 6 and 12
    assert last_map(net) == "maps"


def test_grad_cams_layer_may_be_chosen_and_is_checked(net):
    assert last_map(net) == "high"  # before the pooling
    batch = pictures(2)
    low, high = (grad_cam(net, layer)(batch, best(2))[0].numpy() for layer in ("low", "high"))
    assert np.abs(low - high).max() > 0 and high.min() >= 0
    with pytest.raises(InputError, match="no map"):
        grad_cam(net, "top")
    with pytest.raises(InputError, match="hihg"):
        grad_cam(net, "hihg")
    channels, index, means, _ = grad_cam(net, "low", channel_of="high")(batch, best(2))
    assert channels.shape == (2, 16, 16) and means.shape == (2, 8)
    with pytest.raises(InputError, match="does not depend on its layer high"):
        grad_cam(net, "high", channel_of="low")(batch, best(2))


def test_guided_grad_cam_is_the_product(net):
    batch = pictures(2)
    product = guided_grad_cam(net)(batch, best(2))[0].numpy()
    guided = class_gradients(net, "guided")(batch, best(2))[0].numpy()
    np.testing.assert_allclose(
        product, guided * grad_cam(net)(batch, best(2))[0].numpy()[..., None], rtol=1e-5
    )


def test_every_method_gives_a_map_of_classes_and_of_channels(net):
    batch = pictures(2)
    for method in saliency.SALIENCY_METHODS:
        found, index, logits, scores = saliency.explained(net, method, samples=2)(batch, best(2))
        assert found.shape == (2, 16, 16) and np.min(found) >= 0 and np.max(found) > 0, method
        assert np.array_equal(index, np.argmax(logits, axis=1)) and scores.shape == (2, 5)
        options = {"layer": "low"} if "cam" in method else {}
        found, *_ = saliency.explained(net, method, samples=2, channel_of="high", **options)(batch, best(2))
        assert found.shape == (2, 16, 16) and np.max(found) > 0, method
    with pytest.raises(InputError, match="'lime' is none of gradient"):
        saliency.explained(net, "lime")


def test_a_net_without_relu_gets_smoothgrad(net):
    assert saliency.usual_method(net) == "guided_grad_cam" == saliency.usual_method(net, "high")
    image = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3, activation="swish")(image))
    assert saliency.usual_method(keras.Model(image, layers.Dense(2)(x))) == "smoothgrad"
    flat = layers.Dense(2)(layers.Dense(3, activation="relu")(layers.Flatten()(image)))
    assert saliency.usual_method(keras.Model(image, flat)) == "smoothgrad"  # there is no map for Grad-CAM


def test_a_map_is_of_the_pictures_size_on_an_open_net():
    net = any_size(classifier("tiny", None, classes=3, size=32))
    found, *_ = grad_cam(net)(pictures(1, (48, 64, 3)), best(1))
    assert found.shape == (1, 48, 64)


def test_maps_change_when_weights_are_randomised_from_the_top():
    """Adebayo et al. 2018: a map that shows what a net has learned must change with its weights.

    Of guided backpropagation they found that it hardly does as long as only upper layers are random.
    """
    net = tfcnn.load_model("digits")
    records = datasets.open("digits").examples[:8]
    batch = np.stack([images.resize(record.image(), net.input_shape[1])[0] for record in records])
    batch = batch.astype(np.float32)
    find, guided = class_gradients(net), class_gradients(net, "guided")
    indices = find(batch, best(8))[1].numpy()
    functions = {
        "gradient": saliency.saliency_maps(find),
        "gradient_x_input": saliency.attribution_maps(gradient_x_input(find, zero_rgb(net))),
        "smoothgrad": saliency.saliency_maps(smoothgrad(find, samples=4)),
        "integrated_gradients": saliency.attribution_maps(integrated_gradients(find, zero_rgb(net), steps=4)),
        "grad_cam": grad_cam(net),
        "guided": saliency.saliency_maps(guided),
    }

    def maps():
        return {name: function(batch, indices)[0].numpy() for name, function in functions.items()}

    def likeness(before, after):
        pairs = zip(before.reshape(8, -1), after.reshape(8, -1), strict=True)
        return np.mean([abs(stats.spearmanr(a, b).statistic) for a, b in pairs if np.ptp(a) and np.ptp(b)])

    before = maps()
    rng = np.random.default_rng(0)
    weighted = [layer for layer in net.layers if layer.weights]
    found = []
    for part in (weighted[-1:], weighted):  # the top alone, then all
        for weight in (w for layer in part for w in layer.trainable_weights if len(w.shape) > 1):
            weight.assign(rng.normal(0, np.std(weight), weight.shape))
        after = maps()
        found.append({name: likeness(before[name], after[name]) for name in before})
    top, cascade = found
    assert top.pop("guided") > 0.85 and cascade.pop("guided") < 0.8, found
    assert max(top.values()) < 0.8 and max(cascade.values()) < 0.8, found
