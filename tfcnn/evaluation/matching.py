"""What all evaluations of detections share: the order of detections, overlaps, and greedy assignment.

N detections, G ground-truth objects, P pairs of the two, S settings (thresholds, ranges of size) side by side.
Detections compete for a ground-truth object only within a group: one picture, one class. All groups are done at once.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from tfcnn.evaluation.tables import ResultTable, TruthTable

# The IoU of pairs: (truth, int [P] objects, results, int [P] detections, crowds) -> float64 [P].
Overlap = Callable[[TruthTable, np.ndarray, ResultTable, np.ndarray, bool], np.ndarray]
PAIRS_AT_ONCE = 1 << 16  # bounds memory, and stays in the processor's cache


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Overlapping pairs, sorted by detection, then by ground-truth object.

    Attributes:
        detection: int64 [P], index of the detection in its table.
        truth: int64 [P], index of the ground-truth object in its table.
        iou: float64 [P].
    """

    detection: np.ndarray
    truth: np.ndarray
    iou: np.ndarray

    def take(self, index: np.ndarray) -> "Pairs":
        """The pairs of `index`."""
        return Pairs(self.detection[index], self.truth[index], self.iou[index])

    def ranked(self, position: np.ndarray, best: int) -> "Pairs":
        """The pairs with each detection renumbered by its `position`, sorted by that, then by IoU.

        Args:
            position: int [N], the new number of each detection; pairs of a negative one are left out.
            best: 1 for the best pair of a detection last, -1 for the best first. Equal ones keep their order.
        """
        detection = position[self.detection]
        order = np.lexsort((best * self.iou, detection))
        order = order[np.count_nonzero(detection < 0) :]
        return Pairs(detection[order], self.truth[order], self.iou[order])


def stable_order(key: np.ndarray) -> np.ndarray:
    """The order that sorts whole numbers >= 0, equal ones as they were; int64 [n].

    NumPy sorts 16 bits by radix, ten times faster than wider numbers: so, the low bits first.
    """
    order = np.argsort((key & 0xFFFF).astype(np.uint16), kind="stable")
    for shift in range(16, int(key.max(initial=0)).bit_length(), 16):
        order = order[np.argsort(((key >> shift) & 0xFFFF).astype(np.uint16)[order], kind="stable")]
    return order


