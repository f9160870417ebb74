"""Recall of proposals against IoU, as proposal methods are compared; in NumPy alone.

M boxes of a picture, R regions (proposals) of a picture.

Source: Hosang, Benenson, Dollar, Schiele, "What makes for effective detection proposals?", 2015.
"""

from collections.abc import Sequence

import numpy as np

from tfcnn import images
from tfcnn.datasets.example import Record


def ground_truth(record: Record, placement: images.Placement | None = None) -> np.ndarray:
    """The boxes of a picture that are to be found: neither difficult ones nor crowds.

    Args:
        record: of a tfcnn.datasets Dataset.
        placement: where the annotation lies in the net's picture, as `images.placed` or `images.resize` tells.

    Returns:
        float32 [M, 4], in the annotation's pixels, or those of the net's picture.
    """
    boxes = record.boxes[~(record.difficult | record.crowd)]
    return boxes if placement is None else placement.from_file(boxes)


def pairwise_iou(regions: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU of every region with every box.

    Args:
        regions: float [R, 4]; boxes: float [M, 4], in the same pixels.

    Returns:
        float32 [R, M]; 0 where both are empty.
    """
    regions, boxes = np.float32(regions).reshape(-1, 1, 4), np.float32(boxes).reshape(1, -1, 4)
    low, high = np.maximum(regions[..., :2], boxes[..., :2]), np.minimum(regions[..., 2:], boxes[..., 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = (regions[..., 2:] - regions[..., :2]).prod(axis=2) + (boxes[..., 2:] - boxes[..., :2]).prod(
        axis=2
    )
    return common / np.maximum(areas - common, 1e-9)


def one_to_one(overlap: np.ndarray) -> np.ndarray:
    """The IoU of each box with the region that is given to it, where no region is given twice.

    Args:
        overlap: float [R, M], IoU of regions and boxes. The greatest number of the table is taken first, then its row
            and column leave, and so on.

    Returns:
        float64 [M]; 0 for a box that no region is left for.

    Source: Hosang et al., closest_candidates.m of their program.
    """
    found = np.zeros(overlap.shape[1])
    region, box = np.nonzero(overlap)
    values = overlap[region, box]
    order = np.argsort(-values, kind="stable")
    taken, left = np.zeros(len(overlap), bool), np.ones(len(found), bool)
    remaining = min(overlap.shape)
    for r, m, value in zip(region[order], box[order], values[order], strict=True):
        if not taken[r] and left[m]:
            taken[r], left[m], found[m] = True, False, value
            remaining -= 1
            if not remaining:
                break
    return found


class Recall:
    """Recall against IoU at several numbers of proposals, picture after picture.

    Args:
        counts: numbers of proposals, of each picture the best.
        thresholds: IoU at which recall is told.

    Source: Hosang et al., section 4.
    """

    def __init__(
        self, counts: Sequence[int] = (100, 1000, 10000), thresholds: Sequence[float] = (0.5, 0.7, 0.8)
    ):
        self.counts, self.thresholds = tuple(counts), tuple(thresholds)
        self._best: dict[int, list[np.ndarray]] = {count: [] for count in counts}

    def add(self, proposals: np.ndarray, boxes: np.ndarray) -> None:
        """A picture's proposals float32 [n, 4], best first, and its ground truth [M, 4], in the same pixels."""
        if not len(boxes):
            return
        overlap = pairwise_iou(proposals, boxes)
        for count in self.counts:
            self._best[count].append(one_to_one(overlap[:count]))

    def figures(self) -> dict[str, dict | None]:
        """What was measured.

        Returns:
            {count: {"recall": {threshold: share}, "average_recall": twice the integral of recall over IoU from 0.5 to
            1, "curve": recall at IoU 0.5, 0.55, ... 1} or None without any box}, counts and thresholds as text.
        """
        found = {}
        for count, parts in self._best.items():
            best = np.concatenate(parts) if parts else np.zeros(0)
            steps = np.linspace(0.5, 1, 11)
            found[str(count)] = {
                "recall": {str(t): float((best >= t).mean()) for t in self.thresholds},
                "average_recall": average_recall(best),
                "curve": [float((best >= t - 1e-9).mean()) for t in steps],
            } if len(best) else None  # fmt: skip
        return found


def average_recall(best: np.ndarray) -> float:
    """Twice the integral of recall over IoU from 0.5 to 1.

    Args:
        best: float [M], the IoU of each box with its proposal.

    Source: Hosang et al., section 5.3: (2 / n) sum of max(IoU - 0.5, 0).
    """
    return float(2 * np.maximum(best - 0.5, 0).mean())
