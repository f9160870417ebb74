"""The backbone factory: classical nets by name, with preprocessing inside and weights where there are any.

`backbone(name)` gives a net that maps pictures of any height and width to a dict of endpoints,
`classifier(name)` one of its own size that names what is in them. TensorFlow is imported by the first of the
functions that is asked for.
"""

import importlib
from typing import TYPE_CHECKING

from tfcnn.backbones.download import locate, offline
from tfcnn.backbones.rows import Endpoint, Net, Preprocessing
from tfcnn.backbones.table import NETS, endpoint_names

if TYPE_CHECKING:
    from tfcnn.backbones.convert import flat, folded, folded_in_training, fully_convolutional
    from tfcnn.backbones.factory import backbone, classifier, tap, zero_rgb
    from tfcnn.backbones.weights import load_weights

__all__ = [
    "NETS",
    "Endpoint",
    "Net",
    "Preprocessing",
    "backbone",
    "classifier",
    "endpoint_names",
    "flat",
    "folded",
    "folded_in_training",
    "fully_convolutional",
    "load_weights",
    "locate",
    "offline",
    "tap",
    "zero_rgb",
]

_HOME = {
    "backbone": "factory",
    "classifier": "factory",
    "tap": "factory",
    "zero_rgb": "factory",
    "flat": "convert",
    "folded": "convert",
    "folded_in_training": "convert",
    "load_weights": "weights",
    "fully_convolutional": "convert",
}


def __getattr__(name):
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
