"""COCO's twelve figures of instance masks, equal to pycocotools' iouType segm.

Void pixels (VOC's border) are taken out of every detection first: they count for nobody. An object that is crowd or
difficult is neither to be found nor wrong to be found, and so is one without a mask, for which its box stands. Areas
are the annotation's where it has them (COCO), else the mask's pixels; a detection's are its mask's pixels.

N detections, G ground-truth objects, P pairs of the two.
Source: PythonAPI/pycocotools/cocoeval.py and common/maskApi.c of cocodataset/cocoapi.
"""

import collections
import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from tfcnn import masks
from tfcnn.datasets.example import Record
from tfcnn.detections import Detections
from tfcnn.errors import InputError
from tfcnn.evaluation import coco
from tfcnn.evaluation.tables import ResultTable, TruthTable, mask_column, tables

# What is counted of masks that are not as they should be: {what, of one: what, of several}, and the rule.
FINDINGS = {
    "unreadable": ("picture with masks that cannot be read", "left out"),
    "bare": ("picture whose objects have no masks", "left out"),
    "missing": ("object without a mask", "ignored, its box standing for the mask"),
    "size": ("detection with a mask of another size than its picture", "hits nothing"),
    "empty": ("detection with an empty mask", "hits nothing"),
    "none": ("detection without a mask", "hits nothing"),
}


def evaluate(
    records: Iterable[Record],
    results: ResultTable | Mapping[Hashable, Detections],
    classes: Sequence[str],
) -> tuple[dict, dict[str, int]] | None:
    """COCO's figures of a detector, on masks.

    Args:
        records: a data set's.
        results: the table of results, or detections by image_id.
        classes: names of the K classes.

    Returns:
        (what `coco.evaluate` gives, {finding: how often}, by the names of `FINDINGS`); None where the truth or the
        results have no masks at all.
    """
    prepared = with_masks(records, results)
    if prepared is None:
        return None
    truth, found, findings = prepared
    figures = coco.summarize(coco.accumulate(truth, found, len(classes), overlap), classes)
    return figures, findings


def in_words(findings: Mapping[str, int]) -> list[str]:
    """The findings of `evaluate`, a line each."""
    lines = []
    for name, count in findings.items():
        what, rule = FINDINGS[name]
        noun, _, rest = what.partition(" ")
        lines.append(f"masks: {count} {noun}{'s' if count > 1 else ''} {rest}: {rule}")
    return lines


def with_masks(
    records: Iterable[Record], results: ResultTable | Mapping[Hashable, Detections]
) -> tuple[TruthTable, ResultTable, dict[str, int]] | None:
    """The tables by which masks are measured: their masks ready to be compared, their areas and flags as masks want it.

    Args:
        records, results: as of `evaluate`.

    Returns:
        (ground truth, results, the findings); None where one of them has no masks at all.
    """
    records = list(records)
    truth, results = tables(records, results)
    if results.masks is None or not any(_has_masks(record) for record in records):
        return None
    findings: collections.Counter = collections.Counter()
    bounds = np.searchsorted(
        truth.image, np.arange(len(records) + 1)
    )  # objects stand in the order of pictures
    shown, areas = np.empty(len(truth), object), truth.areas.copy()
    missing, kept = np.zeros(len(truth), bool), np.ones(len(records), bool)
    sizes: list[tuple[int, int] | None] = []
    counted: list[dict | None] = []  # the pixels that are not void
    for index, record in enumerate(records):
        mine = slice(bounds[index], bounds[index + 1])
        size = (record.height, record.width) if record.width and record.height else None
        sizes.append(size)
        counted.append(None)
        try:
            runs = _run_lengths(record) if mine.stop > mine.start else []
            counted[-1] = _counted(record, size)
        except InputError:
            findings["unreadable"] += 1
            kept[index] = False
            continue
        if runs is None or (runs and all(mask is None for mask in runs)):
            findings["bare"] += 1
            kept[index] = False
            continue
        without = np.array([mask is None for mask in runs], bool)
        if without.any():
            size = size or next(tuple(mask["size"]) for mask in runs if mask is not None)
            boxes = truth.boxes[mine]
            runs = [
                _of_box(box, size) if mask is None else mask for mask, box in zip(runs, boxes, strict=True)
            ]
        shown[mine], missing[mine] = mask_column(runs), without
        if record.truth is None or not record.truth.annotated_areas:
            areas[mine] = masks.areas(runs)
    findings["missing"] += np.count_nonzero(missing & ~truth.ignored & kept[truth.image])
    mine = kept[truth.image]
    truth = dataclasses.replace(truth, areas=areas, ignored=truth.ignored | missing, masks=shown).take(mine)
    results = results.take(kept[results.image])
    results = _ready(results, sizes, counted, findings)
    return truth, results, {name: findings[name] for name in FINDINGS if findings[name]}


