"""A folder of classes: one folder a class, the pictures in it, with splits above the classes or without."""

import pathlib

from tfcnn.datasets.example import Dataset, Record, report
from tfcnn.datasets.root import Root
from tfcnn.errors import InputError
from tfcnn.sources import SUFFIXES

SPLITS = ("train", "training", "val", "valid", "validation")  # of one set: each may lack a class of another
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
        The data set; classes are the names, sorted, of the folders with pictures, of this split and of those for
        training and validation.

    Raises:
        InputError: no pictures, or no such split.
    """
    top = Root(path)
    roots = [top, *(top.at(folder) for folder in top.folders())]
    splits = {f: root.at(f) for root in reversed(roots) for f in root.folders() if _classes(root.at(f))}
    if split in splits:
        return _dataset(name, splits[split], None, [splits[other] for other in SPLITS if other in splits])
    if _classes(top):
        root = top
    elif len(splits) == 1:  # no split, but one folder round the classes
        (root,) = splits.values()
    else:
        found = f": name the split, {' or '.join(splits)}" if splits else ""
        raise InputError(f"{path} has no pictures in {f'{split}/' if split else ''}CLASS/{found}")
    if split not in (None, "train", "val", "test"):
        raise InputError(f"{path} has no split {split!r}: it parts into train and val")
    return _dataset(name, root, split, [])


def _pictures(files: list[str]) -> list[str]:
    return [file for file in files if pathlib.PurePosixPath(file).suffix.lower() in SUFFIXES]


def _classes(root: Root) -> list[str]:
    return [folder for folder in root.folders() if _pictures(root.files(folder))]


def _part(files: list[str], part: str | None) -> list[str]:
    """All files, or those for training, or those held out."""
    last = min(HELD_OUT, len(files)) - 1
    held_out = [len(files) > 1 and index % HELD_OUT == last for index in range(len(files))]
    return [f for f, held in zip(files, held_out, strict=True) if part is None or held == (part != "train")]


def _dataset(name: str, root: Root, part: str | None, splits: list[Root]) -> Dataset:
    """The pictures of a folder of classes; `splits` are the folders that name classes, too."""
    broken: list[dict] = []
    files_of = {label: pictures for label in root.folders() if (pictures := _pictures(root.files(label)))}
    classes = sorted({*files_of, *(label for split in splits for label in _classes(split))})
    for label in root.folders():
        if label not in classes and (inside := len(_pictures(root.walk(label)))):
            why = f"{inside} pictures in folders inside {label}, and none right in it"
            report(broken, f"{root}/{label}", why, "no class: move them up, or name the folder above them")
    for label in classes:
        if label not in files_of:
            report(broken, str(root), f"no picture of {label} here, but in other splits", "class kept")
            continue
        inside = sum(len(_pictures(root.walk(f"{label}/{inner}"))) for inner in root.folders(label))
        if inside:
            why = f"{inside} pictures in folders inside the class {label}"
            report(
                broken,
                f"{root}/{label}",
                why,
                "pictures skipped: move them up, or name the folder above them",
            )
    if beside := len(_pictures(root.files())):
        why = f"{beside} pictures beside the folders of classes"
        report(broken, str(root), why, "pictures skipped: a picture lies in its class's folder")
    if len(classes) == 1:
        why = f"only one class, {classes[0]}: every answer is right"
        report(broken, str(root), why, "class kept; a folder for each class lies in the folder that is named")
    files = [
        (classes.index(label), f"{label}/{file}")
        for label, pictures in files_of.items()
        for file in _part(pictures, part)
    ]
    examples = [
        Record(file.rpartition(".")[0], file, 0, 0, root.file(file), label=label) for label, file in files
    ]
    return Dataset(name, classes, list(range(1, len(classes) + 1)), examples, broken)
