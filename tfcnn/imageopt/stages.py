"""One picture through several problems: small to large, or rough to exact."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from .optimize import Callback, Problem, Result, maximize, minimize


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
    image, parts, done, stopped = start, [], 0, False
    for index, stage in enumerate(stages):
        if image.shape[1] != stage.size:
            image = tf.image.resize(image, [stage.size, stage.size], "bicubic")

        def count(moment, done=done):
            nonlocal stopped
            moment.step += done
            stopped = bool(callback and callback(moment))
            return stopped

        run = maximize if up else minimize
        parts.append(run(stage.problem, image, stage.steps, seed=seed + index, callback=count))
        image, done = parts[-1].image, done + stage.steps
        if stopped:
            break
    terms = {name: np.concatenate([part.terms[name] for part in parts]) for name in parts[0].terms}
    return Result(image, terms, parts[-1].final)
