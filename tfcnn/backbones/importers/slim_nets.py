"""TF-Slim's nets that the factory lacks, and the names of its variables.

Each function builds a net on a preprocessed picture and tells a `Plan` which variables fill which layer. Layers are
called as their scope, with _ for /, without the net's own.

Source: tensorflow/models research/slim/nets (names, order and sizes); Krizhevsky (1404.5997), Szegedy et al.
(1409.4842), Ioffe and Szegedy (1502.03167), He et al. (1512.03385), Howard et al. (1704.04861).
"""

import dataclasses
from collections.abc import Collection

from keras import KerasTensor, layers

from tfcnn.backbones.nets.googlenet import BLOCKS

NORM = ("beta", "moving_mean", "moving_variance")


@dataclasses.dataclass
class Plan:
    """Which variables fill which layer.

    Attributes:
        scope: the net's, before every variable.
        epsilon: of batch norm; 0 for a net without, whose convolutions have biases.
        scaled: whether batch norm has a gamma.
        cap: where the rectifier ends, or None.
        variables: names in the checkpoint, where a net was trained in two forms.
        filled: (layer, its variables in the order of its weights).
    """

    scope: str
    epsilon: float = 0.0
    scaled: bool = False
    cap: float | None = None
    variables: Collection[str] = ()
    filled: list[tuple[layers.Layer, list[str]]] = dataclasses.field(default_factory=list)

    def add(self, layer: layers.Layer, *variables: str) -> layers.Layer:
        """Notes that variables fill a layer, and gives the layer."""
        self.filled.append((layer, [f"{self.scope}/{variable}" for variable in variables]))
        return layer

    def conv(
        self,
        x: KerasTensor,
        name: str,
        count: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: str = "same",
        active: bool = True,
        bias: bool = False,
    ) -> KerasTensor:
        """A convolution of a scope with its batch norm, or its bias, and its rectifier."""
        bias = bias or not self.epsilon
        layer = layers.Conv2D(
            count, kernel, stride, padding, use_bias=bias, kernel_initializer="zeros", name=_flat(name)
        )
        x = self.add(layer, f"{name}/weights", *([f"{name}/biases"] if bias else []))(x)
        return self._end(x, name, not bias, active)

    def depthwise(self, x: KerasTensor, name: str, stride: int) -> KerasTensor:
        """A 3x3 depthwise convolution of a scope."""
        layer = layers.DepthwiseConv2D(
            3, stride, "same", use_bias=False, depthwise_initializer="zeros", name=_flat(name)
        )
        return self._end(self.add(layer, f"{name}/depthwise_weights")(x), name, True, True)

    def separable(
        self, x: KerasTensor, name: str, count: int, kernel: int, stride: int, depth: int
    ) -> KerasTensor:
        """A separable convolution of a scope, `depth` maps a channel in between.

        TF-Slim's own training gave it biases, as it asks batch norm for plain convolutions alone; others' gave it batch
        norm.
        """
        biased = f"{self.scope}/{name}/biases" in self.variables
        layer = layers.SeparableConv2D(
            count,
            kernel,
            stride,
            "same",
            depth_multiplier=depth,
            use_bias=biased,
            depthwise_initializer="zeros",
            pointwise_initializer="zeros",
            name=_flat(name),
        )
        held = ("depthwise_weights", "pointwise_weights", *(("biases",) if biased else ()))
        x = self.add(layer, *(f"{name}/{each}" for each in held))(x)
        return self._end(x, name, not biased, True)

    def logits(self, x: KerasTensor, name: str, classes: int, rate: float = 0.2) -> KerasTensor:
        """The mean over a map, and a 1x1 convolution as a dense layer."""
        x = layers.GlobalAveragePooling2D(name="mean")(x)
        x = layers.Dropout(rate, name="dropout")(x) if rate else x
        layer = layers.Dense(classes, kernel_initializer="zeros", dtype="float32", name="logits")
        return self.add(layer, f"{name}/weights", f"{name}/biases")(x)

    def _end(self, x, name, norm, active):
        if norm:
            layer = layers.BatchNormalization(
                epsilon=self.epsilon, scale=self.scaled, name=f"{_flat(name)}_norm"
            )
            held = ["gamma", *NORM] if self.scaled else NORM
            x = self.add(layer, *(f"{name}/BatchNorm/{each}" for each in held))(x)
        return layers.ReLU(self.cap, name=f"{_flat(name)}_relu")(x) if active else x


