"""What is optimised in place of a picture: its pixels, its Fourier coefficients, or an unbounded tanh
variable.

Letters: N pictures, H W height and width, F frequencies of a row = W // 2 + 1. A parameterization turns
parameters into pixels [N, H, W, 3], float32, 0..255, and pixels into parameters.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf


class Parameterization(Protocol):
    """Two ways between a picture and what is optimised in its place."""

    def to_image(self, parameters: tf.Tensor) -> tf.Tensor:
        """Parameters to pixels [N, H, W, 3], 0..255."""

    def from_image(self, image: tf.Tensor) -> tf.Tensor:
        """Pixels [N, H, W, 3], 0..255, to the parameters that give them."""


@dataclasses.dataclass(frozen=True)
class Pixels:
    """The pixels themselves."""

    def to_image(self, parameters: tf.Tensor) -> tf.Tensor:
        return parameters

    def from_image(self, image: tf.Tensor) -> tf.Tensor:
        return tf.cast(image, tf.float32)


@dataclasses.dataclass(frozen=True)
class TanhBox:
    """Pixels as tanh of a free variable, so that they never leave the box.

    Args:
        low, high: the box, 0..255.

    Source: Carlini & Wagner; start values are drawn in by one millionth, as in carlini/nn_robust_attacks.
    """

    low: float = 0.0
    high: float = 255.0

    def to_image(self, parameters: tf.Tensor) -> tf.Tensor:
        return self.low + (self.high - self.low) * (tf.tanh(parameters) + 1.0) / 2.0

    def from_image(self, image: tf.Tensor) -> tf.Tensor:
        unit = 2.0 * (tf.cast(image, tf.float32) - self.low) / (self.high - self.low) - 1.0
        return tf.atanh(tf.clip_by_value(unit, -1.0, 1.0) * 0.999999)


# Cholesky-like factor of the covariance of natural pictures' colours; its columns are free of each other.
_COLOURS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
_COLOURS = (_COLOURS / np.linalg.norm(_COLOURS, axis=0).max()).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Fourier:
    """Coefficients of a real Fourier transform, scaled so that all frequencies weigh alike, colours
    decorrelated.

    A step of the same size in every coefficient then changes a picture as natural pictures vary: large smooth
    structures first. The sigmoid at the end keeps pixels in 0..255.

    Args:
        height, width: of the picture, pixels.
        decay: the power of the frequency by which coefficients are scaled; 1 is that of natural pictures.

    Source: Olah, Mordvintsev, Schubert, "Feature visualization"; tensorflow/lucid param/spatial.py,
    param/color.py.
    """

    height: int
    width: int
    decay: float = 1.0

    def _scale(self) -> np.ndarray:
        rows = np.fft.fftfreq(self.height)[:, None]
        columns = np.fft.rfftfreq(self.width)[None]
        frequency = np.maximum(np.hypot(rows, columns), 1.0 / max(self.height, self.width))
        return (np.sqrt(self.width * self.height) / frequency**self.decay / 4.0).astype(np.float32)  # [H, F]

    def to_image(self, parameters: tf.Tensor) -> tf.Tensor:
        spectrum = tf.complex(parameters[..., 0], parameters[..., 1]) * tf.cast(self._scale(), tf.complex64)
        planes = tf.signal.irfft2d(spectrum, [self.height, self.width])  # [N, 3, H, W]
        colours = tf.tensordot(tf.transpose(planes, [0, 2, 3, 1]), _COLOURS.T, 1)
        return 255.0 * tf.sigmoid(colours)

    def from_image(self, image: tf.Tensor) -> tf.Tensor:
        unit = tf.clip_by_value(tf.cast(image, tf.float32) / 255.0, 1e-4, 1.0 - 1e-4)
        colours = tf.math.log(unit) - tf.math.log1p(-unit)
        planes = tf.transpose(tf.tensordot(colours, np.linalg.inv(_COLOURS.T), 1), [0, 3, 1, 2])
        spectrum = tf.signal.rfft2d(planes) / tf.cast(self._scale(), tf.complex64)
        return tf.stack([tf.math.real(spectrum), tf.math.imag(spectrum)], axis=-1)  # [N, 3, H, F, 2]

    def noise(self, seeds: Sequence[int], deviation: float = 0.01) -> tf.Tensor:
        """Draw a grey start: coefficients N(0, deviation^2).

        Args:
            seeds: a number for each picture.
            deviation: of the coefficients; Lucid's 0.01.

        Returns:
            Pixels [N, H, W, 3], 0..255.
        """
        shape = [3, self.height, self.width // 2 + 1, 2]
        draws = [tf.random.stateless_normal(shape, [seed, 0], stddev=deviation) for seed in seeds]
        return self.to_image(tf.stack(draws))


@dataclasses.dataclass(frozen=True)
class Enlarged:
    """A smaller picture, enlarged bilinearly: for a net that takes one size only.

    Args:
        inner: the parameterization of the smaller picture.
        inner_size: its height and width, pixels.
        size: height and width that the net takes.
    """

    inner: Parameterization
    inner_size: tuple[int, int]
    size: tuple[int, int]

    def to_image(self, parameters: tf.Tensor) -> tf.Tensor:
        return tf.image.resize(self.inner.to_image(parameters), self.size)

    def from_image(self, image: tf.Tensor) -> tf.Tensor:
        return self.inner.from_image(tf.image.resize(image, self.inner_size, antialias=True))


def normal_noise(
    seeds: Sequence[int],
    height: int,
    width: int,
    mean: float | Sequence[float] = 127.5,
    deviation: float = 10.0,
) -> tf.Tensor:
    """Draw pictures of white noise.

    Args:
        seeds: a number for each picture.
        height, width: pixels.
        mean: a grey or a colour (R, G, B), 0..255.
        deviation: of each value, in grey levels; 10 is that of yosinski's mean_plus_rand.

    Returns:
        Pixels [N, H, W, 3], not clipped.
    """
    draws = [tf.random.stateless_normal([height, width, 3], [seed, 1], stddev=deviation) for seed in seeds]
    return tf.stack(draws) + tf.cast(mean, tf.float32)
