"""The one loop: image = constraint(parameters -> pixels); value = objective(net(transform(image))); step; repeat.

Letters: N pictures (N separate problems), H W height and width in pixels, T steps.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn.backbones.graph import require_gradient, tap
from tfcnn.imageopt.constraints import Constraint
from tfcnn.imageopt.objectives import IMAGE, Objective
from tfcnn.imageopt.optimizers import Adam, Optimizer, State
from tfcnn.imageopt.parameters import Parameterization, Pixels
from tfcnn.imageopt.transforms import Transform

Callback = Callable[["Moment"], bool | None]
Terms = dict[str, tf.Tensor]  # {name: [N]}


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
        optimizer: how a gradient becomes a step.

    Raises:
        InputError: a layer that the objective reads does not exist, or no gradient reaches the net's picture.
    """

    def __init__(
        self,
        net: keras.Model,
        objective: Objective,
        *,
        parameters: Parameterization | None = None,
        transform: Transform | None = None,
        constraint: Constraint | None = None,
        optimizer: Optimizer | None = None,
    ):
        self.net = tap(net, objective.layers) if objective.layers else None
        require_gradient(net)
        self.objective = objective
        self.parameters = parameters or Pixels()
        self.transform = transform
        self.constraint = constraint
        self.optimizer = optimizer or Adam(1.0)
        self._compiled_gradient = compiled(self._gradient)
        self._compiled_update = compiled(self._update)
        self._compiled_terms = compiled(self._terms)

    def value_and_gradient(self, x: tf.Tensor, seed: tf.Tensor | None) -> tuple[Terms, tf.Tensor]:
        """Gives the weighted terms {name: [N]} and the gradient of their sum.

        Args:
            x: the parameters.
            seed: int64 [2], of the transform's draw; None draws nothing.
        """
        return self._compiled_gradient(x, seed)

    def update(
        self, x: tf.Tensor, gradient: tf.Tensor, state: State, t: tf.Tensor
    ) -> tuple[tf.Tensor, State]:
        """Takes step number t (int32 scalar, from 0) down a gradient, then applies the constraint."""
        return self._compiled_update(x, gradient, state, t)

    def evaluate(self, image: tf.Tensor | np.ndarray) -> dict[str, np.ndarray]:
        """Gives each weighted term {name: [N]} of finished pictures [N, H, W, 3], without any transform."""
        terms = self._compiled_terms(tf.cast(image, tf.float32), None)
        return {name: term.numpy() for name, term in terms.items()}

    def _terms(self, image, seed):
        endpoints = {IMAGE: image}
        if self.net is not None:
            shown = image if self.transform is None or seed is None else self.transform(image, seed)
            endpoints |= self.net(shown, training=False)
        return self.objective.evaluate(endpoints)

    def _gradient(self, x, seed):
        with tf.GradientTape() as tape:
            tape.watch(x)
            terms = self._terms(self.parameters.to_image(x), seed)
            value = tf.add_n(list(terms.values()))
        return terms, tape.gradient(value, x)

    def _update(self, x, gradient, state, t):
        x, state = self.optimizer.update(x, gradient, state, t)
        if self.constraint is not None:
            x = self.parameters.from_image(self.constraint(self.parameters.to_image(x)))
        return x, state


def compiled(method: Callable) -> Callable:
    """Compiles a problem's method.

    TensorFlow counts the traces of all functions with the same code together, and warns of many: a partial has no
    code, so each problem's are counted by themselves.
    """
    return tf.function(functools.partial(method), reduce_retracing=True)


class Moment:
    """What a callback sees after a step: `step` (from 1), `terms` {name: [N]}, `value` [N], and the picture
    on demand.

    The terms are those that the step began from.
    """

    def __init__(self, step: int, terms: Terms, image: Callable[[], np.ndarray]):
        self.step = step
        self._terms = terms
        self._image = image

    @property
    def terms(self) -> dict[str, np.ndarray]:
        """Each weighted term, {name: [N]}."""
        return {name: np.asarray(term) for name, term in self._terms.items()}

    @property
    def value(self) -> np.ndarray:
        """[N]: the terms' sum."""
        return sum(self.terms.values())

    def image(self) -> np.ndarray:
        """Pixels [N, H, W, 3], float32, 0..255."""
        return self._image()


