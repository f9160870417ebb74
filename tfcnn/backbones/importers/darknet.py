"""Reads the .weights files of darknet: numbers in the order of the layers, with neither names nor shapes.

Source: pjreddie/darknet, parser.c (load_weights_upto, load_convolutional_weights, load_connected_weights).
"""

import os
import struct

import keras
import numpy as np

from tfcnn.errors import InputError

EPSILON = 1e-6  # darknet adds it to the standard deviation, not to the variance


def load(path: str | os.PathLike, model: keras.Model) -> list[tuple[str, tuple[int, ...]]]:
    """Fills a net's convolutions and dense layers from a file, in the order in which the picture passes them.

    Whether the file's convolutions have batch norm is told by how many numbers it holds; batch norm is fused into the
    net's biases and kernels. Dense layers read maps in darknet's order (channels, height, width); their kernels are
    turned to Keras' order.

    Args:
        path: the .weights file.
        model: a net without batch norm whose layers with weights are Conv2D and Dense, such as `yolo.yolo`.

    Returns:
        (layer, shape of its kernel) of each layer filled.

    Raises:
        InputError: the file is no .weights file, or belongs to another network.
    """
    learned = [layer for layer in model.layers if layer.weights]
    other = [layer for layer in learned if not isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)]
    if other:
        raise InputError(
            f"A .weights file cannot fill {other[0].name} of {model.name}, a {type(other[0]).__name__}"
        )
    numbers, transposed = _numbers(path)
    plain = sum(layer.count_params() for layer in learned)
    norms = 3 * sum(layer.filters for layer in learned if isinstance(layer, keras.layers.Conv2D))
    if len(numbers) not in (plain, plain + norms):
        raise InputError(
            f"{path} belongs to another network: it holds {len(numbers):,} numbers, and {model.name} has {plain:,} "
            f"weights ({plain + norms:,} with batch norm)"
        )
    with_norm, place, filled = len(numbers) > plain, 0, []

    def take(*shape):
        nonlocal place
        first, place = place, place + int(np.prod(shape))
        return np.array(numbers[first:place], np.float32).reshape(shape)

    for layer in learned:
        if isinstance(layer, keras.layers.Conv2D):
            height, width, depth, count = layer.kernel.shape
            bias = take(count)
            scale = np.ones(count, np.float32)
            if with_norm:
                gamma, mean, variance = take(count), take(count), take(count)
                scale = gamma / (np.sqrt(variance) + EPSILON)
                bias = bias - mean * scale
            kernel = take(count, depth, height, width).transpose(2, 3, 1, 0) * scale
        else:
            inputs, count = layer.kernel.shape
            bias = take(count)
            kernel = take(inputs, count) if transposed else take(count, inputs).T
            kernel = _from_darknets_map(kernel, _map_before(model, layer))
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise InputError(f"{path} has numbers that are not finite for {layer.name}")
        layer.set_weights([kernel, bias])
        filled.append((layer.name, tuple(layer.kernel.shape)))
    return filled


def count(path: str | os.PathLike) -> int:
    """How many numbers a .weights file holds.

    Raises:
        InputError: it is no .weights file.
    """
    return len(_numbers(path)[0])


def _numbers(path) -> tuple[np.ndarray, bool]:
    """The file's float32 numbers, mapped and not read, and whether its dense kernels are [inputs, outputs]."""
    size = os.path.getsize(path) if os.path.isfile(path) else 0
    if size < 20:
        raise InputError(f"{path} is no .weights file of darknet: it is missing or shorter than a header")
    with open(path, "rb") as file:
        major, minor, _ = struct.unpack("<3i", file.read(12))
    header = 12 + (8 if 10 * major + minor >= 2 and major < 1000 and minor < 1000 else 4)
    if major < 0 or minor < 0 or (size - header) % 4:
        raise InputError(f"{path} is no .weights file of darknet: version {major}.{minor}, {size} bytes")
    return np.memmap(path, "<f4", "r", header), major > 1000 or minor > 1000


def _map_before(model, dense) -> tuple[int, int, int] | None:
    """Height, width and channels of the map that is flattened right before a dense layer."""
    before = model.layers[model.layers.index(dense) - 1]
    if isinstance(before, keras.layers.Reshape | keras.layers.Flatten):
        depth = before.input.shape[-1]
        side = round((dense.kernel.shape[0] / depth) ** 0.5)
        return side, side, depth
    return None


def _from_darknets_map(kernel: np.ndarray, shape) -> np.ndarray:
    if shape is None:
        return kernel
    height, width, depth = shape
    by_map = kernel.reshape(depth, height, width, -1)
    return by_map.transpose(1, 2, 0, 3).reshape(kernel.shape)
