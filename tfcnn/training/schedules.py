"""Learning rates as plain functions of the step, so that they can be printed, plotted and tested by hand."""

import math
from collections.abc import Callable, Sequence

from tfcnn.errors import unknown

Schedule = Callable[[int], float]


def constant(rate: float, warmup: int = 0, start: float = 0.0) -> Schedule:
    """Gives the same rate at every step after the warm-up.

    Args:
        rate: the learning rate.
        warmup: number of first steps in which the rate climbs linearly to its value.
        start: share of its value from which it climbs.

    Returns:
        A function from the step (0-based) to the rate.
    """
    return lambda step: rate * _climb(step, warmup, start)


def cosine(rate: float, steps: int, warmup: int = 0, final: float = 0.0, start: float = 0.0) -> Schedule:
    """Lets the rate fall to `final` along half a cosine.

    Args:
        rate: the rate at the end of the warm-up.
        steps: number of steps of the whole run, the warm-up among them.
        warmup: number of first steps in which the rate climbs linearly.
        final: the rate after the last step.
        start: share of the rate from which it climbs.

    Returns:
        A function from the step (0-based) to the rate.

    Source: Loshchilov and Hutter, SGDR (2017), equation 5, with one period.
    """

    def schedule(step: int) -> float:
        done = min(max(step - warmup, 0) / max(steps - warmup, 1), 1.0)
        return (final + (rate - final) * 0.5 * (1 + math.cos(math.pi * done))) * _climb(step, warmup, start)

    return schedule


def steps(
    rate: float, boundaries: tuple[int, ...], factor: float = 0.1, warmup: int = 0, start: float = 0.0
) -> Schedule:
    """Multiplies the rate by `factor` at each boundary.

    Args:
        rate: the first rate.
        boundaries: steps from which one more factor holds.
        factor: what the rate is multiplied by.
        warmup: number of first steps in which the rate climbs linearly.
        start: share of the rate from which it climbs.

    Returns:
        A function from the step (0-based) to the rate.
    """
    return lambda step: rate * factor ** sum(step >= b for b in boundaries) * _climb(step, warmup, start)


def named(
    name: str, rate: float, total: int, warmup: int = 0, drops: Sequence[int] = (), start: float = 0.0
) -> Schedule:
    """Gives a schedule by its name, for a run of `total` steps.

    Args:
        name: "constant", "cosine" (to 0), or "steps": divided by 10 after 2/3 and 8/9 of the run.
        rate: the highest rate.
        total: steps of the run.
        warmup: number of first steps in which the rate climbs linearly.
        drops: steps at which "steps" divides instead.
        start: share of the rate from which it climbs.

    Raises:
        InputError: no such name.
    """
    if name == "constant":
        return constant(rate, warmup, start)
    if name == "cosine":
        return cosine(rate, total, warmup, start=start)
    if name == "steps":
        return steps(rate, tuple(drops) or (total * 2 // 3, total * 8 // 9), 0.1, warmup, start)
    raise unknown("schedule", name, ["constant", "cosine", "steps"])


def _climb(step: int, warmup: int, start: float) -> float:
    return start + (1 - start) * min((step + 1) / warmup, 1.0) if warmup else 1.0
