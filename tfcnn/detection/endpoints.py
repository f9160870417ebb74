"""The backbone's endpoints inside a detector: which maps its head takes, and which layers stay in training."""

from collections.abc import Sequence

import keras

from tfcnn.errors import InputError


def strides(backbone: keras.Model) -> dict[str, int]:
    """Pixels from one location of each endpoint's map to the next: {endpoint: stride}."""
    side = 2048
    shapes = backbone.compute_output_shape((1, side, side, 3))
    return {name: round(side / shape[1]) for name, shape in shapes.items()}


def endpoints_at(backbone: keras.Model, wanted: Sequence[int]) -> list[str]:
    """The deepest endpoint of each of these strides.

    Raises:
        InputError: the backbone has no endpoint of a stride.
    """
    by_stride = {stride: name for name, stride in strides(backbone).items()}
    missing = [s for s in wanted if s not in by_stride]
    if missing:
        raise InputError(
            f"The backbone {backbone.name} has no endpoint of stride {missing[0]}; it has strides {sorted(by_stride)}."
        )
    return [by_stride[s] for s in wanted]


def remember(model: keras.Model, backbone: keras.Model) -> keras.Model:
    """Notes on a detector built on a backbone which layers end the backbone's endpoints; gives the detector back."""
    model.endpoints = {
        name: next(layer.name for layer in backbone.layers if layer.output is x)
        for name, x in backbone.output.items()
    }
    return model


def endpoint_strides(model: keras.Model) -> dict[str, tuple[str, int]]:
    """The backbone's endpoints inside a detector.

    Args:
        model: as its builder gave it; what was read from a file has forgotten its endpoints.

    Returns:
        {endpoint: (name of its last layer, stride)}, from the picture on.
    """
    known = {layer.name: layer for layer in model.layers}
    ends = {name: layer for name, layer in getattr(model, "endpoints", {}).items() if layer in known}
    if not ends:
        return {}
    tapped = keras.Model(model.inputs[0], {name: known[layer].output for name, layer in ends.items()})
    return {name: (ends[name], stride) for name, stride in strides(tapped).items()}
