"""Attacks that look for the smallest change: DeepFool, and Carlini and Wagner's.

N pictures of H x W, 0..255; K classes. Sizes of changes are Euclidean.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfcnn.fooling.classifier import Aim, Classifier, lead
from tfcnn.fooling.gradient import History
from tfcnn.imageopt import IMAGE, Problem, objectives, optimizers, parameters

ENLARGED, BISECTIONS = 1.05, 4  # of a change that rounding undoes: its factor is known to 0.3 %
TIE = 1e-4  # logits by which a boundary has to be passed
MOST_C, MOST_RATE = 1e10, 0.1  # where the gradient all but vanishes; 1e10 is the program's


def others(logits: np.ndarray, labels: np.ndarray, candidates: int) -> np.ndarray:
    """Gives the most probable classes but the label's, best first: int32 [N, candidates - 1], or all K - 1.

    Args:
        logits: [N, K].
        labels: int32 [N].
        candidates: classes, the label's among them.
    """
    order = np.argsort(-logits, axis=1, kind="stable").astype(np.int32)
    kept = np.stack([row[row != label] for row, label in zip(order, labels, strict=True)])
    return kept[:, : max(1, candidates - 1)]


def nearest_boundary(
    net: Classifier, x: np.ndarray, labels: np.ndarray, nearby: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the nearest boundary between a label and other classes, of the net made linear.

    Args:
        net: under attack.
        x: float32 [N, H, W, 3].
        labels: int32 [N].
        nearby: int32 [N, k], the other classes.

    Returns:
        The class beyond the boundary, int32 [N], how far the two logits are apart, [N], and the gradient of their
        difference, the boundary's normal, [N, H, W, 3].
    """
    _, own, own_gradient = net.logit_gradient(x, labels)
    least, margin = np.full(len(x), np.inf), np.zeros(len(x), np.float32)
    classes, normal = nearby[:, 0].copy(), np.zeros_like(x)
    for column in nearby.T:
        _, other, gradient = net.logit_gradient(x, column)
        difference = (gradient - own_gradient).numpy()
        apart = np.abs(other - own)
        distance = apart / np.maximum(lengths(difference), 1e-12)
        nearer = distance < least
        least[nearer], margin[nearer] = distance[nearer], apart[nearer]
        classes[nearer], normal[nearer] = column[nearer], difference[nearer]
    return classes, margin, normal


def lengths(changes: np.ndarray) -> np.ndarray:
    """Gives the Euclidean length of each change, [N]."""
    return np.sqrt(np.square(changes).sum(axis=(1, 2, 3)))


def enlarged_until_rounded(net: Classifier, found: np.ndarray, images: np.ndarray, aim: Aim) -> np.ndarray:
    """Rounds pictures to whole numbers, each change enlarged as little as lets the rounded picture succeed.

    The smallest changes are below half a grey level in most pixels, and rounding would undo them.

    Args:
        net: under attack.
        found: float32 [N, H, W, 3].
        images: what they come from, whole numbers.
        aim: what they shall become.

    Returns:
        float32 [N, H, W, 3], whole numbers 0..255. A change that does not succeed unrounded, or not even 64 times
        as large, is rounded as it is.
    """
    rounded = np.clip(np.rint(found), 0, 255)

    def at(factors, rows):
        change = factors[:, None, None, None].astype(np.float32) * (found[rows] - images[rows])
        tried = np.clip(np.rint(images[rows] + change), 0, 255)
        done = aim[rows].reached(net.logits(tried))
        rounded[rows[done]] = tried[done]
        return done

    live = np.flatnonzero(aim.reached(net.logits(found)))
    factor, least = 1.0, np.full(len(found), np.nan)
    while len(live) and factor < 64:
        done = at(np.full(len(live), factor), live)
        least[live[done]] = factor
        live, factor = live[~done], factor * ENLARGED
    rows = np.flatnonzero(least >= 1)
    low, high = least[rows] / ENLARGED, least[rows]
    for _ in range(BISECTIONS if len(rows) else 0):
        middle = (low + high) / 2
        done = at(middle, rows)
        low, high = np.where(done, low, middle), np.where(done, middle, high)
    return rounded