def by_class(
    results: ResultTable, classes: int, image_rank: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The order in which evaluation walks through detections: class by class, the highest score first.

    Args:
        results: N detections.
        classes: K.
        image_rank: int [images]; equal scores are taken in this order of their pictures, then in the file's
            order. None: in the file's order alone.

    Returns:
        int64 [N] indices into `results`, and int64 [K + 1], where each class starts in that order.
    """
    if image_rank is None:
        order = np.argsort(-results.score, kind="stable")
    else:
        order = stable_order(image_rank[results.image])
        order = order[np.argsort(-results.score[order], kind="stable")]
    order = order[stable_order(results.label[order])]
    return order, np.concatenate([[0], np.cumsum(np.bincount(results.label, minlength=classes))])


def groups(table: TruthTable | ResultTable, classes: int) -> np.ndarray:
    """A number for each pair of picture and class, int64 [n]."""
    return table.image.astype(np.int64) * classes + table.label


def overlaps(
    truth: TruthTable,
    results: ResultTable,
    classes: int,
    minimum: float,
    crowds: bool = False,
    overlap: Overlap | None = None,
) -> Pairs:
    """All pairs of a detection and a ground-truth object of one picture and class whose IoU is at least `minimum`.

    Args:
        truth, results: the tables.
        classes: K.
        minimum: least IoU, above 0.
        crowds: the overlap with an ignored object is the share of the detection that it covers, as COCO has
            it.
        overlap: of pairs; None: of their boxes, `overlap_of_boxes`.
    """
    overlap = overlap or overlap_of_boxes
    group = groups(truth, classes)
    by_group = stable_order(group)
    known, starts, counts = np.unique(group[by_group], return_index=True, return_counts=True)
    wanted = groups(results, classes)
    position = np.searchsorted(known, wanted)
    position[position == len(known)] = 0
    met = np.flatnonzero(known[position] == wanted) if len(known) else np.zeros(0, np.int64)
    starts, counts = starts[position[met]], counts[position[met]]
    ends = np.cumsum(counts)
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    first = 0
    while first < len(met):
        base = ends[first] - counts[first]
        last = max(int(np.searchsorted(ends, base + PAIRS_AT_ONCE, side="right")), first + 1)
        some = slice(first, last)
        detection = np.repeat(met[some], counts[some])
        within = np.arange(len(detection)) - np.repeat(ends[some] - counts[some] - base, counts[some])
        true = by_group[np.repeat(starts[some], counts[some]) + within]
        iou = overlap(truth, true, results, detection, crowds)
        kept = np.flatnonzero(iou >= minimum)
        parts.append((detection[kept], true[kept], iou[kept]))
        first = last
    return Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def overlap_of_boxes(
    truth: TruthTable, true: np.ndarray, results: ResultTable, found: np.ndarray, crowds: bool
) -> np.ndarray:
    """IoU of pairs of boxes.

    Args:
        truth, results: the tables.
        true, found: int [P], the object and the detection of each pair.
        crowds: as of `overlaps`.

    Returns:
        float64 [P].
    """
    a, b = results.boxes[found], truth.boxes[true]
    low = np.maximum(a[:, :2], b[:, :2])
    side = np.minimum(a[:, 2:], b[:, 2:])
    side -= low
    shared = side[:, 0] * side[:, 1]
    own = results.box_areas[found]
    union = own + truth.box_areas[true] - shared
    if crowds:
        union = np.where(truth.ignored[true], own, union)
    meet = (side > 0).all(axis=1) & (union > 0)
    return np.divide(shared, union, out=np.zeros(len(shared)), where=meet)


def positions(order: np.ndarray, count: int) -> np.ndarray:
    """Where each of `count` items stands in an order, int64 [count]; -1 for an item that is not in it."""
    position = np.full(count, -1, np.int64)
    position[order] = np.arange(len(order))
    return position


def greedy(
    pairs: Pairs, group: np.ndarray, allowed: np.ndarray, preferred: np.ndarray, reusable: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Detections in order take the best ground-truth object that is still free; an object is taken once.

    The r-th detection of each group is worked in round r, all groups and settings at once, which is exact
    because groups do not touch each other.

    Args:
        pairs: P pairs in the order of the detections, the best pair of a detection last.
        group: int [P], picture and class of each pair.
        allowed: bool [P, S], whether the pair overlaps enough.
        preferred: bool [P, S]; an object that is not preferred is taken only where no preferred one is free.
        reusable: bool [G], objects that any number of detections may take.

    Returns:
        int64 [D] the detections that occur in `pairs`, each once, and int32 [D, S] the ground-truth object of each,
        -1 for none.
    """
    fresh = np.flatnonzero(np.diff(pairs.detection, prepend=-1))
    detections, sizes = pairs.detection[fresh], np.diff(np.append(fresh, len(pairs.iou)))
    taken_by = np.full((len(detections), allowed.shape[1]), -1, np.int32)
    taken = np.zeros((len(reusable), allowed.shape[1]), bool)
    turn = count_within(group[fresh])
    rows = stable_order(turn)
    bounds = np.cumsum(np.append(0, np.bincount(turn)))
    for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
        row = rows[begin:end]
        size = sizes[row]
        start = np.cumsum(size) - size
        pair = np.repeat(fresh[row] - start, size) + np.arange(size.sum())
        true, count = pairs.truth[pair], len(pair)
        worth = np.arange(count, dtype=np.int32)[:, None] + np.int32(count) * preferred[pair]
        worth = np.where(allowed[pair] & ~taken[true], worth, np.int32(-1))
        best = np.maximum.reduceat(worth, start, axis=0)
        choice = np.where(best >= 0, true[best % count], -1)
        taken_by[row] = choice
        _, setting = won = np.nonzero((choice >= 0) & ~reusable[choice])
        taken[choice[won], setting] = True
    return detections, taken_by


def count_within(group: np.ndarray) -> np.ndarray:
    """For each item the number of items before it with the same group, int64 [n]."""
    order = stable_order(group)
    start = np.flatnonzero(np.diff(group[order], prepend=-1))
    count = np.empty(len(group), np.int64)
    count[order] = np.arange(len(group)) - np.repeat(start, np.diff(np.append(start, len(group))))
    return count
