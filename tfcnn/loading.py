"""Opens tfcnn's releases, and models that others saved, without running code that a file brings along."""

import inspect
import io
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator

import h5py
import keras
import numpy as np

from tfcnn import (
    claims,
    layers,  # noqa: F401  (registers tfcnn's own)
    sources,
)
from tfcnn.backbones.convert import flat, float_input, is_transparent
from tfcnn.backbones.graph import zero_rgb
from tfcnn.backbones.importers import keras1
from tfcnn.backbones.importers.keras1_chains import with_hard_sigmoid, with_inputs
from tfcnn.backbones.layers import Preprocess, preprocessed
from tfcnn.backbones.rows import Preprocessing
from tfcnn.backbones.table import preprocessing as find_preprocessing
from tfcnn.cards import is_darknet, model_path
from tfcnn.errors import InputError

# Where the parts of a model may come from; keras.utils, for one, has functions that fetch files.
HOMES = ("layers", "models", "initializers", "regularizers", "constraints", "activations", "dtype_policies")
MODULES = (*HOMES, "ops", "random", "engine", "backend")  # engine: Keras 2; backend: tensors of a description
OPERATIONS = "keras.src.ops."  # where the classes of keras.ops lie
WITHOUT_HOME = ("Functional", "Policy")  # classes of Keras 2
OFF = (False, 0, 1, "", [], {})  # values of fields that do nothing
# TensorFlow's operations that touch files, call Python or other machines; data sets can all of it.
FILE_OPS = re.compile(
    r"ReadFile|MatchingFiles|FileSystemSetConfiguration|Write.*|Dump.*|Debug.*|CreateSummary.*|.*SetSummaryWriter|"
    r"Save.*|DistributedSave|MergeV2Checkpoints|CalibrationStatisticsSaver|.*Reader(V2)?|.*Dataset.*|.*PyFunc.*|Rpc.*"
)
WEIGHTS = "model.weights.h5"  # in a .keras
SAVER_OPS = {
    "SaveV2",
    "MergeV2Checkpoints",
}  # in the function that saves a SavedModel again, which nothing calls


def load_model(
    source: str | os.PathLike,
    *,
    preprocessing: str | Preprocessing | None = None,
    allow_custom_objects: bool = False,
) -> keras.Model:
    """Opens a model for use, not for going on with its training.

    Args:
        source: a release's name, a .keras or legacy .h5 file or a .weights file of darknet's first YOLO (told by
            content), a SavedModel's folder, or a folder that holds a model.keras.
        preprocessing: what to do first to RGB values of 0..255, for a model that was saved without: "unit"
            (to 0..1), "tf" (to -1..1), "torch", "caffe", or the name of a net of the table.
        allow_custom_objects: let the file run its Lambda layers, and import the modules that it names.

    Returns:
        A functional model of float32 pictures without models inside, so that any layer can be reached, and a gradient
        reaches the picture; the attribute `zero_rgb` is the colour that it sees as zero. A SavedModel is one layer.

    Raises:
        InputError: it is no model, or needs code that is not there or not allowed; what is missing is said.
    """
    if isinstance(preprocessing, str):
        preprocessing = find_preprocessing(preprocessing)
    path = model_path(source)
    if path.is_dir():
        model = _saved_model(path, preprocessing)
    elif is_darknet(path):
        model = _darknet_model(path, preprocessing)
    else:
        model = _keras_model(path, allow_custom_objects)
        _check_finite(model, path)
        model = _see_through(model, preprocessing, path)
    model.zero_rgb = zero_rgb(model)
    return model


def _darknet_model(path: pathlib.Path, preprocessing: Preprocessing | None) -> keras.Model:
    from tfcnn.detection import yolo_weights

    if preprocessing:
        raise InputError(f"{path} is a YOLO, which has its preprocessing inside: do not name another")
    return yolo_weights.load(path)


