"""ZF, the net that Zeiler and Fergus looked into: AlexNet with a finer first layer and without groups.

The paper's form (110, 55, 26, 13, 6 pixels), which pools first and then normalises across the maps; the one
of py-faster-rcnn has the same convolutions with other padding.
Source: Zeiler and Fergus (1311.2901) figure 3; rbgirshick/py-faster-rcnn models/pascal_voc/ZF.
"""

from keras import KerasTensor, layers

from tfcnn.backbones.layers import CeilMaxPooling2D, LocalResponseNormalization
from tfcnn.backbones.nets.alexnet import dense_head


def zf(
    x: KerasTensor, classes: int | None = None, hidden: int = 4096
) -> KerasTensor | dict[str, KerasTensor]:
    """Builds the net on a preprocessed picture [N, H, W, 3]; `hidden` is the width of fc6 and fc7."""
    x = layers.ZeroPadding2D(1, name="pad1")(x)
    x = layers.Conv2D(96, 7, 2, activation="relu", name="conv1")(x)  # 224 -> 110
    x = CeilMaxPooling2D(3, 2, name="pool1")(x)  # 55
    x = LocalResponseNormalization(name="norm1")(x)
    x = layers.Conv2D(256, 5, 2, activation="relu", name="conv2")(x)  # 26
    x = CeilMaxPooling2D(3, 2, name="pool2")(x)  # 13
    x = LocalResponseNormalization(name="norm2")(x)
    x = layers.Conv2D(384, 3, padding="same", activation="relu", name="conv3")(x)
    x = layers.Conv2D(384, 3, padding="same", activation="relu", name="conv4")(x)
    x = layers.Conv2D(256, 3, padding="same", activation="relu", name="conv5")(x)
    x = CeilMaxPooling2D(3, 2, name="pool5")(x)  # 6
    return x if classes is None else dense_head(x, classes, [("fc6", hidden), ("fc7", hidden)], "fc8")
