"""Attacks by name: one call from pictures to adversarial pictures of 8 bits, and what became of them.

N pictures of H x W, K classes.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn.errors import InputError, unknown
from tfcnn.fooling import gradient
from tfcnn.fooling.classifier import Aim, Classifier
from tfcnn.fooling.gradient import NORMS, History
from tfcnn.fooling.lbfgs import LBFGS
from tfcnn.fooling.minimal import CarliniWagner, DeepFool

IN_A_BALL = {
    "fgsm": gradient.fgsm,
    "bim": gradient.bim,
    "least_likely": gradient.bim,
    "pgd": gradient.pgd,
    "momentum": gradient.momentum,
}
MINIMAL = {"deepfool": DeepFool, "lbfgs": LBFGS, "cw": CarliniWagner}
AT_THE_PICTURE = ("fgsm", "bim", "momentum")  # their first gradient is that of the picture and its label
METHODS = (*IN_A_BALL, *MINIMAL)
OWN = -1  # the net's own answer in place of a label
EPS = {"linf": 4.0, "l2": 1.0}  # grey levels; of l2 root mean square over all values


@dataclasses.dataclass(frozen=True)
class Attacked:
    """What became of N pictures; all that is said of a picture is measured on its 8 bits.

    The net is asked for its answers to the finished pictures when the first of `after`, `score_after`, `success`,
    `success_rate` and `final` is read, once: who wants the pictures alone does not pay for them.

    Args:
        net: under attack.
        method: of METHODS.
        images: uint8 [N, H, W, 3], 0..255; a picture that was not attacked is as it was.
        labels: int32 [N], those given, or the net's own answers.
        targets: int32 [N], or None for an untargeted attack.
        confidence: logits by which the wrong class shall lead.
        before: int32 [N], the net's answers before.
        score_before: float32 [N], their probabilities.
        linf: float64 [N], the largest change of a value, grey levels.
        l2: float64 [N], Euclidean length of the change, grey levels.
        history: for each picture an entry a step: {step, value, each term}.
    """

    net: Classifier
    method: str
    images: np.ndarray
    labels: np.ndarray
    targets: np.ndarray | None
    confidence: float
    before: np.ndarray
    score_before: np.ndarray
    linf: np.ndarray
    l2: np.ndarray
    history: History

    @property
    def attacked(self) -> np.ndarray:
        """bool [N]; False where the net was wrong before."""
        return self.before == self.labels

    @property
    def after(self) -> np.ndarray:
        """int32 [N], the net's answers."""
        return self._answers[0].argmax(axis=1).astype(np.int32)

    @property
    def score_after(self) -> np.ndarray:
        """float32 [N], the probabilities of `after`."""
        return self._answers[1][np.arange(len(self.images)), self.after]

    @property
    def success(self) -> np.ndarray:
        """bool [N]; True where the attack reached its aim."""
        return self.attacked & self._aim.reached(self._answers[0])

    @property
    def success_rate(self) -> float | None:
        """Successes among the pictures that were attacked; None where there are none."""
        return float(self.success[self.attacked].mean()) if self.attacked.any() else None

    @functools.cached_property
    def final(self) -> list[dict[str, float]]:
        """For each picture {value, each term} at the end; value is what the method makes large or small."""
        logits, rows = self._answers[0], np.arange(len(self.images))
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        terms = {
            "cross_entropy": np.log(np.exp(shifted).sum(axis=1)) - shifted[rows, self._aim.classes],
            "margin": self._aim.margin(logits),
            "distance": np.square(self.l2 / 255),
        }
        value = {"deepfool": "margin", "cw": "distance", "lbfgs": "distance"}.get(
            self.method, "cross_entropy"
        )
        return [
            {"value": float(terms[value][row])} | {name: float(term[row]) for name, term in terms.items()}
            for row in rows
        ]

    @functools.cached_property
    def _answers(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits and scores of the finished pictures, [N, K] each."""
        return self.net.outputs(self.images)

    @functools.cached_property
    def _aim(self) -> Aim:
        return aim_at(self.labels, self.targets, self.confidence)


def aim_at(labels: np.ndarray, targets: np.ndarray | None, confidence: float) -> Aim:
    """Gives the aim of labels [N], or of targets [N] where there are some."""
    return Aim(labels if targets is None else targets, targets is not None, confidence)


class Attack:
    """An attack on a net, compiled at its first use and kept for further pictures.

    Args:
        model: any Keras classifier whose pictures are 0..255, preprocessing inside; what `with_logits` takes. Or the
            `Classifier` of another attack, which is compiled already.
        method: one of METHODS. In a ball round the picture: "fgsm", "bim", "least_likely" (BIM towards the least
            probable class), "pgd", "momentum"; for the smallest change: "deepfool", "lbfgs", "cw".
        eps: the ball's radius, grey levels; None: 4 in linf, and in l2 a root mean square of 1. The methods for the
            smallest change have none.
        norm: "linf", or "l2" (eps is the Euclidean length over all values); None: the method's own, linf in a ball.
        steps: gradients that a start (of "cw" and "lbfgs" a value of c) may cost; None: the method's own.
        step_size: grey levels, of the methods in a ball; None: the method's own.
        restarts: random starts, of "pgd".
        confidence: logits by which the wrong class shall lead.
        seed: of the random starts.
        bounds: the model's values for black and white, where these are not 0 and 255; eps is in grey levels all the
            same.

    Raises:
        InputError: a method, norm or number that cannot be, or a model that hides its logits.
    """

    def __init__(
        self,
        model: keras.Model | Classifier,
        method: str = "pgd",
        eps: float | None = None,
        *,
        norm: str | None = None,
        steps: int | None = None,
        step_size: float | None = None,
        restarts: int = 1,
        confidence: float = 0.0,
        seed: int = 0,
        bounds: tuple[float, float] = (0.0, 255.0),
    ):
        if method not in METHODS:
            raise unknown("attack", method, METHODS)
        if norm not in (None, *NORMS):
            raise unknown("norm", norm, NORMS)
        if method in MINIMAL:
            if eps is not None or step_size is not None:
                raise InputError(
                    f"{method} looks for the smallest change: it takes neither eps nor a step size"
                )
            if norm == "linf":
                raise InputError(f"{method} measures in l2, not in linf")
        if restarts != 1 and method != "pgd":
            raise InputError(f"only pgd has random starts; {method} has no restarts")
        wrong = [value for value in (eps, confidence) if value is not None and not 0 <= value < np.inf]
        if wrong or restarts < 1 or (steps is not None and steps < 1):
            raise InputError("eps and confidence are at least 0, steps and restarts at least 1")
        if norm != "l2" and method in IN_A_BALL and eps is not None and eps > 255:
            raise InputError(f"eps={eps:g} is more than the 255 grey levels between black and white")
        self.net = model if isinstance(model, Classifier) else Classifier(model, bounds)
        self.method, self.norm, self.eps = method, norm or ("l2" if method in MINIMAL else "linf"), eps
        self.confidence, self.seed = confidence, seed
        given = {"steps": steps, "step_size": step_size}
        self._options = {name: value for name, value in given.items() if value is not None}
        if restarts > 1:
            self._options["restarts"] = restarts
        self._runs: dict[tuple[int, ...], object] = {}

    def __call__(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        labels: Sequence[int] | np.ndarray | None = None,
        targets: int | Sequence[int] | np.ndarray | None = None,
        callback: Callable[[], None] | None = None,
    ) -> Attacked:
        """Attacks pictures.

        Args:
            images: [N, H, W, 3], 0..255; rounded to 8 bits first.
            labels: the true classes [N]; None takes the net's own answers. A picture that the net names wrongly
                already is left as it is.
            targets: what the net shall say instead, a class or [N]; None: anything but the label.
            callback: called after each step.

        Returns:
            The pictures and what became of them.

        Raises:
            InputError: a label that is no class, a target that is its picture's label, or a method without targets.
        """
        images = eight_bits(images)
        count = self.net.model.output["logits"].shape[-1]
        given = np.full(len(images), OWN, np.int32) if labels is None else np.asarray(labels, np.int32)
        if labels is not None and (given.min(initial=0) < 0 or given.max(initial=0) >= count):
            raise InputError(f"labels are classes 0 to {count - 1}")
        run, first = self.run(images.shape[1:]), None
        if targets is None and self.method in AT_THE_PICTURE:
            clean, *first = self.net.loss_gradient(images, given)
        else:
            clean = self.net.outputs(images)
        logits = clean[0]
        before = logits.argmax(axis=1).astype(np.int32)
        labels = before if labels is None else given
        targets = self._targets(targets, labels, logits)
        aim = aim_at(labels, targets, self.confidence)
        rows = np.flatnonzero(before == labels)
        made, history = images.copy(), [[] for _ in images]
        if len(rows):
            options = {"first": (logits[rows], first[0][rows], tf.gather(first[1], rows))} if first else {}
            found, histories = run(images[rows], aim[rows], self.seed, callback, **options)
            made[rows] = run.rounded(found, images[rows], aim[rows])
            for place, entries in zip(rows, histories, strict=True):
                history[place] = entries
        return self.measured(images, made, labels, targets, history, clean)

    def measured(
        self,
        images: np.ndarray,
        made: np.ndarray,
        labels: np.ndarray,
        targets: np.ndarray | None = None,
        history: History | None = None,
        clean: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Attacked:
        """Measures finished pictures, e.g. read back from their files.

        Args:
            images: [N, H, W, 3], 0..255, before.
            made: [N, H, W, 3], 0..255, after.
            labels: int32 [N].
            targets: int32 [N] or None.
            history: for each picture its entries.
            clean: logits and scores of `images`, where they are known.
        """
        images, made = eight_bits(images), eight_bits(made)
        logits, scores = self.net.outputs(images) if clean is None else clean
        before, difference = logits.argmax(axis=1), made - images
        return Attacked(
            net=self.net,
            method=self.method,
            images=made.astype(np.uint8),
            labels=labels,
            targets=targets,
            confidence=self.confidence,
            before=before.astype(np.int32),
            score_before=scores[np.arange(len(images)), before],
            linf=np.abs(difference).max(axis=(1, 2, 3), initial=0.0).astype(np.float64),
            l2=np.sqrt(np.einsum("nhwc,nhwc->n", difference, difference, dtype=np.float64)),
            history=history or [[] for _ in images],
        )

    def run(self, shape: Sequence[int]) -> gradient.Ball | DeepFool | CarliniWagner | LBFGS:
        """Gives the method itself for pictures of a shape (H, W, 3), with all its constants."""
        shape = tuple(shape)
        if self.method in MINIMAL:
            shape = ()
        if shape not in self._runs:
            if self.method in MINIMAL:
                self._runs[shape] = MINIMAL[self.method](self.net, **self._options)
            else:
                eps = EPS[self.norm] if self.eps is None else self.eps
                if self.eps is None and self.norm == "l2":
                    eps *= float(np.sqrt(np.prod(shape)))
                self._runs[shape] = IN_A_BALL[self.method](self.net, self.norm, eps, **self._options)
        return self._runs[shape]

    def _targets(self, targets, labels, logits):
        if self.method == "least_likely":
            if targets is not None:
                raise InputError("least_likely has its own target, the least probable class")
            return logits.argmin(axis=1).astype(np.int32)
        if targets is None:
            return None
        if self.method == "deepfool":
            raise InputError("deepfool goes to the nearest class; it takes no target")
        targets = np.broadcast_to(np.asarray(targets, np.int32), labels.shape).copy()
        if targets.min(initial=0) < 0 or targets.max(initial=0) >= logits.shape[1]:
            raise InputError(f"targets are classes 0 to {logits.shape[1] - 1}")
        same = np.flatnonzero(targets == labels)
        if len(same):
            raise InputError(f"the target {targets[same[0]]} is the label of picture {same[0]} already")
        return targets


def eight_bits(images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """Gives pictures [N, H, W, 3] as float32 whole numbers 0..255."""
    return np.clip(np.rint(np.asarray(images, np.float32)), 0, 255)


def noise_like(result: Attacked, images: np.ndarray, norm: str, seed: int = 0) -> np.ndarray:
    """Gives the pictures with noise as large as an attack's changes, to show that size alone does not fool.

    Args:
        result: the attack's.
        images: [N, H, W, 3], 0..255, before it.
        norm: "linf": uniform between plus and minus a picture's linf; "l2": normal, of a picture's l2.
        seed: of the noise, the same for each picture.

    Returns:
        uint8 [N, H, W, 3].
    """
    random = np.random.default_rng(seed)
    images = eight_bits(images)
    if norm == "linf":
        change = random.uniform(-1, 1, images.shape[1:]) * result.linf[:, None, None, None]
    else:
        change = random.normal(size=images.shape[1:])
        change = change / np.linalg.norm(change) * result.l2[:, None, None, None]
    return eight_bits(images + change).astype(np.uint8)


def attack(
    model: keras.Model,
    images: np.ndarray | Sequence[np.ndarray],
    labels: Sequence[int] | np.ndarray | None = None,
    method: str = "pgd",
    eps: float | None = None,
    targets: int | Sequence[int] | np.ndarray | None = None,
    **options: float | str,
) -> Attacked:
    """Attacks pictures; for several calls on one net keep an `Attack`.

    Args:
        model, method, eps, options: as `Attack` takes them.
        images, labels, targets: as `Attack.__call__` takes them.

    Returns:
        The pictures and what became of them.

    Raises:
        InputError: as of `Attack`.
    """
    return Attack(model, method, eps, **options)(images, labels, targets)
