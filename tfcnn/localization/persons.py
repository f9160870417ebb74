"""A pose set as pictures of one person each: what a pose net learns from, and is given at test.

J joints. A person's box is made square, so that the picture of it is not distorted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from tfcnn.datasets.example import Dataset, Record, Truth
from tfcnn.errors import InputError

MARGIN = 1.3  # side of the square in longer sides of a tight box: LSP extended's pictures have as much round the joints
GREY = 127  # what lies beyond the picture, as in images.resize


def persons(dataset: Dataset, say: Callable[[str], None] = lambda sentence: None) -> Dataset:
    """Makes a pose set one of pictures with one person each.

    The rules: where pictures have one person (joints [J, 3], as LSP's), the whole picture is that person's box; where
    objects have joints (COCO), each person is cut out by its annotated box, enlarged by MARGIN. A joint that lies
    outside its picture is not learned; a person without a labelled joint, and a crowd, is left out.

    Args:
        dataset: with joints.
        say: told how many persons and joints were left out, where some were.

    Returns:
        A data set whose records have joints float32 [J, 3] (x, y, and 1 where labelled), the box round them, and the
        joints in float64 in `truth`.

    Raises:
        InputError: the data set has no joints, or no person with a labelled one.
    """
    kept, empty, outside = [], 0, 0
    for record in dataset.examples:
        if record.joints is None:
            continue
        single = record.joints.ndim == 2
        for number, joints in enumerate(record.joints[None] if single else record.joints):
            if not single and record.crowd[number]:
                continue
            joints = joints.astype(np.float64)
            labelled = (joints[:, 2] > 0) & np.isfinite(joints).all(axis=1)
            if record.width:
                inside = ((joints[:, :2] >= 0) & (joints[:, :2] <= [record.width, record.height])).all(axis=1)
                outside += int((labelled & ~inside).sum())
                labelled &= inside
            if not labelled.any():
                empty += 1
                continue
            joints = np.where(labelled[:, None], joints, 0)
            joints[:, 2] = labelled
            kept.append(_of(record, joints) if single else _cut_out(record, number, joints))
    if not kept:
        raise InputError(
            f"The {dataset.name} data set has no labelled joints: a pose net cannot learn from it"
        )
    if empty:
        say(f"{empty} persons of {dataset.name} have no labelled joint, and are left out")
    if outside:
        say(f"{outside} joints of {dataset.name} lie outside their pictures, and are not learned")
    return dataclasses.replace(dataset, examples=kept, classes=["person"], category_ids=[1])


def square(box: np.ndarray, margin: float = MARGIN) -> np.ndarray:
    """The square round a person's box.

    Args:
        box: [4], pixels.
        margin: its side in longer sides of the box.

    Returns:
        int [3]: left, top and side, in whole pixels; the side is 1 or more.
    """
    x1, y1, x2, y2 = np.asarray(box, np.float64)
    side = max(1, int(np.ceil(margin * max(x2 - x1, y2 - y1))))
    return np.array([round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2), side])


def crop(image: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """A square of a picture, grey where it reaches beyond.

    Args:
        image: uint8 [H, W, 3].
        left, top, side: of `square`.

    Returns:
        uint8 [side, side, 3].
    """
    height, width = image.shape[:2]
    cut = np.full((side, side, 3), GREY, np.uint8)
    x1, y1, x2, y2 = max(0, left), max(0, top), min(width, left + side), min(height, top + side)
    if x2 > x1 and y2 > y1:
        cut[y1 - top : y2 - top, x1 - left : x2 - left] = image[y1:y2, x1:x2]
    return cut


def _of(record: Record, joints: np.ndarray, **changes) -> Record:
    """The record with one person's joints, and nothing else."""
    points = joints[joints[:, 2] > 0, :2]
    box = np.concatenate([points.min(0), np.maximum(points.max(0), points.min(0) + 1)])
    nothing = np.zeros(0)
    own = {
        "boxes": box[None].astype(np.float32),
        "joints": joints.astype(np.float32),
        "truth": Truth(
            np.zeros((0, 4)), nothing, nothing, nothing.astype(np.int32), nothing.astype(bool), joints
        ),
    }
    plain = {name: None for name in ("labels", "difficult", "truncated", "crowd", "area", "masks")}
    return dataclasses.replace(record, label=-1, **plain | own | changes)


def _cut_out(record: Record, number: int, joints: np.ndarray) -> Record:
    left, top, side = square(record.boxes[number]).tolist()
    corner = np.where(joints[:, 2:] > 0, [left, top, 0], 0)

    def source() -> np.ndarray:
        image = record.image()
        at = record.placement(image.shape)
        if at.swapped:
            raise InputError(
                f"{record.file}: annotated before it was turned upright, so that no person can be cut out"
            )
        corners = at.from_file(np.array([left, top, left + side, top + side]))
        x, y, length = square(corners, margin=1.0).tolist()
        return crop(image, x, y, length)

    return _of(
        record,
        joints - corner,
        image_id=f"{record.image_id}_{number + 1}",
        file=f"{record.file}, person {number + 1}",
        width=side,
        height=side,
        source=source,
    )
