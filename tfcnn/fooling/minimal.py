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
    live = np.flatnonzero(aim.reached(net.logits(found)))
    factor = 1.0
    while len(live) and factor < 64:
        tried = np.clip(np.rint(images[live] + factor * (found[live] - images[live])), 0, 255)
        done = aim[live].reached(net.logits(tried))
        rounded[live[done]] = tried[done]
        live, factor = live[~done], factor * 1.05
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
        order = np.argsort(-logits, axis=1, kind="stable")
        others = np.stack([row[row != label] for row, label in zip(order, labels, strict=True)])
        others = others[:, : self.candidates - 1]
        for _ in range(self.steps):
            for place, value in zip(live, aim[live].margin(logits), strict=True):
                entry = {"step": len(history[place]) + 1, "value": float(value), "margin": float(value)}
                history[place].append(entry)
            total[live] += self._to_nearest(found[live], labels[live], others[live])
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

    def _to_nearest(self, x, labels, others):
        """[N, H, W, 3]: the step to the nearest of the boundaries between a label and others [N, k]."""
        _, own, own_gradient = self.net.logit_gradient(x, labels)
        least, step = np.full(len(x), np.inf), np.zeros_like(x)
        for column in others.T:
            _, other, gradient = self.net.logit_gradient(x, column)
            normal = (gradient - own_gradient).numpy()
            length = np.maximum(np.sqrt(np.square(normal).sum(axis=(1, 2, 3))), 1e-12)
            distance = np.abs(other - own) / length
            nearer = distance < least
            least[nearer] = distance[nearer]
            scale = ((distance + 1e-4) / length).astype(np.float32)
            step[nearer] = (scale[:, None, None, None] * normal)[nearer]
        return step


@dataclasses.dataclass(frozen=True)
class CarliniWagner:
    """Minimises |x' - x|^2 + c max(margin + confidence, 0), x' the tanh of a free variable, for the smallest c.

    Values count in 0..1, so that c compares with the paper's; c goes times or by 10 until one succeeds and another
    fails, then by bisection of its logarithm. A picture leaves a round of the search when its value
    no longer falls.

    Args:
        net: under attack.
        steps: of Adam for each c; the program has 10,000.
        searches: values of c; the program has 9.
        rate: of Adam; the program's 0.01 moves a value by a grey level a step, and needs its many steps to come back.
        c: the first.

    Source: Carlini & Wagner 2017, Towards Evaluating the Robustness of Neural Networks; carlini/nn_robust_attacks
    l2_attack.py.
    """

    net: Classifier
    steps: int = 100
    searches: int = 6
    rate: float = 0.002
    c: float = 0.01

    @property
    def evaluations(self) -> int:
        """Gradients that a picture may cost."""
        return self.steps * self.searches

    def __call__(
        self, images: np.ndarray, aim: Aim, seed: int = 0, callback: Callable[[], None] | None = None
    ) -> tuple[np.ndarray, History]:
        """Attacks pictures; see `Ball.__call__`."""
        found, history = images.copy(), [[] for _ in images]
        least = np.full(len(images), np.inf)
        c = np.full(len(images), self.c, np.float32)
        low, high = np.zeros_like(c), np.full_like(c, np.inf)
        problem, given = self._problem
        for _ in range(self.searches):
            succeeded = np.zeros(len(images), bool)
            live, last = np.arange(len(images)), np.full(len(images), np.inf)
            x = problem.parameters.from_image(images)
            state = problem.optimizer.init(x)
            self._give(given, images, aim, c, live)
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
                if (step + 1) % max(1, self.steps // 10) == 0:
                    value = distance + excess
                    falls = value <= 0.9999 * last[live]
                    last[live] = value
                    if not falls.all():
                        stay, live = np.flatnonzero(falls), live[falls]
                        if not len(live):
                            break
                        x, state = tf.gather(x, stay), tuple(tf.gather(each, stay) for each in state)
                        self._give(given, images, aim, c, live)
            low = np.where(succeeded, low, np.maximum(low, c))
            high = np.where(succeeded, np.minimum(high, c), high)
            with np.errstate(invalid="ignore"):
                c = np.where(np.isinf(high), c * 10, np.where(low == 0, c / 10, np.sqrt(low * high)))
        return found, history

    def rounded(self, found: np.ndarray, images: np.ndarray, aim: Aim) -> np.ndarray:
        """See `enlarged_until_rounded`."""
        return enlarged_until_rounded(self.net, found, images, aim)

    @functools.cached_property
    def _problem(self):
        given = {
            "centre": tf.Variable(tf.zeros([0, 1, 1, 3]), shape=[None, None, None, 3], trainable=False),
            "classes": tf.Variable(tf.zeros([0], tf.int32), shape=[None], trainable=False),
            "c": tf.Variable(tf.zeros([0]), shape=[None], trainable=False),
            "sign": tf.Variable(1.0, trainable=False),  # -1 where classes are targets
            "confidence": tf.Variable(0.0, trainable=False),
        }

        def distance(image):
            return tf.reduce_sum(tf.square((image - given["centre"]) / 255.0), axis=[1, 2, 3])

        def excess(logits):
            short = given["sign"] * lead(logits, given["classes"]) + given["confidence"]
            return given["c"] * tf.maximum(short, 0.0)

        objective = objectives.of("distance", IMAGE, distance) + objectives.of("margin", "logits", excess)
        box, adam = parameters.TanhBox(), optimizers.Adam(self.rate)
        return Problem(self.net.model, objective, parameters=box, optimizer=adam), given

    @staticmethod
    def _give(given, images, aim, c, rows):
        given["centre"].assign(images[rows])
        given["classes"].assign(aim.classes[rows])
        given["c"].assign(c[rows])
        given["sign"].assign(-1.0 if aim.targeted else 1.0)
        given["confidence"].assign(aim.confidence)