def _keras_model(path: pathlib.Path, allow_custom_objects: bool) -> keras.Model:
    """Opens a file whose configuration names nothing foreign, or whatever it names where that is allowed."""
    try:
        suffix, config, version, old = _configuration(path)
    except InputError:
        raise
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:  # all of them h5py's
        if sources.is_archive(path) and not zipfile.is_zipfile(path):
            raise InputError(f"{path} is damaged or cut short: the file ends before its end") from error
        raise InputError(
            f"{path} is no model of Keras: give a .keras, or an .h5 that holds a model"
        ) from error
    if config is None:
        raise InputError(f"{path} holds weights without a model: give it as the weights of a net")
    if old:
        return keras1.load(path, config)
    if version.startswith("2."):
        if other := ", ".join(with_hard_sigmoid(config)):
            raise InputError(
                f"{path} is of Keras 2, whose hard_sigmoid in {other} is another function in Keras 3"
            )
    foreign = list(dict.fromkeys(_foreign(config)))
    if foreign and not allow_custom_objects:
        raise InputError(
            f"{path} needs {', '.join(foreign)}, which is code that tfcnn does not know: "
            "allow custom objects if you trust the file, or save the model without"
        )
    try:
        with claims.bounded(path):
            return _opened(path, suffix, config, safe_mode=not allow_custom_objects)
    except Exception as error:
        needs = f"; it needs {', '.join(foreign)}" if foreign else ""
        raise InputError(
            f"{path} cannot be opened by Keras {keras.__version__}{needs}: {_reason(error)}"
        ) from error


def _check_finite(model: keras.Model, path: pathlib.Path) -> None:
    """Refuses a net whose weights are not all finite: a rectifier after them could hide it from every later look."""
    for weight in model.weights:
        values = np.asarray(weight)
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise InputError(
                f"{path} holds weights that are not finite in {weight.path}: the training that made it failed"
            )


def _opened(path: pathlib.Path, suffix: str, config: dict, safe_mode: bool) -> keras.Model:
    """Opens a file by Keras; where that fails, without what this version of Keras does not know."""
    with tempfile.TemporaryDirectory() as folder:
        named = path if path.suffix == suffix else pathlib.Path(folder) / f"model{suffix}"
        if named != path:
            named.symlink_to(path.resolve())
        written, config = config, with_inputs(config) if suffix == ".h5" else config
        if config != written:
            named = pathlib.Path(folder) / "chains.h5"
            _copy_with(path, named, json.dumps(config))
        try:
            return keras.saving.load_model(named, compile=False, safe_mode=safe_mode)
        except Exception:
            known = _known(config)
            if known == config:
                raise
            named = pathlib.Path(folder) / f"known{suffix}"
            _copy_with(path, named, json.dumps(known))
            return keras.saving.load_model(named, compile=False, safe_mode=safe_mode)


def _known(config):
    """A model's description without the fields that this Keras' classes do not take and that are off, as Keras 2's
    `groups: 1` of a depthwise convolution. One that says something stays, and Keras names it.
    """
    if isinstance(config, list):
        return [_known(item) for item in config]
    if not isinstance(config, dict):
        return config
    result = {key: _known(value) for key, value in config.items()}
    kind = _class_of(config)
    if kind is not None and isinstance(result.get("config"), dict):
        fields = _fields(kind)
        if not issubclass(kind, keras.Layer) and issubclass(kind, keras.Operation) and "name" not in fields:
            result["config"].pop("name", None)  # stands beside it, too; Keras 3.9's operations take none
        always = issubclass(kind, keras.initializers.Initializer)  # the weights come from the file
        result["config"] = {
            name: value
            for name, value in result["config"].items()
            if name in fields or not (always or value is None or value in OFF and value is not True)
        }
    return result


def _class_of(config: dict) -> type | None:
    """The layer, initializer, operation and so on that a description names; None of a model, whose fields are own."""
    name = config.get("class_name")
    if not isinstance(name, str):
        return None
    found = keras.saving.get_registered_object(config.get("registered_name") or name)
    for home in HOMES:
        found = found or getattr(getattr(keras, home), name, None)
    if found is None and str(config.get("module")).startswith(OPERATIONS):  # they have no public home
        found = getattr(sys.modules.get(config["module"]), name, None)
    return found if isinstance(found, type) and not issubclass(found, keras.Model) else None


