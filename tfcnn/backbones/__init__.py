"""The backbone factory: classical nets by name, with preprocessing inside and weights where there are any.

`backbone(name)` gives a net that maps pictures of any height and width to a dict of endpoints,
`classifier(name)` one of its own size that names what is in them. TensorFlow is imported by the first of the
functions that is asked for.
"""

import importlib
from typing import TYPE_CHECKING

from tfcnn.backbones.download import locate, offline
from tfcnn.backbones.imagenet import class_names
from tfcnn.backbones.rows import Endpoint, Net, Preprocessing
from tfcnn.backbones.table import NETS, endpoint_names

if TYPE_CHECKING:
    from tfcnn.backbones.convert import (
        any_size,
        average_pooling,
        flat,
        float_input,
        fully_convolutional,
        of_size,
        rebuilt,
        separate_activations,
    )
    from tfcnn.backbones.factory import backbone, classifier
    from tfcnn.backbones.folding import folded, folded_in_training
    from tfcnn.backbones.graph import all_layers, copy_weights, layer_names, tap, zero_rgb
    from tfcnn.backbones.weights import load_weights

__all__ = [
    "NETS",
    "Endpoint",
    "Net",
    "Preprocessing",
    "all_layers",
    "any_size",
    "average_pooling",
    "backbone",
    "class_names",
    "classifier",
    "copy_weights",
    "endpoint_names",
    "flat",
    "float_input",
    "folded",
    "folded_in_training",
    "fully_convolutional",
    "layer_names",
    "load_weights",
    "locate",
    "of_size",
    "offline",
    "rebuilt",
    "separate_activations",
    "tap",
    "zero_rgb",
]

_MODULES = {
    "factory": ("backbone", "classifier"),
    "folding": ("folded", "folded_in_training"),
    "graph": ("all_layers", "copy_weights", "layer_names", "tap", "zero_rgb"),
    "weights": ("load_weights",),
}


def __getattr__(name: str):
    if name in __all__:
        module = next((module for module, names in _MODULES.items() if name in names), "convert")
        return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
