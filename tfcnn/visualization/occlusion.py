"""What a net answers while a patch hides one part of the picture after the other.

H W the picture's size, R rows and L columns of locations, K classes or channels.
"""

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage

from tfcnn.backbones import folded, tap, zero_rgb
from tfcnn.backbones.heads import with_logits
from tfcnn.errors import InputError
from tfcnn.imageopt.transforms import gaussian_blur
from tfcnn.visualization import FILLS
from tfcnn.visualization.gradients import channel_answers, class_answers

GREY = 127.5


@dataclasses.dataclass(frozen=True)
class Occluded:
    """The answers to a picture whose parts are hidden in turn.

    Attributes:
        scores: float32 [R, L, K], the classes' probabilities (or the channels' means) with the patch at each location.
        whole: float32 [K], those of the whole picture.
        centres: float32 [R, L, 2], (x, y) of the patch's middle in pixels of the picture.
        patch: side of the patch in pixels.
    """

    scores: np.ndarray
    whole: np.ndarray
    centres: np.ndarray
    patch: int

    @property
    def best(self) -> np.ndarray:
        """int64 [R, L], the most probable class at each location."""
        return self.scores.argmax(axis=-1)

    def map(self, index: int) -> np.ndarray:
        """Gives one class' probability at each location, [R, L]."""
        return self.scores[..., index]

    def least(self, index: int) -> tuple[float, tuple[float, float]]:
        """Gives the lowest probability of a class and (x, y) of the patch's middle there."""
        values = self.map(index)
        row, column = np.unravel_index(values.argmin(), values.shape)
        return float(values[row, column]), tuple(float(each) for each in self.centres[row, column])

    def spread(self, values: np.ndarray, shape: tuple[int, int], nearest: bool = False) -> np.ndarray:
        """Gives values of the locations as a map of the picture: each at its patch's middle, between them interpolated.

        Args:
            values: [R, L].
            shape: height and width of the picture.
            nearest: take the nearest location instead of interpolating, for values that are classes.

        Returns:
            [H, W], in the values' dtype; beyond the outermost middles their values go on.
        """
        axes = [(self.centres[:, 0, 1], shape[0]), (self.centres[0, :, 0], shape[1])]
        grids = [np.interp(np.arange(side) + 0.5, middles, np.arange(len(middles))) for middles, side in axes]
        places = np.meshgrid(*grids, indexing="ij")
        return ndimage.map_coordinates(values, places, order=0 if nearest else 1, mode="nearest")

    def drop(self, index: int, shape: tuple[int, int]) -> np.ndarray:
        """Gives by how much hiding each pixel lowers a class' probability, the mean over the patches that hide it.

        Args:
            index: the class.
            shape: height and width of the picture.

        Returns:
            float32 [H, W]; 0 where no patch came.
        """
        total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for (x, y), score in zip(self.centres.reshape(-1, 2), self.map(index).ravel(), strict=True):
            top, left = int(y - self.patch / 2), int(x - self.patch / 2)
            under = (slice(top, top + self.patch), slice(left, left + self.patch))
            total[under] += self.whole[index] - score
            count[under] += 1
        return total / np.maximum(count, 1)


