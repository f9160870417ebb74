"""Masks of objects: COCO's polygons and run lengths by COCO's own codec, and a network's small masks as a picture's.

Run lengths are {"size": [H, W], "counts": bytes}, COCO's compressed form.
H W the picture's size, P corners of a polygon, S the side of a small mask.
Source: cocodataset/cocoapi, common/maskApi.c, as pycocotools.mask; He et al., "Mask R-CNN", 2017, section 3.1.
"""

from collections.abc import Sequence

import numpy as np

from tfcnn import images
from tfcnn.errors import InputError

Shape = list[np.ndarray] | bytes | None
SLACK = 0.5  # pixels that a polygon may stick out of its picture: the rounding of whoever wrote it


def compact(segmentation: object, height: int, width: int) -> Shape:
    """Checks one `segmentation`, and keeps it without Python's numbers, which would fill the memory.

    Args:
        segmentation: as read from JSON: polygons [[x1, y1, x2, y2, ...], ...], {"size": [H, W], "counts": run
            lengths or their compressed text}, or nothing (null, []).
        height, width: of the picture.

    Returns:
        Polygons float64 [2 P] each, compressed run lengths, or None for nothing.

    Raises:
        InputError: it is none of these, or too large to be drawn.
    """
    if segmentation is None or segmentation == []:
        return None
    if height * width > images.MAX_PIXELS:
        raise InputError(f"of {width}x{height} pixels, above {images.MAX_PIXELS:,}")
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


def runs(shape: Shape, height: int, width: int) -> dict | None:
    """The run lengths of one object; parts of a polygon outside the picture are cut off.

    Args:
        shape: what `compact` gave.
        height, width: of the picture.

    Returns:
        {"size", "counts"}, or None for nothing.
    """
    from pycocotools import mask

    if shape is None:
        return None
    if isinstance(shape, list):
        return mask.merge(mask.frPyObjects(shape, height, width))
    return {"size": [height, width], "counts": shape}


def of_entry(segmentation: object) -> dict:
    """Checks one `segmentation` of a results list: run lengths that bring their size.

    Args:
        segmentation: as read from JSON: {"size": [H, W], "counts": run lengths or their compressed text}.

    Returns:
        {"size", "counts"}, compressed.

    Raises:
        InputError: it is none, or the runs do not fill the size.
    """
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(_is_side(side) for side in size):
        raise InputError('no run lengths {"size": [height, width], "counts"}')
    height, width = map(int, size)
    return runs(compact({**segmentation, "size": [height, width]}, height, width), height, width)


def _is_side(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and value > 0


def draw(shape: Shape, height: int, width: int) -> np.ndarray:
    """The mask of one object.

    Args:
        shape: what `compact` gave.
        height, width: of the picture.

    Returns:
        bool [H, W].
    """
    found = runs(shape, height, width)
    return np.zeros((height, width), bool) if found is None else decode(found)


def sticks_out(shape: Shape, height: int, width: int) -> bool:
    """Whether polygons reach more than half a pixel beyond the picture, where they are cut off.

    Args:
        shape: what `compact` gave.
        height, width: of the picture.
    """
    if not isinstance(shape, list):
        return False
    corners = np.concatenate(shape).reshape(-1, 2)
    return bool((corners < -SLACK).any() or (corners > np.array([width, height]) + SLACK).any())


def encode(mask: np.ndarray) -> dict:
    """The run lengths of a mask, bool [H, W]."""
    from pycocotools import mask as codec

    return codec.encode(np.asfortranarray(mask, np.uint8))


def decode(runs: dict) -> np.ndarray:
    """The mask of run lengths, bool [H, W]."""
    from pycocotools import mask

    return mask.decode(runs).astype(bool)


def areas(found: Sequence[dict]) -> np.ndarray:
    """Pixels of each of n masks in run lengths, float64 [n]."""
    from pycocotools import mask

    return np.array(
        [mask.area(each) for each in found], np.float64
    )  # the codec fails on lists of more than 255


def box(runs: dict) -> list[float]:
    """The box round a mask, [x, y, width, height]; zeros where it is empty."""
    from pycocotools import mask

    return mask.toBbox(runs).tolist()


def common(a: dict, b: dict) -> dict:
    """The pixels that two masks of one size share, all in run lengths."""
    from pycocotools import mask

    return mask.merge([a, b], intersect=True)


def paste(small: np.ndarray, box: np.ndarray, height: int, width: int, threshold: float = 0.5) -> np.ndarray:
    """A network's mask of a box, in the picture.

    Cell j of S lies in the middle of the j-th S-th of the box. A pixel whose centre lies in the box belongs to the
    object where the probability there, bilinear between cells and the border's beyond them, is at least `threshold`.

    Args:
        small: float32 [S, S], probabilities.
        box: [4], (x1, y1, x2, y2) in the picture's continuous pixels; it may reach beyond the picture.
        height, width: of the picture.
        threshold: 0..1.

    Returns:
        bool [H, W]; empty where no pixel's centre lies in the box.
    """
    mask = np.zeros((height, width), bool)
    x1, y1, x2, y2 = np.asarray(box, np.float64)
    if np.isfinite([x1, y1, x2, y2]).all():
        left, right = np.clip(np.ceil([x1 - 0.5, x2 - 0.5]), 0, width).astype(int)
        top, bottom = np.clip(np.ceil([y1 - 0.5, y2 - 0.5]), 0, height).astype(int)
        if right > left and bottom > top:
            rows = _between(small, y1, y2, top, bottom)  # [h, S]
            mask[top:bottom, left:right] = _between(rows.T, x1, x2, left, right).T >= threshold
    return mask


def _between(values: np.ndarray, low: float, high: float, first: int, last: int) -> np.ndarray:
    """Values [S, ...] of cells that share [low, high), at the centres of pixels first..last-1."""
    count = len(values)
    place = (np.arange(first, last) + 0.5 - low) / (high - low) * count - 0.5
    place = np.clip(place, 0, count - 1)
    below = np.floor(place).astype(int)
    part = (place - below).astype(np.float32)[:, None]
    return values[below] * (1 - part) + values[np.minimum(below + 1, count - 1)] * part


def resized(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask, or numbers [h, w] of objects, at another size [H, W], by the nearest pixels."""
    if mask.shape == (height, width):
        return mask
    rows, columns = (
        ((np.arange(side) + 0.5) * own / side).astype(int)
        for side, own in zip((height, width), mask.shape, strict=True)
    )
    return mask[rows][:, columns]


def to_file(mask: np.ndarray, at: images.Placement) -> np.ndarray:
    """A mask in the pixels that a placement leads from, by the pixel under each centre; False outside.

    Args:
        mask: bool [h, w], of the placement's result.
        at: from the file's pixels to the mask's.

    Returns:
        bool [H, W].
    """
    sides = mask.shape[::-1] if at.swapped else mask.shape  # along the file's rows and columns
    scales = (at.scale_x, at.scale_y) if at.swapped else (at.scale_y, at.scale_x)
    offsets = (at.offset_x, at.offset_y) if at.swapped else (at.offset_y, at.offset_x)
    found = mask.T if at.swapped else mask
    for axis, (side, scale, offset) in enumerate(zip(sides, scales, offsets, strict=True)):
        place = np.floor((np.arange(round(side / abs(scale))) + 0.5) * scale + offset).astype(int)
        found = np.take(found, np.clip(place, 0, side - 1), axis=axis)
        inside = (place >= 0) & (place < side)
        found = found & (inside[:, None] if axis == 0 else inside)
    return found


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
