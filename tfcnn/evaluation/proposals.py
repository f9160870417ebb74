"""How many ground-truth boxes the anchors, then the proposals, can reach: the ceiling of every two-stage detector.

Letters: M boxes of a picture, R regions (anchors or proposals) of a picture.

Source: Hosang, Benenson, Dollar, Schiele, "What makes for effective detection proposals?", 2015 (recall at an IoU).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from tfcnn.datasets.coco import AREAS
from tfcnn.ops import boxes as box_ops


def overlaps(regions: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The best IoU that each box of a picture has with a region.

    Args:
        regions: float32 [R, 4]; rows of zeros are padding.
        boxes: float32 [M, 4], in the same pixels.

    Returns:
        float32 [M]; 0 where there is no region.
    """
    if not len(boxes) or not len(regions):
        return np.zeros(len(boxes), np.float32)
    return tf.reduce_max(box_ops.iou(regions, boxes), axis=0).numpy()


def recall(
    pictures: Iterable[tuple[np.ndarray, np.ndarray]], thresholds: Sequence[float] = (0.5, 0.7)
) -> dict[str, dict]:
    """Shares of the boxes that a region covers, by their size.

    Args:
        pictures: (regions [R, 4], boxes [M, 4]) of each, in pixels of the net's picture.
        thresholds: least IoU of a covered box.

    Returns:
        {"all" and each of COCO's AREAS: {"boxes": count, "0.5": share, "0.7": share}}; a share is None without boxes.
    """
    best, areas = [np.zeros(0, np.float32)], [np.zeros(0, np.float32)]
    for regions, boxes in pictures:
        best.append(overlaps(regions, boxes))
        areas.append(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    best, area = np.concatenate(best), np.concatenate(areas)
    rows = {"all": np.ones(len(best), bool)}
    rows |= {name: (area >= low) & (area < high) for name, (low, high) in AREAS.items()}
    return {
        name: {"boxes": int(chosen.sum())}
        | {str(t): float(np.mean(best[chosen] >= t)) if chosen.any() else None for t in thresholds}
        for name, chosen in rows.items()
    }


def in_words(shares: dict[str, dict]) -> str:
    """A line that says what `recall` found: "all 98.2% (81.0%) of 7844, small ..."."""
    return ", ".join(
        f"{name} {row['0.5']:.1%} ({row['0.7']:.1%}) of {row['boxes']}"
        for name, row in shares.items()
        if row["boxes"]
    )
