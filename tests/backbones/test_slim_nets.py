"""TF-Slim's nets whole: variables as its programs name them, and answers as plain TensorFlow gives them.

Each function here is a net by TF-Slim's definition, in TensorFlow's own operations. It makes its variables as it goes,
so that a checkpoint and what it answers to a picture come of one pass and of no line of tfcnn.

Source: tensorflow/models research/slim/nets and its arg_scopes (paddings, epsilons, which layers have batch norm).
"""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfcnn.backbones.importers import slim

CLASSES = 7
VGG_MEAN, INCEPTION = np.array([123.68, 116.78, 103.94], "f4"), 127.5
POOL = (
    np.random.default_rng(0).standard_normal(1_000_003).astype("f4")
)  # random values, a prime number of them


class Pass:
    """A net's variables as they are made, {name: array}, and its scope and its way to normalise.

    The statistics of batch norm are near those of the picture, so that depth does not drown it.
    """

    def __init__(self, scope, epsilon=0.0, scaled=False):
        self.scope, self.epsilon, self.scaled = scope, epsilon, scaled
        self.variables, self.random, self.drawn = {}, np.random.default_rng(1), 0

    def variable(self, name, *shape, gain=1.0):
        size = math.prod(shape)
        values = np.resize(np.roll(POOL, self.drawn), size).reshape(shape) * np.float32(gain)
        self.drawn += size + 1
        self.variables[f"{self.scope}/{name}"] = values
        return values

    def conv(self, x, name, count, kernel, stride=1, padding="SAME", active=True, norm=True):
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        depth = x.shape[-1]
        gain = math.sqrt(2 / (math.prod(kernel) * depth))
        y = tf.nn.conv2d(
            x, self.variable(f"{name}/weights", *kernel, depth, count, gain=gain), stride, padding
        )
        y = self.normalised(y, name) if norm and self.epsilon else self.biased(y, name)
        return tf.nn.relu(y) if active else y

    def biased(self, y, name):
        spread = 0.2 * float(tf.math.reduce_std(y))
        return y + self.variable(f"{name}/biases", y.shape[-1], gain=spread)

    def normalised(self, y, name):
        """Batch norm as its definition has it.

        Most of its values are positive: where half of them are cut off, rounding grows by a fifth at every layer.
        """
        mean, variance = (each.numpy() for each in tf.nn.moments(y, (0, 1, 2)))
        count = y.shape[-1]
        held = {
            "gamma": self.random.uniform(0.05, 0.15, count) if self.scaled else None,
            "beta": (0.1 if self.scaled else 1.0) * self.random.normal(1, 0.5, count),
            "moving_mean": mean + 0.1 * np.sqrt(variance) * self.random.normal(size=count),
            "moving_variance": (variance + 1e-3) * self.random.uniform(0.5, 1.5, count),
        }
        held = {key: value.astype("f4") for key, value in held.items() if value is not None}
        self.variables |= {f"{self.scope}/{name}/BatchNorm/{key}": value for key, value in held.items()}
        scale = held.get("gamma", 1.0) / np.sqrt(held["moving_variance"] + self.epsilon)
        return (y - held["moving_mean"]) * scale + held["beta"]

    def logits(self, x, name):
        """What is left of the map, one pixel, by a convolution without norm; spread so that no class takes all."""
        y = self.conv(x, name, CLASSES, 1, active=False, norm=False)
        return tf.squeeze(y, (1, 2))

    def branches(self, x, block, *branches):
        """Branches of (name, channels, kernel[, stride, padding]), "max", "mean" or a map that is ready."""
        ends = []
        for number, branch in enumerate(branches):
            y = x
            for step in branch:
                if step == "max":
                    y = tf.nn.max_pool2d(y, 3, 1, "SAME")
                elif step == "mean":
                    y = tf.nn.avg_pool2d(y, 3, 1, "SAME")
                elif step in ("SAME", "VALID"):
                    y = tf.nn.max_pool2d(y, 3, 2, step)
                elif isinstance(step, list):  # two convolutions of one map, side by side
                    y = tf.concat([self.conv(y, f"{block}/Branch_{number}/{n}", *m) for n, *m in step], -1)
                else:
                    y = self.conv(y, f"{block}/Branch_{number}/{step[0]}", *step[1:])
            ends.append(y)
        return tf.concat(ends, -1)


