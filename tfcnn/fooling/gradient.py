"""The fast gradient sign method and its kin: steps along the gradient, inside a ball round the picture.

N pictures of H x W, 0..255. eps, the ball's radius, is in grey levels: the largest change of a value (linf), or the
Euclidean length of the change of all H W 3 values (l2).
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfcnn.fooling.classifier import Aim, Classifier
from tfcnn.imageopt import constraints
from tfcnn.imageopt.optimizers import Sign

History = list[list[dict[str, float]]]  # for each picture an entry a step
NORMS = ("linf", "l2")


@dataclasses.dataclass(frozen=True)
class Ball:
    """An attack that stays within eps of the picture; N pictures at once, and each leaves when it has succeeded.

    Success is judged on the picture rounded to 8 bits. A step moves each value by `step_size` along the gradient's
    sign (linf), or the picture by that length along its gradient (l2), then projects on the ball and on 0..255.

    Args:
        net: under attack.
        norm: of the ball, "linf" or "l2".
        eps: its radius, grey levels.
        steps: gradients that a start may cost.
        step_size: grey levels.
        random_start: begin anywhere in the ball, not at the picture.
        restarts: starts; a picture that succeeds needs no further one.
        momentum: what stays of the sum of the gradients so far, each divided by its mean size; None: no sum.
    """

    net: Classifier
    norm: str
    eps: float
    steps: int
    step_size: float
    random_start: bool = False
    restarts: int = 1
    momentum: float | None = None

    @property
    def evaluations(self) -> int:
        """Gradients that a picture may cost."""
        return self.steps * self.restarts

    def __call__(
        self,
        images: np.ndarray,
        aim: Aim,
        seed: int = 0,
        callback: Callable[[], None] | None = None,
        first: tuple[np.ndarray, np.ndarray, tf.Tensor] | None = None,
    ) -> tuple[np.ndarray, History]:
        """Attacks pictures.

        Args:
            images: float32 [N, H, W, 3], whole numbers 0..255.
            aim: what they shall become.
            seed: of the random starts; a start's draw is the same for all pictures.
            callback: called after each step.
            first: logits, loss and gradient of the pictures as they are, where they are known; of an attack that
                begins there.

        Returns:
            float32 [N, H, W, 3], and each picture's history.
        """
        found, history = images.copy(), [[] for _ in images]
        live = np.arange(len(images))
        for restart in range(self.restarts):
            x = self._start(images[live], seed, restart)
            velocity = tf.zeros_like(x)
            for _ in range(self.steps):
                if first is None:
                    (logits, _), loss, gradient = self.net.loss_gradient(x, aim.classes[live])
                else:
                    (logits, loss, gradient), first = first, None
                for place, value in zip(live, loss, strict=True):
                    entry = {"step": len(history[place]) + 1, "value": float(value)}
                    history[place].append(entry | {"cross_entropy": float(value)})
                found[live] = x
                stay = np.flatnonzero(~self._succeeded(found[live], images[live], aim[live], logits))
                if len(stay) < len(live):
                    live = live[stay]
                    x, velocity, gradient = (tf.gather(each, stay) for each in (x, velocity, gradient))
                if not len(live):
                    return found, history
                downwards = gradient if aim.targeted else -gradient
                x, velocity = self._move(x, downwards, velocity, tf.constant(images[live]))
                if callback is not None:
                    callback()
            found[live] = x
            if restart + 1 < self.restarts:
                live = live[~self._succeeded(found[live], images[live], aim[live])]
                if not len(live):
                    break
        return found, history

    def rounded(self, found: np.ndarray, images: np.ndarray, aim: Aim | None = None) -> np.ndarray:
        """Rounds pictures to whole numbers inside the ball: float32 [N, H, W, 3]."""
        difference = found - images
        if self.norm == "linf":
            whole = math.floor(self.eps + 1e-6)
            return np.clip(images + np.clip(np.rint(difference), -whole, whole), 0, 255)

        def at(factor):
            return np.rint(difference * factor[:, None, None, None].astype(np.float32))

        def length(change):
            return np.sqrt(np.square(change, dtype=np.float64).sum(axis=(1, 2, 3)))

        # Rounding lets small changes vanish: the change is enlarged, or reduced, to its own length after rounding.
        limit = np.minimum(length(difference), self.eps) * (1 + 1e-6)
        low, high = np.zeros(len(images)), np.full(len(images), 8.0)
        for _ in range(16):
            middle = (low + high) / 2
            fits = length(at(middle)) <= limit
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        return np.clip(images + at(low), 0, 255)

    def _succeeded(self, found, images, aim, logits=None):
        """bool [N]: whether the rounded pictures have succeeded; `logits` are those of `found`, where known."""
        if logits is None:
            return aim.reached(self.net.logits(self.rounded(found, images)))
        done = aim.reached(logits)
        ask = np.flatnonzero(done)
        if len(ask):
            rounded = self.rounded(found[ask], images[ask])
            changed = (rounded != found[ask]).any(axis=(1, 2, 3))
            ask = ask[changed]
        if len(ask):
            done[ask] = aim[ask].reached(self.net.logits(rounded[changed]))
        return done

    def _start(self, images, seed, restart):
        """[N, H, W, 3]: the pictures, or a draw in the ball round each."""
        if not self.random_start:
            return tf.constant(images)
        shape, draw = images.shape[1:], [seed, restart]
        if self.norm == "linf":
            change = tf.random.stateless_uniform(shape, draw, -self.eps, self.eps)
            change = (
                tf.round(change) if self.eps >= 1 else change
            )  # whole steps from there stay 8-bit pictures
        else:
            change = tf.random.stateless_normal(shape, draw)
            radius = self.eps * tf.random.stateless_uniform([], draw) ** (1 / math.prod(shape))
            change *= radius / tf.norm(change)
        return self._project(images + change, tf.constant(images))

    @functools.cached_property
    def _move(self):
        def move(x, gradient, velocity, centre):
            if self.momentum is not None:
                size = tf.reduce_mean(tf.abs(gradient), axis=[1, 2, 3], keepdims=True)
                velocity = self.momentum * velocity + gradient / tf.maximum(size, 1e-20)
                gradient = velocity
            if self.norm == "linf":
                x, _ = Sign(self.step_size).update(x, gradient, (), 0)
            else:
                length = tf.sqrt(tf.reduce_sum(tf.square(gradient), axis=[1, 2, 3], keepdims=True))
                x -= self.step_size * gradient / tf.maximum(length, 1e-20)
            return self._project(x, centre), velocity

        return tf.function(move, input_signature=[tf.TensorSpec([None, None, None, 3])] * 4)

    def _project(self, x, centre):
        ball = constraints.linf_ball if self.norm == "linf" else constraints.l2_ball
        return constraints.compose(ball(centre, self.eps), constraints.in_range())(x)


def fgsm(net: Classifier, norm: str, eps: float, **options: float) -> Ball:
    """The fast gradient sign method: one step of eps.

    Source: Goodfellow, Shlens, Szegedy 2015, Explaining and Harnessing Adversarial Examples.
    """
    return Ball(net, norm, eps, **{"steps": 1, "step_size": eps} | options)


def bim(net: Classifier, norm: str, eps: float, **options: float) -> Ball:
    """The basic iterative method: min(eps + 4, 1.25 eps) steps of one grey level; in l2, 10 steps of eps / 5.

    Source: Kurakin, Goodfellow, Bengio 2017, Adversarial Examples in the Physical World.
    """
    if norm == "l2":
        return Ball(net, norm, eps, **{"steps": 10, "step_size": eps / 5} | options)
    steps = max(1, math.ceil(min(eps + 4, 1.25 * eps)))
    return Ball(net, norm, eps, **{"steps": steps, "step_size": 1.0} | options)


def pgd(net: Classifier, norm: str, eps: float, **options: float) -> Ball:
    """Projected gradient descent: random start, 10 steps of eps / 4 (whole grey levels where eps has one).

    Source: Madry et al. 2018, Towards Deep Learning Models Resistant to Adversarial Attacks; 8, 2, 10 as in
    MadryLab/cifar10_challenge.
    """
    step = max(1.0, round(eps / 4)) if norm == "linf" and eps >= 1 else eps / 4
    return Ball(net, norm, eps, **{"steps": 10, "step_size": step, "random_start": True} | options)


def momentum(net: Classifier, norm: str, eps: float, **options: float) -> Ball:
    """The momentum iterative method: 10 steps of eps / 10 along the sum of the gradients, each of mean size 1.

    Source: Dong et al. 2018, Boosting Adversarial Attacks with Momentum: decay factor 1.0.
    """
    return Ball(net, norm, eps, **{"steps": 10, "step_size": eps / 10, "momentum": 1.0} | options)
