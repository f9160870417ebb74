"""The generalised distance transform against a search of all places, and as pooling of a net."""

import numpy as np
import pytest
import tensorflow as tf

from tfcnn.ops.distance_transform import distance_transform, distance_transform_pooling


def maps(seed=0, parts=3, height=6, width=7):
    rng = np.random.default_rng(seed)
    costs = np.stack([rng.uniform(0.02, 0.6, parts), rng.normal(0, 0.3, parts)] * 2, axis=1)
    return rng.normal(size=(parts, height, width)), costs


def searched(values, deformation, radius=None):
    """The best of all places, one by one: values, rows and columns."""
    best = np.full(values.shape, -np.inf)
    rows, columns = np.zeros(values.shape, int), np.zeros(values.shape, int)
    for part, y, x in np.ndindex(values.shape):
        a_x, b_x, a_y, b_y = deformation[part]
        for v, u in np.ndindex(values.shape[1:]):
            dy, dx = v - y, u - x
            if radius is not None and max(abs(dy), abs(dx)) > radius:
                continue
            value = values[part, v, u] - (a_x * dx**2 + b_x * dx + a_y * dy**2 + b_y * dy)
            if value > best[part, y, x]:
                best[part, y, x], rows[part, y, x], columns[part, y, x] = value, v, u
    return best, rows, columns


@pytest.mark.parametrize("radius", [None, 2, 0])
def test_it_is_the_best_of_all_places(radius):
    values, deformation = maps()
    for found, expected in zip(
        distance_transform(values, deformation, radius), searched(values, deformation, radius), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_single_peak_spreads_as_a_parabola():
    values = np.full([1, 1, 5], -100.0)
    values[0, 0, 1] = 3.0
    best, _, columns = distance_transform(values, np.array([[0.5, 0.0, 1.0, 0.0]]))
    np.testing.assert_allclose(best[0, 0], [2.5, 3.0, 2.5, 1.0, -1.5])  # 3 - (x - 1)^2 / 2
    assert (columns == 1).all()


@pytest.mark.parametrize("radius", [1, 3])
def test_pooling_is_the_same_within_its_radius(radius):
    values, deformation = maps(1)
    pooled = distance_transform_pooling(
        tf.constant(values.transpose(1, 2, 0)[None], tf.float32), tf.constant(deformation, tf.float32), radius
    )
    expected, _, _ = distance_transform(values, deformation, radius)
    np.testing.assert_allclose(pooled[0].numpy().transpose(2, 0, 1), expected, atol=1e-5)


def test_without_a_price_it_is_max_pooling():
    values, _ = maps(2)
    image = tf.constant(values.transpose(1, 2, 0)[None], tf.float32)
    pooled = distance_transform_pooling(image, tf.zeros([3, 4]), 1)
    np.testing.assert_allclose(pooled, tf.nn.max_pool2d(image, 3, 1, "SAME"))


def test_gradients_go_to_the_chosen_place_and_to_its_price():
    values = tf.constant([[[[0.0], [0.0], [5.0], [0.0]]]])  # one line, the peak at x = 2
    deformation = tf.constant([[1.0, 0.0, 1.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch([values, deformation])
        at_0 = distance_transform_pooling(values, deformation, 2)[0, 0, 0, 0]  # 5 - 4
    to_values, to_costs = tape.gradient(at_0, [values, deformation])
    assert at_0 == 1.0 and to_values.numpy().ravel().tolist() == [0, 0, 1, 0]
    assert to_costs.numpy()[0].tolist() == [-4.0, -2.0, 0.0, 0.0]  # -(dx^2, dx)
