"""Random small changes of the picture before the net sees it, inside the tape: they forbid brittle solutions.

A transform is a function (image [N, H, W, 3], seed int64 [2]) -> image. Draws are stateless, a function of the seed
alone, and the same for all pictures of a batch, so that N pictures at once get what each would get alone.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

Transform = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def jitter(pixels: int) -> Transform:
    """Roll the picture by up to `pixels` in each direction; what leaves on one side comes in on the other."""

    def apply(image, seed):
        shift = tf.random.stateless_uniform([2], seed, -pixels, pixels + 1, tf.int32)
        return tf.roll(image, shift, axis=[1, 2])

    return apply


def pad(pixels: int, value: float | str = 127.5) -> Transform:
    """Add a border of `pixels` on each side.

    Args:
        pixels: width of the border.
        value: its grey level, or "reflect" to mirror the picture.
    """

    def apply(image, seed):
        border = [[0, 0], [pixels, pixels], [pixels, pixels], [0, 0]]
        if value == "reflect":
            return tf.pad(image, border, "REFLECT")
        return tf.pad(image, border, constant_values=value)

    return apply


def scale(factors: Sequence[float]) -> Transform:
    """Shrink or enlarge by a factor drawn from `factors` round the centre; the picture's size stays.

    What is shrunk is surrounded by its own mirror, what is enlarged loses its border.
    """

    def apply(image, seed):
        index = tf.random.stateless_uniform([], seed, 0, len(factors), tf.int32)
        factor = tf.gather(tf.constant(factors, tf.float32), index)
        return _project(image, 1.0 / factor, 0.0)

    return apply


def rotate(degrees: Sequence[float]) -> Transform:
    """Turn by an angle drawn from `degrees` round the centre; corners are filled with the picture's
    mirror.
    """

    def apply(image, seed):
        index = tf.random.stateless_uniform([], seed, 0, len(degrees), tf.int32)
        return _project(image, 1.0, tf.gather(tf.constant(degrees, tf.float32), index) * math.pi / 180.0)

    return apply


def noise(deviation: float) -> Transform:
    """Add white noise of so many grey levels: what survives it is no pattern finer than the eye sees.

    All pictures of a batch get the same draw.
    """

    def apply(image, seed):
        return image + tf.random.stateless_normal(tf.shape(image)[1:], seed, stddev=deviation)

    return apply


def _project(image: tf.Tensor, zoom, angle) -> tf.Tensor:
    """Sample bilinearly at a turned and zoomed grid; the gradient is TensorFlow's, sampled on the inverse
    grid.
    """
    size = tf.cast(tf.shape(image)[1:3], tf.float32)
    y, x = (size[0] - 1.0) / 2.0, (size[1] - 1.0) / 2.0
    cos, sin = zoom * tf.cos(angle), zoom * tf.sin(angle)
    # The op's row-major matrix takes output (x, y) to input (x, y).
    matrix = [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y, 0.0, 0.0]
    result = tf.raw_ops.ImageProjectiveTransformV3(
        images=image,
        transforms=tf.stack(matrix)[None],
        output_shape=tf.shape(image)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
    return tf.ensure_shape(result, image.shape)


def gaussian_blur(image: tf.Tensor, deviation: float) -> tf.Tensor:
    """Blur [N, H, W, C] by a Gaussian of `deviation` pixels, cut at four deviations, the border mirrored."""
    radius = max(1, round(4 * deviation))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2).astype(np.float32)
    channels = image.shape[-1]
    kernel = np.tile((weights / weights.sum())[:, None, None, None], (1, 1, channels, 1))
    padded = tf.pad(image, [[0, 0], [radius, radius], [radius, radius], [0, 0]], "SYMMETRIC")
    down = tf.nn.depthwise_conv2d(padded, kernel, [1, 1, 1, 1], "VALID")
    return tf.nn.depthwise_conv2d(down, kernel.transpose(1, 0, 2, 3), [1, 1, 1, 1], "VALID")


def compose(*transforms: Transform) -> Transform:
    """Apply transforms one after the other, each with a seed of its own."""

    def apply(image, seed):
        for index, transform in enumerate(transforms):
            image = transform(image, tf.random.experimental.stateless_fold_in(seed, index))
        return image

    return apply
