"""YOLO's dense layers begun as convolutions: every cell looks at its own location, and all cells share their weights.

A dense layer between two maps of S x S locations has weights for each pair of locations, and a weight learns only from
the objects that lie there: too few on some thousand pictures. Here the dense layers are first 1x1 convolutions, which
every object teaches wherever it lies; written into the dense layers they compute the same, and these learn on.

This is `backbones.fully_convolutional` (Sermanet et al., arXiv 1312.6229, section 3.5) the other way round; the paper
of YOLO does not have it. Letters: S cells on a side, B boxes a cell, K classes.
"""

import math

import keras
import numpy as np
from keras import layers, ops

from tfcnn.detection.yolo import GridDetections
from tfcnn.errors import InputError


def by_cells(model: keras.Model) -> keras.Model:
    """The same detector with 1x1 convolutions in the place of its dense layers; it shares all layers before them.

    Args:
        model: of `yolo.yolo`.

    Returns:
        keras.Model with the model's input and outputs, and fresh convolutions.

    Raises:
        InputError: the model is no YOLO, its last map has not S x S locations, or a dense layer's units do not divide
            among the cells.
    """
    output = model.layers[-1]
    if not isinstance(output, GridDetections):
        raise InputError("Only YOLO's dense layers can begin as convolutions: this detector has none.")
    cells, per_cell = output.grid**2, (output.classes, output.boxes, output.boxes * 4)
    flat = model.get_layer("flatten")
    x = flat.input
    side = math.isqrt(flat.target_shape[0] // x.shape[-1])
    if side != output.grid:
        raise InputError(
            f"Dense layers can begin as convolutions where the last map has a place for each of the {output.grid} x "
            f"{output.grid} cells, but it has {side} x {side}: resample it, or take another size or grid."
        )
    for layer in model.layers[model.layers.index(flat) + 1 : -1]:
        if isinstance(layer, layers.Dense):
            if layer.units % cells:
                raise InputError(
                    f"Dense layers can begin as convolutions where their units divide among the {cells} cells, as "
                    f"{cells * max(1, round(layer.units / cells))} do; {layer.name} has {layer.units}."
                )
            x = layers.Conv2D(
                layer.units // cells,
                1,
                kernel_initializer="glorot_normal" if layer.name == "output" else "he_normal",
                dtype=layer.dtype_policy,
                name=f"{layer.name}_cells",
            )(x)
        else:
            x = layer(x)
    ends = np.cumsum(per_cell)
    parts = [x[..., end - count : end] for end, count in zip(ends, per_cell, strict=True)]
    flattened = [ops.reshape(part, (-1, cells * part.shape[-1])) for part in parts]
    image = model.inputs[0]
    found = GridDetections.from_config(output.get_config())([ops.concatenate(flattened, axis=-1), image])
    model_of_cells = keras.Model(image, found, name=model.name)
    model_of_cells.endpoints = getattr(model, "endpoints", {})
    return model_of_cells


def write_dense(model_of_cells: keras.Model, model: keras.Model) -> None:
    """Writes the convolutions' weights into the dense layers, which then compute the same.

    Args:
        model_of_cells: of `by_cells(model)`.
        model: gets the weights.
    """
    output = model.layers[-1]
    cells, place = output.grid**2, np.arange(output.grid**2)
    for layer in model.layers:
        if not isinstance(layer, layers.Dense):
            continue
        kernel, bias = model_of_cells.get_layer(f"{layer.name}_cells").get_weights()
        inputs, units = kernel.shape[2:]
        dense = np.zeros((cells, inputs, cells, units), np.float32)
        dense[place, :, place] = kernel[0, 0]
        dense, bias = dense.reshape(cells * inputs, cells, units), np.tile(bias, (cells, 1))
        # The output's numbers are in darknet's order: those of all cells together, part by part.
        last = layer.name == "output"
        ends = [output.classes, output.classes + output.boxes] if last else []
        columns = [part.reshape(len(dense), -1) for part in np.split(dense, ends, axis=2)]
        biases = [part.reshape(-1) for part in np.split(bias, ends, axis=1)]
        layer.set_weights([np.concatenate(columns, axis=1), np.concatenate(biases)])
