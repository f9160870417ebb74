"""How a gradient becomes a step. Letters: x parameters [N, ...], g gradient of what is minimised, t the
step's number.

An optimizer has `init(x) -> state` (a tuple of tensors) and `update(x, g, state, t) -> (x, state)`; it goes down g.
N pictures at once never mix: norms and means are each picture's own. A rate is a number or a function of t.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import tensorflow as tf

Rate = float | Callable[[tf.Tensor], tf.Tensor]


State = tuple[tf.Tensor, ...]


class Optimizer(Protocol):
    """A rule that turns gradients into steps."""

    def init(self, x: tf.Tensor) -> State:
        """State before the first step."""

    def update(self, x: tf.Tensor, g: tf.Tensor, state: State, t: tf.Tensor) -> tuple[tf.Tensor, State]:
        """Parameters and state after step number t (int32 scalar, from 0)."""


def rate_at(rate: Rate, t: tf.Tensor) -> tf.Tensor:
    """The rate of step t: the number itself, or the function's value."""
    return tf.cast(rate(t) if callable(rate) else rate, tf.float32)


def piecewise(values: Sequence[float], lengths: Sequence[int]) -> Callable[[tf.Tensor], tf.Tensor]:
    """A rate that holds each value for its number of steps, and the last one from then on."""
    ends = [sum(lengths[: index + 1]) for index in range(len(lengths) - 1)]

    def rate(t):
        return tf.gather(tf.constant(values, tf.float32), tf.searchsorted(ends, t[None], side="right")[0])

    return rate if ends else lambda t: tf.constant(values[0], tf.float32)


def _over_picture(reduce, g: tf.Tensor) -> tf.Tensor:
    return reduce(g, axis=list(range(1, g.shape.rank)), keepdims=True)


@dataclasses.dataclass(frozen=True)
class Plain:
    """x - rate g."""

    rate: Rate

    def init(self, x: tf.Tensor) -> State:
        return ()

    def update(self, x: tf.Tensor, g: tf.Tensor, state: State, t: tf.Tensor) -> tuple[tf.Tensor, State]:
        return x - rate_at(self.rate, t) * g, state


@dataclasses.dataclass(frozen=True)
class Normalized:
    """x - rate g / mean|g|: a step of about `rate` grey levels whatever the gradient's size.

    Source: google/deepdream dream.ipynb, make_step.
    """

    rate: Rate

    def init(self, x: tf.Tensor) -> State:
        return ()

    def update(self, x: tf.Tensor, g: tf.Tensor, state: State, t: tf.Tensor) -> tuple[tf.Tensor, State]:
        size = tf.maximum(_over_picture(tf.reduce_mean, tf.abs(g)), 1e-20)
        return x - rate_at(self.rate, t) * g / size, state


@dataclasses.dataclass(frozen=True)
class Sign:
    """x - rate sign(g)."""

    rate: Rate

    def init(self, x: tf.Tensor) -> State:
        return ()

    def update(self, x: tf.Tensor, g: tf.Tensor, state: State, t: tf.Tensor) -> tuple[tf.Tensor, State]:
        return x - rate_at(self.rate, t) * tf.sign(g), state


@dataclasses.dataclass(frozen=True)
class Momentum:
    """v <- momentum v - rate g; x <- x + v.

    Args:
        rate: of the gradient.
        momentum: what stays of the last step.
        restarts: steps at which v begins at 0 again.
    """

    rate: Rate
    momentum: float = 0.9
    restarts: tuple[int, ...] = ()

    def init(self, x: tf.Tensor) -> State:
        return (tf.zeros_like(x),)

    def update(self, x: tf.Tensor, g: tf.Tensor, state: State, t: tf.Tensor) -> tuple[tf.Tensor, State]:
        keep = tf.reduce_all(tf.not_equal(t, tf.constant(self.restarts, tf.int32)))
        v = self.momentum * tf.cast(keep, tf.float32) * state[0] - rate_at(self.rate, t) * g
        return x + v, (v,)


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam with bias correction.

    Source: Kingma & Ba, algorithm 1; epsilon stands beside the corrected root.
    """

    rate: Rate
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def init(self, x: tf.Tensor) -> State:
        return tf.zeros_like(x), tf.zeros_like(x)

    def update(self, x: tf.Tensor, g: tf.Tensor, state: State, t: tf.Tensor) -> tuple[tf.Tensor, State]:
        count = tf.cast(t, tf.float32) + 1.0
        m = self.beta1 * state[0] + (1.0 - self.beta1) * g
        v = self.beta2 * state[1] + (1.0 - self.beta2) * tf.square(g)
        rate = rate_at(self.rate, t) / (1.0 - self.beta1**count)
        root = tf.sqrt(v / (1.0 - self.beta2**count)) + self.epsilon
        return x - rate * m / root, (m, v)
