"""PASCAL VOC's average precision by the devkit's rules, and the lecture's plain sum.

N detections, K classes. A detection is a true positive if the ground-truth object of its picture and class with
the largest IoU has IoU >= 0.5, is not difficult, and was not matched by a detection with a higher score; that the
largest is taken already, or difficult, gives the second largest no chance.
Pixels are inclusive in VOC's files (width = xmax - xmin + 1), which in continuous pixels is x2 - x1.

Source: VOCevaldet.m and VOCap.m of the PASCAL VOC devkit; voc_eval.py of py-faster-rcnn for `strict`.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from tfcnn.datasets.classes import distinct
from tfcnn.datasets.example import Record
from tfcnn.detections import Detections
from tfcnn.evaluation import matching
from tfcnn.evaluation.tables import ResultTable, TruthTable, tables

TRUE_POSITIVE, FALSE_POSITIVE, IGNORED = 1, 0, -1


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """How each detection of one class was judged, the highest score first.

    Attributes:
        outcome: int8 [n], TRUE_POSITIVE, FALSE_POSITIVE or IGNORED.
        scores: float64 [n].
        truths: number of objects to find, difficult ones left out.
    """

    outcome: np.ndarray
    scores: np.ndarray
    truths: int

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Recall and precision after each true positive, float64 [hits] each."""
        hits = np.flatnonzero(self.outcome == TRUE_POSITIVE)
        right = np.arange(1, len(hits) + 1)
        wrong = np.cumsum(self.outcome == FALSE_POSITIVE)[hits]
        return right / max(self.truths, 1), right / (right + wrong)


def match(
    truth: TruthTable | Iterable[Record],
    results: ResultTable | Mapping[Hashable, Detections],
    classes: int,
    iou_threshold: float = 0.5,
    strict: bool = False,
) -> list[Outcome]:
    """Decides whether each detection is a true positive, a false positive, or matches an ignored (difficult) object.

    Args:
        truth: the ground-truth table, or a data set's records.
        results: the table of results, or detections by image_id.
        classes: K.
        iou_threshold: least IoU of a true positive.
        strict: IoU has to be above the threshold, as py-faster-rcnn has it.

    Returns:
        The outcome of each class. Equal scores keep the file's order.
    """
    truth, results = tables(truth, results)
    order, starts = matching.by_class(results, classes)
    pairs = matching.overlaps(truth, results, classes, iou_threshold)
    if strict:
        pairs = pairs.take(pairs.iou > iou_threshold)
    pairs = pairs.ranked(matching.positions(order, len(results)), best=-1)  # of equals the file's first
    best = pairs.take(np.flatnonzero(np.diff(pairs.detection, prepend=-1)))
    outcome = np.full(len(results), FALSE_POSITIVE, np.int8)
    difficult = truth.ignored[best.truth]
    outcome[best.detection[difficult]] = IGNORED
    best = best.take(~difficult)
    _, first = np.unique(best.truth, return_index=True)
    outcome[best.detection[first]] = TRUE_POSITIVE
    scores = results.score[order]
    npos = np.bincount(truth.label[~truth.ignored], minlength=classes).tolist()
    return [
        Outcome(outcome[begin:end], scores[begin:end], n)
        for begin, end, n in zip(starts[:-1], starts[1:], npos, strict=True)
    ]


def average_precision(found: Outcome, float_points: bool = False) -> dict[str, float]:
    """The three readings of one class' average precision.

    Args:
        found: the outcome of the class.
        float_points: compare recalls with np.arange(0, 1.1, 0.1) as py-faster-rcnn does, where a recall of
            just 3/10, 6/10 or 7/10 misses its point; else with exactly k/10.

    Returns:
        ap_11: mean over t = 0, 0.1, .. 1 of the highest precision at recall >= t (VOC 2007 to 2009).
        ap_area: area under the precision made non-increasing (VOC 2010 on).
        ap_raw: sum of the precision at each true positive over the number of objects; no interpolation.
        All NaN where there is nothing to find.
    """
    if found.truths == 0:
        return {"ap_11": np.nan, "ap_area": np.nan, "ap_raw": np.nan}
    recall, precision = found.curve()
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    if float_points:
        needed = np.searchsorted(recall, np.arange(0.0, 1.1, 0.1))
    else:
        needed = (
            np.maximum(-(-np.arange(11) * found.truths // 10), 1) - 1
        )  # the hit that brings recall to k/10
    at_points = np.append(highest, 0.0)[np.minimum(needed, len(highest))]
    return {
        "ap_11": float(at_points.sum() / 11),
        "ap_area": float(highest.sum() / found.truths),
        "ap_raw": float(precision.sum() / found.truths),
    }


def evaluate(
    truth: TruthTable | Iterable[Record],
    results: ResultTable | Mapping[Hashable, Detections],
    classes: Sequence[str],
    iou_threshold: float = 0.5,
    strict: bool = False,
) -> dict:
    """PASCAL VOC's figures of a detector.

    Args:
        truth: the ground-truth table, or a data set's records.
        results: the table of results, or detections by image_id.
        classes: names of the K classes; of equal ones `classes.distinct` makes the keys of `per_class`.
        iou_threshold: least IoU of a true positive.
        strict: py-faster-rcnn's readings: IoU above the threshold, floating recall points.

    Returns:
        {"map_11", "map_area", "map_raw", "iou_threshold", "per_class": {name: {"ap_11", "ap_area", "ap_raw",
        "truths", "detections"}}, "absent": names of the classes with nothing to find}. AP of an absent class
        is NaN, and left out of the means.
    """
    return summarize(
        match(truth, results, len(classes), iou_threshold, strict), classes, iou_threshold, strict
    )


def summarize(
    outcomes: Sequence[Outcome], classes: Sequence[str], iou_threshold: float = 0.5, strict: bool = False
) -> dict:
    """The figures of `evaluate` from what `match` found."""
    per_class = {}
    for name, found in zip(distinct(classes), outcomes, strict=True):
        numbers = average_precision(found, float_points=strict)
        per_class[name] = {**numbers, "truths": found.truths, "detections": len(found.outcome)}
    present = [numbers for numbers in per_class.values() if numbers["truths"]]

    def mean(name: str) -> float:
        return float(np.mean([numbers[name] for numbers in present])) if present else float("nan")

    return {
        "map_11": mean("ap_11"),
        "map_area": mean("ap_area"),
        "map_raw": mean("ap_raw"),
        "iou_threshold": iou_threshold,
        "per_class": per_class,
        "absent": [name for name, numbers in per_class.items() if not numbers["truths"]],
    }
