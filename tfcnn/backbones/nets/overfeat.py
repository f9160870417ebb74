"""OverFeat, fast and accurate: no normalisation, pools that do not overlap.

Source: Sermanet et al. (1312.6229), tables 1 and 3.
"""

from keras import KerasTensor, layers

from tfcnn.backbones.nets.alexnet import dense_head


def fast(
    x: KerasTensor, classes: int | None = None, hidden: tuple[int, int] = (3072, 4096)
) -> KerasTensor | dict[str, KerasTensor]:
    """Builds the fast net on a preprocessed picture [N, H, W, 3]; `hidden` are fc6's and fc7's widths."""
    x = layers.Conv2D(96, 11, 4, activation="relu", name="conv1")(x)  # 231 -> 56
    x = layers.MaxPooling2D(2, name="pool1")(x)  # 28
    x = layers.Conv2D(256, 5, activation="relu", name="conv2")(x)  # 24
    x = layers.MaxPooling2D(2, name="pool2")(x)  # 12
    x = _convolutions(x, [512, 1024, 1024])
    x = layers.MaxPooling2D(2, name="pool5")(x)  # 6
    return (
        x
        if classes is None
        else dense_head(x, classes, list(zip(("fc6", "fc7"), hidden, strict=True)), "fc8")
    )


def accurate(
    x: KerasTensor, classes: int | None = None, hidden: tuple[int, int] = (4096, 4096)
) -> KerasTensor | dict[str, KerasTensor]:
    """Builds the accurate net on a preprocessed picture [N, H, W, 3]; `hidden` are fc7's and fc8's widths."""
    x = layers.Conv2D(96, 7, 2, activation="relu", name="conv1")(x)  # 221 -> 108
    x = layers.MaxPooling2D(3, name="pool1")(x)  # 36
    x = layers.Conv2D(256, 7, activation="relu", name="conv2")(x)  # 30
    x = layers.MaxPooling2D(2, name="pool2")(x)  # 15
    x = _convolutions(x, [512, 512, 1024, 1024])
    x = layers.MaxPooling2D(3, name="pool6")(x)  # 5
    return (
        x
        if classes is None
        else dense_head(x, classes, list(zip(("fc7", "fc8"), hidden, strict=True)), "fc9")
    )


def _convolutions(x, channels):
    for number, width in enumerate(channels, start=3):
        x = layers.Conv2D(width, 3, padding="same", activation="relu", name=f"conv{number}")(x)
    return x
