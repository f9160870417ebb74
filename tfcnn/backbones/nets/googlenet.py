"""GoogLeNet (Inception-v1) in Caffe's form. Layers have Caffe's names with _ for /, which Keras refuses.

Source: Szegedy et al. (1409.4842); BVLC/caffe models/bvlc_googlenet.
"""

from keras import KerasTensor, layers

from tfcnn.backbones.layers import CeilMaxPooling2D, LocalResponseNormalization

# block: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection
BLOCKS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(
    x: KerasTensor, classes: int | None = None, auxiliary: bool = False
) -> KerasTensor | dict[str, KerasTensor]:
    """Builds the net on a preprocessed picture [N, H, W, 3].

    With `auxiliary` the classifier has two more outputs, loss1/classifier and loss2/classifier (logits;
    their losses count 0.3 in training), and takes pictures of 224 x 224 only.
    """
    x = layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = layers.Conv2D(64, 7, 2, activation="relu", name="conv1_7x7_s2")(x)  # 112
    x = CeilMaxPooling2D(3, 2, name="pool1_3x3_s2")(x)  # 56
    x = LocalResponseNormalization(name="pool1_norm1")(x)
    x = _conv(x, 64, 1, "conv2_3x3_reduce")
    x = _conv(x, 192, 3, "conv2_3x3")
    x = LocalResponseNormalization(name="conv2_norm2")(x)
    x = CeilMaxPooling2D(3, 2, name="pool2_3x3_s2")(x)  # 28
    logits = {}
    for block, channels in BLOCKS.items():
        x = _inception(x, channels, f"inception_{block}")
        if block in ("3b", "4e"):
            x = CeilMaxPooling2D(3, 2, name=f"pool{block[0]}_3x3_s2")(x)  # 14, 7
        if classes and auxiliary and block in ("4a", "4d"):
            number = 1 if block == "4a" else 2
            logits[f"loss{number}/classifier"] = _auxiliary(x, classes, f"loss{number}")
    if classes is None:
        return x
    x = layers.GlobalAveragePooling2D(name="pool5_7x7_s1")(x)
    x = layers.Dropout(0.4, name="pool5_drop_7x7_s1")(x)
    return {"logits": layers.Dense(classes, name="loss3_classifier", dtype="float32")(x), **logits}


def _inception(x, channels, name):
    """Convolves with four sizes of window and concatenates the channels."""
    one, reduce3, three, reduce5, five, projection = channels
    pooled = layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
    branches = [
        _conv(x, one, 1, f"{name}_1x1"),
        _conv(_conv(x, reduce3, 1, f"{name}_3x3_reduce"), three, 3, f"{name}_3x3"),
        _conv(_conv(x, reduce5, 1, f"{name}_5x5_reduce"), five, 5, f"{name}_5x5"),
        _conv(pooled, projection, 1, f"{name}_pool_proj"),
    ]
    return layers.Concatenate(name=f"{name}_output")(branches)


def _auxiliary(x, classes, name):
    x = layers.AveragePooling2D(5, 3, name=f"{name}_ave_pool")(x)  # 4
    x = _conv(x, 128, 1, f"{name}_conv")
    x = layers.Flatten(name=f"{name}_flatten")(x)
    x = layers.Dense(1024, activation="relu", name=f"{name}_fc")(x)
    x = layers.Dropout(0.7, name=f"{name}_drop_fc")(x)
    return layers.Dense(classes, name=f"{name}_classifier", dtype="float32")(x)


def _conv(x, channels, kernel, name):
    return layers.Conv2D(channels, kernel, padding="same", activation="relu", name=name)(x)
