"""How many true boxes the anchors, then the proposals, can reach: the ceiling of every two-stage detector.

Source: Hosang, Benenson, Dollar, Schiele, "What makes for effective detection proposals?", 2015 (recall at an IoU).
"""

import numpy as np
import tensorflow as tf

from tfcnn.ops import boxes as box_ops

SIDES = {
    "small": (0.0, 32.0),
    "medium": (32.0, 96.0),
    "large": (96.0, float("inf")),
}  # COCO's, in the net's pixels


def truth_at(records, size):
    """The boxes that training counts, in pixels of the net's square picture: a list of float32 [M, 4] a picture.

    Args:
        records: of a tfcnn.datasets Dataset whose pictures' sizes are known.
        size: side of the square that each picture is stretched to.
    """
    kept = []
    for record in records:
        counted = ~(record.difficult | record.crowd)
        scale = np.array([size / record.width, size / record.height] * 2, np.float32)
        kept.append(record.boxes[counted] * scale)
    return kept


def of_anchors(anchors, truth):
    """The best IoU that any anchor has with each true box: float32 [all boxes].

    Args:
        anchors: float32 [A, 4].
        truth: of `truth_at`.
    """
    return np.concatenate([*(_best(anchors, boxes) for boxes in truth), np.zeros(0, np.float32)])


def of_proposals(detector, records, batch_size=8, threads=2):
    """The best IoU that the proposals of each picture have with its true boxes: float32 [all boxes].

    Args:
        detector: tfcnn.detection.detector.Detector; its first network's proposals are taken.
        records: of a tfcnn.datasets Dataset.
        batch_size, threads: as in `Detector.over_records`.
    """
    truth = truth_at(records, detector.sizes[0])
    found = detector.proposals(records, batch_size, threads)
    best = [_best(proposals, boxes) for boxes, proposals in zip(truth, found, strict=True)]
    return np.concatenate([*best, np.zeros(0, np.float32)])


def _best(reached, boxes):
    if not len(boxes) or not len(reached):
        return np.zeros(len(boxes), np.float32)
    return tf.reduce_max(box_ops.iou(reached, boxes), axis=0).numpy()


def table(best, truth, thresholds=(0.5, 0.7)):
    """Shares of covered boxes by size.

    Args:
        best: float32 [all boxes], of `of_anchors` or `of_proposals`.
        truth: of `truth_at`.
        thresholds: least IoU of a covered box.

    Returns:
        {"all" and each of SIDES: {"boxes": count, threshold: share or NaN}}.
    """
    boxes = np.concatenate([*truth, np.zeros((0, 4), np.float32)])
    side = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    rows = {"all": np.ones(len(best), bool)}
    rows |= {name: (side >= low) & (side < high) for name, (low, high) in SIDES.items()}
    return {
        name: {"boxes": int(chosen.sum())}
        | {str(t): float(np.mean(best[chosen] >= t)) if chosen.any() else float("nan") for t in thresholds}
        for name, chosen in rows.items()
    }
