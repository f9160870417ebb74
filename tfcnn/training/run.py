"""A run of the training loop as a config says, and the release at its end: what every trainer is made of.

A trainer is a function (model, training, validation, config, folder, ...) that freezes layers, makes batches and
a trainee, and ends with `fit` and `release`; see `training.classifier.train_classifier`.
"""

import contextlib
import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from tfcnn.datasets.example import Dataset
from tfcnn.errors import unknown
from tfcnn.runtime import Stop
from tfcnn.training import checkpoints, freezing, loop, optimizers, releases, schedules
from tfcnn.training.config import TrainingConfig

RELEASE = "release"  # the folder in a run's folder


class Batches(Protocol):
    """Training data: tfcnn.datasets.pipeline.Batches, training.features.Batches or a data set of one's own."""

    steps_per_epoch: int

    def __call__(self, start: int, shard: int = 0, of: int = 1) -> tf.data.Dataset:
        """Gives the batches from number `start` on, or the part of each that shard `shard` of `of` computes."""


class Reads(Protocol):
    """What reads pictures: {file: why} of those that could not be read so far."""

    refused: dict[str, str]


@dataclasses.dataclass
class Trained:
    """What came of a training.

    Attributes:
        model: the net with the weights that were released.
        result: the loop's `Result`.
        release: folder with model.keras and card.json.
        card: what card.json says.
        unreadable: {file: why} of pictures that could not be read.
    """

    model: keras.Model
    result: loop.Result
    release: pathlib.Path
    card: dict
    unreadable: dict[str, str]

    @property
    def metrics(self) -> dict:
        """{"last", "best"} of the validations, each a dict of figures with its `step`; best may be None."""
        return self.result.metrics


def fit(
    trainee: loop.Trainee,
    batches: Batches,
    config: TrainingConfig,
    folder: str | pathlib.Path,
    *,
    steps: int | None = None,
    best: str | None = None,
    what: str = "training",
    multiplier: Callable[[keras.Variable], float] | None = None,
    data: Mapping | None = None,
    readers: Sequence[Reads] = (),
    strategy: tf.distribute.Strategy | None = None,
    stop: Stop | None = None,
    progress: Callable[[int, dict], None] | None = None,
    say: Callable[[str], None] = lambda sentence: print(sentence, file=sys.stderr),
) -> loop.Result:
    """Trains by a config until its steps are done; a killed run is gone on with.

    Args:
        trainee: nets, losses and validation, with frozen layers frozen, made in the strategy's scope.
        batches: the training data.
        config: the settings.
        folder: takes checkpoints and logs.
        steps: of the run; None: as the config says.
        best: the figure whose highest value is best ("-name": lowest); None: no validation.
        what: name of this training, for `progress`.
        multiplier: factor of each variable's learning rate.
        data: `summary` of the data, kept in checkpoints: a run is not resumed on other data.
        readers: whose unreadable pictures `progress` is told of.
        strategy, stop, say: as `training.loop.train`.
        progress: called before the first step and after each one with the number of steps done and a dict: as
            `training.loop.train`, with `what`, `steps` (of the run) and `unreadable` {file: why}.

    Returns:
        The loop's Result.

    Raises:
        InputError, runtime.Interrupted, KeyboardInterrupt: as `training.loop.train`.
    """
    total = steps or config.total_steps(batches.steps_per_epoch)

    def tell(done: int, numbers: dict) -> None:
        progress(done, {**numbers, "what": what, "steps": total, "unreadable": unreadable(readers)})

    return loop.train(
        trainee,
        batches,
        steps=total,
        folder=folder,
        schedule=schedule(config, total),
        optimizer=optimizer(config),
        multiplier=multiplier,
        clip_norm=config.clip_norm or None,
        average=config.average or None,
        accumulate=config.accumulate,
        strategy=strategy,
        seed=config.seed,
        validate_steps=config.validation_steps(batches.steps_per_epoch) if best else None,
        best=best,
        checkpoint_minutes=config.checkpoint_minutes,
        resume=config.resume,
        tensorboard=config.tensorboard,
        data=data,
        check_memory=config.check_memory,
        progress=tell if progress else None,
        stop=stop,
        say=say,
    )


