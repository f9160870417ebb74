"""AlexNet in Caffe's form, with the two groups that once were two GPUs.

Source: Krizhevsky, Sutskever, Hinton (2012); BVLC/caffe models/bvlc_alexnet.
"""

from collections.abc import Sequence

from keras import KerasTensor, layers

from tfcnn.backbones.layers import CeilMaxPooling2D, GroupedConv2D, LocalResponseNormalization


def alexnet(
    x: KerasTensor, classes: int | None = None, hidden: int = 4096
) -> KerasTensor | dict[str, KerasTensor]:
    """Builds the net on a preprocessed picture [N, H, W, 3]; `hidden` is the width of fc6 and fc7."""
    x = layers.Conv2D(96, 11, 4, activation="relu", name="conv1")(x)  # 227 -> 55
    x = LocalResponseNormalization(name="norm1")(x)
    x = CeilMaxPooling2D(3, 2, name="pool1")(x)  # 27
    x = GroupedConv2D(256, 5, padding="same", groups=2, activation="relu", name="conv2")(x)
    x = LocalResponseNormalization(name="norm2")(x)
    x = CeilMaxPooling2D(3, 2, name="pool2")(x)  # 13
    x = layers.Conv2D(384, 3, padding="same", activation="relu", name="conv3")(x)
    x = GroupedConv2D(384, 3, padding="same", groups=2, activation="relu", name="conv4")(x)
    x = GroupedConv2D(256, 3, padding="same", groups=2, activation="relu", name="conv5")(x)
    x = CeilMaxPooling2D(3, 2, name="pool5")(x)  # 6
    return x if classes is None else dense_head(x, classes, [("fc6", hidden), ("fc7", hidden)], "fc8")


def dense_head(
    x: KerasTensor, classes: int, hidden: Sequence[tuple[str, int]], last: str, dropout: float = 0.5
) -> dict[str, KerasTensor]:
    """Puts dense layers (name, width) on a map of fixed size: the classifier of AlexNet, ZF and OverFeat."""
    x = layers.Flatten(name="flatten")(x)
    for name, width in hidden:
        x = layers.Dense(width, activation="relu", name=name)(x)
        x = layers.Dropout(dropout, name=name.replace("fc", "drop"))(x)
    return {"logits": layers.Dense(classes, name=last, dtype="float32")(x)}
