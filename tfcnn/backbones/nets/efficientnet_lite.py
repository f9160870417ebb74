"""EfficientNet-Lite: inverted bottlenecks found by search, without squeeze-and-excitation and with ReLU6.

Source: Tan and Le, EfficientNet (1905.11946); tensorflow/tpu models/official/efficientnet/lite.
"""

import math

from keras import KerasTensor, layers

# repeats, kernel, stride, expansion, channels
STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]


def lite0(x: KerasTensor, classes: int | None = None) -> KerasTensor | dict[str, KerasTensor]:
    """EfficientNet-Lite0 on a preprocessed picture [N, H, W, 3]; without classes its last map."""
    return efficientnet_lite(x, classes, width=1.0, depth=1.0, dropout=0.2)


def lite2(x: KerasTensor, classes: int | None = None) -> KerasTensor | dict[str, KerasTensor]:
    """EfficientNet-Lite2 on a preprocessed picture [N, H, W, 3]; without classes its last map."""
    return efficientnet_lite(x, classes, width=1.1, depth=1.2, dropout=0.3)


def efficientnet_lite(
    x: KerasTensor, classes: int, width: float, depth: float, dropout: float
) -> KerasTensor | dict[str, KerasTensor]:
    """Builds the net on a preprocessed picture [N, H, W, 3]; stem, head and the outer stages' depths stay."""
    x = _relu6(_norm(_conv(x, 32, 3, 2, "stem_conv"), "stem_bn"), "stem_relu")
    block = 0
    for stage, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES):
        if 0 < stage < len(STAGES) - 1:
            repeats = math.ceil(depth * repeats)
        for repeat in range(repeats):
            x = _block(
                x, kernel, stride if repeat == 0 else 1, expansion, _round(width * channels), f"block{block}"
            )
            block += 1
    x = _relu6(_norm(_conv(x, 1280, 1, 1, "head_conv"), "head_bn"), "head_relu")
    if classes is None:
        return x
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    return {"logits": layers.Dense(classes, name="logits", dtype="float32")(x)}


def _block(x, kernel, stride, expansion, channels, name):
    """Expands, convolves each channel for itself, projects; adds the input where the shape has stayed."""
    shortcut = x
    if expansion != 1:
        x = _conv(x, expansion * x.shape[-1], 1, 1, f"{name}_expand_conv")
        x = _relu6(_norm(x, f"{name}_expand_bn"), f"{name}_expand_relu")
    x = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv")(
        x
    )
    x = _relu6(_norm(x, f"{name}_depthwise_bn"), f"{name}_depthwise_relu")
    x = _norm(_conv(x, channels, 1, 1, f"{name}_project_conv"), f"{name}_project_bn")
    if stride == 1 and shortcut.shape[-1] == channels:
        x = layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def _conv(x, channels, kernel, stride, name):
    return layers.Conv2D(
        channels, kernel, stride, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)


def _norm(x, name):
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=name)(x)


def _relu6(x, name):
    return layers.ReLU(6.0, name=name)(x)


def _round(channels, divisor=8):
    """Rounds a scaled width to a multiple of 8, never down by more than a tenth."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
