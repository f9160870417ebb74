"""Where a picture must stay: a constraint projects pixels [N, H, W, 3], 0..255, after each step."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

Constraint = Callable[[tf.Tensor], tf.Tensor]


def in_range(low: float | Sequence[float] = 0.0, high: float | Sequence[float] = 255.0) -> Constraint:
    """Clip every value to low..high; numbers or colours (R, G, B)."""
    return lambda image: tf.minimum(tf.maximum(image, tf.cast(low, tf.float32)), tf.cast(high, tf.float32))


def linf_ball(centre: tf.Tensor | np.ndarray, radius: float) -> Constraint:
    """Keep every value within `radius` grey levels of the picture `centre` [N or 1, H, W, 3]."""
    return lambda image: centre + tf.clip_by_value(image - centre, -radius, radius)


def l2_ball(centre: tf.Tensor | np.ndarray, radius: float) -> Constraint:
    """Keep each picture within Euclidean distance `radius` (grey levels) of `centre` [N or 1, H, W, 3]."""

    def project(image):
        difference = image - centre
        norm = tf.sqrt(tf.reduce_sum(tf.square(difference), axis=[1, 2, 3], keepdims=True))
        return centre + difference * tf.minimum(1.0, radius / tf.maximum(norm, 1e-12))

    return project


def compose(*constraints: Constraint) -> Constraint:
    """Apply constraints one after the other."""

    def project(image):
        for constraint in constraints:
            image = constraint(image)
        return image

    return project
