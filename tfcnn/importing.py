"""Foreign models as Keras models: the reader is chosen by a file's content, and no file's code is run."""

import os
import pathlib
import re
from collections.abc import Sequence

import h5py
import keras

from tfcnn import backbones, sources
from tfcnn.backbones import weights
from tfcnn.backbones.importers import caffe, darknet, protobuf, slim
from tfcnn.backbones.importers.imported import Imported
from tfcnn.backbones.rows import Preprocessing
from tfcnn.cards import is_darknet, releases
from tfcnn.detection import yolo_weights
from tfcnn.detection.yolo import FAST_YOLO_HIDDEN, YOLO_HIDDEN, yolo
from tfcnn.errors import InputError
from tfcnn.loading import load_model

TABLE_END = bytes.fromhex("57fb808b247547db")  # of TensorFlow's checkpoints, and of their .index
FORMATS = (
    "a .keras, an .h5, a SavedModel's folder, a TensorFlow checkpoint, a .caffemodel, or YOLO's .weights"
)
VOC_CLASSES = 20


def kind_of(source: str | os.PathLike) -> str:
    """Tells what a file or folder is by its content.

    Args:
        source: a file, a folder, a release's name, or what the files of a checkpoint begin with.

    Returns:
        "keras", "h5", "h5_weights", "pytorch", "saved_model", "checkpoint", "caffemodel" or "darknet".

    Raises:
        InputError: it is not there, none of these, or an .h5 that is damaged.
    """
    path = releases().get(str(source), pathlib.Path(source))
    if path.is_dir():
        for name, kind in (
            ("saved_model.pb", "saved_model"),
            ("model.keras", "keras"),
            ("checkpoint", "checkpoint"),
        ):
            if (path / name).exists():
                return kind
        raise InputError(f"{source} is a folder without a model: give {FORMATS}")
    if pathlib.Path(f"{path}.index").is_file() or _part_of_checkpoint(path) != path:
        return "checkpoint"
    if not path.is_file():
        raise InputError(f"There is no model {source}: give {FORMATS}")
    if sources.is_archive(path):
        return "keras"
    if h5py.is_hdf5(path):
        try:
            with h5py.File(path) as file:
                return "h5" if "model_config" in file.attrs else "h5_weights"
        except (OSError, KeyError, ValueError, RuntimeError) as error:  # all of them h5py's
            raise InputError(f"{source} cannot be read, damaged or cut short: {error}") from error
    with path.open("rb") as file:
        head = file.read(20)
        file.seek(-min(8, path.stat().st_size), os.SEEK_END)
        end = file.read()
    if end == TABLE_END:
        return "checkpoint"
    if is_darknet(path):
        return "darknet"
    if head[:1] == b"\x80":
        return "pytorch"
    if _is_caffes(path):
        return "caffemodel"
    raise InputError(f"{source} is no model that can be read: give {FORMATS}")


def import_model(
    source: str | os.PathLike,
    *,
    prototxt: str | os.PathLike | None = None,
    net: str | None = None,
    preprocessing: Preprocessing | None = None,
    endpoints: Sequence[str] = (),
    allow_left_over: bool = False,
    allow_custom_objects: bool = False,
) -> Imported:
    """Reads a model of Keras, TensorFlow, TF-Slim, Caffe or darknet.

    Args:
        source: as `kind_of` takes it.
        prototxt: the description of a .caffemodel's net.
        net: a net of the table, for a file of weights; of a TF-Slim checkpoint a net of `slim.NETS`, where its scope
            does not say.
        preprocessing: what to do first to RGB values of 0..255; None takes the model's own.
        endpoints: of Caffe: build the net up to these blobs.
        allow_left_over: take a net although the file has weights that it has no place for.
        allow_custom_objects: of `tfcnn.load_model`.

    Returns:
        The model, the map of names, and what was left over.

    Raises:
        InputError: the file is damaged, none of these, or does not fit; or an argument is missing or makes no sense.
    """
    kind = kind_of(source)
    if prototxt is not None and kind != "caffemodel":
        raise InputError(f"{source} is no .caffemodel, and needs no prototxt")
    if endpoints and kind != "caffemodel":
        raise InputError("endpoints are of a .caffemodel")
    if net is not None and kind in ("keras", "h5", "saved_model", "caffemodel"):
        raise InputError(f"{source} is a whole model: name no net")
    if kind == "caffemodel":
        if prototxt is None:
            raise InputError(f"{source} holds the weights of a net of Caffe: give its deploy.prototxt, too")
        return caffe.load(
            prototxt,
            source,
            preprocessing=preprocessing,
            endpoints=endpoints,
            allow_left_over=allow_left_over,
        )
    if kind == "checkpoint":
        path = _part_of_checkpoint(pathlib.Path(source))
        return slim.load(path, net, preprocessing=preprocessing, allow_left_over=allow_left_over)
    if kind in ("darknet", "h5_weights", "pytorch"):
        return _onto_a_net(kind, source, net, preprocessing, allow_left_over)
    model = load_model(source, preprocessing=preprocessing, allow_custom_objects=allow_custom_objects)
    return Imported(model, _map_of(model))


