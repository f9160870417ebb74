"""How many true boxes the anchors, then the proposals, can reach: the ceiling of every two-stage detector.

Source: Hosang, Benenson, Dollar, Schiele, "What makes for effective detection proposals?", 2015 (recall at an IoU).
"""

import numpy as np
import tensorflow as tf

from tfcnn.datasets.coco import AREAS
from tfcnn.ops import boxes as box_ops


def truth_at(records, size):
    """The boxes that training counts, in pixels of the net's square picture: a list of float32 [M, 4] a picture.

    Args:
        records: of a tfcnn.datasets Dataset whose pictures' sizes are known.
        size: side of the square that each picture is stretched to.
    """
    kept = []
    for record in records:
        counted = ~(record.difficult | record.crowd)
        kept.append(record.boxes[counted] * scale(record, size))
    return kept


def scale(record, size):
    """What a record's boxes are multiplied by in a square picture of this side: float32 [4]."""
    return np.array([size / record.width, size / record.height] * 2, np.float32)


def best(reached, truth):
    """The best IoU that each true box has with what reaches for it in its picture.

    Args:
        reached: float32 [R, 4] for each picture.
        truth: of `truth_at`.

    Returns:
        float32 [all boxes].
    """
    shares = [np.zeros(0, np.float32)]
    for boxes, own in zip(truth, reached, strict=True):
        if len(boxes) and len(own):
            shares.append(tf.reduce_max(box_ops.iou(own, boxes), axis=0).numpy())
        else:
            shares.append(np.zeros(len(boxes), np.float32))
    return np.concatenate(shares)


def table(shares, truth, thresholds=(0.5, 0.7)):
    """Shares of covered boxes by size.

    Args:
        shares: float32 [all boxes], of `best`.
        truth: of `truth_at`.
        thresholds: least IoU of a covered box.

    Returns:
        {"all" and each of AREAS, in the net's pixels: {"boxes": count, threshold: share, None without boxes}}.
    """
    boxes = np.concatenate([*truth, np.zeros((0, 4), np.float32)])
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    rows = {"all": np.ones(len(shares), bool)}
    rows |= {name: (area >= low) & (area < high) for name, (low, high) in AREAS.items()}
    return {
        name: {"boxes": int(chosen.sum())}
        | {str(t): float(np.mean(shares[chosen] >= t)) if chosen.any() else None for t in thresholds}
        for name, chosen in rows.items()
    }