def optimizer(config: TrainingConfig) -> optimizers.Ours | keras.optimizers.Optimizer:
    """Gives the optimizer that a config names or holds.

    Raises:
        InputError: no such name.
    """
    named = {"adamw": optimizers.AdamW, "sgd": optimizers.SGD, "adagrad": optimizers.Adagrad}
    if isinstance(config.optimizer, str):
        if config.optimizer not in named:
            raise unknown("optimizer", config.optimizer, named)
        return named[config.optimizer](weight_decay=config.weight_decay)
    return config.optimizer


def schedule(config: TrainingConfig, steps: int) -> schedules.Schedule | None:
    """Gives the learning rate's course over so many steps; None: one of Keras' optimizers has its own."""
    if isinstance(config.optimizer, keras.optimizers.Optimizer) and isinstance(config.schedule, str):
        return None
    if not isinstance(config.schedule, str):
        return config.schedule
    warmup, drops = min(config.warmup, steps // 10), tuple(config.rate_drops)
    return schedules.named(config.schedule, config.learning_rate, steps, warmup, drops, config.warmup_start)


def summary(training: Dataset, validation: Dataset) -> dict:
    """Says what a run is trained on, for its checkpoints: class names, numbers of pictures and boxes, fingerprints."""
    parts = {"training": training, "validation": validation}
    counts = {
        name: {
            "images": len(part),
            "boxes": int(sum(len(record.boxes) for record in part.examples)),
            "fingerprint": part.fingerprint(),
        }
        for name, part in parts.items()
    }
    return {"classes": list(training.classes), **counts}


def check_data(folder: str | pathlib.Path, data: Mapping, config: TrainingConfig) -> None:
    """Sees before any work that a run in the folder, if it is to go on, was trained on the same data.

    Raises:
        InputError: it was not; what differs is said.
    """
    checkpoints.compare_data(_data_before(folder, config), data, str(folder))


def trained_before(
    folder: str | pathlib.Path, data: dict, config: TrainingConfig, model: keras.Model
) -> set[str]:
    """Names the layers that had been trained before the run: those that may be frozen or learn slowly.

    A run that goes on asks its checkpoint, since in a notebook `model` may hold what the run has taught it.

    Args:
        folder: of the run.
        data: `summary`; the names are added, for the checkpoints.
        config: the settings.
        model: with the weights that a new run starts from.
    """
    before = _data_before(folder, config) or {}
    data["trained_layers"] = before.get("trained_layers", sorted(freezing.trained_layers(model)))
    return set(data["trained_layers"])


def _data_before(folder: str | pathlib.Path, config: TrainingConfig) -> dict | None:
    header = checkpoints.newest_header(pathlib.Path(folder) / checkpoints.FOLDER) if config.resume else None
    return (header or {}).get("data")


def unreadable(readers: Sequence[Reads]) -> dict[str, str]:
    """Gives {file: why} of the pictures that could not be read so far."""
    return {file: why for reader in readers for file, why in list(reader.refused.items())}


def release(
    model: keras.Model,
    folder: str | pathlib.Path,
    result: loop.Result,
    config: TrainingConfig,
    *,
    kind: str,
    training: Dataset,
    validation: Dataset,
    card: Mapping | None = None,
    flags: str | None = None,
    float16: bool = True,
    **more: object,
) -> tuple[pathlib.Path, dict]:
    """Writes FOLDER/release: model.keras and card.json.

    Args:
        model: what is released.
        folder: of the run.
        result: of `fit`.
        config: for the seed and, where `card` names no command, the card's command.
        kind: of the method, which says how the release is read: "classifier", "faster_rcnn", ...
        training, validation: the data, for class names and numbers of pictures.
        card: fields that are put over all others: `data` in words, `command`, `licence`, `net`.
        flags: a flagfile's text that repeats the training.
        float16: store kernels as float16.
        **more: further fields of the card.

    Returns:
        The release's folder, and the card as it was written; a worker that is not the chief leaves no file.
    """
    path = pathlib.Path(folder) / RELEASE
    fields = {
        "kind": kind,
        "data": f"{training.name}: {len(training)} pictures; validated on {len(validation)}",
        "classes": list(training.classes),
        "command": repr(config),
        "seed": config.seed,
        "metrics": result.metrics,
        "licence": "as the data's",
        "steps": result.step,
        **more,
        **(card or {}),
    }
    with contextlib.ExitStack() as stack:
        written = path if result.chief else stack.enter_context(tempfile.TemporaryDirectory())
        return path, releases.save(model, written, fields, float16, flags)


def ignore(image: np.ndarray, name: str, title: str) -> None:
    """Shows nothing: what trainers call in the place of `show`."""
