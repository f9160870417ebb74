"""Szegedy's attack: box-constrained L-BFGS towards a class, with a search for the weight of the distance.

N pictures of H x W, 0..255.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfcnn.fooling.classifier import Aim, Classifier
from tfcnn.fooling.gradient import History
from tfcnn.fooling.minimal import enlarged_until_rounded
from tfcnn.imageopt import IMAGE, Problem, lbfgs, objectives


def distortion(found: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Gives the paper's measure of a change, [N]: sqrt(mean d^2) of values 0..1."""
    difference = (np.asarray(found, np.float64) - np.asarray(images, np.float64)) / 255
    return np.sqrt(np.square(difference).mean(axis=(1, 2, 3)))


@dataclasses.dataclass(frozen=True)
class LBFGS:
    """Minimises c |r|^2 + cross-entropy(x + r, target), x + r in 0..255, for the largest c that succeeds.

    The paper writes |r|, whose gradient at the start does not exist; programs take its square, as here. An untargeted
    attack takes the most probable other class as its target.

    Args:
        net: under attack.
        steps: evaluations for each c.
        searches: values of c: times or by 10 until one succeeds and another fails, then bisection of its logarithm.
        c: the first; |r|^2 is of values 0..1.

    Source: Szegedy et al. 2014, Intriguing Properties of Neural Networks, section 4.1.
    """

    net: Classifier
    steps: int = 30
    searches: int = 6
    c: float = 1.0

    @property
    def evaluations(self) -> int:
        """Gradients that a picture may cost."""
        return self.steps * self.searches

    def __call__(
        self, images: np.ndarray, aim: Aim, seed: int = 0, callback: Callable[[], None] | None = None
    ) -> tuple[np.ndarray, History]:
        """Attacks pictures; see `Ball.__call__`."""
        found, history = images.copy(), [[] for _ in images]
        targets = aim.classes if aim.targeted else self._runners_up(images, aim.classes)
        least = np.full(len(images), np.inf)
        c = np.full(len(images), self.c)
        low, high = np.zeros(len(images)), np.full(len(images), np.inf)  # c that succeeds, c that fails
        problem, given = self._problem
        given["centre"].assign(images)
        given["targets"].assign(targets)
        for _ in range(self.searches):
            given["c"].assign(c.astype(np.float32))
            called = callback and (lambda moment: callback())
            result = lbfgs(problem, images, self.steps, bounds=(0.0, 255.0), callback=called)
            for place, entries in enumerate(history):
                for entry in result.history(place):
                    entries.append(entry | {"step": len(entries) + 1, "c": float(c[place])})
            there = aim.reached(self.net.logits(result.image))
            distances = distortion(result.image, images)
            better = there & (distances < least)
            found[better], least[better] = result.image[better], distances[better]
            low, high = np.where(there, np.maximum(low, c), low), np.where(there, high, np.minimum(high, c))
            with np.errstate(invalid="ignore"):
                c = np.where(low == 0, c / 10, np.where(np.isinf(high), c * 10, np.sqrt(low * high)))
        return found, history

    def rounded(self, found: np.ndarray, images: np.ndarray, aim: Aim) -> np.ndarray:
        """See `enlarged_until_rounded`."""
        return enlarged_until_rounded(self.net, found, images, aim)

    def _runners_up(self, images, labels):
        logits = self.net.logits(images)
        logits[np.arange(len(labels)), labels] = -np.inf
        return logits.argmax(axis=1).astype(np.int32)

    @functools.cached_property
    def _problem(self):
        given = {
            "centre": tf.Variable(tf.zeros([0, 1, 1, 3]), shape=[None, None, None, 3], trainable=False),
            "targets": tf.Variable(tf.zeros([0], tf.int32), shape=[None], trainable=False),
            "c": tf.Variable(tf.zeros([0]), shape=[None], trainable=False),
        }

        def distance(image):
            return given["c"] * tf.reduce_sum(tf.square((image - given["centre"]) / 255.0), axis=[1, 2, 3])

        objective = objectives.of("distance", IMAGE, distance) + objectives.cross_entropy(given["targets"])
        return Problem(self.net.model, objective), given
