"""Three rules for ReLU: by hand, in every form that a ReLU has, and the deconvnet step by step."""

import keras
import numpy as np
import pytest

from tfcnn.backbones import classifier, tap
from tfcnn.errors import InputError
from tfcnn.visualization import relu_rules
from tfcnn.visualization.gradients import BEST, class_gradients, map_shape, neuron_gradients
from tfcnn.visualization.relu_rules import replaced, with_rule

layers = keras.layers

# Four units a, b, c, d of a picture of one pixel (1, 2, 3): before the ReLU 1, -2, 3, 3. The score weighs them with
# 2, 3, -1, -4. [f > 0] leaves a, c, d; [R > 0] leaves a, b.
UNITS = np.array([[1, 0, 0], [0, -1, 0], [0, 0, 1], [1, 1, 0]], np.float32)
WEIGHTS = np.array([2, 3, -1, -4], np.float32)
PIXEL = np.array([1, 2, 3], np.float32)
BY_HAND = {"gradient": [2 - 4, -4, -1], "deconvnet": [2, -3, 0], "guided": [2, 0, 0]}
FORMS = {
    "layer": (None, layers.ReLU()),
    "activation layer": (None, layers.Activation("relu")),
    "argument": ("relu", None),
    "layer as argument": (layers.ReLU(), None),
    "operation": (None, keras.ops.relu),
    "relu6": (None, layers.ReLU(6.0)),
    "relu6 as argument": ("relu6", None),
}


def one_pixel(activation, after, units=UNITS):
    """The net of four units: picture [1, 1, 3] -> [1, 1, 1]."""
    image = keras.Input((1, 1, 3))
    x = layers.Conv2D(4, 1, activation=activation, use_bias=False, name="units")(image)
    x = after(x) if after is not None else x
    net = keras.Model(image, layers.Conv2D(1, 1, use_bias=False, name="score")(x), name="one_pixel")
    net.set_weights([units.T[None, None], WEIGHTS[None, None, :, None]])
    return net


def signal(net, rule, picture, layer="score"):
    picture = np.asarray(picture, np.float32).reshape(-1, *net.input_shape[1:])
    count = len(picture)
    find = neuron_gradients(net, layer, rule)
    return find(picture, np.full(count, BEST, np.int32), np.full((count, 2), BEST, np.int32))[0].numpy()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", relu_rules.RULES)
def test_rules_by_hand_in_every_form_of_a_relu(form, rule):
    net = one_pixel(*FORMS[form])
    assert signal(net, rule, PIXEL).ravel().tolist() == BY_HAND[rule]
    ruled = with_rule(net, rule)
    assert len(replaced(ruled)) == (rule != "gradient")
    assert np.array_equal(ruled(PIXEL.reshape(1, 1, 1, 3)), net(PIXEL.reshape(1, 1, 1, 3)))


def test_a_saturated_relu6_passes_by_the_deconvnet_alone():
    net = one_pixel("relu6", None, 7 * UNITS)  # a 7, b -14, c 21, d 21
    assert not signal(net, "gradient", PIXEL).any() and not signal(net, "guided", PIXEL).any()
    assert signal(net, "deconvnet", PIXEL).ravel().tolist() == [14, -21, 0]


@pytest.mark.parametrize("form", FORMS)
def test_a_neuron_is_asked_before_its_own_relu(form):
    net = one_pixel(*FORMS[form], 7 * UNITS)  # b is silent, d beyond a ceiling of 6
    layer = net.layers[-2].name
    find = neuron_gradients(net, layer)
    place = np.zeros((1, 2), np.int32)
    for unit, value in ((1, -14), (3, 21)):
        signal, _, _, found = find(PIXEL.reshape(1, 1, 1, 3), np.array([unit], np.int32), place)
        assert signal.numpy().ravel().tolist() == (7 * UNITS[unit]).tolist() and float(found[0]) == value


