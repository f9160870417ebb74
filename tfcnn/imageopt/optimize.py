"""The one loop: image = constraint(parameters -> pixels); value = objective(net(transform(image))); step;
repeat.

Letters: N pictures (N separate problems), H W height and width in pixels, T steps.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tfcnn.imageopt.constraints import Constraint
from tfcnn.imageopt.objectives import IMAGE, Objective
from tfcnn.imageopt.optimizers import Adam, Step
from tfcnn.imageopt.parameters import Parameterization, Pixels
from tfcnn.imageopt.taps import tapped
from tfcnn.imageopt.transforms import Transform

Callback = Callable[["Moment"], bool | None]


class Problem:
    """What is optimised, and how; compiled at first use, once for a kind of input, and kept on the problem.

    A problem may be run many times, with other pictures and, by tf.Variable targets, other targets. A second
    size of picture is traced once more, with open sizes; any further size needs no trace.

    Args:
        net: a flat functional model from pixels [N, H, W, 3], 0..255; its layers are reached by name.
        objective: what is minimised or maximised.
        parameters: what is optimised in place of the pixels.
        transform: random change of the picture before the net, a new draw each step.
        constraint: where the pixels must stay, applied after each step.
        step: how a gradient becomes a step.

    Raises:
        InputError: a layer that the objective reads does not exist.
    """

    def __init__(
        self,
        net: keras.Model,
        objective: Objective,
        *,
        parameters: Parameterization | None = None,
        transform: Transform | None = None,
        constraint: Constraint | None = None,
        step: Step | None = None,
    ):
        self.net = tapped(net, objective.layers) if objective.layers else None
        self.objective = objective
        self.parameters = parameters or Pixels()
        self.transform = transform
        self.constraint = constraint
        self.step = step or Adam(1.0)
        self.value_and_gradient = _compiled(self._value_and_gradient)
        self.update = _compiled(self._update)
        self.advance = _compiled(self._advance)
        self._evaluate = _compiled(self._terms)

    def _terms(self, image: tf.Tensor, seed: tf.Tensor | None) -> dict[str, tf.Tensor]:
        """Each weighted term of the objective, {name: [N]}; without a seed no transform is applied."""
        endpoints = {IMAGE: image}
        if self.net is not None:
            shown = image if self.transform is None or seed is None else self.transform(image, seed)
            endpoints |= self.net(shown, training=False)
        return self.objective.evaluate(endpoints)

    def _value_and_gradient(self, x: tf.Tensor, seed: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Weighted terms {name: [N]} and the gradient of their sum at the parameters x, for one draw of the
        transform.

        Compiled as `value_and_gradient`.
        """
        with tf.GradientTape() as tape:
            tape.watch(x)
            terms = self._terms(self.parameters.to_image(x), seed)
            value = tf.add_n(list(terms.values()))
        return terms, tape.gradient(value, x)

    def _update(self, x, gradient, state, t) -> tuple[tf.Tensor, tuple]:
        """Step number t down a gradient, then the constraint. Compiled as `update`."""
        x, state = self.step.update(x, gradient, state, t)
        if self.constraint is not None:
            x = self.parameters.from_image(self.constraint(self.parameters.to_image(x)))
        return x, state

    def _advance(self, x, state, t, seed, sign: int) -> tuple[tf.Tensor, tuple, dict[str, tf.Tensor]]:
        """One whole step; sign 1 minimises, -1 maximises. Compiled as `advance`."""
        terms, gradient = self._value_and_gradient(x, tf.stack([seed, t]))
        x, state = self._update(x, sign * gradient, state, t)
        return x, state, terms

    def evaluate(self, image) -> dict[str, np.ndarray]:
        """Give each weighted term {name: [N]} of finished pictures [N, H, W, 3], without any transform."""
        return {name: term.numpy() for name, term in self._evaluate(tf.cast(image, tf.float32), None).items()}


def _compiled(method: Callable) -> Callable:
    """Compile a problem's method by a function of its own, so that TensorFlow does not count the traces of many
    problems as those of one.
    """

    def call(*arguments):
        return method(*arguments)

    return tf.function(call, reduce_retracing=True)