def alexnet_v2(plan: Plan, x: KerasTensor, classes: int) -> KerasTensor:
    """AlexNet without groups and without normalisation, 224 pixels."""
    x = plan.conv(x, "conv1", 64, 11, 4, "valid")  # 54
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)  # 26
    x = plan.conv(x, "conv2", 192, 5)
    x = layers.MaxPooling2D(3, 2, name="pool2")(x)  # 12
    for name, count in (("conv3", 384), ("conv4", 384), ("conv5", 256)):
        x = plan.conv(x, name, count, 3)
    x = layers.MaxPooling2D(3, 2, name="pool5")(x)  # 5
    x = plan.conv(x, "fc6", 4096, 5, padding="valid")
    x = layers.Dropout(0.5, name="dropout6")(x)
    x = plan.conv(x, "fc7", 4096, 1)
    return plan.logits(x, "fc8", classes, 0.5)


def inception_v1(plan: Plan, x: KerasTensor, classes: int) -> KerasTensor:
    """GoogLeNet with batch norm; its 5x5 convolutions are 3x3."""
    x = plan.conv(x, "Conv2d_1a_7x7", 64, 7, 2)
    x = layers.MaxPooling2D(3, 2, "same", name="MaxPool_2a_3x3")(x)
    x = plan.conv(x, "Conv2d_2b_1x1", 64, 1)
    x = plan.conv(x, "Conv2d_2c_3x3", 192, 3)
    x = layers.MaxPooling2D(3, 2, "same", name="MaxPool_3a_3x3")(x)
    for number, (block, (one, reduce3, three, reduce5, five, pooled)) in enumerate(BLOCKS.items()):
        stage, letter = block
        scope = f"Mixed_{stage}{chr(ord(letter) + 1)}"
        last = "Conv2d_0a_3x3" if scope == "Mixed_5b" else "Conv2d_0b_3x3"  # as it is called there
        branches = [
            [("Conv2d_0a_1x1", one, 1)],
            [("Conv2d_0a_1x1", reduce3, 1), ("Conv2d_0b_3x3", three, 3)],
            [("Conv2d_0a_1x1", reduce5, 1), (last, five, 3)],
            ["max", ("Conv2d_0b_1x1", pooled, 1)],
        ]
        x = _mixed(plan, x, scope, branches)
        if number == 1:
            x = layers.MaxPooling2D(3, 2, "same", name="MaxPool_4a_3x3")(x)
        if number == 6:
            x = layers.MaxPooling2D(2, 2, "same", name="MaxPool_5a_2x2")(x)
    return plan.logits(x, "Logits/Conv2d_0c_1x1", classes)


# 1x1; 1x1 and 3x3; 1x1 and twice 3x3; after the pool. A stage begins with a block of stride 2.
INCEPTION_V2 = {
    "3b": (64, (64, 64), (64, 96), 32),
    "3c": (64, (64, 96), (64, 96), 64),
    "4a": (0, (128, 160), (64, 96), 0),
    "4b": (224, (64, 96), (96, 128), 128),
    "4c": (192, (96, 128), (96, 128), 128),
    "4d": (160, (128, 160), (128, 160), 96),
    "4e": (96, (128, 192), (160, 192), 96),
    "5a": (0, (128, 192), (192, 256), 0),
    "5b": (352, (192, 320), (160, 224), 128),
    "5c": (352, (192, 320), (192, 224), 128),
}