def occlusion(
    model: keras.Model,
    *,
    patch: int | None = None,
    stride: int | None = None,
    fill: str = "zeros",
    channel_of: str | None = None,
    batch_size: int = 32,
) -> Callable[[np.ndarray], Occluded]:
    """Gives a function from a picture to what the model answers to it with a patch over each part.

    The patch lies wholly inside the picture; the last row and column lie at its edge, whatever the stride leaves.

    Args:
        model: a classifier; what `with_logits` takes, logits not needed. With `channel_of`, any flat functional model.
        patch: side of the square in pixels; None takes a quarter of the picture's shorter side.
        stride: pixels between two locations; None takes a quarter of the patch.
        fill: what the patch shows: "zeros" the net's zero (the papers subtract the mean picture first, so that their
            zero is it), "grey" 127.5, "mean" the picture's mean colour, "blur" the picture blurred by half a patch.
        channel_of: answer with the mean of each channel of this layer instead of each class' probability.
        batch_size: pictures computed at once.

    Returns:
        f(image [H, W, 3], 0..255) -> Occluded. Pictures of one size share a compilation.

    Raises:
        InputError: an unknown fill; no such layer; from f, a patch larger than the picture.

    Source: Zeiler and Fergus 2014, section 4.2 and figure 7.
    """
    if fill not in FILLS:
        raise InputError(f"The fill {fill!r} is none of {', '.join(FILLS)}")
    zero = np.asarray(zero_rgb(model), np.float32)
    if channel_of is None:
        net = folded(with_logits(model, may_hide=True))
        answers = class_answers(net) if "logits" in net.output else _hidden_answers(net)
    else:
        net = folded(tap(model, [channel_of]))
        answers = channel_answers(net, channel_of)

    def hidden(image, filling, corners, side):
        rows = tf.range(tf.shape(image)[0])[None] - corners[:, :1]  # [n, H], rows below the patch's top
        columns = tf.range(tf.shape(image)[1])[None] - corners[:, 1:]
        inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None]
        return answers(tf.where(inside[..., None], filling[None], image[None]))[1]

    @functools.cache
    def compiled(shape):
        kinds = [tf.TensorSpec(shape), tf.TensorSpec(shape), tf.TensorSpec([None, 2], tf.int32)]
        return tf.function(hidden, input_signature=[*kinds, tf.TensorSpec([], tf.int32)])

    def occluded(image):
        image = np.asarray(image, np.float32)
        height, width = image.shape[:2]
        side = patch or max(1, min(height, width) // 4)
        if side > min(height, width):
            raise InputError(
                f"a patch of {side} pixels does not fit into {width}x{height}: take a smaller one"
            )
        step = stride or max(1, side // 4)
        tops, lefts = (_starts(length, side, step) for length in (height, width))
        corners = np.stack(np.meshgrid(tops, lefts, indexing="ij"), axis=-1).astype(np.int32)
        flat = np.concatenate([[[height, width]], corners.reshape(-1, 2)]).astype(
            np.int32
        )  # first one outside: whole
        filling = filled(image, fill, side, zero)
        chunks = np.array_split(flat, -(-len(flat) // batch_size))
        found = [compiled(image.shape)(image, filling, chunk, side).numpy() for chunk in chunks]
        scores = np.concatenate(found).astype(np.float32)
        centres = corners[..., ::-1] + np.float32(side / 2)
        return Occluded(scores[1:].reshape(*corners.shape[:2], -1), scores[0], centres, side)

    return occluded


def filled(image: np.ndarray, fill: str, side: int, zero: np.ndarray) -> np.ndarray:
    """Gives what a patch shows at each pixel of a picture.

    Args:
        image: float32 [H, W, 3].
        fill: one of FILLS.
        side: of the patch, in pixels.
        zero: float32 [3], the colour that the net sees as zero.

    Returns:
        float32 [H, W, 3].
    """
    if fill == "blur":
        deviation = min(side / 2, min(image.shape[:2]) / 4)  # of which the border's mirror covers four
        return gaussian_blur(tf.constant(image[None], tf.float32), deviation)[0].numpy()
    colour = {"zeros": zero, "grey": GREY, "mean": image.mean(axis=(0, 1))}[fill]
    return np.broadcast_to(np.float32(colour), image.shape).astype(np.float32)


def _starts(length: int, side: int, step: int) -> np.ndarray:
    """First pixels of the patch along one axis."""
    starts = list(range(0, length - side + 1, step))
    return np.array(starts if starts[-1] == length - side else [*starts, length - side])


def _hidden_answers(net):
    def answers(images):
        scores = net(images, training=False)["scores"]
        return scores, scores

    return answers
