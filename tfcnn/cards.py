"""The packaged releases, and the card.json beside a model. Imports neither Keras nor TensorFlow."""

from __future__ import annotations

import os
import pathlib

from tfcnn import files


def releases() -> dict[str, pathlib.Path]:
    """Lists the released models {name: folder}, of the installed package or of the checkout."""
    here = pathlib.Path(__file__).parent
    inside = here / "saved_models"
    folder = inside if inside.is_dir() else here.parent / "saved_models"
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/model.keras"))}


def card_of(source: str | os.PathLike) -> dict:
    """Reads the card.json of a release, or that beside a model's file.

    Args:
        source: as `tfcnn.load_model` takes it.

    Returns:
        The card; {} where there is none.
    """
    folder = pathlib.Path(releases().get(str(source), source))
    path = (folder if folder.is_dir() else folder.parent) / "card.json"
    try:
        card = files.from_json(path.read_bytes(), str(path))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}
