"""Masks of objects as COCO writes them, drawn by COCO's own codec.

H W the picture's size, P corners of a polygon.
Source: cocodataset/cocoapi, common/maskApi.c, as pycocotools.mask.
"""

import numpy as np

from tfcnn.errors import InputError

Shape = list[np.ndarray] | bytes | None


def compact(segmentation: object, height: int, width: int) -> Shape:
    """Checks one `segmentation`, and keeps it without Python's numbers, which would fill the memory.

    Args:
        segmentation: as read from JSON: polygons [[x1, y1, x2, y2, ...], ...], {"size": [H, W], "counts": run
            lengths or their compressed text}, or nothing (null, []).
        height, width: of the picture.

    Returns:
        Polygons float64 [2 P] each, compressed run lengths, or None for nothing.

    Raises:
        InputError: it is none of these.
    """
    if segmentation is None or segmentation == []:
        return None
    try:
        if isinstance(segmentation, list):
            return _polygons(segmentation, 100 * max(height, width))
        if isinstance(segmentation, dict):
            if list(segmentation.get("size", (height, width))) != [height, width]:
                raise ValueError("a mask of another size")
            return _runs(segmentation["counts"], height, width)
    except (ValueError, TypeError, KeyError, OverflowError):
        pass
    raise InputError(f"neither polygons nor run lengths of {width}x{height} pixels")


def draw(shape: Shape, height: int, width: int) -> np.ndarray:
    """The mask of one object.

    Args:
        shape: what `compact` gave.
        height, width: of the picture.

    Returns:
        bool [H, W].
    """
    from pycocotools import mask

    if shape is None:
        return np.zeros((height, width), bool)
    if isinstance(shape, list):
        runs = mask.merge(mask.frPyObjects(shape, height, width))
    else:
        runs = {"size": [height, width], "counts": shape}
    return mask.decode(runs).astype(bool)


def _polygons(segmentation: list, farthest: float) -> list[np.ndarray]:
    polygons = [np.array(polygon, np.float64) for polygon in segmentation]
    if any(polygon.ndim != 1 or len(polygon) % 2 for polygon in polygons):
        raise ValueError("corners have an x and a y")
    polygons = [polygon for polygon in polygons if len(polygon) >= 6]
    # The codec walks along every edge pixel by pixel: a corner at 1e9 would take all memory.
    if not polygons or not all(-farthest <= p.min() <= p.max() <= farthest for p in polygons):
        raise ValueError("no polygon, or one far outside the picture")
    return polygons


def _runs(counts: list | str, height: int, width: int) -> bytes:
    from pycocotools import mask

    if isinstance(counts, list):
        counts = mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
    counts = counts.encode() if isinstance(counts, str) else counts
    runs = _decompressed(counts)
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError("the runs do not fill the picture")
    return counts


def _decompressed(text: bytes) -> np.ndarray:
    """int64 run lengths of COCO's text: numbers of 5 bits a character, low ones first; from the fourth number on
    each is the difference to the number two before it. The codec itself trusts their sum, and where they are too
    few gives what lay in memory."""
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((codes & 32) == 0)
    starts = np.append(0, ends[:-1] + 1)
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, ends - starts + 1))
    numbers = np.add.reduceat((codes & 31) << shifts, starts)
    negative = (codes[ends] & 16) > 0  # the last five bits hold the sign
    numbers -= np.where(negative, 1 << (shifts[ends] + 5), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
