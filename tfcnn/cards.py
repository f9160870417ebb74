"""The packaged releases, the card.json beside a model, and darknet's files, which have none. Imports neither Keras nor
TensorFlow.
"""

from __future__ import annotations

import os
import pathlib
import struct

from tfcnn import files
from tfcnn.errors import InputError


def releases() -> dict[str, pathlib.Path]:
    """Lists the released models {name: folder}, of the installed package or of the checkout."""
    here = pathlib.Path(__file__).parent
    inside = here / "saved_models"
    folder = inside if inside.is_dir() else here.parent / "saved_models"
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/model.keras"))}


def model_path(source: str | os.PathLike) -> pathlib.Path:
    """Where a model lies: its file, or the folder of a SavedModel.

    Args:
        source: as `tfcnn.load_model` takes it.

    Raises:
        InputError: there is none.
    """
    path = releases().get(str(source), pathlib.Path(source))
    if path.is_dir() and (path / "saved_model.pb").exists():
        return path
    path = path / "model.keras" if path.is_dir() else path
    if not path.is_file():
        known = ", ".join(releases()) or "none yet"
        raise InputError(f"There is no model {source}: give a file, a folder, or a release ({known})")
    return path


def card_of(source: str | os.PathLike) -> dict:
    """Reads the card.json of a release, or that beside a model's file.

    Args:
        source: as `tfcnn.load_model` takes it.

    Returns:
        The card; {} where there is none, and {"kind": "yolo"} of a .weights file of darknet.
    """
    folder = pathlib.Path(releases().get(str(source), source))
    own = {"kind": "yolo"} if is_darknet(folder) else {}
    path = (folder if folder.is_dir() else folder.parent) / "card.json"
    try:
        card = files.from_json(path.read_bytes(), str(path))
    except (OSError, ValueError):
        return own
    return own | card if isinstance(card, dict) else own


def is_darknet(path: str | os.PathLike) -> bool:
    """Tells by its header whether a file is a .weights file of darknet, which holds nothing but numbers."""
    try:
        with open(path, "rb") as file:
            major, minor, revision = struct.unpack("<3i", file.read(12))
    except (OSError, struct.error):
        return False
    return major in (0, 1, 1000, 1001) and 0 <= minor < 100 and 0 <= revision < 100
