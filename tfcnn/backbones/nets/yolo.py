"""YOLO's first nets: 24 convolutions, and Fast YOLO's 9, with leaky rectifiers and darknet's padding.

The dense layers of the detector are `dense_head`; ImageNet's classifier has the first 20 convolutions.
Source: Redmon et al. (1506.02640); pjreddie/darknet cfg/yolo.cfg at 8fd18add, cfg/yolo-tiny.cfg at eaf033c0.
"""

from collections.abc import Sequence

from keras import KerasTensor, layers

# (channels, kernel) is a convolution, (channels, kernel, 2) one of stride 2, "max" a pool of 2
YOLO = [
    *[(64, 7, 2), "max"],
    *[(192, 3), "max"],
    *[(128, 1), (256, 3), (256, 1), (512, 3), "max"],
    *[(256, 1), (512, 3)] * 4,
    *[(512, 1), (1024, 3), "max"],
    *[(512, 1), (1024, 3)] * 2,
]
DETECTION = [(1024, 3), (1024, 3, 2), (1024, 3), (1024, 3)]
FAST = [
    *[(16, 3), "max", (32, 3), "max", (64, 3), "max", (128, 3), "max", (256, 3), "max", (512, 3), "max"],
    *[(1024, 3), (1024, 3), (1024, 3)],
]


def yolo(x: KerasTensor, classes: int | None = None) -> KerasTensor | dict[str, KerasTensor]:
    """Builds the 24 convolutions on a preprocessed picture [N, H, W, 3], or a classifier on the first 20."""
    if classes is None:
        return _stack(x, YOLO + DETECTION)
    return _classifier(_stack(x, YOLO), classes)


def fast_yolo(x: KerasTensor, classes: int | None = None) -> KerasTensor | dict[str, KerasTensor]:
    """Builds the 9 convolutions on a preprocessed picture [N, H, W, 3]."""
    x = _stack(x, FAST)
    return x if classes is None else _classifier(x, classes)


def dense_head(
    x: KerasTensor, outputs: int, hidden: Sequence[tuple[int, str]] = ((4096, "leaky"),), dropout: float = 0.5
) -> KerasTensor:
    """Puts the detector's dense layers on a flattened map [N, 7 * 7 * 1024], given as (width, "leaky" or "linear").

    YOLO has ((4096, "leaky"),), Fast YOLO ((256, "linear"), (4096, "leaky")); the outputs are
    7 * 7 * (5 B + K) numbers.
    """
    for number, (width, activation) in enumerate(hidden, start=1):
        x = layers.Dense(width, name=f"fc{number}")(x)
        if activation == "leaky":
            x = layers.LeakyReLU(negative_slope=0.1, name=f"fc{number}_leaky")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    return layers.Dense(outputs, name="output", dtype="float32")(x)


def _stack(x, items):
    number = 0
    for item in items:
        if item == "max":
            x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
            continue
        number += 1
        channels, kernel, *stride = item
        if stride:  # darknet pads both sides alike, "same" would not
            x = layers.ZeroPadding2D(kernel // 2, name=f"pad{number}")(x)
        x = layers.Conv2D(
            channels,
            kernel,
            *stride,
            padding="valid" if stride else "same",
            kernel_initializer="he_normal",
            name=f"conv{number}",
        )(x)
        x = layers.LeakyReLU(negative_slope=0.1, name=f"leaky{number}")(x)
    return x


def _classifier(x, classes):
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return {"logits": layers.Dense(classes, name="logits", dtype="float32")(x)}
