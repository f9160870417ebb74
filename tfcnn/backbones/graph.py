"""A net as a graph: which call gave which tensor, and the net cut at its layers.

Keras says in public what layers a model has and rebuilds a model (keras.models.clone_model), but neither which call
gave a tensor and what that call took, nor which layers lie inside a layer. These three are read from its private
attributes (_keras_history, _inbound_nodes, _flatten_layers), here and nowhere else.
"""

import dataclasses
from collections.abc import Iterable

import keras
import numpy as np

from tfcnn.backbones.layers import Preprocess
from tfcnn.backbones.table import NETS
from tfcnn.errors import InputError, unknown

INPUT = ":input"  # after a layer's name: what goes into it


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer, or of an operation of keras.ops, on symbolic tensors."""

    operation: keras.Operation
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]


def made_by(tensor: keras.KerasTensor) -> Call:
    """Gives the call that a symbolic tensor comes from."""
    history = tensor._keras_history
    node = history.operation._inbound_nodes[history.node_index]
    return Call(history.operation, tuple(node.input_tensors), tuple(node.output_tensors))


def calls(model: keras.Model) -> list[Call]:
    """Lists the calls that a functional or sequential model makes, each after those that it reads from.

    A layer may have calls in other models, too (layers can be shared), so that its own `input` and `output` need
    not lie in this model.
    """
    found: dict[int, Call] = {}  # by the first output, in the order in which calls are complete
    stack = [(tensor, False) for tensor in reversed(model.outputs)]
    while stack:
        tensor, complete = stack.pop()
        call = made_by(tensor)
        key = id(call.outputs[0])
        if complete:
            found.setdefault(key, call)
        elif key not in found:
            stack.append((tensor, True))
            stack += [(each, False) for each in reversed(call.inputs)]
    return list(found.values())


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Lists the layers of a model, those inside other layers and models too."""
    return model._flatten_layers(include_self=False)


def layer_names(model: keras.Model) -> list[str]:
    """Lists the names that `tap` takes: the keys of the model's outputs, then its layers in order."""
    keys = list(model.output) if isinstance(model.output, dict) else []
    return list(dict.fromkeys(keys + [layer.name for layer in model.layers]))


def tap(model: keras.Model, layers: Iterable[str], hint: str = "") -> keras.Model:
    """Cuts a flat model at layers.

    Args:
        model: a functional or sequential model of pictures; models inside it are one layer each (see `flat`).
        layers: keys of its outputs; the endpoints of the factory's table, where the model has the name of one of
            its nets; names of layers, of which ":input" after the name means what goes into the layer. A slash
            in a name means the same as an underscore.
        hint: how to see all names, for the message about a wrong one.

    Returns:
        A model of the same layers from the same input to {name as it was asked for: tensor [N, ...]}; its
        `zero_rgb` is the model's.

    Raises:
        InputError: there is no such layer; the nearest are named.
    """
    tensors: dict[str, keras.KerasTensor] = {}
    for call in calls(model):
        tensors.setdefault(call.operation.name, call.outputs[0])
        if call.inputs:
            tensors.setdefault(call.operation.name + INPUT, call.inputs[0])
    declared = NETS[model.name].endpoints if model.name in NETS else {}
    endpoints = {name: tensors.get(endpoint.layer or name) for name, endpoint in declared.items()}
    tensors |= {name: tensor for name, tensor in endpoints.items() if tensor is not None}
    tensors |= model.output if isinstance(model.output, dict) else {}
    spelled = {name.replace("/", "_"): tensor for name, tensor in tensors.items()}
    outputs = {}
    for name in layers:
        tensor = tensors.get(name, spelled.get(name.replace("/", "_")))
        if tensor is None:
            raise unknown(
                f"layer of {model.name}", name, [each for each in tensors if INPUT not in each], hint
            )
        outputs[name] = tensor
    tapped = keras.Model(
        model.inputs[0] if len(model.inputs) == 1 else model.inputs, outputs, name=model.name
    )
    tapped.zero_rgb = zero_rgb(model)
    return tapped


def require_gradient(model: keras.Model) -> None:
    """Raises InputError where no gradient can reach a model's picture, since it takes whole numbers."""
    if not model.inputs[0].dtype.startswith(("float", "bfloat")):
        raise InputError(f"{model.name} takes {model.inputs[0].dtype} pictures: no gradient reaches them")


def zero_rgb(model: keras.Model) -> np.ndarray:
    """Gives the colour (float32 [3], RGB, 0..255) that a model sees as zero; black where it does not say."""
    for layer in model.layers:
        if isinstance(layer, Preprocess):
            return layer.zero_rgb
    return np.zeros(3, np.float32)


def copy_weights(source: keras.Model, target: keras.Model) -> list[str]:
    """Copies the weights of all layers that two models share by name and shape.

    Returns:
        names of the target's layers that kept their own weights: those that the source lacks, or of other shapes.
    """
    known = {layer.name: layer for layer in source.layers if layer.weights}
    fresh = []
    for layer in target.layers:
        values = known[layer.name].get_weights() if layer.name in known else []
        if [v.shape for v in values] == [tuple(w.shape) for w in layer.weights]:
            layer.set_weights(values)
        else:
            fresh.append(layer.name)
    return fresh