def alexnet_v2(net, rgb):
    x = tf.nn.max_pool2d(net.conv(rgb - VGG_MEAN, "conv1", 64, 11, 4, "VALID"), 3, 2, "VALID")
    x = tf.nn.max_pool2d(net.conv(x, "conv2", 192, 5), 3, 2, "VALID")
    x = net.conv(net.conv(x, "conv3", 384, 3), "conv4", 384, 3)
    x = tf.nn.max_pool2d(net.conv(x, "conv5", 256, 3), 3, 2, "VALID")
    x = net.conv(net.conv(x, "fc6", 4096, 5, padding="VALID"), "fc7", 4096, 1)
    return net.logits(x, "fc8")


def vgg(net, rgb, repeats):
    x = rgb - VGG_MEAN
    for block, (count, times) in enumerate(zip((64, 128, 256, 512, 512), repeats, strict=True), 1):
        for number in range(1, times + 1):
            x = net.conv(x, f"conv{block}/conv{block}_{number}", count, 3)
        x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    x = net.conv(net.conv(x, "fc6", 4096, x.shape[1], padding="VALID"), "fc7", 4096, 1)
    return net.logits(x, "fc8")


def inception_v1(net, rgb):
    x = net.conv(rgb / INCEPTION - 1, "Conv2d_1a_7x7", 64, 7, 2)
    x = net.conv(tf.nn.max_pool2d(x, 3, 2, "SAME"), "Conv2d_2b_1x1", 64, 1)
    x = tf.nn.max_pool2d(net.conv(x, "Conv2d_2c_3x3", 192, 3), 3, 2, "SAME")
    for block, one, reduce3, three, reduce5, five, pooled in (
        ("3b", 64, 96, 128, 16, 32, 32),
        ("3c", 128, 128, 192, 32, 96, 64),
        ("4b", 192, 96, 208, 16, 48, 64),
        ("4c", 160, 112, 224, 24, 64, 64),
        ("4d", 128, 128, 256, 24, 64, 64),
        ("4e", 112, 144, 288, 32, 64, 64),
        ("4f", 256, 160, 320, 32, 128, 128),
        ("5b", 256, 160, 320, 32, 128, 128),
        ("5c", 384, 192, 384, 48, 128, 128),
    ):
        odd = "Conv2d_0a_3x3" if block == "5b" else "Conv2d_0b_3x3"
        x = net.branches(
            x,
            f"Mixed_{block}",
            [("Conv2d_0a_1x1", one, 1)],
            [("Conv2d_0a_1x1", reduce3, 1), ("Conv2d_0b_3x3", three, 3)],
            [("Conv2d_0a_1x1", reduce5, 1), (odd, five, 3)],
            ["max", ("Conv2d_0b_1x1", pooled, 1)],
        )
        if block in ("3c", "4f"):
            window = 3 if block == "3c" else 2
            x = tf.nn.max_pool2d(x, window, 2, "SAME")
    return net.logits(tf.nn.avg_pool2d(x, 7, 1, "VALID"), "Logits/Conv2d_0c_1x1")


def inception_v2(net, rgb, biased):
    """`biased`: the first convolution, a separable one, has biases, as in TF-Slim's own training, or batch norm."""
    name = "Conv2d_1a_7x7"
    x = tf.nn.separable_conv2d(
        rgb / INCEPTION - 1,
        net.variable(f"{name}/depthwise_weights", 7, 7, 3, 8, gain=0.1),
        net.variable(f"{name}/pointwise_weights", 1, 1, 24, 64, gain=0.1),
        (1, 2, 2, 1),
        "SAME",
    )
    x = tf.nn.relu(net.biased(x, name) if biased else net.normalised(x, name))
    x = net.conv(tf.nn.max_pool2d(x, 3, 2, "SAME"), "Conv2d_2b_1x1", 64, 1)
    x = tf.nn.max_pool2d(net.conv(x, "Conv2d_2c_3x3", 192, 3), 3, 2, "SAME")
    for block, one, reduce3, three, reduce33, double, pooled in (
        ("3b", 64, 64, 64, 64, 96, 32),
        ("3c", 64, 64, 96, 64, 96, 64),
        ("4a", 0, 128, 160, 64, 96, 0),
        ("4b", 224, 64, 96, 96, 128, 128),
        ("4c", 192, 96, 128, 96, 128, 128),
        ("4d", 160, 128, 160, 128, 160, 96),
        ("4e", 96, 128, 192, 160, 192, 96),
        ("5a", 0, 128, 192, 192, 256, 0),
        ("5b", 352, 192, 320, 160, 224, 128),
        ("5c", 352, 192, 320, 192, 224, 128),
    ):
        first3, first33 = ("Conv2d_0a_1x1", reduce3, 1), ("Conv2d_0a_1x1", reduce33, 1)
        middle = ("Conv2d_0b_3x3", double, 3)
        branches = [
            [("Conv2d_0a_1x1", one, 1)],
            [first3, ("Conv2d_0b_3x3", three, 3)],
            [first33, middle, ("Conv2d_0c_3x3", double, 3)],
            ["max" if block == "5c" else "mean", ("Conv2d_0b_1x1", pooled, 1)],
        ]
        if block in ("4a", "5a"):
            branches = [
                [first3, ("Conv2d_1a_3x3", three, 3, 2)],
                [first33, middle, ("Conv2d_1a_3x3", double, 3, 2)],
                ["SAME"],
            ]
        x = net.branches(x, f"Mixed_{block}", *branches)
    return net.logits(tf.nn.avg_pool2d(x, 7, 1, "VALID"), "Logits/Conv2d_1c_1x1")


