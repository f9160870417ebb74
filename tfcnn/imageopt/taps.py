"""Any layer of a net by its name."""

import keras

from tfcnn.backbones.table import NETS
from tfcnn.errors import unknown


def layer_names(model: keras.Model) -> list[str]:
    """Names that `tapped` takes: the keys of the model's outputs, then its layers in order."""
    keys = list(model.output) if isinstance(model.output, dict) else []
    return list(dict.fromkeys(keys + [layer.name for layer in model.layers]))


def tapped(model: keras.Model, layers: list[str]) -> keras.Model:
    """Give the net that shares this one's weights and puts out the named layers.

    Args:
        model: a flat functional model (no model inside it).
        layers: keys of its outputs, names of its layers, or, of a net of the factory, its endpoints; a slash in a
            name means the same as an underscore.

    Returns:
        A model from the same input to {name as given: tensor}.

    Raises:
        InputError: no such layer; it names the nearest ones.
    """
    outputs = dict(model.output) if isinstance(model.output, dict) else {}
    tensors = {layer.name: layer.output for layer in model.layers} | outputs
    endpoints = NETS[model.name].endpoints if model.name in NETS else {}
    tensors |= {
        name: tensors[endpoint.layer]
        for name, endpoint in endpoints.items()
        if name not in tensors and endpoint.layer in tensors
    }
    spelled = {name.replace("/", "_"): tensor for name, tensor in tensors.items()}
    found = {}
    for name in layers:
        if name not in tensors and name.replace("/", "_") not in spelled:
            raise unknown(f"layer of {model.name}", name, tensors, "--list_layers lists all")
        found[name] = tensors.get(name, spelled.get(name.replace("/", "_")))
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    return keras.Model(inputs, found, name=f"{model.name}_tapped")


def any_size(model: keras.Model) -> keras.Model | None:
    """Give a copy of a net that takes pictures of any height and width, or None where its layers read one size.

    Args:
        model: a functional model of one input [N, H, W, 3]; one that is open already is given back itself.
    """
    if model.input_shape[1:3] == (None, None):
        return model
    picture = keras.Input((None, None, 3), name="image")
    try:
        copy = keras.models.clone_model(model, input_tensors=picture)
        copy.set_weights(model.get_weights())
    except ValueError:  # a dense layer on a flattened map
        return None
    return copy
