"""ImageNet's figures: error of classification and localization with five guesses, and mAP of detection.

N guesses or detections, K classes.

Source: eval_clsloc.m and eval_detection.m of the ILSVRC development kit.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from tfcnn.datasets.classes import distinct
from tfcnn.datasets.example import Record
from tfcnn.detections import Detections
from tfcnn.evaluation import matching, voc
from tfcnn.evaluation.tables import ResultTable, TruthTable, tables

GUESSES = 5
IOU_THRESHOLD = 0.5
TOLERANCE = 10  # pixels by which the box of a small object may be off


def localization(
    truth: TruthTable | Iterable[Record],
    results: ResultTable | Mapping[Hashable, Detections],
    classes: int,
) -> dict[str, float]:
    """Errors of the first guess and of the best of five.

    Of a picture with several classes the mean over them counts. A guess is right if its class is the
    picture's, and, for localization, its IoU with any box of that class is at least 0.5.

    Args:
        truth: the ground-truth table, or a data set's records.
        results: guesses (class, box, score), the highest score first; those after the fifth are left out.
        classes: K.

    Returns:
        {"top1_cls", "top5_cls", "top1_loc", "top5_loc"}, shares of pictures that are wrong; NaN without any
        picture.
    """
    truth, results = tables(truth, results)
    order = np.argsort(-results.score, kind="stable")
    turn = np.empty(len(results), np.int64)
    turn[order] = matching.count_within(results.image[order])
    asked = np.unique(matching.groups(truth, classes))  # one question a picture and class
    picture = asked // classes
    weight = 1 / np.bincount(picture)[picture]
    pairs = matching.overlaps(truth, results, classes, IOU_THRESHOLD)
    guess = matching.groups(results, classes)
    errors = {}
    for limit in (1, GUESSES):
        named = np.isin(asked, guess[turn < limit])
        found = np.isin(asked, guess[pairs.detection[turn[pairs.detection] < limit]])
        for kind, right in (("cls", named), ("loc", found)):
            errors[f"top{limit}_{kind}"] = _share(weight[~right].sum(), weight.sum())
    return {name: errors[name] for name in ("top1_cls", "top5_cls", "top1_loc", "top5_loc")}


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def detection(
    truth: TruthTable | Iterable[Record],
    results: ResultTable | Mapping[Hashable, Detections],
    classes: Sequence[str],
) -> dict:
    """Mean average precision (area) of ImageNet's detection task.

    Unlike VOC, a detection takes the best object that is still free, and a small object asks for less overlap:
    w h / ((w + 10) (h + 10)) where that is under 0.5.

    Args:
        truth: the ground-truth table, or a data set's records.
        results: the table of results, or detections by image_id; equal scores in the pictures' order.
        classes: names of the K classes.

    Returns:
        {"map", "per_class": {name: {"ap", "truths", "detections"}}}; NaN where there is nothing to find.
    """
    truth, results = tables(truth, results)
    order, starts = matching.by_class(results, len(classes), np.arange(len(truth.images)))
    width, height = (truth.boxes[:, 2:] - truth.boxes[:, :2]).T
    least = np.minimum(0.5, width * height / ((width + TOLERANCE) * (height + TOLERANCE)))
    pairs = matching.overlaps(truth, results, len(classes), least.min(initial=0.5))
    pairs = pairs.take(
        np.flatnonzero(pairs.iou >= least[pairs.truth])[::-1]
    )  # of equals the file's first wins
    pairs = pairs.ranked(matching.positions(order, len(results)), best=1)
    every = np.ones((len(pairs.iou), 1), bool)
    group = matching.groups(truth, len(classes))[pairs.truth]
    detections, taken = matching.greedy(pairs, group, every, every, np.zeros(len(truth), bool))
    outcome = np.full(len(results), voc.FALSE_POSITIVE, np.int8)
    outcome[detections[taken[:, 0] >= 0]] = voc.TRUE_POSITIVE
    scores = results.score[order]
    per_class = {}
    for label, name in enumerate(distinct(classes)):
        mine = slice(starts[label], starts[label + 1])
        found = voc.Outcome(outcome[mine], scores[mine], int(np.count_nonzero(truth.label == label)))
        ap = voc.average_precision(found)["ap_area"]
        per_class[name] = {"ap": ap, "truths": found.truths, "detections": len(found.outcome)}
    present = [numbers["ap"] for numbers in per_class.values() if numbers["truths"]]
    return {"map": float(np.mean(present)) if present else float("nan"), "per_class": per_class}
