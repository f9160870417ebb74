"""Boxes to test with, and a gradient by finite differences."""

import numpy as np
import tensorflow as tf


def random_boxes(rng, *shape, side=100, longest=60):
    """Float32 boxes [..., 4] round points of a picture of side x side pixels; some stand over its edge."""
    center, size = rng.uniform(0, side, (*shape, 2)), rng.uniform(0, longest, (*shape, 2))
    return np.concatenate([center - size / 2, center + size / 2], axis=-1).astype(np.float32)


def awkward_boxes(rng, count, side=100):
    """Random boxes, and among them padded, empty, inverted and repeated ones."""
    boxes = random_boxes(rng, count, side=side)
    boxes[rng.random(count) < 0.1] = 0
    thin = rng.random(count) < 0.1
    boxes[thin, 2] = boxes[thin, 0]
    for order in ([2, 1, 0, 3], [0, 3, 2, 1], [2, 3, 0, 1]):
        turned = rng.random(count) < 0.05
        boxes[turned] = boxes[turned][:, order]
    again = rng.random(count) < 0.2
    boxes[again] = boxes[rng.integers(0, count, again.sum())]
    return boxes


def assert_gradient(function, *inputs, tolerance=1e-6):
    """Holds the gradient of a function of float64 tensors to finite differences."""
    inputs = [tf.constant(x, tf.float64) for x in inputs]
    exact, measured = tf.test.compute_gradient(function, inputs, delta=1e-6)
    for one, other in zip(exact, measured, strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, atol=tolerance, rtol=1e-5)
