"""A release: a folder with model.keras, small and the same bytes for the same weights, and card.json.

model.keras loads in Keras 3.9 and later, with `tfcnn.load_model` or, after `import tfcnn.layers`, with
keras.models.load_model. Kernels are stored as float16 and load as float32; vectors (biases, batch norm) are
small, and a rounded variance does harm, so they stay float32.
"""

import hashlib
import importlib.metadata
import io
import json
import pathlib
import platform
import tempfile
import zipfile

import h5py
import keras
import numpy as np

from tfcnn import files
from tfcnn.errors import InputError
from tfcnn.version import __version__

REQUIRED = ("data", "classes", "command", "seed", "metrics", "licence")
# What later Keras writes and 3.9 refuses, each with the value that means what 3.9 does.
NEWER_THAN_3_9 = {
    "input_axes": None,
    "output_axes": None,
    "renorm": False,
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
    "quantization_config": None,
    "use_gate": False,
    "sliding_window": None,
}
DATE = (
    1980,
    1,
    1,
    0,
    0,
    0,
)  # the earliest of the zip format: files that differ in their date alone are equal


def save(
    model: keras.Model, folder: str | pathlib.Path, card: dict, float16: bool = True, flags: str | None = None
) -> dict:
    """Writes a release, each file whole or not at all.

    Args:
        model: a Keras model without Lambda layers; what was trained in mixed precision is released in float32.
        folder: made if missing.
        card: `data` (what it was trained on), `classes` (names in the order of the outputs), `command`, `seed`,
            `metrics` (with the rule or command that gave them), `licence`; more is welcome.
        float16: store kernels as float16; False where that costs more than 0.1 point.
        flags: a flagfile's text that repeats the training.

    Returns:
        The card as it was written: with `parameters`, `bytes`, `sha256` and `versions`.

    Raises:
        ValueError: the card lacks something, or the model has what Keras 3.9 cannot read.
        InputError: a weight is not finite, the disk is full, or the folder cannot be written to.
    """
    missing = [name for name in REQUIRED if name not in card]
    if missing:
        raise ValueError(f"The card lacks {', '.join(missing)}.")
    for weight in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise InputError(
                f"{weight.path} of the trained net is not finite: nothing is released. Lower the learning rate."
            )
    folder = pathlib.Path(folder)
    content = _keras_file(model, float16)
    card = {
        **card,
        "parameters": int(sum(np.prod(w.shape) for w in model.weights)),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "versions": versions(),
    }
    contents = {
        "model.keras": content,
        "card.json": (files.to_json(card) + "\n").encode(),
    }
    if flags is not None:
        contents["flags.txt"] = flags.encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(".*.part.*"):
            path.unlink(missing_ok=True)  # what a kill left half written
        for name, data in contents.items():
            files.write_bytes(folder / name, data)
    except OSError as error:
        raise InputError(f"Could not write the release {folder}: {error.strerror}.") from error
    return card


def versions() -> dict[str, str]:
    """Gives the versions that a result depends on."""
    packages = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
    return {"tfcnn": __version__, "python": platform.python_version(), **packages}


def _keras_file(model: keras.Model, float16: bool) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch) / "model.keras"
        model.save(path)
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(members["metadata.json"]) | {"date_saved": "1980-01-01@00:00:00"}
    members["metadata.json"] = json.dumps(metadata).encode()
    members["config.json"] = json.dumps(clean_config(json.loads(members["config.json"]))).encode()
    members["model.weights.h5"] = _weights_file(members["model.weights.h5"], float16)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, DATE), content, zipfile.ZIP_DEFLATED)  # a tenth less
    return buffer.getvalue()


def clean_config(config: dict) -> dict:
    """Gives a model's config in the words of Keras 3.9, in float32, and equal for equal models.

    Args:
        config: the JSON of config.json.

    Raises:
        ValueError: it uses what 3.9 does not have.
    """
    numbers: dict[int, int] = {}  # Keras numbers shared objects by their addresses: count them instead

    def clean(node: object) -> object:
        if isinstance(node, list):
            return [clean(item) for item in node]
        if not isinstance(node, dict):
            return node
        if node.get("class_name") == "DTypePolicy" and node["config"]["name"].startswith("mixed_"):
            node = {**node, "config": {"name": "float32"}}
        if str(node.get("module")).startswith("keras.src.ops."):  # 3.9's operations know neither of these
            own = {key: value for key, value in node["config"].items() if (key, value) != ("ragged", None)}
            own.pop("name", None)  # stands beside it, too
            node = {**node, "config": own}
        kept = {}
        for key, value in node.items():
            if key == "shared_object_id":
                kept[key] = numbers.setdefault(value, len(numbers))
            elif key == "synchronized":
                kept[key] = False  # a matter of training only
            elif key not in NEWER_THAN_3_9:
                kept[key] = clean(value)
            elif value != NEWER_THAN_3_9[key]:
                raise ValueError(f"Keras 3.9 has no {key}={value!r}; a release must load there.")
        return kept

    return clean(config)


def _weights_file(content: bytes, float16: bool) -> bytes:
    """Copies the weights' HDF5 file, kernels as float16 where that holds them, without the time of its making."""
    with tempfile.TemporaryDirectory() as scratch, h5py.File(io.BytesIO(content), "r") as source:
        path = pathlib.Path(scratch) / "weights.h5"
        with _timeless_file(path) as target:

            def copy(name: str, node: h5py.Dataset | h5py.Group) -> None:
                if isinstance(node, h5py.Dataset):
                    made = target.create_dataset(name, data=_stored(node[()], float16))
                else:
                    made = h5py.Group(
                        h5py.h5g.create(target.id, name.encode(), gcpl=_timeless(h5py.h5p.GROUP_CREATE))
                    )
                for key, value in node.attrs.items():
                    made.attrs[key] = value

            source.visititems(copy)
            for key, value in source.attrs.items():
                target.attrs[key] = value
        return path.read_bytes()


def _stored(array: np.ndarray, float16: bool) -> np.ndarray:
    kernel = array.ndim > 1 and array.dtype == np.float32
    fits = kernel and np.abs(array).max(initial=0) <= np.finfo(np.float16).max
    return array.astype(np.float16) if float16 and fits else array


def _timeless(kind: int) -> h5py.h5p.PropID:
    """HDF5's properties for making a group or file that does not keep when it was made."""
    properties = h5py.h5p.create(kind)
    properties.set_obj_track_times(False)
    return properties


def _timeless_file(path: pathlib.Path) -> h5py.File:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)  # half as large for small layers
    made = h5py.h5f.create(str(path).encode(), h5py.h5f.ACC_TRUNC, _timeless(h5py.h5p.FILE_CREATE), access)
    return h5py.File(made)
