"""The parts of pictures that excite a unit most, found while the pictures stream by.

A unit is a channel of a layer, at any location of its map. Of each picture the locations of a unit are suppressed where
the receptive field of a stronger one overlaps theirs, and the strongest of all pictures are kept.
N pictures of H x W, U units, h w the size of a map.
"""

import dataclasses
import heapq
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn.backbones import tap
from tfcnn.ops.nms import nms
from tfcnn.visualization.receptive_field import ReceptiveField, receptive_field


@dataclasses.dataclass(frozen=True, order=True)
class Patch:
    """A part of a picture that excites a unit.

    Attributes:
        value: the unit's activation there.
        picture: number of the picture, as `add` was told it.
        row, column: the location in the layer's map.
    """

    value: float
    picture: int
    row: int
    column: int


class TopPatches:
    """Keeps the strongest patches of units; memory grows with units and patches, not with pictures.

    Args:
        model: a flat functional model of pictures.
        layer: one of its layers or endpoints; a layer without locations sees the whole picture.
        units: channels of the layer, U of them.
        size: side of the pictures, pixels.
        top: patches that a unit keeps.
        overlap: IoU of receptive fields, cut off at the picture's edge, above which the weaker of two patches of one
            picture goes.

    Attributes:
        field: the layer's receptive field.

    Raises:
        InputError: there is no such layer, or its receptive field is not known.

    Source: Girshick et al., R-CNN (1311.2524) section 3.1; rbgirshick/rcnn vis/pool5-explorer (overlap 0.1).
    """

    def __init__(
        self,
        model: keras.Model,
        layer: str,
        units: Sequence[int],
        size: int,
        *,
        top: int = 9,
        overlap: float = 0.1,
    ):
        self.units, self.top, self.overlap = list(units), top, overlap
        self.field: ReceptiveField = receptive_field(model, layer, size)
        self._answer = _maps(tap(model, [layer]), layer, self.units)
        self._kept: list[list[Patch]] = [[] for _ in self.units]  # heaps, the weakest first

    def add(self, images: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
        """Look at pictures.

        Args:
            images: float32 [N, H, W, 3], 0..255.
            numbers: [N], what each is called in `best`.

        Returns:
            bool [N], whether the unit's answers are finite; a picture where they are not adds nothing.
        """
        maps, strongest = (each.numpy() for each in self._answer(images))  # [N, h, w, U], [N, U]
        finite = np.isfinite(maps).all(axis=(1, 2, 3))
        limits = np.array([kept[0].value if len(kept) == self.top else -np.inf for kept in self._kept])
        for place, unit in zip(*np.nonzero((strongest > limits) & finite[:, None]), strict=True):
            self._merge(int(unit), int(numbers[place]), maps[place, ..., unit])
        return finite

    def best(self, unit: int) -> list[Patch]:
        """The patches of a unit, the strongest first."""
        return sorted(self._kept[self.units.index(unit)], key=lambda patch: (-patch.value, patch.picture))

    def boxes(self, patches: Sequence[Patch], clip: bool = True) -> np.ndarray:
        """Where patches lie: float32 [n, 4] in pixels of the picture that the net saw."""
        places = np.array([(patch.row, patch.column) for patch in patches]).reshape(-1, 2)
        return self.field.boxes(places[:, 0], places[:, 1], clip)

    def _merge(self, unit: int, picture: int, values: np.ndarray) -> None:
        """Take over the locations of a map [h, w] that are stronger than the weakest patch kept."""
        kept = self._kept[unit]
        limit = kept[0].value if len(kept) == self.top else -np.inf
        rows, columns = np.nonzero(values > limit)
        scores = values[rows, columns]
        boxes = self.field.boxes(rows, columns, clip=True)
        for index in nms(boxes, scores, self.overlap, self.top).numpy():
            patch = Patch(float(scores[index]), picture, int(rows[index]), int(columns[index]))
            if len(kept) < self.top:
                heapq.heappush(kept, patch)
            elif patch.value > kept[0].value:
                heapq.heapreplace(kept, patch)


def _maps(model: keras.Model, layer: str, units: list[int]) -> Callable:
    """A compiled function from pictures to the maps [N, h, w, U] of units and their greatest values [N, U]."""

    @tf.function(reduce_retracing=True)
    def maps(images):
        answer = tf.cast(model(images, training=False)[layer], tf.float32)
        answer = tf.gather(answer, units, axis=-1)
        while len(answer.shape) < 4:
            answer = answer[:, None]
        return answer, tf.reduce_max(answer, axis=(1, 2))

    return maps


def cut(image: np.ndarray, box: np.ndarray, fill: Sequence[float] = (127, 127, 127)) -> np.ndarray:
    """Cuts a box out of a picture; where it hangs over the edge it is filled.

    Args:
        image: [H, W, 3], of any type: a picture, or a signal at it.
        box: [4] (x1, y1, x2, y2), pixels of the picture; rounded to whole ones.
        fill: three values of that type.

    Returns:
        [h, w, 3] of the box's size, at least one pixel, of the same type.
    """
    x1, y1, x2, y2 = np.round(box).astype(int)
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    patch = np.empty([y2 - y1, x2 - x1, 3], image.dtype)
    patch[:] = np.asarray(fill, image.dtype)
    rows = slice(max(y1, 0), min(y2, image.shape[0]))
    columns = slice(max(x1, 0), min(x2, image.shape[1]))
    inside = image[rows, columns]
    if inside.size:
        patch[rows.start - y1 : rows.stop - y1, columns.start - x1 : columns.stop - x1] = inside
    return patch
