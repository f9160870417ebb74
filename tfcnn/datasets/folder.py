"""A folder of classes: one folder a class, the pictures in it, with splits above the classes or without."""

import pathlib

from tfcnn.datasets.example import Dataset, Record
from tfcnn.datasets.root import Root
from tfcnn.errors import InputError
from tfcnn.sources import SUFFIXES

HELD_OUT = 10  # where there are no splits, each tenth picture of a class is for validation


def read(path: str | pathlib.Path, split: str | None = None, name: str = "folder") -> Dataset:
    """Reads pictures sorted into folders, from a folder or a .zip.

    Args:
        path: a folder or .zip that holds SPLIT/CLASS/picture or CLASS/picture at its top or one level down.
        split: the folder above the classes ("train"). Where there are no such folders, "train" and "val" (or
            "test") part the pictures: each tenth of a class by name, of fewer the last, is held out. None is
            all of them.
        name: of the data set.

    Returns:
        The data set; classes are the folders' names, sorted.

    Raises:
        InputError: no pictures, or no such split.
    """
    top = Root(path)
    roots = [top, *(top.at(folder) for folder in top.folders())]
    splits = {f: root.at(f) for root in reversed(roots) for f in root.folders() if _classes(root.at(f))}
    if split in splits:
        return _dataset(name, splits[split], None)
    if _classes(top):
        root = top
    elif len(splits) == 1:  # no split, but one folder round the classes
        (root,) = splits.values()
    else:
        found = f": name the split, {' or '.join(splits)}" if splits else ""
        raise InputError(f"{path} has no pictures in {f'{split}/' if split else ''}CLASS/{found}")
    if split not in (None, "train", "val", "test"):
        raise InputError(f"{path} has no split {split!r}: it parts into train and val")
    return _dataset(name, root, split)


def _pictures(root: Root, folder: str) -> list[str]:
    return [
        f for f in root.files(folder) if pathlib.PurePosixPath(f).suffix.lower() in SUFFIXES and f[0] != "."
    ]


def _classes(root: Root) -> list[str]:
    return [folder for folder in root.folders() if _pictures(root, folder)]


def _part(files: list[str], part: str | None) -> list[str]:
    """All files, or those for training, or those held out."""
    last = min(HELD_OUT, len(files)) - 1
    held_out = [len(files) > 1 and index % HELD_OUT == last for index in range(len(files))]
    return [f for f, held in zip(files, held_out, strict=True) if part is None or held == (part != "train")]


def _dataset(name: str, root: Root, part: str | None) -> Dataset:
    classes = _classes(root)
    files = [(label, f"{c}/{f}") for label, c in enumerate(classes) for f in _part(_pictures(root, c), part)]
    examples = [
        Record(file.rpartition(".")[0], file, 0, 0, root.file(file), label=label) for label, file in files
    ]
    return Dataset(name, classes, list(range(1, len(classes) + 1)), examples)