def _onto_a_net(kind, source, net, preprocessing, allow_left_over):
    """A file of weights alone."""
    if net is None:
        nets = "yolo or fast_yolo" if kind == "darknet" else "the name of the net"
        raise InputError(f"{source} holds weights without a net: give {nets}")
    if preprocessing is not None:
        raise InputError(f"{net} has its preprocessing inside: give none")
    if kind == "darknet":
        if net not in ("yolo", "fast_yolo"):
            raise InputError(f"{source} is a file of darknet: its nets are yolo and fast_yolo, not {net}")
        count, wanted = (
            darknet.count(source),
            yolo_weights.parameters(yolo_weights.layers_of(net, VOC_CLASSES)),
        )
        if count < wanted:  # seen before the net takes its memory
            raise InputError(
                f"{source} belongs to another network: it holds {count:,} numbers, and {net} has {wanted:,} weights"
            )
        hidden = YOLO_HIDDEN if net == "yolo" else FAST_YOLO_HIDDEN
        model = yolo(backbones.backbone(net, None), VOC_CLASSES, hidden=hidden)
        filled = darknet.load(source, model)
        return Imported(
            model,
            [
                {"from": f"{number}", "to": name, "shape": list(shape)}
                for number, (name, shape) in enumerate(filled, 1)
            ],
        )
    model = backbones.classifier(net, weights=source)
    with weights.opened(source, model) as arrays:
        held = {layer.name for layer in model.layers if layer.weights}
        left_over = [name for name, values in arrays.items() if len(values) and name not in held]
    if left_over and not allow_left_over:
        raise InputError(
            f"{source} has weights of layers that {net} lacks: {', '.join(left_over[:10])}; "
            "name the net that it belongs to, or allow what is left over"
        )
    return Imported(model, _map_of(model), left_over)


def _map_of(model: keras.Model) -> list[dict]:
    """The layers of a model whose names are the file's."""
    return [
        {"from": layer.name, "to": layer.name, "shape": list(layer.weights[0].shape)}
        for layer in model.layers
        if layer.weights
    ]


def _part_of_checkpoint(path: pathlib.Path) -> pathlib.Path:
    """What the files of a checkpoint begin with, from the name of one of them or of their folder."""
    if path.is_dir():
        import tensorflow as tf

        return pathlib.Path(tf.train.latest_checkpoint(str(path)) or path)
    stem = re.sub(r"\.(index|data-\d{5}-of-\d{5})$", "", str(path))
    return pathlib.Path(stem) if pathlib.Path(f"{stem}.index").is_file() else path


def _is_caffes(path: pathlib.Path) -> bool:
    """Whether the first fields are those of a net with layers; a file that is cut short still counts."""
    try:
        for number, (field, value) in enumerate(protobuf.fields(protobuf.mapped(path))):
            if isinstance(value, memoryview) and field in (caffe.NET_LAYERS, caffe.NET_OLD_LAYERS):
                return True
            if number > 1000 or field > caffe.NET_LAYERS:
                return False
    except protobuf.Malformed as error:
        return "cut short" in str(error) and f"field {caffe.NET_LAYERS} " in str(error)
    return False
