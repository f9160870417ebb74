"""The loss of neural style by hand, its targets, its start, its options."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcnn.art import paint, style
from tfcnn.art.style import Layers, StyleProblem, transfer
from tfcnn.backbones import average_pooling, tap
from tfcnn.errors import InputError
from tfcnn.imageopt.objectives import gram_matrix

RANDOM = np.random.default_rng(0)
CONTENT = RANDOM.uniform(60, 200, (48, 64, 3)).astype(np.float32)
STYLE = RANDOM.uniform(0, 255, (40, 56, 3)).astype(np.float32)
OTHER = RANDOM.uniform(0, 90, (56, 30, 3)).astype(np.float32)
LAYERS = Layers(("high",), ("low", "high"))


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    x = keras.layers.Conv2D(5, 3, padding="same", activation="swish", name="low")(x)
    x = keras.layers.MaxPooling2D(name="pool")(x)
    y = keras.layers.Conv2D(7, 3, padding="same", activation="swish", name="high")(x)
    return keras.Model(image, {"low": x, "high": y}, name="small")


@pytest.fixture(scope="module")
def problem(net):
    return StyleProblem(net, LAYERS)


def gram(net, layer, picture):
    features = tap(net, [layer])(picture[None])[layer].numpy()[0].astype(np.float64)
    height, width, channels = features.shape
    total = np.zeros((channels, channels))
    for vector in features.reshape(-1, channels):
        total += np.outer(vector, vector)
    return total / (channels * height * width)


@pytest.mark.parametrize("relative", [True, False])
def test_the_loss_by_hand(net, relative):
    problem = StyleProblem(
        net, LAYERS, content_weight=3.0, style_weight=10.0, tv_weight=0.01, relative=relative
    )
    problem.set_content(CONTENT[None])
    problem.set_styles([STYLE[None], OTHER[None]], [3.0, 1.0])
    x = CONTENT[::-1].copy()
    terms = problem.evaluate(x[None])
    for layer in ("low", "high"):
        target = 0.75 * gram(net, layer, STYLE) + 0.25 * gram(net, layer, OTHER)
        expected = 10.0 / 2 * np.mean((gram(net, layer, x) - target) ** 2)
        expected /= np.mean(target**2) if relative else 1.0
        assert terms[f"style {layer}"][0] == pytest.approx(expected, rel=1e-3)
    wanted = net(CONTENT[None])["high"].numpy()
    expected = 3.0 * np.mean((net(x[None])["high"].numpy() - wanted) ** 2)
    expected /= np.mean(wanted**2) if relative else 1.0
    assert terms["match high"][0] == pytest.approx(expected, rel=1e-3)
    smooth = (np.sum(np.diff(x, axis=0) ** 2) + np.sum(np.diff(x, axis=1) ** 2)) / x.size
    assert terms["total_variation"][0] == pytest.approx(0.01 * smooth, rel=1e-4)


def test_the_gradient_of_a_gram_matrix_is_that_of_the_plain_product():
    features = tf.constant(RANDOM.normal(size=(2, 3, 4, 5)).astype(np.float32))
    slope = tf.constant(RANDOM.normal(size=(2, 5, 5)).astype(np.float32))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(features)
        plain = tf.einsum("nhwc,nhwd->ncd", features, features) / (3 * 4 * 5)
        ours = gram_matrix(features)
    np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-6)
    expected = tape.gradient(plain, features, output_gradients=slope)
    np.testing.assert_allclose(
        tape.gradient(ours, features, output_gradients=slope), expected, rtol=1e-4, atol=1e-6
    )


def test_weights_of_0_leave_parts_out(net):
    only_style = StyleProblem(net, LAYERS, content_weight=0, tv_weight=0)
    assert [term.name for term in only_style.objective.terms] == ["style low", "style high"]
    only_content = StyleProblem(net, LAYERS, style_weight=0, tv_weight=0)
    assert [term.name for term in only_content.objective.terms] == ["match high"]
    with pytest.raises(InputError, match="both 0"):
        StyleProblem(net, LAYERS, content_weight=0, style_weight=0)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_the_loss_falls_coarse_to_fine(problem, optimizer):
    seen = []
    painting = transfer(
        problem,
        CONTENT,
        [STYLE],
        sizes=(32, 64),
        steps=(25, 15),
        optimizer=optimizer,
        callback=lambda entry, image: seen.append((entry, image())),
    )
    assert painting.history == [entry for entry, _ in seen]
    assert [e["step"] for e in painting.history] == list(range(1, len(seen) + 1))
    assert [image.shape for _, image in seen] == [(24, 32, 3)] * 25 + [(48, 64, 3)] * (len(seen) - 25)
    for entry in painting.history:
        terms = [value for name, value in entry.items() if name not in ("step", "size", "value")]
        assert entry["value"] == pytest.approx(sum(terms), rel=1e-5)
    assert painting.final["value"] < 0.3 * painting.history[0]["value"]
    coarse, fine = seen[24][1], tf.image.resize(seen[25][1], (24, 32), antialias=True).numpy()
    assert np.corrcoef(coarse.ravel(), fine.ravel())[0, 1] > 0.9, (
        "the fine size did not start from the coarse"
    )
    assert 0 <= painting.image.min() and painting.image.max() <= 255


def test_lbfgs_is_below_adam_at_equal_evaluations(problem):
    how = {"sizes": (64,), "steps": (80,)}
    values = [
        transfer(problem, CONTENT, [STYLE], optimizer=name, **how).final["value"]
        for name in ("lbfgs", "adam")
    ]
    assert values[0] < values[1]


def test_starts(problem):
    how = {"sizes": (64,), "steps": (1,), "optimizer": "adam"}
    starts = {}
    for name, init in {"image": "image", "random": "random", "picture": OTHER}.items():
        starts[name] = transfer(problem, CONTENT, [STYLE], init=init, **how).image
    assert np.abs(starts["image"] - CONTENT).mean() < 5
    assert np.abs(starts["random"] - 127.5).mean() < 5
    assert np.abs(starts["picture"].mean() - OTHER.mean()) < 5
    again = transfer(problem, CONTENT, [STYLE], init="random", **how).image
    np.testing.assert_array_equal(starts["random"], again)
    other = transfer(problem, CONTENT, [STYLE], init="random", seed=1, **how).image
    assert not np.array_equal(other, again)


def test_style_scale_sets_the_styles_size(net):
    sizes = []

    class Seen(StyleProblem):
        def set_styles(self, pictures, blend=()):
            sizes.extend(picture.shape[1:3] for picture in pictures)
            super().set_styles(pictures, blend)

    transfer(Seen(net, LAYERS), CONTENT, [STYLE, OTHER], sizes=(64,), steps=(1,), style_scale=0.7)
    assert sizes == [(32, 45), (45, 24)]


def test_normalized_gradients_by_hand(net):
    plain = StyleProblem(net, LAYERS, tile=0, tv_weight=0)
    normal = StyleProblem(net, LAYERS, tile=0, tv_weight=0, normalize_gradients=True)
    for problem in (plain, normal):
        problem.set_content(CONTENT[None])
        problem.set_styles([STYLE[None]])
    x = tf.constant(CONTENT[None, ::-1])
    terms, gradient = normal.value_and_gradient(x, tf.constant([0, 0]))
    for name, value in plain.value_and_gradient(x, tf.constant([0, 0]))[0].items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-5)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        features = net(x)
        losses = [term.function(features) for term in plain.objective.terms]
    slopes = []
    for term, loss in zip(plain.objective.terms, losses, strict=True):
        layer = features[term.layers[0]]
        slope = tape.gradient(loss, layer)
        slope = slope / tf.reduce_sum(tf.abs(slope)) * plain.weights[term.name]
        slopes.append(tape.gradient(layer, x, output_gradients=slope))
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(gradient / scale, sum(slopes) / scale, atol=1e-4)


def test_average_pooling_replaces_every_max_pooling(net):
    averaged = average_pooling(net)
    x = keras.Model(net.inputs[0], net.get_layer("pool").input)(CONTENT[None])
    expected = tf.nn.avg_pool2d(x, 2, 2, "VALID")
    np.testing.assert_allclose(averaged(CONTENT[None])["low"], expected, rtol=1e-5, atol=1e-6)
    without = keras.Model(net.inputs[0], net.get_layer("pool").input, name="without")
    with pytest.raises(InputError, match="without has no max pooling"):
        average_pooling(without)


def test_original_colors_keep_the_contents_and_the_results_brightness():
    mixed = style.original_colors(STYLE, CONTENT)
    assert mixed.shape == STYLE.shape
    weights = np.array([0.299, 0.587, 0.114])
    dull = np.full_like(STYLE, 100) + STYLE * 0.05  # far from clipping
    mixed = style.original_colors(dull, CONTENT * 0.1 + 80)
    np.testing.assert_allclose(mixed @ weights, dull @ weights, atol=0.2)
    grey = style.original_colors(dull, np.full_like(CONTENT, 90))
    np.testing.assert_allclose(grey, np.repeat(grey[..., :1], 3, -1), atol=0.2)


def test_a_picture_too_narrow_is_refused_with_what_would_do(problem):
    with pytest.raises(InputError, match="400x10 is 64x2, below 16; take at least 640 px"):
        transfer(problem, np.zeros((10, 400, 3), np.uint8), [STYLE], sizes=(64,), steps=(1,))


def test_layers_of_nets_that_are_not_in_the_list():
    from tfcnn.backbones import NETS

    assert style.layers_of("vgg19", NETS["vgg19"].endpoints).content == ("block4_conv2",)
    for name in ("resnet50", "alexnet", "googlenet"):
        layers = style.layers_of(name, NETS[name].endpoints)
        assert layers.content[0] in layers.style and len(layers.style) == len(NETS[name].endpoints)


def test_the_painting_is_the_same_for_a_seed_and_has_light_and_dark():
    one, again, other = (
        paint.swirls(96, 128, 0, 400),
        paint.swirls(96, 128, 0, 400),
        paint.swirls(96, 128, 1, 400),
    )
    assert one.shape == (96, 128, 3) and one.dtype == np.uint8
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert np.percentile(one.mean(-1), 95) - np.percentile(one.mean(-1), 5) > 40
