"""Pictures larger than memory: a gradient computed window by window.

Letters: H W height and width of the picture. A window is a tile, its core, with a margin round it. The
gradient of a core's pixels comes from all locations near them, so with a margin as wide as half of what a location
of the layer sees it is that of the whole picture, and no seam shows. (Where a side is no multiple of the
deepest stride, a net's "same" padding may fall half a location elsewhere in the windows at its end.)
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from tfcnn.imageopt.objectives import Objective
from tfcnn.imageopt.optimize import Problem, Terms

MULTIPLE = 32  # of a core's corners, so that strides fall alike in a window and in the whole picture
MARGIN = 96  # of a window, pixels


@dataclasses.dataclass(frozen=True)
class Window:
    """A part of a picture.

    Args:
        rows, columns: of the picture, the margin included.
        core_rows, core_columns: of the picture, without the margin; the cores of all windows tile it.
    """

    rows: slice
    columns: slice
    core_rows: slice
    core_columns: slice

    def cut(self, image: tf.Tensor | np.ndarray) -> tf.Tensor | np.ndarray:
        """This window of a picture [N, H, W, C]."""
        return image[:, self.rows, self.columns]

    def core(self, values: tf.Tensor | np.ndarray, stride: int = 1) -> tf.Tensor | np.ndarray:
        """The core of this window's values [N, h, w, C]; `stride` is the picture's pixels to one of them."""
        rows = _on_map(self.core_rows, self.rows.start, stride)
        columns = _on_map(self.core_columns, self.columns.start, stride)
        return values[:, rows, columns]

    def on_map(self, stride: int) -> tuple[slice, slice]:
        """Where this window lies on a map of the whole picture, margin included."""
        return _on_map(self.rows, 0, stride), _on_map(self.columns, 0, stride)

    def core_on_map(self, stride: int) -> tuple[slice, slice]:
        """Where this window's core lies on a map of the whole picture."""
        return _on_map(self.core_rows, 0, stride), _on_map(self.core_columns, 0, stride)

    @property
    def size(self) -> int:
        """Pixels of the window, margin included."""
        return (self.rows.stop - self.rows.start) * (self.columns.stop - self.columns.start)

    @property
    def core_size(self) -> int:
        """Pixels of the core."""
        return (self.core_rows.stop - self.core_rows.start) * (
            self.core_columns.stop - self.core_columns.start
        )


def _on_map(pixels: slice, origin: int, stride: int) -> slice:
    return slice((pixels.start - origin) // stride, -(-(pixels.stop - origin) // stride))


def windows(height: int, width: int, tile: int, margin: int = MARGIN) -> list[Window]:
    """Cut a picture into windows.

    Args:
        height, width: of the picture, pixels.
        tile: the longest side of a core; 0 takes the whole picture as one window.
        margin: pixels round a core, less at the picture's border; made a multiple of MULTIPLE.

    Returns:
        Windows whose cores cover each pixel once.
    """
    margin = -(-margin // MULTIPLE) * MULTIPLE
    return [
        Window(rows, columns, core_rows, core_columns)
        for (rows, core_rows), (columns, core_columns) in itertools.product(
            _spans(height, tile, margin), _spans(width, tile, margin)
        )
    ]


def _spans(length: int, tile: int, margin: int) -> Iterator[tuple[slice, slice]]:
    count = math.ceil(length / tile) if tile else 1
    side = -(-length // (count * MULTIPLE)) * MULTIPLE
    for start in range(0, length, side):
        stop = min(start + side, length)
        yield slice(max(0, start - margin), min(length, stop + margin)), slice(start, stop)


class TiledProblem(Problem):
    """A problem whose terms are means over locations, computed window by window where the picture is large.

    The picture is rolled by a new random shift each step, in place of the problem's transform, so that the
    border of the picture, and what a margin is too narrow for, lie elsewhere each time; all of it is covered
    each step. Pictures of one window are computed as a whole. Its parameters are pixels.

    Args:
        net, objective: as Problem takes them.
        tile: the longest side of a core, pixels; 0 takes any picture as a whole.
        options: the keywords of Problem.

    Source: tensorflow/docs tutorials/generative/deepdream.ipynb, get_tiled_gradients, with margins.
    """

    def __init__(self, net: keras.Model, objective: Objective, *, tile: int = 1024, **options):
        super().__init__(net, objective, **options)
        self.tile = tile

    def value_and_gradient(self, x: tf.Tensor, seed: tf.Tensor | None) -> tuple[Terms, tf.Tensor]:
        """As that of `Problem`; the seed is of the roll, where there are several windows."""
        parts = windows(x.shape[1], x.shape[2], self.tile)
        if len(parts) == 1:
            return super().value_and_gradient(x, seed)
        shift = tf.random.stateless_uniform([2], seed, 0, max(x.shape[1:3]), tf.int32)
        rolled = tf.roll(x, shift, axis=[1, 2])
        gradient, terms = np.empty(x.shape, np.float32), {}
        for window in parts:
            values, slope = super().value_and_gradient(window.cut(rolled), None)
            _add(terms, values, window.core_size / (x.shape[1] * x.shape[2]))
            scale = window.size / (x.shape[1] * x.shape[2])  # from a mean over the window to one over all
            gradient[:, window.core_rows, window.core_columns] = scale * window.core(slope)
        return terms, tf.roll(gradient, -shift, axis=[1, 2])

    def evaluate(self, image: tf.Tensor | np.ndarray) -> dict[str, np.ndarray]:
        """As that of `Problem`."""
        terms = {}
        for window in windows(*image.shape[1:3], self.tile):
            share = window.core_size / (image.shape[1] * image.shape[2])
            _add(terms, super().evaluate(window.cut(image)), share)
        return terms


def _add(totals, terms, share):
    for name, term in terms.items():
        totals[name] = totals.get(name, 0.0) + share * term
