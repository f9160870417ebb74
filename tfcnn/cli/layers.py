"""The layers and channels that a person names, of a net of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfcnn.errors import InputError

if TYPE_CHECKING:
    import keras

LISTED = "--list_layers shows all"


def maps(model: keras.Model) -> dict[str, int]:
    """The maps worth looking at, from the picture on: {name: channels}.

    A factory net's are its endpoints; of another model those layers that end in an activation, a sum or a pool, before
    any layer of a detector's that turns maps into boxes or regions.
    """
    from tfcnn.backbones import NETS

    if model.name in NETS:
        return {name: end.channels for name, end in NETS[model.name].endpoints.items()}
    import keras

    from tfcnn.backbones.graph import calls

    ends = (
        *(keras.layers.Activation, keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.Add),
        *(keras.layers.Concatenate, keras.layers.MaxPooling2D, keras.layers.AveragePooling2D),
    )
    found, foreign = {}, set()
    for call in calls(model):
        layer, shape = call.operation, call.outputs[0].shape
        home = type(layer).__module__.split(".")[0:2]
        if any(id(tensor) in foreign for tensor in call.inputs) or (
            home[0] != "keras" and home != ["tfcnn", "backbones"]
        ):
            foreign |= {id(tensor) for tensor in call.outputs}
            continue
        activation = getattr(layer, "activation", None)
        ended = isinstance(layer, ends) or (activation and activation is not keras.activations.linear)
        if ended and len(shape) == 4 and shape[-1]:
            found[layer.name] = shape[-1]
    if not found:
        raise InputError(f"{model.name} has no map that could be chosen: name a --layer; {LISTED}")
    return found


def deep(model: keras.Model) -> str:
    """The last but one of `maps`: of a classifier the last is often the one that it averages."""
    names = list(maps(model))
    return names[-2:][0]


def channels(model: keras.Model, layer: str, wanted: Sequence[str], spread: int) -> list[int]:
    """The channels of a layer that a flag names.

    Args:
        model: flat.
        layer: one of its layers or endpoints.
        wanted: their numbers; none takes `spread` of them, evenly spread.
        spread: how many then.

    Raises:
        InputError: no such layer or channel.
    """
    there = count(model, layer)
    for channel in wanted:
        if not channel.strip().isdecimal() or int(channel) >= there:
            raise InputError(f"--channel={channel}: {layer} has channels 0 to {there - 1}")
    if wanted:
        return list(dict.fromkeys(int(channel) for channel in wanted))
    if there <= spread:
        return list(range(there))
    return [round(place * (there - 1) / max(1, spread - 1)) for place in range(spread)]


def count(model: keras.Model, layer: str, ranks: Sequence[int] = (2, 4), flag: str = "layer") -> int:
    """How many channels a layer has.

    Args:
        model: flat.
        layer: one of its layers or endpoints.
        ranks: dimensions that its answer may have: 4 is channels at locations, 2 channels alone.
        flag: that names it.

    Raises:
        InputError: no such layer, or its answer has no channels.
    """
    from tfcnn.backbones import tap

    shape = tap(model, [layer], LISTED).output[layer].shape
    if len(shape) not in ranks or shape[-1] is None:
        missing = "no channels" if 2 in ranks else "no map"
        raise InputError(f"--{flag}={layer} has the shape {shape[1:]}: it has {missing}")
    return shape[-1]