def inception_v3(net, rgb):
    x = net.conv(rgb / INCEPTION - 1, "Conv2d_1a_3x3", 32, 3, 2, "VALID")
    x = net.conv(net.conv(x, "Conv2d_2a_3x3", 32, 3, padding="VALID"), "Conv2d_2b_3x3", 64, 3)
    x = net.conv(tf.nn.max_pool2d(x, 3, 2, "VALID"), "Conv2d_3b_1x1", 80, 1)
    x = tf.nn.max_pool2d(net.conv(x, "Conv2d_4a_3x3", 192, 3, padding="VALID"), 3, 2, "VALID")
    for block, reduce5, five, pooled in (
        ("5b", "Conv2d_0a_1x1", "Conv2d_0b_5x5", 32),
        ("5c", "Conv2d_0b_1x1", "Conv_1_0c_5x5", 64),  # the names are odd there
        ("5d", "Conv2d_0a_1x1", "Conv2d_0b_5x5", 64),
    ):
        x = net.branches(
            x,
            f"Mixed_{block}",
            [("Conv2d_0a_1x1", 64, 1)],
            [(reduce5, 48, 1), (five, 64, 5)],
            [("Conv2d_0a_1x1", 64, 1), ("Conv2d_0b_3x3", 96, 3), ("Conv2d_0c_3x3", 96, 3)],
            ["mean", ("Conv2d_0b_1x1", pooled, 1)],
        )
    x = net.branches(
        x,
        "Mixed_6a",
        [("Conv2d_1a_1x1", 384, 3, 2, "VALID")],  # a 3x3, whatever its name
        [("Conv2d_0a_1x1", 64, 1), ("Conv2d_0b_3x3", 96, 3), ("Conv2d_1a_1x1", 96, 3, 2, "VALID")],
        ["VALID"],
    )
    wide, high = (1, 7), (7, 1)
    for block, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        x = net.branches(
            x,
            f"Mixed_{block}",
            [("Conv2d_0a_1x1", 192, 1)],
            [("Conv2d_0a_1x1", inner, 1), ("Conv2d_0b_1x7", inner, wide), ("Conv2d_0c_7x1", 192, high)],
            [
                ("Conv2d_0a_1x1", inner, 1),
                ("Conv2d_0b_7x1", inner, high),
                ("Conv2d_0c_1x7", inner, wide),
                ("Conv2d_0d_7x1", inner, high),
                ("Conv2d_0e_1x7", 192, wide),
            ],
            ["mean", ("Conv2d_0b_1x1", 192, 1)],
        )
    x = net.branches(
        x,
        "Mixed_7a",
        [("Conv2d_0a_1x1", 192, 1), ("Conv2d_1a_3x3", 320, 3, 2, "VALID")],
        [
            ("Conv2d_0a_1x1", 192, 1),
            ("Conv2d_0b_1x7", 192, wide),
            ("Conv2d_0c_7x1", 192, high),
            ("Conv2d_1a_3x3", 192, 3, 2, "VALID"),
        ],
        ["VALID"],
    )
    for block, column in (("7b", "Conv2d_0b_3x1"), ("7c", "Conv2d_0c_3x1")):
        x = net.branches(
            x,
            f"Mixed_{block}",
            [("Conv2d_0a_1x1", 320, 1)],
            [("Conv2d_0a_1x1", 384, 1), [("Conv2d_0b_1x3", 384, (1, 3)), (column, 384, (3, 1))]],
            [
                ("Conv2d_0a_1x1", 448, 1),
                ("Conv2d_0b_3x3", 384, 3),
                [("Conv2d_0c_1x3", 384, (1, 3)), ("Conv2d_0d_3x1", 384, (3, 1))],
            ],
            ["mean", ("Conv2d_0b_1x1", 192, 1)],
        )
    return net.logits(tf.nn.avg_pool2d(x, 8, 1, "VALID"), "Logits/Conv2d_1c_1x1")