def inception_v2(plan: Plan, x: KerasTensor, classes: int) -> KerasTensor:
    """Inception with batch norm: two 3x3 in place of the 5x5, and a separable first convolution."""
    x = plan.separable(x, "Conv2d_1a_7x7", 64, 7, 2, 8)
    x = layers.MaxPooling2D(3, 2, "same", name="MaxPool_2a_3x3")(x)
    x = plan.conv(x, "Conv2d_2b_1x1", 64, 1)
    x = plan.conv(x, "Conv2d_2c_3x3", 192, 3)
    x = layers.MaxPooling2D(3, 2, "same", name="MaxPool_3a_3x3")(x)
    for block, (one, (reduce3, three), (reduce33, double), pooled) in INCEPTION_V2.items():
        first3, first33 = ("Conv2d_0a_1x1", reduce3, 1), ("Conv2d_0a_1x1", reduce33, 1)
        if one:
            branches = [
                [("Conv2d_0a_1x1", one, 1)],
                [first3, ("Conv2d_0b_3x3", three, 3)],
                [first33, ("Conv2d_0b_3x3", double, 3), ("Conv2d_0c_3x3", double, 3)],
                ["max" if block == "5c" else "mean", ("Conv2d_0b_1x1", pooled, 1)],
            ]
        else:
            branches = [
                [first3, ("Conv2d_1a_3x3", three, 3, 2)],
                [first33, ("Conv2d_0b_3x3", double, 3), ("Conv2d_1a_3x3", double, 3, 2)],
                ["max2"],
            ]
        x = _mixed(plan, x, f"Mixed_{block}", branches)
    return plan.logits(x, "Logits/Conv2d_1c_1x1", classes)


def resnet_v1(plan: Plan, x: KerasTensor, classes: int, units: tuple[int, int, int, int]) -> KerasTensor:
    """ResNet v1 with bottlenecks; unlike Keras' it has no biases, and the last unit of a block has the stride."""
    x = layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = plan.conv(x, "conv1", 64, 7, 2, "valid")
    x = layers.MaxPooling2D(3, 2, "same", name="pool1")(x)
    for block, count in enumerate(units, start=1):
        depth = 64 * 2 ** (block - 1)
        for unit in range(1, count + 1):
            scope = f"block{block}/unit_{unit}/bottleneck_v1"
            stride = 2 if unit == count and block < 4 else 1
            if x.shape[-1] != 4 * depth:
                shortcut = plan.conv(x, f"{scope}/shortcut", 4 * depth, 1, stride, active=False)
            else:
                shortcut = (
                    x if stride == 1 else layers.MaxPooling2D(1, stride, name=_flat(f"{scope}/steps"))(x)
                )
            y = plan.conv(x, f"{scope}/conv1", depth, 1)
            if stride > 1:
                y = layers.ZeroPadding2D(1, name=_flat(f"{scope}/conv2_pad"))(y)
            y = plan.conv(y, f"{scope}/conv2", depth, 3, stride, "same" if stride == 1 else "valid")
            y = plan.conv(y, f"{scope}/conv3", 4 * depth, 1, active=False)
            x = layers.ReLU(name=_flat(scope))(layers.Add(name=_flat(f"{scope}/add"))([shortcut, y]))
    return plan.logits(x, "logits", classes, 0)


# Channels and stride of each pair of a depthwise and a pointwise convolution.
MOBILENET_V1 = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
]


def mobilenet_v1(plan: Plan, x: KerasTensor, classes: int, width: float) -> KerasTensor:
    """MobileNet v1; `width` multiplies all channels."""
    x = plan.conv(x, "Conv2d_0", max(8, int(32 * width)), 3, 2)
    for number, (count, stride) in enumerate(MOBILENET_V1, start=1):
        x = plan.depthwise(x, f"Conv2d_{number}_depthwise", stride)
        x = plan.conv(x, f"Conv2d_{number}_pointwise", max(8, int(count * width)), 1)
    return plan.logits(x, "Logits/Conv2d_1c_1x1", classes, 0.001)


def _mixed(plan, x, scope, branches):
    """An Inception block: branches of convolutions (name, channels, kernel[, stride]) and pools, side by side."""
    ends = []
    for number, branch in enumerate(branches):
        y, place = x, f"{scope}/Branch_{number}"
        for item in branch:
            if item == "mean":
                y = layers.AveragePooling2D(3, 1, "same", name=_flat(f"{place}/AvgPool_0a_3x3"))(y)
            elif item in ("max", "max2"):
                stride, name = (1, "MaxPool_0a_3x3") if item == "max" else (2, "MaxPool_1a_3x3")
                y = layers.MaxPooling2D(3, stride, "same", name=_flat(f"{place}/{name}"))(y)
            else:
                y = plan.conv(y, f"{place}/{item[0]}", *item[1:])
        ends.append(y)
    return layers.Concatenate(name=scope)(ends)


def _flat(name):
    return name.replace("/", "_")
