"""The one result type of detectors, and its COCO form. n detections of a picture, K classes."""

import dataclasses
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from tfcnn import draw, images


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one picture, best first; equal scores keep the order they were given in.

    Attributes:
        boxes: float64 [n, 4], (x1, y1, x2, y2) in continuous pixels of the file, never clipped here.
        scores: float64 [n].
        labels: int32 [n], 0..K-1.
        names: of the K classes; () where they are not known.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, np.float64).reshape(-1, 4)
        scores = np.asarray(self.scores, np.float64).reshape(-1)
        labels = np.asarray(self.labels, np.int32).reshape(-1)
        if not len(boxes) == len(scores) == len(labels):
            raise ValueError(
                f"{len(boxes)} boxes, {len(scores)} scores and {len(labels)} labels: one of each a detection"
            )
        order = np.argsort(-scores, kind="stable")
        object.__setattr__(self, "boxes", boxes[order])
        object.__setattr__(self, "scores", scores[order])
        object.__setattr__(self, "labels", labels[order])

    @classmethod
    def empty(cls) -> "Detections":
        """Nothing found."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int32))

    def __len__(self) -> int:
        return len(self.scores)

    def top(self, count: int) -> "Detections":
        """The best `count` of them."""
        return Detections(self.boxes[:count], self.scores[:count], self.labels[:count], self.names)

    def to_file(self, placement: images.Placement) -> "Detections":
        """The same in the pixels that a placement leads from, as of a picture that was resized after annotation."""
        return dataclasses.replace(self, boxes=placement.to_file(self.boxes))

    def draw(self, image: np.ndarray) -> np.ndarray:
        """The picture with every box, its class and its score: uint8 [H, W, 3] in, a new one of the same size out."""
        return draw.boxes(image, self.boxes, self.labels, self.scores, self.names or None)

    def to_coco(self, image_id: Hashable, category_ids: Sequence[int] | None = None) -> list[dict]:
        """The entries of a COCO results list.

        Args:
            image_id: the data set's id of the picture, or its file's stem.
            category_ids: the data set's own id of each class; None: the class index + 1.

        Returns:
            [{"image_id", "category_id", "bbox": [x, y, w, h], "score"}], plain Python numbers.
        """
        labels = self.labels.tolist()
        categories = (
            [category_ids[label] for label in labels] if category_ids is not None else [l + 1 for l in labels]
        )
        sides = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        return [
            {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
            for category, box, score in zip(categories, sides.tolist(), self.scores.tolist(), strict=True)
        ]

    @classmethod
    def from_coco(cls, entries: Iterable[dict], category_ids: Sequence[int] | None = None) -> "Detections":
        """The entries of one picture in a COCO results list.

        Args:
            entries: [{"category_id", "bbox": [x, y, w, h], "score"}], in the file's order.
            category_ids: the data set's own id of each class; None: the class index + 1.

        Raises:
            KeyError: a category_id that is none of `category_ids`.
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
        return cls(corners, [entry["score"] for entry in entries], labels)
