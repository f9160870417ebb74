"""Where a picture would have to change least to change a class' score most.

N pictures of H x W.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf


def saliency(gradients) -> tf.Tensor:
    """Gives the saliency maps of gradients: at each pixel the largest size over the three channels.

    Args:
        gradients: [N, H, W, 3], of a score to the pictures.

    Returns:
        [N, H, W], at least 0.

    Source: Simonyan, Vedaldi, Zisserman, Deep Inside Convolutional Networks, section 3.1: max_c |w_c|.
    """
    return tf.reduce_max(tf.abs(gradients), axis=-1)


def saliency_maps(gradients: Callable) -> Callable:
    """Gives a compiled function from pictures to saliency maps.

    Args:
        gradients: what `gradients.class_gradients` or `channel_gradients` gives.

    Returns:
        f(images [N, H, W, 3] float32 0..255, indices [N] int32) -> maps [N, H, W], indices [N], answers
        [N, K].
    """

    @tf.function(reduce_retracing=True)
    def maps(images, indices):
        gradient, indices, answers = gradients(images, indices)
        return saliency(gradient), indices, answers

    return maps


def picture(saliency_map: np.ndarray, percentile: float = 99.5) -> np.ndarray:
    """Gives a map as a grey picture: 0 is black, the percentile and all above it white.

    Args:
        saliency_map: [H, W], at least 0.
        percentile: a few pixels are far brighter than the rest, and would leave it black.

    Returns:
        float32 [H, W], 0..255; values that are not finite stay so.
    """
    white = np.percentile(saliency_map, percentile) or 1.0
    return 255 * np.minimum(np.asarray(saliency_map, np.float32) / np.float32(white), 1)
