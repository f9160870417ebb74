"""The one result type of detectors, and its COCO form. n detections of a picture, K classes."""

import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np

from tfcnn import draw, images, masks


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one picture, best first; equal scores keep the order they were given in.

    Attributes:
        boxes: float64 [n, 4], (x1, y1, x2, y2) in continuous pixels of the file, never clipped here.
        scores: float64 [n].
        labels: int32 [n], 0..K-1.
        names: of the K classes; () where they are not known.
        masks: n masks in run lengths, {"size": [H, W], "counts": bytes} each, of the file's size; None of a detector
            of boxes. `bitmaps` draws them.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: Sequence[str] = ()
    masks: Sequence[dict] | None = None

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, np.float64).reshape(-1, 4)
        scores = np.asarray(self.scores, np.float64).reshape(-1)
        labels = np.asarray(self.labels, np.int32).reshape(-1)
        if not len(boxes) == len(scores) == len(labels):
            raise ValueError(
                f"{len(boxes)} boxes, {len(scores)} scores and {len(labels)} labels: one of each a detection"
            )
        if self.masks is not None and len(self.masks) != len(boxes):
            raise ValueError(f"{len(boxes)} boxes and {len(self.masks)} masks: one of each a detection")
        order = np.argsort(-scores, kind="stable")
        object.__setattr__(self, "boxes", boxes[order])
        object.__setattr__(self, "scores", scores[order])
        object.__setattr__(self, "labels", labels[order])
        if self.masks is not None:
            object.__setattr__(self, "masks", [self.masks[index] for index in order])

    @classmethod
    def empty(cls) -> "Detections":
        """Nothing found."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int32))

    def __len__(self) -> int:
        return len(self.scores)

    def top(self, count: int) -> "Detections":
        """The best `count` of them."""
        return self.take(np.arange(len(self))[:count])

    def take(self, index: np.ndarray) -> "Detections":
        """Those of `index`, whole numbers or bool [n], the best first."""
        index = np.arange(len(self))[index]
        shown = None if self.masks is None else [self.masks[i] for i in index]
        return Detections(self.boxes[index], self.scores[index], self.labels[index], self.names, shown)

    def relabelled(self, index: Sequence[int], names: Sequence[str]) -> "Detections":
        """Detections with another's numbers of the classes; those of classes that it lacks go.

        Args:
            index: its class of each of ours, -1 for none.
            names: of its classes.
        """
        labels = np.asarray(index, np.int32)[self.labels]
        kept = labels >= 0
        return dataclasses.replace(self.take(kept), labels=labels[kept], names=names)

    def to_file(self, placement: images.Placement) -> "Detections":
        """The same in the pixels that a placement leads from, as of a picture that was resized after annotation."""
        shown = self.masks
        if shown is not None and placement != images.Placement(1.0, 1.0):
            shown = [masks.encode(masks.to_file(mask, placement)) for mask in self.bitmaps()]
        return dataclasses.replace(self, boxes=placement.to_file(self.boxes), masks=shown)

    def bitmaps(self) -> Iterator[np.ndarray]:
        """Yields the mask of each detection, bool [H, W]; of a detector of boxes there are none."""
        return map(masks.decode, self.masks or ())

    def draw(self, image: np.ndarray) -> np.ndarray:
        """The picture with every box, its class and its score, and with every mask: uint8 [H, W, 3] in, a new one of
        the same size out."""
        if self.masks is not None:
            image = draw.masks(image, map(masks.decode, self.masks[::-1]), self.labels[::-1])
        return draw.boxes(image, self.boxes, self.labels, self.scores, self.names or None)

    def to_coco(self, image_id: Hashable, category_ids: Sequence[int] | None = None) -> list[dict]:
        """The entries of a COCO results list.

        Args:
            image_id: the data set's id of the picture, or its file's stem.
            category_ids: the data set's own id of each class; None: the class index + 1.

        Returns:
            [{"image_id", "category_id", "bbox": [x, y, w, h], "score"}], plain Python numbers; with masks also
            "segmentation": {"size": [H, W], "counts": text}.
        """
        labels = self.labels.tolist()
        categories = (
            [category_ids[label] for label in labels] if category_ids is not None else [l + 1 for l in labels]
        )
        sides = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        rows = [
            {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
            for category, box, score in zip(categories, sides.tolist(), self.scores.tolist(), strict=True)
        ]
        for row, mask in zip(rows, self.masks or (), strict=self.masks is not None):
            size = [int(side) for side in mask["size"]]
            row["segmentation"] = {"size": size, "counts": mask["counts"].decode()}
        return rows

    @classmethod
    def from_coco(cls, entries: Iterable[dict], category_ids: Sequence[int] | None = None) -> "Detections":
        """The entries of one picture in a COCO results list.

        Args:
            entries: [{"category_id", "bbox": [x, y, w, h], "score"}], in the file's order; all of them with
                "segmentation": {"size", "counts"} for masks.
            category_ids: the data set's own id of each class; None: the class index + 1.

        Raises:
            KeyError: a category_id that is none of `category_ids`.
            InputError: a segmentation that is no run lengths of its size.
        """
        entries = list(entries)
        categories = [entry["category_id"] for entry in entries]
        if category_ids is None:
            labels = [category - 1 for category in categories]
        else:
            label_of = {category: label for label, category in enumerate(category_ids)}
            labels = [label_of[category] for category in categories]
        sides = np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4)
        corners = np.concatenate([sides[:, :2], sides[:, :2] + sides[:, 2:]], axis=1)
        shown = None
        if entries and all("segmentation" in entry for entry in entries):
            shown = [masks.of_entry(entry["segmentation"]) for entry in entries]
        return cls(corners, [entry["score"] for entry in entries], labels, masks=shown)
