"""Ground truth and results as flat tables: all objects and all detections of a data set side by side, in float64.

G ground-truth objects and N detections of all pictures, K classes. Pictures are numbered in the data set's order.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from tfcnn.datasets.example import Record, Truth
from tfcnn.detections import Detections


@dataclasses.dataclass(frozen=True, eq=False)
class TruthTable:
    """Ground truth, in the order of the files.

    Attributes:
        images: ids of the pictures, those without objects too.
        image: int32 [G], the picture of each object, an index into `images`.
        label: int32 [G], 0..K-1.
        boxes: float64 [G, 4], (x1, y1, x2, y2) in continuous pixels, as written.
        box_areas: float64 [G], width times height as written.
        areas: float64 [G], the annotated area.
        ignored: bool [G], VOC's difficult or COCO's crowd.
        masks: objects [G], the masks in run lengths, where `segm.with_masks` made the table.
    """

    images: list[Hashable]
    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    box_areas: np.ndarray
    areas: np.ndarray
    ignored: np.ndarray
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: np.ndarray) -> "TruthTable":
        """The objects of `index`, in its order; all pictures stay."""
        return TruthTable(self.images, *(_rows(self, f, index) for f in dataclasses.fields(self)[1:]))


@dataclasses.dataclass(frozen=True, eq=False)
class ResultTable:
    """Detections, in the order of the file; the columns are TruthTable's.

    Attributes:
        image, label: int32 [N].
        score: float64 [N].
        boxes: float64 [N, 4].
        box_areas: float64 [N].
        masks: objects [N], the masks in run lengths, None of a detection without one; None where none has any.
    """

    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    boxes: np.ndarray
    box_areas: np.ndarray
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: np.ndarray) -> "ResultTable":
        """The detections of `index`, in its order."""
        return ResultTable(*(_rows(self, field, index) for field in dataclasses.fields(self)))


def _rows(table: TruthTable | ResultTable, field: dataclasses.Field, index: np.ndarray) -> np.ndarray | None:
    column = getattr(table, field.name)
    return None if column is None else column[index]


def mask_column(masks: Sequence[dict | None]) -> np.ndarray | None:
    """Masks as a column of a table, objects [n]; None where there is none."""
    if all(mask is None for mask in masks):
        return None
    column = np.empty(len(masks), object)
    column[:] = masks
    return column


def truth_table(records: Iterable[Record]) -> TruthTable:
    """The objects of a data set's records: those of `truth`, else its boxes (records made in code)."""
    records = list(records)
    truths = [record.truth if record.truth is not None else _truth_of(record) for record in records]

    def column(name: str, dtype: type, *shape: int) -> np.ndarray:
        parts = [np.zeros((0, *shape), dtype), *(getattr(truth, name) for truth in truths)]
        return np.concatenate(parts).astype(dtype, copy=False)

    return TruthTable(
        images=[record.image_id for record in records],
        image=np.repeat(np.arange(len(records), dtype=np.int32), [len(truth.labels) for truth in truths]),
        label=column("labels", np.int32),
        boxes=column("boxes", np.float64, 4),
        box_areas=column("box_areas", np.float64),
        areas=column("areas", np.float64),
        ignored=column("ignored", bool),
    )


def _truth_of(record: Record) -> Truth:
    boxes = record.boxes.astype(np.float64)
    box_areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return Truth(boxes, box_areas, record.area, record.labels, record.difficult | record.crowd)


def result_table(detections: Mapping[Hashable, Detections], images: list[Hashable]) -> ResultTable:
    """Detections by picture as a table, in the order of `images`; pictures not named there are left out."""
    found = [(index, detections[image]) for index, image in enumerate(images) if image in detections]
    boxes = np.concatenate([d.boxes for _, d in found] or [np.zeros((0, 4))])
    counts = [len(d) for _, d in found]
    masks = [mask for _, d in found for mask in (d.masks if d.masks is not None else [None] * len(d))]
    return ResultTable(
        image=np.repeat(np.array([index for index, _ in found], np.int32), counts),
        label=np.concatenate([d.labels for _, d in found] or [np.zeros(0, np.int32)]),
        score=np.concatenate([d.scores for _, d in found] or [np.zeros(0)]),
        boxes=boxes,
        box_areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
        masks=mask_column(masks),
    )


def tables(
    truth: TruthTable | Iterable[Record], results: ResultTable | Mapping[Hashable, Detections]
) -> tuple[TruthTable, ResultTable]:
    """Both as tables, whichever form they come in."""
    if not isinstance(truth, TruthTable):
        truth = truth_table(truth)
    if not isinstance(results, ResultTable):
        results = result_table(results, truth.images)
    return truth, results
