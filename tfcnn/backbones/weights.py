"""Files of weights, and how their arrays find the layers of a net.

Every kind of file becomes one thing, a dict {layer's name: its arrays}. Arrays are read a layer at a time,
and no file is ever unpickled.
"""

import contextlib
import json
import os
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence

import h5py
import keras
import numpy as np

from tfcnn import sources
from tfcnn.backbones.download import existing
from tfcnn.backbones.importers import efficientnet_lite
from tfcnn.errors import InputError

Arrays = Mapping[str, Sequence]  # layer -> its arrays, NumPy's or h5py's


def load_weights(
    model: keras.Model,
    path: str | os.PathLike,
    skip: Collection[str] = (),
    partial: bool = False,
    whole: keras.Model | None = None,
) -> list[str]:
    """Loads a file's weights into the layers of the same names.

    Layers of the file that the model lacks are passed over: a backbone reads the file of a classifier or of a
    detector, and one that is cut at an endpoint needs a file up to there. A legacy .h5 whose names are others
    (Keras renamed some of its layers) is read in the order of the layers, provided that every shape fits.

    Args:
        model: any model whose layers have names of their own.
        path: a .keras, a .weights.h5, or Keras' legacy .h5, of weights or of a model, or an EfficientNet-Lite in
            PyTorch's old format; all told by content.
        skip: layers that keep the weights they have where the file's do not fit.
        partial: let layers that the file lacks keep the weights they have, too.
        whole: the model that `model` is cut from, if it is; the order of layers is its.

    Returns:
        The layers that the file lacked.

    Raises:
        InputError: the file is none of these, or does not fit: the first three layers that differ, with both
            shapes.
    """
    with opened(path, whole or model, skip) as arrays:
        return _assign(model, arrays, path, skip, partial)


@contextlib.contextmanager
def opened(path: str | os.PathLike, model: keras.Model, skip: Collection[str] = ()) -> Iterator[Arrays]:
    """Opens a file of weights as {layer: its arrays}, with the names of `model` where the file has none."""
    path = existing(path)
    with path.open("rb") as file:
        pickled = file.read(1) == b"\x80"  # PyTorch's old format; it is read without unpickling
    if pickled:
        yield efficientnet_lite.read(path)
        return
    with contextlib.ExitStack() as stack:
        try:
            if zipfile.is_zipfile(path):
                archive = stack.enter_context(zipfile.ZipFile(path))
                layers = json.loads(archive.read("config.json"))["config"]["layers"]
                named = [(layer["class_name"], layer["config"]["name"]) for layer in layers]
                file = h5py.File(stack.enter_context(archive.open("model.weights.h5")))
                arrays = _by_class(stack.enter_context(file), named)
            else:
                file = stack.enter_context(h5py.File(path))
                legacy = file.get("model_weights", file)
                if "layer_names" in legacy.attrs or "layer_names0" in legacy.attrs:
                    arrays = _in_order(legacy_arrays(legacy), model, skip)
                else:
                    arrays = _by_class(file, [(type(layer).__name__, layer.name) for layer in model.layers])
        except InputError:
            raise
        except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            if sources.is_archive(path) and not zipfile.is_zipfile(path):
                raise InputError(f"{path} is damaged or cut short: the file ends before its end") from error
            raise InputError(
                f"{path} holds no weights that can be read: "
                "it should be a .keras, a .weights.h5 or a legacy .h5 of Keras, or a PyTorch file of before 1.6"
            ) from error
        yield arrays


def legacy_arrays(file: h5py.Group) -> Arrays:
    """Reads Keras 1's and 2's order: a group a layer, and the order of its arrays in an attribute."""
    return {
        layer: [file[layer][weight] for weight in _attribute(file[layer], "weight_names")]
        for layer in _attribute(file, "layer_names")
    }


def _attribute(group: h5py.Group, name: str) -> list[str]:
    """Reads a list of names, which Keras spreads over name0, name1, ... where it is long."""
    parts = [group.attrs[name]] if name in group.attrs else []
    while f"{name}{len(parts)}" in group.attrs:
        parts.append(group.attrs[f"{name}{len(parts)}"])
    return [text.decode() if isinstance(text, bytes) else text for part in parts for text in part]


def _in_order(arrays: Arrays, model: keras.Model, skip: Collection[str]) -> Arrays:
    """Gives a legacy file's layers the model's names where names differ and the shapes agree one by one."""
    layers = [layer for layer in model.layers if layer.weights]
    held = [values for values in arrays.values() if len(values)]
    if all(arrays.get(layer.name) for layer in layers) or len(held) < len(layers):
        return arrays
    renamed = {layer.name: values for layer, values in zip(layers, held, strict=False)}
    fits = all(
        _shapes(renamed[layer.name]) == _shapes(layer.weights) for layer in layers if layer.name not in skip
    )
    return renamed if fits else arrays


def _by_class(file: h5py.File, named: Sequence[tuple[str, str]]) -> Arrays:
    """Keras 3: groups conv2d, conv2d_1, ... in the order of the layers; newer files hold their names, too."""
    counts: dict[str, int] = {}
    names = {}
    for kind, name in named:
        key = re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)).lower()
        count = counts[key] = counts.get(key, -1) + 1
        names[f"{key}_{count}" if count else key] = name
    arrays = {}
    for key, group in file["layers"].items():
        values = group["vars"]
        arrays[values.attrs.get("name", names.get(key, key))] = [values[str(i)] for i in range(len(values))]
    return arrays


def _assign(
    model: keras.Model, arrays: Arrays, path, skip: Collection[str] = (), partial: bool = False
) -> list[str]:
    """Copies arrays to the layers of their names, all or none."""
    layers = [
        layer
        for layer in model.layers
        if layer.weights
        and not (layer.name in skip and _shapes(arrays.get(layer.name, ())) != _shapes(layer.weights))
    ]
    absent = [layer.name for layer in layers if not arrays.get(layer.name)]
    if layers and len(absent) == len(layers):
        held = [f"{name} {_shapes(values)}" for name, values in arrays.items() if len(values)]
        wanted = [f"{layer.name} {_shapes(layer.weights)}" for layer in layers]
        differences = [f"{has} where the net has {needs}" for has, needs in zip(held, wanted, strict=False)]
        raise InputError(f"{path} is of another net than {model.name}, it has {'; '.join(differences[:3])}")
    differences = [
        f"{layer.name} is {_shapes(arrays[layer.name])} in the file and {_shapes(layer.weights)} in the net"
        for layer in layers
        if layer.name not in absent and _shapes(arrays[layer.name]) != _shapes(layer.weights)
    ]
    if differences:
        raise InputError(
            f"{path} does not fit {model.name}: {'; '.join(differences[:3])}{_more(differences)}"
        )
    if absent and not partial:
        raise InputError(
            f"{path} has no weights for {', '.join(absent[:3])}{_more(absent)} of {model.name}: "
            "give a file that has them, or name endpoints below these layers only"
        )
    for layer in layers:
        if layer.name not in absent:
            for variable, value in zip(layer.weights, arrays[layer.name], strict=True):
                variable.assign(np.asarray(value))
    return absent


def _more(items: Sequence) -> str:
    return f" and {len(items) - 3} more" if len(items) > 3 else ""


def _shapes(values) -> str:
    return " + ".join("x".join(map(str, value.shape)) or "scalar" for value in values) or "nothing"