class Moment:
    """What a callback sees after a step: `step` (from 1), `terms` {name: [N]}, `value` [N], and the picture
    on demand.

    The terms are those that the step began from.
    """

    def __init__(self, step: int, terms: dict[str, tf.Tensor], image: Callable[[], np.ndarray]):
        self.step = step
        self._terms = terms
        self._image = image

    @property
    def terms(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(term) for name, term in self._terms.items()}

    @property
    def value(self) -> np.ndarray:
        return sum(self.terms.values())

    def image(self) -> np.ndarray:
        """Pixels [N, H, W, 3], float32, 0..255."""
        return self._image()


@dataclasses.dataclass(frozen=True)
class Result:
    """Finished pictures and how they came about.

    Args:
        image: [N, H, W, 3], float32, 0..255.
        terms: {name: [T, N]}, each weighted term at the start of each step.
        final: {name: [N]}, the same of the finished pictures, without transform.
    """

    image: np.ndarray
    terms: dict[str, np.ndarray]
    final: dict[str, np.ndarray]

    @property
    def value(self) -> np.ndarray:
        """[T, N]: the terms' sum."""
        return sum(self.terms.values())

    def history(self, picture: int = 0) -> list[dict[str, float]]:
        """One entry a step: {step (from 1), value, each term}."""
        columns = {"value": self.value} | self.terms
        return [
            {"step": row + 1} | {name: float(column[row, picture]) for name, column in columns.items()}
            for row in range(len(self.value))
        ]

    def final_entry(self, picture: int = 0) -> dict[str, float]:
        """{value, each term} of the finished picture."""
        values = {name: float(term[picture]) for name, term in self.final.items()}
        return {"value": sum(values.values())} | values


def collect(problem: Problem, image: np.ndarray, history: list[dict[str, tf.Tensor]]) -> Result:
    """Make the result of a run from its last picture and its terms step by step."""
    names = [term.name for term in problem.objective.terms]
    terms = {
        name: np.array([np.asarray(row[name]) for row in history]).reshape(-1, len(image)) for name in names
    }
    return Result(image, terms, problem.evaluate(image))


def advance(
    problem: Problem, start, steps: int, *, sign: int, seed: int = 0, callback: Callback | None = None
) -> tuple[np.ndarray, list[dict[str, tf.Tensor]]]:
    """Make steps; `minimize` without its result's `final`.

    Args:
        problem, start, steps, seed, callback: as `minimize` takes them.
        sign: 1 minimises, -1 maximises.

    Returns:
        The pictures [N, H, W, 3], and each step's terms {name: [N]}.
    """
    x = problem.parameters.from_image(tf.cast(start, tf.float32))
    state, history = problem.step.init(x), []
    seed = tf.constant(seed % 2**31)  # int32; a seed counted up from the largest begins again at 0
    for t in range(steps):
        x, state, terms = problem.advance(x, state, tf.constant(t), seed, sign)
        history.append(terms)
        moment = Moment(t + 1, terms, lambda x=x: problem.parameters.to_image(x).numpy())
        if callback is not None and callback(moment):
            break
    return problem.parameters.to_image(x).numpy(), history


def _run(problem: Problem, start, steps: int, sign: int, seed: int, callback: Callback | None) -> Result:
    return collect(problem, *advance(problem, start, steps, sign=sign, seed=seed, callback=callback))


def minimize(
    problem: Problem, start, steps: int, *, seed: int = 0, callback: Callback | None = None
) -> Result:
    """Go down the objective from a start picture.

    Args:
        problem: what and how.
        start: pixels [N, H, W, 3], 0..255.
        steps: how many.
        seed: of the transforms' draws.
        callback: called after each step with a Moment; a true answer stops the run.

    Returns:
        The pictures after the last step, and the history.
    """
    return _run(problem, start, steps, 1, seed, callback)


def maximize(
    problem: Problem, start, steps: int, *, seed: int = 0, callback: Callback | None = None
) -> Result:
    """Go up the objective from a start picture; see `minimize`."""
    return _run(problem, start, steps, -1, seed, callback)
