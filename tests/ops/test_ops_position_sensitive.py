"""Position-sensitive RoIAlign against RoIAlign of each bin's own channels."""

import numpy as np
import pytest
import tensorflow as tf

from tfcnn.ops.position_sensitive import ps_roi_align
from tfcnn.ops.roi import roi_align

RNG = np.random.default_rng(5)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_each_bin_reads_its_own_channels(size):
    depth = 2
    features = tf.constant(RNG.normal(size=(2, 9, 7, size * size * depth)).astype(np.float32))
    low = RNG.uniform(-10, 90, (2, 6, 2))
    boxes = tf.constant(np.concatenate([low, low + RNG.uniform(0, 90, (2, 6, 2))], axis=-1), tf.float32)
    pooled = ps_roi_align(features, boxes, 16, size)
    whole = tf.reshape(roi_align(features, boxes, 16, size), (2, 6, size * size, size * size, depth))
    own = tf.stack([whole[:, :, i, i] for i in range(size * size)], axis=2)
    np.testing.assert_allclose(pooled, tf.reshape(own, pooled.shape), atol=2e-5)


def test_without_regions_there_is_nothing():
    assert ps_roi_align(tf.zeros((2, 4, 4, 49)), tf.zeros((2, 0, 4)), 16).shape == (2, 0, 7, 7, 1)


def test_the_gradient_is_that_of_the_mean():
    features = tf.constant(RNG.normal(size=(1, 5, 5, 4)).astype(np.float32))
    boxes = tf.constant([[[3.0, 5, 60, 70]]])
    with tf.GradientTape() as tape:
        tape.watch(features)
        value = tf.reduce_sum(
            ps_roi_align(features, boxes, 16, 2) * tf.constant([[[[[1.0], [2]], [[3], [4]]]]])
        )
    gradient = tape.gradient(value, features).numpy()
    for place in [(0, 1, 1, 0), (0, 2, 3, 3), (0, 4, 4, 2)]:
        step = np.zeros(features.shape, np.float32)
        step[place] = 1e-2

        def at(x):
            return tf.reduce_sum(ps_roi_align(x, boxes, 16, 2) * tf.constant([[[[[1.0], [2]], [[3], [4]]]]]))

        assert gradient[place] == pytest.approx(
            float(at(features + step) - at(features - step)) / 2e-2, abs=2e-3
        )
