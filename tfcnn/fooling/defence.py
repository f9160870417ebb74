"""Adversarial training: each batch is seen twice, as it is and attacked, so that the net learns to answer both alike.

N pictures of a batch, 0..255; K classes. eps is the largest change of a value, in grey levels.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from tfcnn.datasets.example import Dataset
from tfcnn.errors import InputError, unknown
from tfcnn.imageopt import constraints, optimizers
from tfcnn.ops import draws
from tfcnn.training.classifier import Classifier, train_classifier
from tfcnn.training.config import ClassifierConfig
from tfcnn.training.run import Trained

ATTACKS = ("fgsm", "pgd")


@dataclasses.dataclass(frozen=True)
class RobustConfig(ClassifierConfig):
    """Settings of `train_robust`.

    Attributes:
        attack: "fgsm", one step of eps from the picture; "pgd", several from a random start in the ball round it.
        eps: grey levels; the paper's 0.25 of MNIST is 64.
        attack_steps: of "pgd"; Madry's 7 on CIFAR-10 and 40 on MNIST.
        clean_share: weight of the clean pictures' loss, the paper's alpha.
    """

    attack: str = "fgsm"
    eps: float = 8.0
    attack_steps: int = 7
    clean_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attack not in ATTACKS:
            raise unknown("attack", self.attack, ATTACKS)
        if not 0 < self.eps <= 255 or self.attack_steps < 1 or not 0 <= self.clean_share <= 1:
            raise InputError("eps is above 0 and at most 255, attack_steps at least 1, clean_share 0 to 1")
        if self.cache_features:
            raise InputError(
                "adversarial training changes pictures at each step: there are no features to keep"
            )


def train_robust(
    model: keras.Model,
    training: Dataset,
    validation: Dataset,
    config: RobustConfig,
    folder: str | pathlib.Path,
    **told: Any,
) -> Trained:
    """Trains a classifier that stands up to small changes of its pictures, and writes a release.

    The best validation is the one with the highest accuracy under the attack.

    Args:
        model, training, validation, folder: as `training.train_classifier`.
        config: the settings.
        **told: further arguments of `training.train_classifier`.

    Returns:
        The model, the figures (`robust_top1` is the accuracy under the attack), and where the release is.

    Raises:
        InputError: as `training.train_classifier`.
    """
    make = functools.partial(RobustClassifier, config=config)
    return train_classifier(model, training, validation, config, folder, trainee=make, **told)


class RobustClassifier(Classifier):
    """A trainee whose loss is alpha J(x) + (1 - alpha) J(x'), x' the attacked picture.

    The attack is made anew at each step, on the net as it then is in use (batch norm with its moving statistics);
    both halves go through the net as one batch.

    Args:
        model, validation, classes, smoothing, head: as of `Classifier`.
        config: which attack, and alpha (`clean_share`).

    Source: Goodfellow, Shlens, Szegedy 2015, section 6; with PGD, Madry et al. 2018.
    """

    best = "robust_top1"

    def __init__(
        self,
        model: keras.Model,
        validation: Callable[[], Iterable[Mapping]],
        classes: list[str],
        smoothing: float = 0.0,
        head: keras.Model | None = None,
        *,
        config: RobustConfig,
    ):
        super().__init__(model, validation, classes, smoothing, head)
        self.config = config
        self._attacked_answer = tf.function(self._answer_attacked, reduce_retracing=True)

    def losses(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Gives both parts of the loss, weighted, each summed over the batch: {"clean", "attacked"}."""
        images, labels = tf.cast(batch["image"], tf.float32), batch["label"]
        attacked = self._attack(images, labels, batch["seed"])
        logits = self.net(tf.concat([images, attacked], axis=0), training=True)["logits"]
        clean, changed = tf.split(logits, 2)
        share = self.config.clean_share
        return {
            "clean": share * self.cross_entropy(clean, labels),
            "attacked": (1 - share) * self.cross_entropy(changed, labels),
        }

    def validate(self) -> dict[str, float]:
        """Gives the figures of `Classifier`, and `robust_top1`: the share that is right under the attack."""
        figures, right, count = super().validate(), 0, 0
        for batch in self.validation():
            images, labels = (tf.convert_to_tensor(batch[name]) for name in ("image", "label"))
            answers = self._attacked_answer(images, labels).numpy()
            labels = labels.numpy()
            right += int((answers == labels)[labels >= 0].sum())
            count += int((labels >= 0).sum())
        return figures | {"robust_top1": right / count}

    def _answer_attacked(self, images, labels):
        attacked = self._attack(tf.cast(images, tf.float32), labels, tf.constant([0, 0]))
        logits = self.net(attacked, training=False)["logits"]
        finite = tf.reduce_all(tf.math.is_finite(logits), axis=1)
        return tf.where(finite, tf.argmax(logits, axis=1, output_type=tf.int32), -1)  # -1 is never right

    def _attack(self, images, labels, seed):
        config = self.config
        if config.attack == "fgsm":
            return perturbed(self.net, images, labels, config.eps)
        step = 2.5 * config.eps / config.attack_steps
        return perturbed(self.net, images, labels, config.eps, config.attack_steps, step, seed)


def perturbed(
    net: keras.Model,
    images: tf.Tensor,
    labels: tf.Tensor,
    eps: float,
    steps: int = 1,
    step_size: float | None = None,
    seed: tf.Tensor | None = None,
) -> tf.Tensor:
    """Attacks a batch as part of a graph: steps along the sign of the loss's gradient, inside the ball and 0..255.

    For pictures that are to be kept, and counted, take `fooling.attack`, which judges them on their 8 bits.

    Args:
        net: pictures -> a dict with `logits` [N, K].
        images: float32 [N, H, W, 3], 0..255.
        labels: int32 [N]; -1, padding, moves its picture by the gradient of class 0.
        eps: grey levels.
        steps: gradients.
        step_size: grey levels; None: eps.
        seed: int32 [2] or int64 [N, 2], of each picture; begin anywhere in the ball; None: at the picture.

    Returns:
        float32 [N, H, W, 3]; no gradient flows back through it.
    """
    inside = constraints.compose(constraints.linf_ball(images, eps), constraints.in_range())
    step = optimizers.Sign(eps if step_size is None else step_size)
    x = images
    if seed is not None:
        x = inside(x + draws.uniform(tf.shape(x), seed, -eps, eps))
    for _ in range(steps):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            logits = net(x, training=False)["logits"]
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
        x, _ = step.update(x, -tape.gradient(loss, x), (), 0)
        x = inside(x)
    return tf.stop_gradient(x)
