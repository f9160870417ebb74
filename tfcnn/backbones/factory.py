"""Builds the nets of the table."""

import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import keras
import numpy as np

from tfcnn.backbones.download import locate
from tfcnn.backbones.layers import Preprocess, preprocess
from tfcnn.backbones.rows import Endpoint, Net
from tfcnn.backbones.table import net as find
from tfcnn.backbones.weights import load_weights
from tfcnn.errors import InputError, unknown


def backbone(
    name: str,
    weights: str | os.PathLike | None = "imagenet",
    endpoints: Sequence[str] | None = None,
) -> keras.Model:
    """Builds a net without its classifier, for pictures of any height and width.

    Args:
        name: a net of the table.
        weights: "imagenet", None for random ones, or a file (weights.load_weights says which).
        endpoints: which places of the net come out, names of the table or of any layer (Caffe's slashes and
            our _ are the same); all of the table's when None. Layers above the last are not built into the
            model, and need no weights in a file.

    Returns:
        A flat model from pictures (float32 [N, H, W, 3], RGB, 0..255) to a dict {endpoint: [N, h, w, C]}.
        Its attribute `zero_rgb` is the colour that the net sees as zero.

    Raises:
        InputError: an unknown net or endpoint, or weights that are not there or do not fit.
    """
    row = find(name)
    file = locate(name, weights, bare=True)  # first, so that a missing one is said at once
    image = keras.Input((None, None, 3), name="image")
    whole = keras.Model(image, _construct(row, image), name=name)
    model = tap(whole, row.endpoints if endpoints is None else endpoints, row.endpoints)
    if file:
        load_weights(model, file, whole=whole)
    return model


def classifier(
    name: str,
    weights: str | os.PathLike | None = "imagenet",
    classes: int | None = None,
    size: int | tuple[int | None, int | None] | None = None,
    **options,
) -> keras.Model:
    """Builds a net that names what is in a picture.

    Args:
        name: a net of the table.
        weights: "imagenet", None for random ones, or a file (weights.load_weights says which).
        classes: how many; the net's own (1000, All-CNN-C 10) when None. Where a file has another
            number than the one given here, the last layer stays random.
        size: side, or height and width, of the pictures; the net's own when None. Nets that end in an average
            over the picture keep their weights at any, and (None, None) leaves it open; those with dense
            layers on their map do not.
        **options: the net's own, such as auxiliary=True of GoogLeNet.

    Returns:
        A flat model from pictures (float32 [N, size, size, 3], RGB, 0..255) to {"logits": [N, classes],
        "scores": [N, classes]}, scores being the softmax, with the attribute `zero_rgb` of backbone().

    Raises:
        InputError: an unknown net, a size it cannot take, or weights that are not there or do not fit.
    """
    row = find(name)
    file = locate(name, weights)
    height, width = (size, size) if isinstance(size, int) else size or (row.size, row.size)
    image = keras.Input((height, width, 3), name="image")
    try:
        outputs = _construct(row, image, classes=classes or row.classes, **options)
        if any(0 in layer.output.shape for layer in keras.Model(image, outputs).layers):  # Keras 3.9 goes on
            raise ValueError("no place is left of a map")
    except InputError:
        raise
    except ValueError as error:
        if (height, width) == (row.size, row.size):
            raise
        raise InputError(
            f"{name} cannot read pictures of {height} x {width}; its own are {row.size}"
        ) from error
    heads = {_head(tensor).name for tensor in outputs.values()}
    outputs["scores"] = keras.layers.Activation("softmax", name="scores", dtype="float32")(outputs["logits"])
    model = keras.Model(image, outputs, name=name)
    if file:
        load_weights(model, file, skip=() if classes in (None, row.classes) else heads)
    model.zero_rgb = zero_rgb(model)
    return model


def tap(
    model: keras.Model, endpoints: Iterable[str], declared: Mapping[str, Endpoint] = MappingProxyType({})
) -> keras.Model:
    """Cuts a flat model at places inside it.

    Args:
        model: any functional model of pictures.
        endpoints: names of its layers (a slash stands for _), or of `declared` places.
        declared: endpoints whose layers have other names.

    Returns:
        A model of the same layers, to a dict {endpoint: [N, h, w, C]}; its `zero_rgb` is the model's.

    Raises:
        InputError: there is no such layer; the nearest are named.
    """
    layers = {layer.name: layer for layer in model.layers}
    outputs = {}
    for endpoint in endpoints:
        place = declared.get(endpoint)
        layer = layers.get(place.layer if place and place.layer else endpoint.replace("/", "_"))
        if layer is None:
            raise unknown(f"layer of {model.name}", endpoint, [*declared, *layers])
        outputs[endpoint] = layer.output
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    tapped = keras.Model(inputs, outputs, name=model.name)
    tapped.zero_rgb = zero_rgb(tapped)
    return tapped


def zero_rgb(model: keras.Model) -> np.ndarray:
    """Gives the colour (float32 [3], RGB, 0..255) that a model sees as zero; black where it does not say."""
    for layer in model.layers:
        if isinstance(layer, Preprocess):
            return layer.zero_rgb
    return np.zeros(3, np.float32)


def _construct(row: Net, image, **options):
    module, function = row.constructor.split(":")
    constructor = getattr(importlib.import_module(f".nets.{module}", __package__), function)
    return constructor(preprocess(row.preprocessing)(image), **options)


def _head(tensor):
    """Finds the layer that holds the weights of an output."""
    layer = tensor._keras_history.operation
    return (
        layer if getattr(layer, "weights", None) else _head(layer.input)
    )  # keras.ops have none in Keras 3.9
