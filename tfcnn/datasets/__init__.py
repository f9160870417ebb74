"""Data sets: a reader a layout, augmentation, and the pipeline from records to batches."""

import dataclasses
import importlib
import inspect
import pathlib
import re

from tfcnn.datasets.example import Dataset, Record, Truth
from tfcnn.errors import InputError, unknown

__all__ = ["READERS", "Dataset", "Record", "Truth", "open"]

# The reader of each name that `open` takes: a module and its function. "tfds:NAME" is any of TensorFlow
# Datasets.
READERS = {
    "voc": ("voc", "read"),
    "coco": ("coco", "read"),
    "imagenet_loc": ("imagenet", "read_loc"),
    "imagenet_det": ("imagenet", "read_det"),
    "tiny_imagenet": ("tiny_imagenet", "read"),
    "lsp": ("lsp", "read"),
    "folder": ("folder", "read"),
    "cifar10": ("cifar10", "read"),
    "mnist": ("mnist", "read"),
    "digits": ("digits", "read"),
    "shapes": ("shapes", "read"),
    "figures": ("figures", "read"),
    "yolo": ("yolo", "read"),
}
PACKAGED = ("digits", "shapes", "figures")  # need no files


def open(
    name: str,
    path: str | pathlib.Path | None = None,
    split: str | None = None,
    annotations: str | pathlib.Path | None = None,
    pictures: bool = True,
) -> Dataset:
    """Reads a data set by its reader's name.

    Args:
        name: one of `READERS`, or "tfds:NAME".
        path: the folder or .zip that holds it; not needed by digits, shapes and figures, nor by COCO's annotations
            alone.
        split: as the layout names its parts; None is the reader's default. "test[:8000]" and "test[8000:]" are its
            first 8000 pictures and those after them; "train+val" is both, one after the other.
        annotations: COCO's annotation file, where it is not the split's own.
        pictures: False to read annotations alone: then no picture has to be there.

    Raises:
        InputError: an unknown name, no such data there, or parts that cannot be joined.
    """
    if name.startswith("tfds:"):
        from tfcnn.datasets import tfds

        options = {} if split is None else {"split": split}
        return tfds.read(path, name=name.removeprefix("tfds:"), **options)
    if "+" in (split or ""):
        from tfcnn.datasets.classes import joined

        return joined([open(name, path, part, annotations, pictures) for part in split.split("+")], split)
    part = re.fullmatch(r"(.*)\[(\d*):(\d*)\]", split or "")
    if part:
        whole = open(name, path, part[1] or None, annotations, pictures)
        begin, end = (int(number) if number else None for number in part.groups()[1:])
        return dataclasses.replace(whole, examples=whole.examples[begin:end])
    options = {} if split is None else {"split": split}
    if name not in READERS:
        raise unknown("data set", name, READERS, f"one of {', '.join(READERS)}, or tfds:NAME")
    module, function = READERS[name]
    read = getattr(importlib.import_module(f".{module}", __name__), function)
    known = inspect.signature(read).parameters
    if annotations is not None:
        if "annotations" not in known:
            raise InputError(f"The {name} data set has no annotation file of its own choice: it is for coco")
        options["annotations"] = annotations
    if path is None and name not in PACKAGED and annotations is None:
        raise InputError(f"The {name} data set needs a path, its folder or .zip")
    if not pictures and "pictures" in known:
        options["pictures"] = False
    return read(path, **options)
