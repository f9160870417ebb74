"""All-CNN-C: a net of convolutions only, strides instead of pools; for CIFAR-10.

Source: Springenberg et al. (1412.6806), tables 1 and 2. Colours are scaled
where the paper whitens.
"""

from keras import KerasTensor, layers

# channels, kernel, stride, padding
CONVOLUTIONS = [
    (96, 3, 1, "same"),
    (96, 3, 1, "same"),
    (96, 3, 2, "same"),
    (192, 3, 1, "same"),
    (192, 3, 1, "same"),
    (192, 3, 2, "same"),
    (192, 3, 1, "valid"),
    (192, 1, 1, "valid"),
]


def all_cnn_c(x: KerasTensor, classes: int | None = None) -> KerasTensor | dict[str, KerasTensor]:
    """Builds the net on a preprocessed picture [N, H, W, 3]; the last convolution has a ReLU too."""
    if classes:
        x = layers.Dropout(0.2, name="drop0")(x)
    for number, (channels, kernel, stride, padding) in enumerate(CONVOLUTIONS, start=1):
        x = _conv(x, channels, kernel, stride, padding, f"conv{number}")
        if classes and stride == 2:
            x = layers.Dropout(0.5, name=f"drop{number}")(x)
    if classes is None:
        return x
    x = _conv(x, classes, 1, 1, "valid", "conv9")
    return {"logits": layers.GlobalAveragePooling2D(name="logits", dtype="float32")(x)}


def _conv(x, channels, kernel, stride, padding, name):
    return layers.Conv2D(
        channels, kernel, stride, padding, activation="relu", kernel_initializer="he_normal", name=name
    )(x)
