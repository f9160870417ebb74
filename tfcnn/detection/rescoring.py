"""One detector's scores raised where another finds the same: YOLO beside Fast R-CNN.

YOLO makes far fewer mistakes on background than a detector of regions, which finds more objects and places them better.

Source: Redmon et al. 2016 (YOLO), section 4.3 and table 2. The paper says what a boost depends on (the probability that
YOLO predicts, and the overlap of the two boxes), and not how; the formula is ours.
"""

import dataclasses

import numpy as np

from tfcnn.detections import Detections
from tfcnn.errors import InputError
from tfcnn.ops import boxes as box_ops


def rescored(found: Detections, by: Detections, least_iou: float = 0.5) -> Detections:
    """Detections whose score is raised where another detector finds a similar box of the same class.

    The other box with the largest product of its score p and its IoU with ours counts; our score s becomes
    s + (1 - s) p IoU, which is never above 1. Where there is none, s stays.

    Args:
        found: of the detector whose boxes stay.
        by: of the other one, in the same picture.
        least_iou: boxes of at least this IoU are similar.

    Returns:
        The same boxes with their new scores, sorted by them.

    Raises:
        InputError: the two have other classes.
    """
    if found.names and by.names and list(found.names) != list(by.names):
        raise InputError("Detections are rescored by those of a detector with the same classes.")
    if not len(found) or not len(by):
        return found
    iou = box_ops.iou(found.boxes, by.boxes).numpy()  # [n, m]
    similar = (iou >= least_iou) & (found.labels[:, None] == by.labels)
    boost = np.max(np.where(similar, iou * by.scores, 0.0), axis=1)  # [n]
    return dataclasses.replace(found, scores=found.scores + (1 - found.scores) * boost)
