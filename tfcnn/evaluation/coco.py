"""COCO's twelve figures of boxes (and, by segm.py, of masks), equal to pycocotools.

N detections, K classes, T = 10 thresholds of IoU, A = 4 ranges of area, R = 101 recalls.
An annotation with id 0 is an object like any other (pycocotools takes its match for none).

Source: PythonAPI/pycocotools/cocoeval.py and common/maskApi.c of cocodataset/cocoapi.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from tfcnn.datasets.classes import distinct
from tfcnn.datasets.coco import AREAS
from tfcnn.datasets.example import Record
from tfcnn.detections import Detections
from tfcnn.evaluation import matching
from tfcnn.evaluation.tables import ResultTable, TruthTable, tables

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
RANGES = {"all": (0.0, 1e10)} | AREAS  # ends inclusive
LIMITS = (1, 10, 100)  # detections a picture and class
TRUE_POSITIVE, FALSE_POSITIVE, IGNORED = 1, 0, -1


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What the twelve figures are means of; NaN where a class has nothing to find in a range.

    Attributes:
        precision: float64 [T, R, K, A], 100 detections a picture and class.
        recall: float64 [T, K, A, 3], the last recall with 1, 10 and 100 detections.
        truths, detections: int [K], objects that are no crowds, and detections.
    """

    precision: np.ndarray
    recall: np.ndarray
    truths: np.ndarray
    detections: np.ndarray

    def figures(self) -> dict[str, float]:
        """The twelve, by the names AP, AP50, .. ARl; NaN where there is nothing to average."""
        p, r = self.precision, self.recall
        parts = {
            "AP": p[..., 0],
            "AP50": p[0, ..., 0],
            "AP75": p[5, ..., 0],
            "APs": p[..., 1],
            "APm": p[..., 2],
            "APl": p[..., 3],
            "AR1": r[:, :, 0, 0],
            "AR10": r[:, :, 0, 1],
            "AR100": r[:, :, 0, 2],
            "ARs": r[:, :, 1, 2],
            "ARm": r[:, :, 2, 2],
            "ARl": r[:, :, 3, 2],
        }
        return {name: _mean(values) for name, values in parts.items()}


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def evaluate(
    truth: TruthTable | Iterable[Record],
    results: ResultTable | Mapping[Hashable, Detections],
    classes: Sequence[str],
) -> dict:
    """COCO's figures of a detector, on boxes.

    Args:
        truth: the ground-truth table, or a data set's records.
        results: the table of results, or detections by image_id.
        classes: names of the K classes.

    Returns:
        The twelve figures, and "per_class": {name: {"AP", "AP50", "AP75", "AR100", "truths", "detections"}}.
        NaN where there is nothing to find.
    """
    return summarize(accumulate(truth, results, len(classes)), classes)


def summarize(evaluation: Evaluation, classes: Sequence[str]) -> dict:
    """The figures of `evaluate` from what `accumulate` found."""
    p, r = evaluation.precision, evaluation.recall
    per_class = {
        name: {
            "AP": _mean(p[:, :, k, 0]),
            "AP50": _mean(p[0, :, k, 0]),
            "AP75": _mean(p[5, :, k, 0]),
            "AR100": _mean(r[:, k, 0, 2]),
            "truths": int(evaluation.truths[k]),
            "detections": int(evaluation.detections[k]),
        }
        for k, name in enumerate(distinct(classes))
    }
    return {**evaluation.figures(), "per_class": per_class}