@dataclasses.dataclass(frozen=True)
class DeepFool:
    """Steps to the nearest boundary of the net made linear, until the label is gone.

    Args:
        net: under attack.
        steps: rounds at most.
        candidates: classes, the label's among them, whose boundaries are looked at: the most probable.
        overshoot: share by which the boundary is passed.

    Source: Moosavi-Dezfooli, Fawzi, Frossard 2016, DeepFool; LTS4/DeepFool Python/deepfool.py, but that pictures are
    clipped to 0..255.
    """

    net: Classifier
    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02

    @property
    def evaluations(self) -> int:
        """Rounds that a picture may cost."""
        return self.steps

    def __call__(
        self, images: np.ndarray, aim: Aim, seed: int = 0, callback: Callable[[], None] | None = None
    ) -> tuple[np.ndarray, History]:
        """Attacks pictures, untargeted; see `Ball.__call__`."""
        found, total, history = images.copy(), np.zeros_like(images), [[] for _ in images]
        live, labels = np.arange(len(images)), aim.classes
        logits = self.net.logits(images)
        nearby = others(logits, labels, self.candidates)
        for _ in range(self.steps):
            for place, value in zip(live, aim[live].margin(logits), strict=True):
                entry = {"step": len(history[place]) + 1, "value": float(value), "margin": float(value)}
                history[place].append(entry)
            total[live] += self._to_nearest(found[live], labels[live], nearby[live])
            found[live] = np.clip(images[live] + (1 + self.overshoot) * total[live], 0, 255)
            if callback is not None:
                callback()
            logits = self.net.logits(found[live])
            stay = ~aim[live].reached(logits)
            live, logits = live[stay], logits[stay]
            if not len(live):
                break
        return found, history

    def rounded(self, found: np.ndarray, images: np.ndarray, aim: Aim) -> np.ndarray:
        """See `enlarged_until_rounded`."""
        return enlarged_until_rounded(self.net, found, images, aim)

    def _to_nearest(self, x, labels, nearby):
        """[N, H, W, 3]: the step to the nearest of the boundaries between a label and other classes [N, k]."""
        _, margin, normal = nearest_boundary(self.net, x, labels, nearby)
        length = np.maximum(lengths(normal), 1e-12)
        scale = ((margin / length + 1e-4) / length).astype(np.float32)
        return scale[:, None, None, None] * normal


