"""What a row of the factory's table is made of. Imports no TensorFlow."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What a net does to RGB values of 0..255 first: (value - mean) / scale, in its own order of channels.

    `mean` and `scale` are given in the order red, green, blue, whatever the net's own order is.
    """

    order: str = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A named location in a net: pixels between two values, channels, and its layer where named otherwise."""

    stride: int
    channels: int
    layer: str = ""


@dataclasses.dataclass(frozen=True)
class Weights:
    """A file of weights: of an installed package, or to download into Keras' own folder.

    `hash` is a SHA-256 or, where no other is published, an MD5 sum; `bare` lacks the classifier.
    """

    file: str
    package: str = ""
    url: str = ""
    hash: str = ""
    bare: "Weights | None" = None


@dataclasses.dataclass(frozen=True)
class Net:
    """A row of the table.

    `constructor` is "module:function" in tfcnn.backbones.nets; `size` is the side in pixels of the pictures
    that the classifier reads, and `parameters` counts its weights with `classes` outputs, batch norm's
    statistics included. The backbone's layers named `beyond` come after those that the classifier has: a classifier's
    file leaves them as they are.
    """

    constructor: str
    preprocessing: Preprocessing
    size: int
    parameters: int
    endpoints: Mapping[str, Endpoint]
    weights: Mapping[str, Weights]
    source: str
    classes: int = 1000
    beyond: tuple[str, ...] = ()


# What people did to pictures before their nets saw them.
RAW = Preprocessing()
UNIT = Preprocessing("rgb", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))  # 0..1
TF = Preprocessing("rgb", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))  # -1..1
TORCH = Preprocessing("rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
CAFFE = Preprocessing("bgr", (123.68, 116.779, 103.939))
BVLC = Preprocessing("bgr", (123.0, 117.0, 104.0))
DETECTION = Preprocessing("bgr", (122.7717, 115.9465, 102.9801))  # py-faster-rcnn's
LITE = Preprocessing("rgb", (127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
OVERFEAT = Preprocessing("rgb", (118.380948,) * 3, (61.896913,) * 3)
CIFAR = Preprocessing("rgb", (125.3, 123.0, 113.9), (63.0, 62.1, 66.7))


# The names that a model without its own takes: Keras' modes; those of nets are the table's.
PREPROCESSINGS = {"none": RAW, "unit": UNIT, "tf": TF, "torch": TORCH, "caffe": CAFFE}

KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"


def keras_files(folder: str, file: str, md5: str, bare: str, bare_md5: str) -> Weights:
    """Keras' own files; the sums are those of keras/src/applications, which has none for MobileNetV2."""
    return Weights(
        file,
        url=f"{KERAS}/{folder}/{file}",
        hash=md5,
        bare=Weights(bare, "", f"{KERAS}/{folder}/{bare}", bare_md5),
    )


def keras_weights(folder: str, name: str, md5: str, bare_md5: str) -> Weights:
    """Gives a net's two files of keras-team's release, with and without classes, from its name and sums."""
    stem = f"{name}_weights_tf_dim_ordering_tf_kernels"
    return keras_files(folder, f"{stem}.h5", md5, f"{stem}_notop.h5", bare_md5)