def accumulate(
    truth: TruthTable | Iterable[Record],
    results: ResultTable | Mapping[Hashable, Detections],
    classes: int,
    overlap: matching.Overlap = matching.overlap_of_boxes,
) -> Evaluation:
    """Matches all detections at all thresholds and ranges, and reads off precision and recall of each class.

    Args:
        truth: the ground-truth table, or a data set's records.
        results: the table of results, or detections by image_id. Equal scores are taken in the order of the
            pictures' ids, then the file's.
        classes: K.
        overlap: the IoU of pairs, `segm.overlap` of masks.
    """
    truth, results = tables(truth, results)
    ids = truth.images
    rank = np.empty(len(ids), np.int64)
    rank[sorted(range(len(ids)), key=lambda i: (isinstance(ids[i], str), ids[i]))] = np.arange(len(ids))
    order, starts = matching.by_class(results, classes, rank)
    turn = matching.count_within(matching.groups(results, classes)[order])
    within = np.flatnonzero(turn < LIMITS[-1])
    order, turn, starts = order[within], turn[within], np.searchsorted(within, starts)
    low, high = np.array(list(RANGES.values())).T
    outside = (truth.areas[:, None] < low) | (truth.areas[:, None] > high)
    true_ignored = outside | truth.ignored[:, None]  # [G, A]
    detections, outcome = _match(truth, results, order, classes, true_ignored, overlap)
    areas = results.box_areas[order]
    precision = np.full((len(THRESHOLDS), len(RECALLS), classes, len(RANGES)), np.nan)
    recall = np.full((len(THRESHOLDS), classes, len(RANGES), len(LIMITS)), np.nan)
    for k in range(classes):
        begin, end = starts[k], starts[k + 1]
        mine = slice(*np.searchsorted(detections, [begin, end]))
        position = detections[mine] - begin
        for a in range(len(RANGES)):
            npos = np.count_nonzero(~true_ignored[truth.label == k, a])
            if npos:
                counted = (areas[begin:end] >= low[a]) & (areas[begin:end] <= high[a])
                found = outcome[mine, :, a]
                precision[:, :, k, a] = _precision(position, found, counted, npos)
                recall[:, k, a] = _recall(turn[begin:end][position], found, npos)
    truths = np.bincount(truth.label[~truth.ignored], minlength=classes)
    return Evaluation(precision, recall, truths, np.bincount(results.label, minlength=classes))


def _match(
    truth: TruthTable,
    results: ResultTable,
    order: np.ndarray,
    classes: int,
    true_ignored: np.ndarray,
    overlap: matching.Overlap,
) -> tuple[np.ndarray, np.ndarray]:
    """The detections of `order` that overlap an object, and what became of each, int8 [D, T, A]."""
    pairs = matching.overlaps(truth, results, classes, THRESHOLDS[0], crowds=True, overlap=overlap)
    pairs = pairs.ranked(matching.positions(order, len(results)), best=1)  # of equals the file's last
    shape = (len(pairs.iou), len(THRESHOLDS), len(RANGES))
    flat = (shape[0], shape[1] * shape[2])
    allowed = np.broadcast_to((pairs.iou[:, None] >= THRESHOLDS)[:, :, None], shape)
    preferred = np.broadcast_to(~true_ignored[pairs.truth][:, None, :], shape)
    group = matching.groups(truth, classes)[pairs.truth]
    detections, true = matching.greedy(
        pairs, group, allowed.reshape(flat), preferred.reshape(flat), truth.ignored
    )
    true = true.reshape(len(detections), *shape[1:])
    outcome = np.full(true.shape, FALSE_POSITIVE, np.int8)
    for a in range(len(RANGES)):
        ignored = true_ignored[true[..., a], a]
        outcome[..., a] = np.where(
            true[..., a] < 0, FALSE_POSITIVE, np.where(ignored, IGNORED, TRUE_POSITIVE)
        )
    return detections, outcome


def _precision(position: np.ndarray, outcome: np.ndarray, counted: np.ndarray, npos: int) -> np.ndarray:
    """Precision at the 101 recalls, float64 [T, R], of one class and range.

    Args:
        position: int [D], positions of the overlapping detections among the class' n.
        outcome: int8 [D, T].
        counted: bool [n], whether a detection's own area lies in the range; an unmatched one outside counts
            not.
        npos: number of objects to find.
    """
    before = np.cumsum(counted)[position]
    needed = np.searchsorted(np.arange(1, npos + 1) / npos, RECALLS)  # the hit that brings recall there
    precision = np.zeros((outcome.shape[1], len(RECALLS)))
    for row, out in zip(precision, outcome.T, strict=True):
        matched = out != FALSE_POSITIVE
        hits = np.flatnonzero(out == TRUE_POSITIVE)
        wrong = (before - np.cumsum(matched & counted[position]))[hits]
        right = np.arange(1, len(hits) + 1)
        highest = np.maximum.accumulate((right / (right + wrong + np.spacing(1)))[::-1])[::-1]
        row[:] = np.append(highest, 0.0)[np.minimum(needed, len(highest))]
    return precision


def _recall(turn: np.ndarray, outcome: np.ndarray, npos: int) -> np.ndarray:
    """The share of objects found with at most 1, 10 and 100 detections a picture, float64 [T, 3]."""
    right = outcome == TRUE_POSITIVE
    return np.stack([np.count_nonzero(right[turn < limit], axis=0) for limit in LIMITS], axis=-1) / npos
