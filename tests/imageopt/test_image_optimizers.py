"""Steps against their formulas by hand, constraints by hand."""

import numpy as np
import tensorflow as tf

from tfcnn.imageopt import constraints, optimizers

X = tf.constant([[[[1.0, 2.0, 3.0]]], [[[0.0, 0.0, 0.0]]]])
G = tf.constant([[[[1.0, -2.0, 0.0]]], [[[10.0, 10.0, -10.0]]]])


def after(step, count, gradient=G):
    x, state = X, step.init(X)
    for t in range(count):
        x, state = step.update(x, gradient, state, tf.constant(t))
    return x.numpy()


def test_plain_normalized_sign():
    np.testing.assert_allclose(after(optimizers.Plain(0.5), 1), (X - 0.5 * G).numpy())
    # |g| has mean 1 in the first picture and 10 in the second: each by its own.
    expected = X.numpy() - 1.5 * np.array([[[[1, -2, 0]]], [[[1, 1, -1]]]])
    np.testing.assert_allclose(after(optimizers.Normalized(1.5), 1), expected, rtol=1e-6)
    np.testing.assert_allclose(after(optimizers.Sign(2.0), 1), X.numpy() - 2 * np.sign(G))


def test_no_gradient_moves_nothing():
    zero = tf.zeros_like(G)
    rules = (
        optimizers.Plain(1.0),
        optimizers.Normalized(1.0),
        optimizers.Sign(1.0),
        optimizers.Momentum(1.0),
        optimizers.Adam(1.0),
    )
    for step in rules:
        np.testing.assert_array_equal(after(step, 2, zero), X.numpy())


def test_momentum_gathers_and_restarts():
    # v: -g, -1.9 g, -2.71 g; with a restart at the third step: -g, -1.9 g, -g.
    np.testing.assert_allclose(after(optimizers.Momentum(1.0), 3), (X - 5.61 * G).numpy(), rtol=1e-5)
    np.testing.assert_allclose(
        after(optimizers.Momentum(1.0, restarts=(2,)), 3), (X - 3.9 * G).numpy(), rtol=1e-5
    )


def test_adam_is_the_papers():
    x, m, v = X.numpy().astype(np.float64), 0.0, 0.0
    for t in range(1, 5):
        g = G.numpy() * t
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    step = optimizers.Adam(0.05)
    y, state = X, step.init(X)
    for t in range(4):
        y, state = step.update(y, G * (t + 1), state, tf.constant(t))
    np.testing.assert_allclose(y, x, rtol=1e-5)


def test_rates_follow_the_step():
    rate = optimizers.piecewise([4.0, 2.0, 1.0], [2, 1, 5])
    assert [float(rate(tf.constant(t))) for t in range(12)] == [4, 4, 2] + [1] * 9
    assert float(optimizers.piecewise([3.0], [10])(tf.constant(99))) == 3.0
    np.testing.assert_allclose(after(optimizers.Plain(rate), 3), (X - 10.0 * G).numpy())


def test_constraints():
    picture = tf.constant([[[[-5.0, 100.0, 300.0]]], [[[0.0, 3.0, 4.0]]]])
    np.testing.assert_array_equal(constraints.in_range()(picture)[0, 0, 0], [0, 100, 255])
    coloured = constraints.in_range((0, 0, 0), (255, 50, 200))(picture)
    np.testing.assert_array_equal(coloured[0, 0, 0], [0, 50, 200])
    near = constraints.linf_ball(tf.zeros([1, 1, 1, 3]), 3.5)(picture)
    np.testing.assert_array_equal(near[1, 0, 0], [0, 3, 3.5])
    ball = constraints.l2_ball(tf.zeros([1, 1, 1, 3]), 2.5)(picture)
    np.testing.assert_allclose(ball[1, 0, 0], [0, 1.5, 2.0])
    np.testing.assert_allclose(np.linalg.norm(ball[0]), 2.5, rtol=1e-6)
    inside = constraints.l2_ball(picture, 1.0)(picture + 0.1)
    np.testing.assert_allclose(inside, picture + 0.1, rtol=1e-6)
    both = constraints.compose(constraints.linf_ball(picture, 1.0), constraints.in_range())
    np.testing.assert_allclose(both(picture + 9.0)[0, 0, 0], [0, 101, 255])
