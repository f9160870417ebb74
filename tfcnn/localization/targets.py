"""What a localizer learns of a picture: its largest objects, and their boxes as fractions of the net's picture.

K objects of a picture, N pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from tfcnn import images
from tfcnn.datasets import decode
from tfcnn.datasets.example import Dataset, Record, Truth
from tfcnn.errors import InputError


def largest_objects(
    dataset: Dataset,
    count: int,
    say: Callable[[str], None] = lambda sentence: None,
    exactly: bool = False,
) -> Dataset:
    """Reduces each picture to its K largest objects, the largest first.

    The rules: difficult objects and crowds are not learned; objects beyond K are left out; a picture without an
    object is left out. A picture's class is its own, or where it has none that of its largest object.

    Args:
        dataset: with boxes.
        count: K.
        say: told how many pictures and objects were left out, where some were.
        exactly: leave out pictures with fewer or more than K objects, too.

    Returns:
        The data set; `truth` of its records is reduced, too.

    Raises:
        InputError: no picture has an object, or exactly K of them.
    """
    kept, beyond = [], 0
    for record in dataset.examples:
        wanted = np.count_nonzero(~(record.difficult | record.crowd))
        if wanted == count or (wanted and not exactly):
            kept.append(_reduced(record, count))
            beyond += max(0, wanted - count)
    if not kept and exactly:
        raise InputError(f"No picture of the {dataset.name} data set has exactly {count} objects")
    if not kept:
        raise InputError(f"The {dataset.name} data set has no boxes: a localizer cannot learn from it")
    if len(kept) < len(dataset):
        lack = f"not exactly {count} objects" if exactly else "no object"
        say(f"{len(dataset) - len(kept)} of {len(dataset)} pictures have {lack} to learn, and are left out")
    if beyond:
        say(f"{beyond} objects beyond the {count} largest of their pictures are left out")
    return dataclasses.replace(dataset, examples=kept)


def _reduced(record: Record, count: int) -> Record:
    wanted = np.flatnonzero(~(record.difficult | record.crowd))
    sides = record.boxes[:, 2:] - record.boxes[:, :2]
    order = wanted[np.argsort(-sides.prod(axis=1)[wanted], kind="stable")][:count]
    boxes, labels = record.boxes[order], record.labels[order]
    areas = sides.prod(axis=1)[order].astype(np.float64)
    none = np.zeros(len(order), bool)
    return dataclasses.replace(
        record,
        boxes=boxes,
        labels=labels,
        difficult=none,
        crowd=none,
        truncated=record.truncated[order],
        area=record.area[order],
        label=record.label if record.label >= 0 else int(labels[0]),
        joints=None,
        masks=None,
        truth=Truth(boxes.astype(np.float64), areas, areas, labels, none),
    )


def unit_boxes(dataset: Dataset, size: int, resize: str, count: int) -> np.ndarray:
    """The boxes of a data set as the net sees them.

    Args:
        dataset: of `largest_objects`.
        size: side of the net's picture, in pixels.
        resize: "stretch" or "letterbox".
        count: K.

    Returns:
        float32 [N, K, 4], fractions of the side; zeros are padding, and stand for a picture that cannot be read.
    """
    found = np.zeros((len(dataset), count, 4), np.float32)
    for row, record in zip(found, dataset.examples, strict=True):
        try:
            data = record.source()
            shape = data.shape if isinstance(data, np.ndarray) else decode.size(data, record.file)[::-1]
        except InputError:  # named where the picture is read
            continue
        _, at = images.placed(shape[:2], size, resize)
        row[: len(record.boxes)] = at.from_file(record.placement(shape).from_file(record.boxes)) / size
    return found
