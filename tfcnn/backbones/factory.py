"""Builds the nets of the table."""

import importlib
import os
from collections.abc import Sequence

import keras

from tfcnn.backbones.download import locate
from tfcnn.backbones.graph import made_by, tap, zero_rgb
from tfcnn.backbones.layers import preprocess
from tfcnn.backbones.rows import Net
from tfcnn.backbones.table import net as find
from tfcnn.backbones.weights import load_weights
from tfcnn.errors import InputError


def backbone(
    name: str,
    weights: str | os.PathLike | None = "imagenet",
    endpoints: Sequence[str] | None = None,
) -> keras.Model:
    """Builds a net without its classifier, for pictures of any height and width.

    Args:
        name: a net of the table.
        weights: "imagenet", None for random ones, or a file (weights.load_weights says which).
        endpoints: which layers come out, names that `tap` takes; all endpoints of the table when None. Layers
            above the last are not built into the model, and need no weights in a file.

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
    model = tap(whole, row.endpoints if endpoints is None else endpoints)
    if file:
        load_weights(model, file, skip=row.beyond, whole=whole)
    return model


def classifier(
    name: str,
    weights: str | os.PathLike | None = "imagenet",
    classes: int | None = None,
    size: int | tuple[int | None, int | None] | None = None,
    **options: object,
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
            raise ValueError("nothing is left of a map")
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


def _construct(row: Net, image: keras.KerasTensor, **options):
    module, function = row.constructor.split(":")
    constructor = getattr(importlib.import_module(f".nets.{module}", __package__), function)
    return constructor(preprocess(row.preprocessing)(image), **options)


def _head(tensor: keras.KerasTensor) -> keras.layers.Layer:
    """Finds the layer that holds the weights of an output."""
    call = made_by(tensor)
    # operations of keras.ops have no weights in Keras 3.9
    return call.operation if getattr(call.operation, "weights", None) else _head(call.inputs[0])