@dataclasses.dataclass(frozen=True)
class CarliniWagner:
    """Minimises |x' - x|^2 + c max(margin + confidence, 0), x' the tanh of a free variable, for the smallest c.

    Of a linear net, whose margin m has the gradient g, the minimiser is the nearest point of the boundary, m / |g|
    away, as soon as c is at least 2 m / |g|^2. The first c is a multiple of this, and Adam's rate one of that distance,
    so that a hundred steps suffice where the program takes thousands: its rate, 0.01, moves each value by up to 1.3
    grey levels a step, and a change that fools a large net is smaller than that altogether. c goes times or by 10 until
    one succeeds and another fails, then by bisection of its logarithm. A picture leaves a round of the search when its
    value no longer falls. An untargeted attack goes for the class whose boundary is the nearest of the linear net's, as
    DeepFool does: the most probable other class is often not that.

    Args:
        net: under attack.
        steps: of Adam for each c; the program has 10,000.
        searches: values of c; the program has 9.
        rate: of Adam at first, as a multiple of the nearest boundary's distance, root mean square of values 0..1.
        last_rate: at the last step, as a share of the first; it falls exponentially.
        c: the first, as a multiple of that which suffices for the linear net.
        candidates: classes, the label's among them, whose boundaries are looked at: the most probable.

    Source: Carlini & Wagner 2017, Towards Evaluating the Robustness of Neural Networks; carlini/nn_robust_attacks
    l2_attack.py.
    """

    net: Classifier
    steps: int = 100
    searches: int = 4
    rate: float = 8.0
    last_rate: float = 0.001
    c: float = 3.0
    candidates: int = 10

    @property
    def evaluations(self) -> int:
        """Gradients that a picture may cost."""
        return self.steps * self.searches

    def __call__(
        self, images: np.ndarray, aim: Aim, seed: int = 0, callback: Callable[[], None] | None = None
    ) -> tuple[np.ndarray, History]:
        """Attacks pictures; see `Ball.__call__`."""
        found, history = images.copy(), [[] for _ in images]
        targets, c, rate = self._scales(images, aim)
        aim = dataclasses.replace(aim, classes=targets, targeted=True)
        least = np.full(len(images), np.inf)
        low, high = np.zeros_like(c), np.full_like(c, np.inf)
        problem, given = self._problem
        for _ in range(self.searches):
            succeeded = np.zeros(len(images), bool)
            live, last = np.arange(len(images)), np.full(len(images), np.inf)
            lowest = last.copy()
            x = problem.parameters.from_image(images)
            state = problem.optimizer.init(x)
            self._give(given, images, aim, c, rate, live)
            for step in range(self.steps):
                terms, gradient = problem.value_and_gradient(x, None)
                distance, excess = (terms[name].numpy() for name in ("distance", "margin"))
                for row, place in enumerate(live):
                    entry = {"step": len(history[place]) + 1, "value": float(distance[row] + excess[row])}
                    entry |= {"distance": float(distance[row]), "margin": float(excess[row])}
                    history[place].append(entry | {"c": float(c[place])})
                there = excess <= 0
                succeeded[live[there]] = True
                better = np.flatnonzero(there & (distance < least[live]))
                if len(better):
                    least[live[better]] = distance[better]
                    found[live[better]] = tf.gather(problem.parameters.to_image(x), better)
                x, state = problem.update(x, gradient, state, tf.constant(step))
                if callback is not None:
                    callback()
                lowest[live] = np.minimum(lowest[live], distance + excess)
                if (step + 1) % max(1, self.steps // 10) == 0:
                    falls = lowest[live] <= 0.9999 * last[live]
                    last[live] = lowest[live]
                    if not falls.all():
                        stay, live = np.flatnonzero(falls), live[falls]
                        if not len(live):
                            break
                        x, state = tf.gather(x, stay), tuple(tf.gather(each, stay) for each in state)
                        self._give(given, images, aim, c, rate, live)
            low = np.where(succeeded, low, np.maximum(low, c))
            high = np.where(succeeded, np.minimum(high, c), high)
            with np.errstate(invalid="ignore"):
                c = np.where(np.isinf(high), c * 10, np.where(low == 0, c / 10, np.sqrt(low * high)))
        return found, history

    def rounded(self, found: np.ndarray, images: np.ndarray, aim: Aim) -> np.ndarray:
        """See `enlarged_until_rounded`."""
        return enlarged_until_rounded(self.net, found, images, aim)

    def _scales(self, images, aim):
        """Targets int32 [N], and the first c and rate [N]: what is right for the linear net, times the multiples."""
        logits, ends = self.net.logits(images), aim.classes[:, None]
        ordered = others(logits, aim.classes, self.candidates)
        labels, ends = (ordered[:, 0], ends) if aim.targeted else (aim.classes, ordered)
        targets, margin, normal = nearest_boundary(self.net, images, labels, ends)
        margin = margin + aim.confidence + TIE
        length = np.maximum(255 * lengths(normal), 1e-12)  # of values 0..1
        size = margin / length / np.sqrt(images[0].size)
        c = np.minimum(self.c * 2 * margin / length**2, MOST_C).astype(np.float32)
        return targets, c, np.minimum(self.rate * size, MOST_RATE).astype(np.float32)

    @functools.cached_property
    def _problem(self):
        given = {
            "centre": tf.Variable(tf.zeros([0, 1, 1, 3]), shape=[None, None, None, 3], trainable=False),
            "targets": tf.Variable(tf.zeros([0], tf.int32), shape=[None], trainable=False),
            "c": tf.Variable(tf.zeros([0]), shape=[None], trainable=False),
            "rate": tf.Variable(tf.zeros([0, 1, 1, 1]), shape=[None, 1, 1, 1], trainable=False),
            "confidence": tf.Variable(0.0, trainable=False),
        }

        def distance(image):
            return tf.reduce_sum(tf.square((image - given["centre"]) / 255.0), axis=[1, 2, 3])

        def excess(logits):
            short = given["confidence"] - lead(logits, given["targets"])
            return given["c"] * tf.maximum(short, 0.0)

        def rate(step):
            return given["rate"] * self.last_rate ** (tf.cast(step, tf.float32) / self.steps)

        objective = objectives.of("distance", IMAGE, distance) + objectives.of("margin", "logits", excess)
        box, adam = parameters.TanhBox(), optimizers.Adam(rate)
        return Problem(self.net.model, objective, parameters=box, optimizer=adam), given

    @staticmethod
    def _give(given, images, aim, c, rate, rows):
        given["centre"].assign(images[rows])
        given["targets"].assign(aim.classes[rows])
        given["c"].assign(c[rows])
        given["rate"].assign(rate[rows, None, None, None])
        given["confidence"].assign(aim.confidence + TIE)
