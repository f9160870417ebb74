"""L-BFGS with bounds, by SciPy, over the problem's own value and gradient."""

import concurrent.futures
import threading

import numpy as np
import scipy.optimize
import tensorflow as tf

from tfcnn.imageopt.optimize import Callback, Moment, Problem, Result


class _Stop(Exception):
    """The evaluations are spent, or a callback asked for the end."""


class _Batch:
    """Takes one question from each run that is still going and answers them all by one evaluation."""

    def __init__(self, points: np.ndarray, evaluate):
        self._points, self._evaluate = points, evaluate
        self._live, self._waiting = set(range(len(points))), set()
        self._round, self._answers, self._error = 0, None, None
        self._condition = threading.Condition()

    def ask(self, index: int, point: np.ndarray) -> tuple[float, np.ndarray]:
        """Give value and gradient at a run's point, once all other runs have asked too."""
        with self._condition:
            self._points[index] = point
            self._waiting.add(index)
            this = self._round
            self._answer_if_complete()
            self._condition.wait_for(lambda: self._round > this or self._error)
            if self._error:
                raise self._error
            values, gradients = self._answers
            return values[index], gradients[index]

    def leave(self, index: int) -> None:
        """Tell that a run is over, so that nobody waits for it."""
        with self._condition:
            self._live.discard(index)
            self._answer_if_complete()

    def abort(self, error: BaseException) -> None:
        """End every run by this error."""
        with self._condition:
            self._error = error
            self._condition.notify_all()

    def _answer_if_complete(self) -> None:
        if self._error or not self._waiting or self._waiting != self._live:
            return
        try:
            self._answers = self._evaluate(self._points)
        except BaseException as error:
            self._error = error
        self._waiting.clear()
        self._round += 1
        self._condition.notify_all()


def lbfgs(
    problem: Problem,
    start: tf.Tensor | np.ndarray,
    evaluations: int,
    *,
    bounds: tuple[float, float] | None = None,
    history_size: int = 10,
    first_step: float = 1.0,
    seed: int = 0,
    callback: Callback | None = None,
) -> Result:
    """Minimises by L-BFGS; each picture has a run of its own, and their evaluations share a batch.

    A transform is drawn once and stays, since the line search needs a function that does not change. The
    problem's optimizer and constraint are not used: bounds take the constraint's place.

    Args:
        problem: what is minimised.
        start: pixels [N, H, W, 3], 0..255.
        evaluations: how many values with gradient a picture may cost.
        bounds: the least and the largest value of every parameter, or None.
        first_step: root mean square of the first trial step, in the parameters' unit (pixels: grey levels).
            SciPy's own first step has length 1 over all pixels together, too little to see in float32.
        history_size: pairs kept to model the curvature.
        seed: of the transform's draw.
        callback: called after each evaluation with a Moment, whose picture is the one evaluated; a true
            answer stops.

    Returns:
        The best pictures met, and the history, an entry for each evaluation.
    """
    first = problem.parameters.from_image(tf.cast(start, tf.float32)).numpy()
    draws = tf.constant([seed, 0], tf.int64)
    best = first.copy()
    least = np.full(len(first), np.inf)
    history: list[dict[str, np.ndarray]] = []

    def evaluate(x):
        if len(history) == evaluations:
            raise _Stop
        point = tf.constant(x)
        terms, gradient = problem.value_and_gradient(point, draws)
        history.append({name: term.numpy() for name, term in terms.items()})
        value = sum(history[-1].values())
        better = value < least
        best[better], least[better] = x[better], value[better]
        moment = Moment(len(history), history[-1], lambda: problem.parameters.to_image(point).numpy())
        if callback is not None and callback(moment):
            raise _Stop
        return value.astype(np.float64), gradient.numpy()

    unit = first_step * np.sqrt(first[0].size)  # SciPy sees parameters divided by this

    def solve(index):
        def function(flat):
            point = (flat * unit).reshape(first[index].shape).astype(np.float32)
            value, gradient = batch.ask(index, point)
            return value, gradient.ravel().astype(np.float64) * unit

        try:
            scipy.optimize.minimize(
                function,
                first[index].ravel().astype(np.float64) / unit,
                jac=True,
                method="L-BFGS-B",
                bounds=scipy.optimize.Bounds(bounds[0] / unit, bounds[1] / unit) if bounds else None,
                options={
                    "maxcor": history_size,
                    "maxfun": evaluations,
                    "maxiter": evaluations,
                    "ftol": 0,
                    "gtol": 0,
                },
            )
        except _Stop:
            pass
        finally:
            batch.leave(index)

    batch = _Batch(first.copy(), evaluate)
    if len(first) == 1:
        solve(0)
    else:
        with concurrent.futures.ThreadPoolExecutor(len(first)) as pool:
            try:
                list(pool.map(solve, range(len(first))))
            except BaseException as error:
                batch.abort(error)
                raise
    return Result(problem, problem.parameters.to_image(tf.constant(best)).numpy(), history)