def resnet_v1(net, rgb, units):
    """A convolution with a stride pads both sides alike; the last unit of each block but the last has the stride."""

    def padded(x, side):
        return tf.pad(x, [(0, 0), (side, side), (side, side), (0, 0)])

    x = net.conv(padded(rgb - VGG_MEAN, 3), "conv1", 64, 7, 2, "VALID")
    x = tf.nn.max_pool2d(x, 3, 2, "SAME")
    for block, count in enumerate(units, 1):
        inner = 32 << block
        for unit in range(1, count + 1):
            at = f"block{block}/unit_{unit}/bottleneck_v1"
            stride = 2 if unit == count and block < 4 else 1
            if unit == 1:
                shortcut = net.conv(x, f"{at}/shortcut", 4 * inner, 1, stride, active=False)
            else:
                shortcut = x[:, ::stride, ::stride]
            y = net.conv(x, f"{at}/conv1", inner, 1)
            y = (
                net.conv(y, f"{at}/conv2", inner, 3)
                if stride == 1
                else net.conv(padded(y, 1), f"{at}/conv2", inner, 3, stride, "VALID")
            )
            x = tf.nn.relu(shortcut + net.conv(y, f"{at}/conv3", 4 * inner, 1, active=False))
    return net.logits(tf.reduce_mean(x, (1, 2), keepdims=True), "logits")


# name: (net, its options, scope, epsilon of batch norm, whether it has a gamma, side of the picture)
NETS = {
    "alexnet_v2": (alexnet_v2, {}, "alexnet_v2", 0, False, 224),
    "vgg_16": (vgg, {"repeats": (2, 2, 3, 3, 3)}, "vgg_16", 0, False, 64),
    "vgg_19": (vgg, {"repeats": (2, 2, 4, 4, 4)}, "vgg_19", 0, False, 64),
    "vgg_16 whole": (vgg, {"repeats": (2, 2, 3, 3, 3)}, "vgg_16", 0, False, 224),
    "inception_v1": (inception_v1, {}, "InceptionV1", 1e-3, False, 224),
    "inception_v2": (inception_v2, {"biased": True}, "InceptionV2", 1e-3, False, 224),
    "inception_v2 normalised": (inception_v2, {"biased": False}, "InceptionV2", 1e-3, False, 224),
    "inception_v3": (inception_v3, {}, "InceptionV3", 1e-3, False, 299),
    "resnet_v1_50": (resnet_v1, {"units": (3, 4, 6, 3)}, "resnet_v1_50", 1e-5, True, 224),
    "resnet_v1_101": (resnet_v1, {"units": (3, 4, 23, 3)}, "resnet_v1_101", 1e-5, True, 224),
    "resnet_v1_152": (resnet_v1, {"units": (3, 8, 36, 3)}, "resnet_v1_152", 1e-5, True, 224),
}
SLOW = ("vgg_16 whole", "resnet_v1_101", "resnet_v1_152")


def picture_of(side):
    """Eight by eight patches of one colour and some noise, so that the last maps differ from place to place."""
    random = np.random.default_rng(2)
    patches = np.kron(random.uniform(0, 200, (8, 8, 3)), np.ones((-(-side // 8),) * 2 + (1,)))
    return (patches[None, :side, :side] + random.uniform(0, 55, (1, side, side, 3))).astype("f4")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in NETS]
)
def test_a_whole_net_answers_as_in_plain_tensorflow(name, tmp_path, monkeypatch):
    build, options, scope, epsilon, scaled, side = NETS[name]
    net = Pass(scope, epsilon, scaled)
    picture = picture_of(side)
    expected = build(net, tf.constant(picture), **options).numpy()
    names = list(net.variables)
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "model.ckpt"),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(net.variables[each]) for each in names],
    )
    if side == 64:  # three quarters of VGG's weights read its last map of 7 x 7; here it is 2 x 2
        own = slim.classifier
        monkeypatch.setattr(slim, "classifier", lambda *args, **more: own(*args, size=64, **more))
    imported = slim.load(tmp_path / "model.ckpt")
    assert {each["from"] for each in imported.layers} == set(names) and not imported.left_over
    spread = expected.std()
    assert spread > 0.01
    found = imported.model(picture)["logits"].numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