def _fields(kind: type) -> set[str]:
    """The names that a class' constructor takes, and those that every layer of Keras 2 has."""
    names = {"batch_input_shape", "input_shape", "input_dim"}
    for each in kind.__mro__:
        if "__init__" in vars(each):
            parameters = inspect.signature(each.__init__).parameters.values()
            names |= {parameter.name for parameter in parameters}
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
                break
    return names


def _copy_with(path: pathlib.Path, copy: pathlib.Path, config: str) -> None:
    """Copies a .keras or .h5 file with another description."""
    if copy.suffix == ".h5":
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = config
        return
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as written:
        for member in archive.infolist():
            if member.filename == "config.json":
                written.writestr("config.json", config)
            else:
                with (
                    archive.open(member) as source,
                    written.open(member.filename, "w", force_zip64=True) as target,
                ):
                    shutil.copyfileobj(source, target)


def _reason(error: Exception) -> str:
    """What Keras says in the end, after all descriptions of the layers round the fault; on one line."""
    return " ".join(str(error).split()).rsplit("Exception encountered: ", 1)[-1]


def _configuration(path: pathlib.Path) -> tuple[str, dict | None, str, bool]:
    """Reads the suffix that Keras wants for a file of this content, the model's description, the version of Keras that
    an .h5 names, and whether it is one for the reader of Keras 1."""
    if zipfile.is_zipfile(path):
        claims.unpacked(path)
        with zipfile.ZipFile(path) as archive:
            if WEIGHTS in archive.namelist():
                _check_weights(path, archive)
            return ".keras", json.loads(archive.read("config.json")), "", False
    with h5py.File(path) as file:
        claims.check_arrays(path, file)
        config = file.attrs.get("model_config")
    if config is None:
        return ".h5", None, "", False
    config = json.loads(config)
    return ".h5", config, keras1.version_of(path), keras1.is_readable(path, config)


def _check_weights(path: pathlib.Path, archive: zipfile.ZipFile) -> None:
    """Sees that no array of a .keras file's weights claims more than the file holds."""
    with archive.open(WEIGHTS) as member:
        stored = archive.getinfo(WEIGHTS).compress_type == zipfile.ZIP_STORED
        with h5py.File(member if stored else io.BytesIO(member.read())) as file:
            claims.check_arrays(path, file)


def _foreign(config) -> Iterator[str]:
    """Lists what a model's description asks for beyond Keras' and tfcnn's own parts."""
    if isinstance(config, list):
        for item in config:
            yield from _foreign(item)
    if not isinstance(config, dict):
        return
    kind, inner = config.get("class_name"), config.get("config")
    if kind in ("Lambda", "__lambda__", "TFSMLayer"):
        name = inner.get("name", "") if isinstance(inner, dict) else ""
        yield f"the {kind.strip('_')} {name}".strip()
        return
    if isinstance(kind, str):
        part = str(inner) if kind == "function" else kind
        module = config.get("module")
        registered = part if kind == "function" or module is None else config.get("registered_name")
        if not keras.saving.get_registered_object(registered) and not _is_of_keras(part, module):
            yield part if module in (None, "builtins") else f"{module}.{part}"
    for value in config.values():
        yield from _foreign(value)


def _is_of_keras(part: str, module: str | None) -> bool:
    if module in (None, "builtins"):  # before Keras 3, and functions
        homes = (getattr(keras, home) for home in HOMES)
        return part in WITHOUT_HOME or part.startswith("__") or any(hasattr(home, part) for home in homes)
    parts = [name for name in module.split(".") if name != "src"]
    return parts[0] == "keras" and (len(parts) == 1 or parts[1] in MODULES)