def overlap(
    truth: TruthTable, true: np.ndarray, results: ResultTable, found: np.ndarray, crowds: bool
) -> np.ndarray:
    """IoU of pairs of masks, as `matching.overlap_of_boxes` gives that of boxes; a detection without a mask has none.

    Args:
        truth, results: the tables, with masks.
        true, found: int [P], the object and the detection of each pair.
        crowds: the overlap with an ignored object is the share of the detection that it covers.

    Returns:
        float64 [P].
    """
    from pycocotools import mask

    iou = np.zeros(len(true))
    there = np.array([each is not None for each in results.masks[found]], bool)
    group = truth.image[true].astype(np.int64) * (int(truth.label.max(initial=0)) + 1) + truth.label[true]
    order = np.argsort(group, kind="stable")
    order = order[there[order]]
    for pairs in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(pairs):
            rows, row = np.unique(found[pairs], return_inverse=True)
            columns, column = np.unique(true[pairs], return_inverse=True)
            flags = [bool(crowds and truth.ignored[each]) for each in columns]
            matrix = mask.iou(list(results.masks[rows]), list(truth.masks[columns]), flags)
            iou[pairs] = np.maximum(matrix[row, column], 0.0)
    return iou


def _has_masks(record: Record) -> bool:
    return record.masks is not None or (record.truth is not None and record.truth.masks is not None)


def _run_lengths(record: Record) -> list[dict | None] | None:
    """Of each object of `truth`, or of a record made in code; None where the picture has no masks."""
    if record.truth is not None:
        return record.truth.masks() if record.truth.masks else None
    return [masks.encode(mask) if mask.any() else None for mask in record.masks()] if record.masks else None


def _counted(record: Record, size: tuple[int, int] | None) -> dict | None:
    """The pixels that are not void, in the annotation's pixels; None where all count."""
    if record.void is None:
        return None
    void = record.void()
    void = masks.resized(void, *size) if size else void
    return masks.encode(~void) if void.any() else None


def _of_box(box: np.ndarray, size: tuple[int, int]) -> dict:
    return masks.encode(masks.paste(np.ones((1, 1), np.float32), box, *size))


def _ready(results, sizes, counted, findings):
    """The results without void pixels, None for a mask that can hit nothing, with the masks' areas."""
    shown, areas = np.empty(len(results), object), np.zeros(len(results))
    for index, (image, mask) in enumerate(zip(results.image, results.masks, strict=True)):
        size = sizes[image]
        if mask is None:
            findings["none"] += 1
        elif size and tuple(mask["size"]) != size:
            findings["size"] += 1
        else:
            shown[index] = mask if counted[image] is None else masks.common(mask, counted[image])
    there = np.array([mask is not None for mask in shown], bool)
    areas[there] = masks.areas(shown[there])
    findings["empty"] += int(np.count_nonzero(areas[there] == 0))
    return dataclasses.replace(results, masks=shown, box_areas=areas)
