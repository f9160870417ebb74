"""Opens models that others saved, and tfcnn's own releases, without running code that a file brings along."""

import pathlib
from importlib import import_module

import keras

from .errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[1]


def releases() -> dict[str, pathlib.Path]:
    """Lists the released models {name: folder}, of the checkout or of the installed package."""
    folders = (ROOT / "saved_models", ROOT / "tfcnn" / "saved_models")
    found = [path.parent for folder in folders for path in sorted(folder.glob("*/model.keras"))]
    return {path.name: path for path in reversed(found)}


def load_model(source, *, preprocessing=None, allow_custom_objects=False) -> keras.Model:
    """Opens a model from a .keras or .h5 file, a release's folder or a release's name."""
    import_module("tfcnn.layers")
    path = pathlib.Path(source)
    path = releases().get(str(source), path)
    if path.is_dir():
        path = path / "model.keras"
    if not path.exists():
        raise InputError(
            f"There is no model {source}: give a file, a folder or one of {', '.join(releases())}"
        )
    return keras.saving.load_model(path, compile=False, safe_mode=True)
