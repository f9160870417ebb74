"""One picture through several problems: small to large, or rough to exact."""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from tfcnn.imageopt.optimize import Callback, Problem, Result, advance, collect


@dataclasses.dataclass(frozen=True)
class Stage:
    """A problem, for so many steps, on pictures of so many pixels a side; all stages have the same terms."""

    problem: Problem
    steps: int
    size: int


def through(
    stages: Sequence[Stage], start, *, up: bool, seed: int = 0, callback: Callback | None = None
) -> Result:
    """Maximise or minimise stage by stage; between two of different sizes the picture is resized.

    Args:
        stages: in order.
        start: pixels [N, H, W, 3], 0..255, of the first stage's size.
        up: maximise.
        seed: of the transforms' draws; each stage has its own.
        callback: called after each step with a Moment, counted through all stages; a true answer stops the run.

    Returns:
        The last pictures, and a history through all stages.
    """
    image, history, stopped = start, [], False
    for index, stage in enumerate(stages):
        if image.shape[1] != stage.size:
            image = tf.image.resize(image, [stage.size, stage.size], "bicubic")

        def count(moment, done=len(history)):  # noqa: B008  (as it is now)
            nonlocal stopped
            moment.step += done
            stopped = bool(callback and callback(moment))
            return stopped

        sign = -1 if up else 1
        image, part = advance(stage.problem, image, stage.steps, sign=sign, seed=seed + index, callback=count)
        history += part
        if stopped:
            break
    return collect(stage.problem, image, history)
