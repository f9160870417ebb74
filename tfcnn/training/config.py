"""What a training is told: one dataclass, built by hand in a notebook or from the flags of an app.

A method's own settings are fields of a subclass. Importing this
module does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tfcnn.errors import InputError
from tfcnn.runtime import LARGEST_SEED

if TYPE_CHECKING:
    import keras

    from tfcnn.datasets.augment import Augmentation
    from tfcnn.training.optimizers import Ours


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Settings that every training has; the fields are named as the trainers' flags.

    Attributes:
        epochs: how often every picture is seen; passed over where `steps` is given.
        steps: number of steps of the whole run.
        batch_size: pictures of a batch, all replicas together.
        accumulate: batches whose gradients make one step.
        image_size: side of the net's pictures in pixels; None takes the method's own.
        resize: how a picture is brought there: stretch, crop, letterbox or fit.
        longest: with resize="fit": the most pixels of the longer side.
        augment: how training pictures are changed: a name, an `Augmentation`, or None: as the data need it.
        optimizer: "adamw", "sgd" (momentum 0.9), "adagrad", one of `training.optimizers`, or one of keras.optimizers.
        learning_rate: the highest rate.
        schedule: "constant", "cosine" (to 0), "steps" (divided by 10 after 2/3 and 8/9 of the run), or a function
            of the step: our own or one of keras.optimizers.schedules.
        rate_drops: steps from which "steps" divides the rate by 10, in the place of its own.
        warmup: first steps, in which a named schedule climbs; at most a tenth of all.
        warmup_start: share of the rate from which it climbs, 0 to 1.
        weight_decay: decay of kernels under these three; biases and normalisation have none.
        clip_norm: greatest norm of all gradients together; 0 does not clip.
        average: decay of the weights' moving average, which is validated and released; 0 keeps none.
        backbone_rate: share of the learning rate for layers that start from trained weights.
        freeze: layers that stay: names, patterns, or endpoints with all before them.
        validate_epochs: epochs between two validations; 0 validates at the end only.
        checkpoint_minutes: minutes between two checkpoints.
        tensorboard: write files for TensorBoard.
        resume: go on from the newest checkpoint in the run's folder; False starts anew.
        check_memory: refuse a step whose estimated memory is more than is free; False runs it all the same.
        seed: of all randomness, 0 to 2**31 - 1.
        threads: that read pictures; 0 takes all.
    """

    epochs: float = 20.0
    steps: int | None = None
    batch_size: int = 16
    accumulate: int = 1
    image_size: int | None = None
    resize: str = "stretch"
    longest: int | None = None
    augment: str | Augmentation | None = None
    optimizer: str | Ours | keras.optimizers.Optimizer = "adamw"
    learning_rate: float = 1e-3
    schedule: str | Callable[[int], float] = "cosine"
    rate_drops: Sequence[int] = ()
    warmup: int = 100
    warmup_start: float = 0.0
    weight_decay: float = 0.02
    clip_norm: float = 10.0
    average: float = 0.998
    backbone_rate: float = 0.3
    freeze: Sequence[str] = ()
    validate_epochs: float = 1.0
    checkpoint_minutes: float = 1.0
    tensorboard: bool = True
    resume: bool = True
    check_memory: bool = True
    seed: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        at_least = {"batch_size": 1, "accumulate": 1, "epochs": 0, "learning_rate": 0, "warmup": 0}
        at_least |= {
            "warmup_start": 0,
            "weight_decay": 0,
            "clip_norm": 0,
            "average": 0,
            "backbone_rate": 0,
            "validate_epochs": 0,
        }
        at_least |= {"checkpoint_minutes": 0, "threads": 0} | ({} if self.steps is None else {"steps": 1})
        for name, least in at_least.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                raise InputError(f"{name} is {value!r}, and must be a number from {least} up")
        if self.warmup_start > 1:
            raise InputError(f"warmup_start is {self.warmup_start!r}, and must be at most 1: it is a share")
        if self.average >= 1:
            raise InputError(f"average is {self.average!r}, and must be below 1: it is a decay")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Gives the steps of the run, of which an epoch of batches has so many."""
        return self.steps or max(1, round(self.epochs * steps_per_epoch / self.accumulate))

    def validation_steps(self, steps_per_epoch: int) -> int:
        """Gives the steps between two validations; 0: at the end only."""
        if not self.validate_epochs:
            return 0
        return max(1, round(self.validate_epochs * steps_per_epoch / self.accumulate))


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(TrainingConfig):
    """Settings of `training.train_classifier`.

    Attributes:
        label_smoothing: share of a label's weight that is spread over all classes.
        freeze_batch_norm: keep batch norm's statistics, scale and shift; None: where they have been trained.
        sync_batch_norm: take live batch norm's statistics over the batches of all replicas.
        cache_features: train the last layer alone, on features that are computed once and kept in this folder.
    """

    batch_size: int = 32
    label_smoothing: float = 0.0
    freeze_batch_norm: bool | None = None
    sync_batch_norm: bool = False
    cache_features: str | None = None


def check_seed(seed: int) -> int:
    """Gives the seed back where TensorFlow can take it.

    Raises:
        InputError: it is not within 0 and 2**31 - 1.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"seed is {seed}, and must be from 0 to {LARGEST_SEED}")
    return seed