def _see_through(model: keras.Model, preprocessing: Preprocessing | None, path: pathlib.Path) -> keras.Model:
    """Takes models inside a model apart, and puts preprocessing before it."""
    if isinstance(model, keras.Sequential) and not model.built:
        raise InputError(
            f"{path} does not say what size of picture it reads: call the model once, then save it"
        )
    if not is_transparent(model):
        raise InputError(f"{path} is of the class {type(model).__name__}, whose layers cannot be reached")
    if preprocessing and any(isinstance(layer, Preprocess) for layer in model.layers):
        raise InputError(f"{path} has its preprocessing inside: do not name another")
    if preprocessing or isinstance(model, keras.Sequential):
        return float_input(flat(model, preprocessing))
    return float_input(
        flat(model) if any(isinstance(layer, keras.Model) for layer in model.layers) else model
    )


def _saved_model(path: pathlib.Path, preprocessing: Preprocessing | None) -> keras.Model:
    """Wraps a SavedModel's serving signature, a graph of TensorFlow's operations, as a model of one layer."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        described = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
        if harmful := ", ".join(sorted(_file_ops(described))):
            raise InputError(f"{path} is not opened: its graph would touch files or call Python by {harmful}")
        signature = tf.saved_model.load(str(path)).signatures["serving_default"]
        (spec,) = signature.structured_input_signature[1].values()
        image = x = keras.Input(batch_shape=spec.shape, dtype=spec.dtype.name, name="image")
        if preprocessing:
            image, x = preprocessed(preprocessing, image)
        outputs = keras.layers.TFSMLayer(str(path), call_endpoint="serving_default", name="saved_model")(x)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} is no SavedModel that serves one picture: {_reason(error)}") from error
    if isinstance(outputs, dict) and len(outputs) == 1:
        (outputs,) = outputs.values()
    return keras.Model(image, outputs, name=path.name)


def _file_ops(described) -> set[str]:
    """Names the operations of a SavedModel that touch files or call Python; but for its saver's it is changed here.

    Args:
        described: a SavedModel's protocol buffer.
    """
    metas = described.meta_graphs
    if len(metas) == 1 and metas[0].HasField(
        "object_graph_def"
    ):  # as tf.saved_model.load tells TensorFlow 2's
        found = _saver_ops(metas[0]) - SAVER_OPS
        nodes = list(metas[0].graph_def.node)
    else:
        found = set()
        nodes = [node for meta in metas for node in _run_nodes(meta)]
    for meta in metas:
        nodes += [node for function in meta.graph_def.library.function for node in function.node_def]
    return found | _harmful(nodes)


def _harmful(nodes) -> set[str]:
    return {
        node.op
        for node in nodes
        if FILE_OPS.fullmatch(node.op)
        or (node.op == "PrintV2" and node.attr["output_stream"].s.startswith(b"file:"))
    }


def _saver_ops(meta) -> set[str]:
    """Takes the function that saves the variables out of a graph of TensorFlow 2, where nothing else names it.

    Returns:
        Its operations that touch files; none where it stays.
    """
    graph, library = meta.graph_def, meta.graph_def.library
    saver = meta.saver_def.save_tensor_name.partition(":")[0]
    calls = [node for node in graph.node if node.name == saver]
    name = calls[0].attr["f"].func.name if len(calls) == 1 else ""
    functions = [function for function in library.function if function.signature.name == name]
    if len(functions) != 1:
        return set()
    graph.node.remove(calls[0])
    library.function.remove(functions[0])
    if name.encode() in meta.SerializeToString():
        library.function.append(functions[0])
        return set()
    return _harmful(functions[0].node_def)


def _run_nodes(meta) -> list:
    """The nodes of a graph of TensorFlow 1 that its signatures, its start and the reading of its weights run."""
    nodes = {node.name: node for node in meta.graph_def.node}
    tensors = [
        tensor.name
        for signature in meta.signature_def.values()
        for tensor in (*signature.inputs.values(), *signature.outputs.values())
    ]
    tensors += [name for collection in meta.collection_def.values() for name in collection.node_list.value]
    tensors += [meta.saver_def.restore_op_name]
    reached = {}
    while tensors:
        name = tensors.pop().removeprefix("^").partition(":")[0]
        if name in nodes and name not in reached:
            reached[name] = nodes[name]
            tensors += nodes[name].input
    return list(reached.values())
