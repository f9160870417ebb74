"""Masks of objects: polygons and run lengths as COCO writes them.

Source: cocodataset/cocoapi, common/maskApi.c, for the run lengths; a polygon's rule is ours (see
`from_polygons`).
"""

import numpy as np

from tfcnn.errors import InputError


def from_polygons(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """A mask of polygons: a pixel belongs to it when its middle lies inside one of them (even-odd rule).

    COCO's own program draws outlines a fraction of a pixel otherwise; areas agree but for the border's
    pixels.

    Args:
        polygons: arrays [x1, y1, x2, y2, ...] in continuous pixels.
        height, width: of the mask.

    Returns:
        bool [height, width].
    """
    mask = np.zeros((height, width), bool)
    for polygon in polygons:
        mask |= _polygon(np.asarray(polygon, np.float64).reshape(-1, 2), height, width)
    return mask


def _polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
    ends = np.roll(points, -1, axis=0)
    crossings = np.zeros((height, width + 1), np.int32)
    for (xa, ya), (xb, yb) in zip(points, ends, strict=True):
        if ya == yb:
            continue
        top, bottom = (ya, yb) if ya < yb else (yb, ya)
        rows = np.arange(max(0, int(np.ceil(top - 0.5))), min(height, int(np.ceil(bottom - 0.5))))
        x = xa + (rows + 0.5 - ya) * (xb - xa) / (yb - ya)
        # Every pixel whose middle lies right of the edge changes sides.
        np.add.at(crossings, (rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)), 1)
    return np.cumsum(crossings[:, :width], axis=1) % 2 == 1


def from_runs(counts: np.ndarray | str | bytes, height: int, width: int) -> np.ndarray:
    """A mask of run lengths, column by column, the first run being of zeros.

    Args:
        counts: the runs, or COCO's compressed text of them.
        height, width: of the mask.

    Returns:
        bool [height, width].

    Raises:
        InputError: the runs do not add up to the mask's pixels.
    """
    runs = decompress(counts) if isinstance(counts, str | bytes) else np.asarray(counts, np.int64)
    if runs.sum() != height * width or (runs < 0).any():
        raise InputError(
            f"run lengths of {runs.sum()} pixels for a mask of {width}x{height}: re-export the masks"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def decompress(text: str | bytes) -> np.ndarray:
    """COCO's compressed run lengths: numbers of 5 bits a character, low ones first; from the fourth number on
    each is the difference to the number two before it.

    Returns:
        int64 run lengths.
    """
    codes = np.frombuffer(text.encode() if isinstance(text, str) else text, np.uint8).astype(np.int64) - 48
    runs: list[int] = []
    number, shift = 0, 0
    for code in codes.tolist():
        number |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:  # the last five bits hold the sign
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number, shift = 0, 0
    return np.array(runs, np.int64)