def test_where_nothing_is_rectified_all_rules_are_the_gradient():
    net = classifier("tiny", None, classes=3, size=32)
    for weight in net.weights:
        weight.assign(np.abs(weight) + 0.01)
    for layer in net.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(np.zeros_like(layer.moving_mean))
    bright = np.random.default_rng(0).uniform(200, 255, (2, 32, 32, 3)).astype(np.float32)
    first = np.zeros(2, np.int32)
    plain, deconvnet, guided = (class_gradients(net, rule)(bright, first)[0] for rule in relu_rules.RULES)
    assert np.abs(plain).min() > 0
    np.testing.assert_allclose(guided, plain, rtol=1e-5)
    np.testing.assert_allclose(deconvnet, plain, rtol=1e-5)


def test_every_relu_is_counted_and_weights_are_shared():
    net = classifier("tiny", None, classes=3, size=32)
    ruled = with_rule(net, "guided")
    assert replaced(ruled) == [f"relu{number}" for number in range(1, 6)] and not replaced(net)
    picture = np.full((1, 32, 32, 3), 90.0, np.float32)
    net.get_layer("logits").bias.assign([1.0, 2.0, 3.0])
    np.testing.assert_allclose(ruled(picture)["logits"], net(picture)["logits"], rtol=1e-5)
    shared = layers.ReLU(name="twice")
    image = keras.Input((8, 8, 3))
    again = keras.Model(image, shared(layers.Conv2D(2, 3)(shared(image))))
    assert replaced(with_rule(again, "guided")) == ["twice", "twice"]


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("swish", "silu in middle"),
        ("gelu", "gelu in middle"),
        ("elu", "elu in middle"),
        (layers.LeakyReLU(), "leakyrelu in middle"),
        (layers.PReLU(), "prelu in middle"),
        (layers.ReLU(negative_slope=0.1), "leaky_relu in middle"),
    ],
)
def test_other_rectifiers_are_refused_by_name(kind, named):
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(2, 3, activation="relu")(image)
    if isinstance(kind, str):
        x = layers.Conv2D(2, 3, activation=kind, name="middle")(x)
    else:
        kind.name = "middle"
        x = kind(x)
    net = keras.Model(image, layers.Conv2D(2, 3)(x), name="net")
    with pytest.raises(InputError, match=f"net has {named}.*ReLU alone"):
        with_rule(net, "guided")
    assert with_rule(net, "gradient") is net
    assert with_rule(tap(net, [net.layers[1].name]), "guided")  # what lies behind has no say


def test_no_relu_and_an_unknown_rule():
    image = keras.Input((8, 8, 3))
    linear = keras.Model(image, layers.Conv2D(2, 3)(image), name="linear")
    with pytest.raises(InputError, match="linear has no ReLU"):
        with_rule(linear, "deconvnet")
    with pytest.raises(InputError, match="'deconv' is none of gradient"):
        with_rule(linear, "deconv")


def test_models_inside_are_flattened_or_refused_by_name():
    class Own(keras.Model):
        def call(self, x):
            return keras.ops.relu(x)

    image = keras.Input((8, 8, 3))
    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(2, 3, activation="relu", name="inner_conv")]
    )
    net = keras.Model(image, layers.Conv2D(2, 3)(inner(image)))
    assert replaced(with_rule(net, "guided")) == ["inner_conv"]
    with pytest.raises(InputError, match="opaque"):
        with_rule(keras.Model(image, Own(name="opaque")(image)), "guided")


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_the_deconvnet_with_switches_is_the_rule_by_the_chain_rule(padding):
    keras.utils.set_random_seed(1)
    image = keras.Input((23, 21, 3))
    x = layers.Conv2D(5, 3, padding=padding, activation="relu", name="conv1")(image)
    x = layers.MaxPooling2D(3, 2, padding=padding)(x)  # overlapping windows
    x = layers.ReLU()(layers.Conv2D(7, 3, strides=2, padding=padding, name="conv2")(x))
    x = layers.MaxPooling2D(2)(x)
    net = keras.Model(image, {"top": layers.Conv2D(4, 1, name="conv3")(x)})
    pictures = np.random.default_rng(2).normal(size=(3, 23, 21, 3)).astype(np.float32)
    channels, places = np.array([0, 3, 2], np.int32), np.array([[0, 0], [1, 1], [1, 0]], np.int32)
    projected, switches = relu_rules.deconvnet(net, pictures, channels, places)
    expected = neuron_gradients(net, "top", "deconvnet")(pictures, channels, places)[0].numpy()
    assert np.abs(expected).max() > 1e-3 and len(switches) == 2
    np.testing.assert_allclose(projected, expected, atol=1e-6)
    plain = neuron_gradients(net, "top")(pictures, channels, places)[0].numpy()
    assert np.abs(projected - plain).max() > 1e-3

    first = tap(net, ["conv1"])(pictures)["conv1"].numpy()[0]  # the switch of one window by a loop
    if padding == "valid":
        window = first[2:5, 4:7, 1]
        row, column = np.unravel_index(window.argmax(), window.shape)
        assert switches[0][0, 1, 2, 1] == ((2 + row) * first.shape[1] + 4 + column) * 5 + 1


