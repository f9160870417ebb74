"""Tiny ImageNet: 64 x 64 pictures of ImageNet's synsets, one box each.

Corners are 0-based and inclusive, 0..63: (x0, y0, x1, y1) is the box (x0, y0, x1 + 1, y1 + 1).
Source: Stanford CS231N, tiny-imagenet-200.zip.
"""

import pathlib
from collections.abc import Iterator

import numpy as np

from tfcnn.datasets.example import Dataset, Record, annotated, report
from tfcnn.datasets.root import Root, find
from tfcnn.errors import InputError

SIDE = 64


def read(path: str | pathlib.Path, split: str = "train", pictures: bool = True) -> Dataset:
    """Reads Tiny ImageNet from a folder or a .zip; `label` is a picture's class, and its one box is of it.

    Args:
        path: a folder or .zip with wnids.txt at its top or one level down.
        split: "train" or "val".
        pictures: False for annotations alone, as evaluation needs them.

    Returns:
        The data set; classes stand in the order of wnids.txt, named by words.txt.

    Raises:
        InputError: no such set or split.
    """
    root = find(path, lambda r: r.exists("wnids.txt"), "wnids.txt")
    if split not in ("train", "val"):
        raise InputError(f"{root} has no split {split!r}: it has train, val")
    synsets = root.text("wnids.txt").split()
    words = {}
    if root.exists("words.txt"):
        words = dict(line.split("\t", 1) for line in root.text("words.txt").splitlines() if "\t" in line)
    index_of = {synset: index for index, synset in enumerate(synsets)}
    broken: list[dict] = []
    examples = []
    for file, picture, synset, numbers in _lines(root, split, synsets):
        record = _record(root, file, picture, synset, numbers, index_of, pictures, broken)
        if record is not None:
            examples.append(record)
    names = [words.get(synset, synset).strip() for synset in synsets]
    return Dataset("tiny_imagenet", names, list(range(1, len(names) + 1)), examples, broken)


def _lines(root: Root, split: str, synsets: list[str]) -> Iterator[tuple[str, str, str, list[str]]]:
    """The annotation file, the picture, its synset and the numbers of its box, line by line."""
    if split == "val":
        for line in filter(str.strip, root.text("val/val_annotations.txt").splitlines()):
            name, _, rest = line.partition("\t")
            synset, *numbers = rest.split("\t")
            yield "val/val_annotations.txt", f"val/images/{name}", synset, numbers
        return
    for synset in synsets:
        file = f"train/{synset}/{synset}_boxes.txt"
        for line in filter(str.strip, root.text(file).splitlines() if root.exists(file) else ()):
            name, *numbers = line.split("\t")
            yield file, f"train/{synset}/images/{name}", synset, numbers


def _record(
    root: Root,
    file: str,
    picture: str,
    synset: str,
    numbers: list[str],
    index_of: dict[str, int],
    pictures: bool,
    broken: list[dict],
) -> Record | None:
    if synset not in index_of:
        report(broken, file, f"{picture} has unknown class {synset!r}", "picture skipped")
        return None
    if pictures and not root.exists(picture):
        report(broken, picture, "the picture is missing", "picture skipped")
        return None
    try:
        box = [float(number) for number in numbers]
        corners = np.array([box], np.float64).reshape(1, 4) + [0, 0, 1, 1]
    except ValueError:
        report(broken, file, f"{picture} has no box of four numbers", "object skipped")
        corners = np.zeros((0, 4))
    count = len(corners)
    fields, _ = annotated(
        corners,
        [index_of[synset]] * count,
        [synset] * count,
        width=SIDE,
        height=SIDE,
        file=picture,
        broken=broken,
    )
    return Record(
        image_id=picture.rsplit("/", 1)[1].rsplit(".", 1)[0],
        file=picture,
        width=SIDE,
        height=SIDE,
        source=root.file(picture),
        label=index_of[synset],
        **fields,
    )
