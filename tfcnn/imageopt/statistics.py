"""How far the layers' statistics on a picture are from those of photographs, which batch norm remembers."""

import keras
import tensorflow as tf

from tfcnn.imageopt.objectives import Objective, of

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.SeparableConv2D)


def natural_statistics(net: keras.Model) -> Objective | None:
    """Distance of each channel's mean and spread over the picture from the moving ones of its batch norm.

    A channel's share is (mean - m)^2 / v + (sqrt(variance / v) - 1)^2, with m and v the moving mean and variance;
    the value is the mean over channels, then over layers: 0 for a picture whose every channel answers as
    photographs make it on average. Batch norms behind a dense convolution count; those behind a convolution of each
    channel for itself see the same maps again.

    Args:
        net: a flat functional model.

    Returns:
        The objective, or None where the net has no such batch norm.

    Source: Yin et al. 2020, "Dreaming to distill", DeepInversion's feature regularisation, here for each picture by
    itself and in units of the deviation.
    """
    norms = {}
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            before = layer.input._keras_history.operation
            if isinstance(before, _CONVOLUTIONS):
                norms[before.name] = layer
    if not norms:
        return None

    def distance(*maps):
        shares = []
        for features, norm in zip(maps, norms.values(), strict=True):
            mean, variance = tf.nn.moments(features, [1, 2])
            spread = norm.moving_variance + norm.epsilon
            shift = tf.square(mean - norm.moving_mean) / spread
            stretch = tf.square(tf.sqrt(variance / spread + 1e-6) - 1.0)
            shares.append(tf.reduce_mean(shift + stretch, axis=-1))
        return tf.add_n(shares) / len(shares)

    return of("statistics", list(norms), distance)