def test_values_go_back_to_their_switches():
    signal = np.array([5.0, 7.0], np.float32).reshape(1, 1, 2, 1)
    switches = np.array([1, 1]).reshape(1, 1, 2, 1)  # two windows that share a maximum
    assert relu_rules.unpool(signal, switches, np.array([1, 2, 2, 1])).numpy().ravel().tolist() == [
        0,
        12,
        0,
        0,
    ]


def test_what_is_no_chain_is_refused():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(3, 3, padding="same", name="conv")(image)
    net = keras.Model(image, layers.Add(name="sum")([x, image]))
    with pytest.raises(InputError, match="layer sum"):
        relu_rules.deconvnet(net, np.zeros((1, 8, 8, 3)), [0], [[0, 0]])


def test_a_neuron_depends_on_its_field_alone_and_best_is_where_it_answers_most():
    image = keras.Input((6, 7, 3))
    net = keras.Model(image, layers.Conv2D(2, 3, kernel_initializer="ones", name="sum")(image))
    find = neuron_gradients(net, "sum")
    pictures = np.random.default_rng(0).uniform(0, 255, (3, 6, 7, 3)).astype(np.float32)
    given, best = np.array([1, 2]), np.array([BEST, BEST])
    gradient, channels, places, values = find(
        pictures, np.array([1, 0, BEST], np.int32), np.array([given, best, best], np.int32)
    )
    expected = np.zeros((6, 7, 3))
    expected[1:4, 2:5] = 1
    assert np.array_equal(gradient[0], expected) and channels.numpy()[:2].tolist() == [1, 0]
    answer = net(pictures).numpy()
    spot = np.unravel_index(answer[1, ..., 0].argmax(), answer.shape[1:3])
    assert places[1].numpy().tolist() == list(spot) and places[0].numpy().tolist() == [1, 2]
    np.testing.assert_allclose(values, [answer[0, 1, 2, 1], answer[1].max(), answer[2].max()], rtol=1e-6)
    assert map_shape(net, "sum", (6, 7)) == (4, 5, 2)
    with pytest.raises(InputError, match="frist"):
        neuron_gradients(net, "frist")


def test_a_layer_without_channels_is_refused():
    image = keras.Input((6, 7, 3))
    net = keras.Model(
        image, {"a": keras.ops.sum(image, axis=(1, 2, 3)), "b": layers.Flatten(name="b")(image)}
    )
    with pytest.raises(InputError, match="no channels"):
        neuron_gradients(net, "a")
    assert map_shape(net, "b", (6, 7)) == (1, 1, 126)


def test_the_picture_of_a_signal_is_grey_at_nothing():
    made = relu_rules.picture(np.array([[[0.0, -2.0, 2.0]]]), 100)
    assert made.tolist() == [[[127.5, 0.0, 255.0]]]
    assert (relu_rules.picture(np.zeros((2, 2, 3))) == 127.5).all()


def test_the_part_of_a_picture_that_a_neuron_depends_on():
    signal = np.zeros((40, 60, 3))
    assert relu_rules.field([signal]) == (0, 0, 60, 40)
    signal[10:30, 20:45, 1] = -1
    assert relu_rules.field([signal, np.zeros_like(signal)]) == (20, 10, 45, 30)
    assert relu_rules.field([signal], 24) == (20, 8, 45, 32)
    corner = np.zeros((40, 9, 3))
    corner[38:, :3] = 1
    assert relu_rules.field([corner]) == (0, 24, 9, 40)
