"""Data sets: a reader a layout, augmentation, and the pipeline from records to batches."""

import importlib
import pathlib

from ..errors import InputError
from .example import Dataset

READERS = {"voc": "voc"}


def open(name: str, path: str | pathlib.Path | None = None, split: str = "train") -> Dataset:
    """Reads a data set by the name that --dataset gives it.

    Args:
        name: one of `READERS`.
        path: the folder or .zip that holds it.
        split: as the layout names its parts.

    Raises:
        InputError: an unknown name, or no such data there.
    """
    if name not in READERS:
        raise InputError(f"No data set {name!r}: one of {', '.join(READERS)}")
    return importlib.import_module(f".{READERS[name]}", __name__).read(path, split)