@dataclasses.dataclass(frozen=True)
class Result:
    """Finished pictures and how they came about.

    Args:
        problem: what was optimised.
        image: [N, H, W, 3], float32, 0..255.
        steps: the weighted terms {name: [N]} at the start of each step.
    """

    problem: Problem
    image: np.ndarray
    steps: list[Terms]

    @functools.cached_property
    def final(self) -> dict[str, np.ndarray]:
        """{name: [N]}: the weighted terms of the finished pictures, without transform."""
        return self.problem.evaluate(self.image)

    @functools.cached_property
    def terms(self) -> dict[str, np.ndarray]:
        """{name: [T, N]}: each weighted term at the start of each step."""
        names = [term.name for term in self.problem.objective.terms]
        shape = [-1, len(self.image)]
        return {
            name: np.array([np.asarray(row[name]) for row in self.steps]).reshape(shape) for name in names
        }

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


def minimize(
    problem: Problem,
    start: tf.Tensor | np.ndarray,
    steps: int,
    *,
    seed: int = 0,
    callback: Callback | None = None,
) -> Result:
    """Goes down the objective from a start picture.

    Args:
        problem: what and how.
        start: pixels [N, H, W, 3], 0..255.
        steps: how many.
        seed: of the transforms' draws, 0 or above.
        callback: called after each step with a Moment; a true answer stops the run.

    Returns:
        The pictures after the last step, and the history.
    """
    return _run(problem, start, steps, lambda gradient: gradient, seed, callback)


def maximize(
    problem: Problem,
    start: tf.Tensor | np.ndarray,
    steps: int,
    *,
    seed: int = 0,
    callback: Callback | None = None,
) -> Result:
    """Goes up the objective from a start picture; see `minimize`."""
    return _run(problem, start, steps, tf.negative, seed, callback)


def _run(problem, start, steps, downwards, seed, callback):
    x = problem.parameters.from_image(tf.cast(start, tf.float32))
    state, history = problem.optimizer.init(x), []
    for t in range(steps):
        terms, gradient = problem.value_and_gradient(x, tf.constant([seed, t], tf.int64))
        x, state = problem.update(x, downwards(gradient), state, tf.constant(t))
        history.append(terms)
        moment = Moment(t + 1, terms, lambda x=x: problem.parameters.to_image(x).numpy())
        if callback is not None and callback(moment):
            break
    return Result(problem, problem.parameters.to_image(x).numpy(), history)


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a run, small to large or rough to exact: a problem, for so many steps, on pictures of so many pixels
    a side. All phases of a run have the same terms.
    """

    problem: Problem
    steps: int
    size: int


def through(
    phases: Sequence[Phase],
    start: tf.Tensor | np.ndarray,
    optimize: Callable[..., Result],
    *,
    seed: int = 0,
    callback: Callback | None = None,
) -> Result:
    """Optimises a picture phase by phase; between two of different sizes it is resized.

    Args:
        phases: in order.
        start: pixels [N, H, W, 3], 0..255, of the first phase's size.
        optimize: `maximize` or `minimize`.
        seed: of the transforms' draws; each phase has its own.
        callback: called after each step with a Moment, counted through all phases; a true answer stops the run.

    Returns:
        The last pictures, and a history through all phases.
    """
    image, history, stopped = start, [], False
    for index, phase in enumerate(phases):
        if image.shape[1] != phase.size:
            image = tf.image.resize(image, [phase.size, phase.size], "bicubic")

        def count(moment, done=len(history)):  # noqa: B008  (as it is now)
            nonlocal stopped
            moment.step += done
            stopped = bool(callback and callback(moment))
            return stopped

        result = optimize(phase.problem, image, phase.steps, seed=seed + index, callback=count)
        image, history = result.image, history + result.steps
        if stopped:
            break
    return Result(phase.problem, image, history)
