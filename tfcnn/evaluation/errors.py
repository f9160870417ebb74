"""What kinds of mistakes a detector makes, by Hoiem's rules as the YOLO paper used them.

Of each class the N detections with the highest scores are looked at, N being the number of its objects.

Source: Hoiem et al., "Diagnosing Error in Object Detectors", ECCV 2012; Redmon et al., CVPR 2016, section
4.2.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from tfcnn.datasets.classes import distinct
from tfcnn.datasets.example import Record
from tfcnn.detections import Detections
from tfcnn.evaluation import matching
from tfcnn.evaluation.tables import ResultTable, TruthTable, tables

KINDS = ("correct", "localisation", "similar", "other", "background")
RIGHT, SOME = 0.5, 0.1  # IoU of a right detection; least IoU with something at all

# Classes that look alike, by VOC's names and COCO's; a class may be in two sets.
SETS = (
    "aeroplane,airplane,bicycle,boat,bus,car,motorbike,motorcycle,train,truck".split(","),
    "bear,bird,cat,cow,dog,elephant,giraffe,horse,person,sheep,zebra".split(","),
    "chair,couch,diningtable,dining table,sofa".split(","),
    "aeroplane,airplane,bird".split(","),
)


def similar(classes: Sequence[str]) -> np.ndarray:
    """Which of K classes look alike, bool [K, K]: those that are together in one of `SETS`."""
    member = np.array([[name in group for group in SETS] for name in classes], bool).reshape(-1, len(SETS))
    return (member[:, None] & member).any(axis=2) & ~np.eye(len(classes), dtype=bool)


def breakdown(
    truth: TruthTable | Iterable[Record],
    results: ResultTable | Mapping[Hashable, Detections],
    classes: Sequence[str],
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Shares of the kinds of errors among the best N detections of each class.

    correct: IoU >= 0.5 with an object of the class that no better detection took (a difficult one too);
    localisation: else, IoU >= 0.1 with an object of the class, taken or not;
    similar, other: else, the object of another class with the largest IoU, at least 0.1, is of a class that
        looks alike, or of any other;
    background: all else.

    Args:
        truth: the ground-truth table, or a data set's records.
        results: the table of results, or detections by image_id.
        classes: names of the K classes.

    Returns:
        {kind: mean over the classes that have objects and detections}, and {class: {kind: share}} of these.
    """
    truth, results = tables(truth, results)
    order, starts = matching.by_class(results, len(classes))
    counts = np.bincount(truth.label[~truth.ignored], minlength=len(classes))
    taken = np.minimum(counts, np.diff(starts))
    best = np.concatenate([order[s : s + n] for s, n in zip(starts[:-1], taken, strict=True)] or [order])
    results = results.take(best)
    kinds = _kinds(truth, results, len(classes), similar(classes))
    per_class, names = {}, distinct(classes)
    for label in np.flatnonzero(taken):
        shares = np.bincount(kinds[results.label == label], minlength=len(KINDS)) / taken[label]
        per_class[names[label]] = dict(zip(KINDS, shares.tolist(), strict=True))
    mean = {
        k: float(np.mean([s[k] for s in per_class.values()])) if per_class else float("nan") for k in KINDS
    }
    return mean, per_class


def _kinds(truth: TruthTable, results: ResultTable, classes: int, alike: np.ndarray) -> np.ndarray:
    """The kind of each detection, an index into KINDS; the detections of a class stand best first."""
    position = np.arange(len(results))
    own = matching.overlaps(truth, results, classes, SOME)
    near = own.take(np.flatnonzero(own.iou >= RIGHT)[::-1]).ranked(
        position, best=1
    )  # of equals the file's first
    every = np.ones((len(near.iou), 1), bool)
    group = matching.groups(truth, classes)[near.truth]
    found, true = matching.greedy(near, group, every, every, np.zeros(len(truth), bool))
    kinds = np.full(len(results), KINDS.index("background"))
    across = matching.overlaps(_one_class(truth), _one_class(results), 1, SOME).ranked(position, best=-1)
    across = across.take(truth.label[across.truth] != results.label[across.detection])
    across = across.take(np.flatnonzero(np.diff(across.detection, prepend=-1)))
    is_alike = alike[results.label[across.detection], truth.label[across.truth]]
    kinds[across.detection] = np.where(is_alike, KINDS.index("similar"), KINDS.index("other"))
    kinds[own.detection] = KINDS.index("localisation")
    kinds[found[true[:, 0] >= 0]] = KINDS.index("correct")
    return kinds


def _one_class(table: TruthTable | ResultTable) -> TruthTable | ResultTable:
    return dataclasses.replace(table, label=np.zeros_like(table.label))
