"""The training loop: one for every net of this project, from a laptop to several GPUs.

    with strategy.scope():
        trainee = ...
    result = train(trainee, batches, steps=1000, folder="out/run", optimizer=AdamW(), schedule=cosine(1e-3, 1000))

The same call goes on where a killed run was, and ends with the same weights to the bit: data, draws and rate are
functions of the step, and a checkpoint keeps everything else.
"""

import itertools
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from ..errors import InputError
from . import checkpoints, memory
from .journal import Clock, Journal, Timer
from .optimizers import SGD, AdamW
from .schedules import Schedule
from .step import Step

REFUSED_IN_A_ROW = 3  # so many refused steps one after the other end the run
LOG_LINES = 500  # of a run, at most
STOPPING = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGINT: 130}


class Trainee(Protocol):
    """What can be trained. `pictures() -> list of uint8 [H, W, 3]` may be there too, for TensorBoard.

    networks: the nets by name; all of their variables are trained (if trainable) and kept in checkpoints.
    """

    networks: dict[str, keras.Model]

    def losses(self, batch: dict) -> dict[str, tf.Tensor]:
        """Gives named scalars, each a SUM over the examples of the batch: the loop alone divides by their number.

        The batch is one of the data set, without its strings, plus `seed` (int32 [2], another one for every step,
        batch and replica) for stateless random draws. Nets are to be called with training=True.
        """

    def validate(self) -> dict[str, float]:
        """Gives named figures of the networks as they are (the loop has put the averaged weights in)."""


class Stopped(Exception):
    """A signal ended the run after a checkpoint; the same command goes on. `status` is the program's exit status."""

    def __init__(self, number: int, step: int):
        name = signal.Signals(number).name
        super().__init__(f"{name}: stopped at step {step} with a checkpoint; the same command goes on.")
        self.status = STOPPING[signal.Signals(number)]


@dataclass
class Result:
    """What came of a run.

    step: number of steps done.   trained: number of these that this call did.
    last, best: the figures of the last and the best validation, each with its `step`; empty without validation.
    examples_per_second, waiting: speed of this call, and share of the time that steps waited for their input.
    refused: steps that moved nothing because a loss or gradient was not finite.
    """

    step: int
    trained: int
    last: dict = field(default_factory=dict)
    best: dict = field(default_factory=dict)
    examples_per_second: float | None = None
    waiting: float | None = None
    refused: int = 0


def train(
    trainee: Trainee,
    batches: Callable[[int], tf.data.Dataset],
    *,
    steps: int,
    folder: str | pathlib.Path,
    schedule: Schedule,
    optimizer: SGD | AdamW | None = None,
    multiplier: Callable[[keras.Variable], float] | None = None,
    clip_norm: float | None = None,
    average: float | None = None,
    accumulate: int = 1,
    strategy: tf.distribute.Strategy | None = None,
    seed: int = 0,
    validate_steps: int | None = None,
    best: str | None = None,
    checkpoint_minutes: float = 1.0,
    keep: int = 3,
    tensorboard: bool = True,
    progress: Callable[[int, dict], None] | None = None,
    say: Callable[[str], None] = lambda sentence: print(sentence, file=sys.stderr),
) -> Result:
    """Trains until `steps` steps are done; the networks then hold what is to be released.

    That is: the weights of the best validation where `best` names a figure, else the averaged weights, else the last.

    Args:
      trainee: nets, losses and validation, made in the strategy's scope, with frozen layers frozen.
      batches: gives the data set from a batch on, so that batches(n) begins with what batches(0) has at place n.
        Each element is a dict of tensors with the examples along the first axis, the same number in each; an
        `image_id` among them is written down when a step is refused.
      steps: number of steps of the whole run.
      folder: takes checkpoints/, log.jsonl, refused.jsonl and tensorboard/. What lies there is gone on with.
      schedule: learning rate as a function of the step.
      optimizer: AdamW() unless given.
      multiplier, clip_norm, average, accumulate: as `training.step.Step`.
      strategy: tf.distribute strategy in whose scope the trainee was made.
      seed: of the trainee's random draws.
      validate_steps: validate each so many steps and at the end; None: not at all, 0: at the end only.
      best: name of the figure whose highest value marks the best validation; "-name" for the lowest.
      checkpoint_minutes: a checkpoint each so many minutes, each tenth of the steps, and at the end.
      keep: number of newest checkpoints kept.
      tensorboard: write scalars and pictures for TensorBoard.
      progress: called after each step with its number and a dict of numbers to show: losses, examples_per_second,
        waiting (share), seconds_left.
      say: called with sentences for a person: refused steps, memory, where the run goes on.

    Returns:
      A Result.

    Raises:
      InputError: too little memory, a checkpoint of another architecture, a full disk, or three refused steps in a
        row; the last good checkpoint is intact.
      Stopped: SIGTERM, SIGUSR1 or Ctrl-C came; a checkpoint was written.
    """
    folder = pathlib.Path(folder)
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        step = Step(
            trainee,
            optimizer or AdamW(),
            multiplier=multiplier,
            clip_norm=clip_norm,
            average=average,
            accumulate=accumulate,
            strategy=strategy,
        )
    run = _Run(step, folder, keep, best)
    done = run.resume(say)
    journal = Journal(folder, done, tensorboard)
    clock, save_timer = Clock(), Timer(60 * checkpoint_minutes)
    log_steps, tenth = max(1, steps // LOG_LINES), max(1, -(-steps // 10))

    if done < steps:
        data = strategy.experimental_distribute_dataset(_numbers_only(batches(done * accumulate)))
        step.compile(data.element_spec)
        iterator = iter(data)
    start = done
    logged: dict[str, list[float]] = {}
    with _Signals() as signals:
        while done < steps:
            began = time.perf_counter()
            taken = list(itertools.islice(iterator, accumulate))
            if len(taken) < accumulate:
                raise ValueError(f"The data ended after {done} of {steps} steps: it must repeat itself.")
            arrived = time.perf_counter()
            if done == start:
                memory.check(step, taken, say)
            rate = schedule(done)
            seeds = [
                (seed, (done * accumulate + k) * strategy.num_replicas_in_sync) for k in range(accumulate)
            ]
            with memory.explained():
                outcome = _Outcome(step(taken, rate, seeds))
            clock.add(arrived - began, time.perf_counter() - arrived, outcome.examples)
            done += 1
            if outcome.accepted:
                run.refused_in_a_row = 0
                for name, value in outcome.losses.items():
                    logged.setdefault(name, []).append(value)
            else:
                run.refuse(done, outcome, step, batches, accumulate, journal, say)
            if progress:
                progress(done, _numbers(outcome, clock, steps - done))
            if logged and (done % log_steps == 0 or done == steps):
                means = {name: float(np.mean(values)) for name, values in logged.items()}
                speed = {"examples_per_second": clock.examples_per_second, "waiting": clock.waiting_share}
                journal.line(done, losses=means, rate=rate, gradient_norm=outcome.gradient_norm, **speed)
                logged = {}
            if validate_steps is not None and (
                done == steps or validate_steps and done % validate_steps == 0
            ):
                run.validate(done, trainee, journal)
            if signals.caught or done == steps or done % tenth == 0 or save_timer.due():
                run.save(done)
            if signals.caught and done < steps:
                journal.flush()
                raise Stopped(signals.caught, done)
    journal.flush()
    run.hand_over()
    return Result(
        step=done,
        trained=done - start,
        last=run.last,
        best=run.best,
        examples_per_second=clock.examples_per_second,
        waiting=clock.waiting_share,
        refused=run.refused,
    )


class _Run:
    """What a run has reached: its checkpoints, its figures and its refused steps."""

    def __init__(self, step: Step, folder: pathlib.Path, keep: int, best: str | None):
        self.step, self.folder, self.keep = step, folder, keep
        self.sign, self.figure = (-1, best[1:]) if best and best.startswith("-") else (1, best)
        self.last: dict = {}
        self.best: dict = {}
        self.refused = self.refused_in_a_row = 0
        self.checkpoints = folder / "checkpoints"

    def resume(self, say) -> int:
        """Takes up the newest whole checkpoint and gives its step, or 0."""
        found = checkpoints.newest(self.checkpoints)
        if not found:
            return 0
        arrays, header = found
        self.step.load(checkpoints.compare(arrays, self.step.state(), str(self.checkpoints)))
        self.last, self.best, self.refused = header["last"], header["best"], header["refused"]
        say(f"Going on from step {header['step']}.")
        return header["step"]

    def save(self, done: int) -> None:
        header = {"step": done, "last": self.last, "best": self.best, "refused": self.refused}
        checkpoints.write(checkpoints.path_of(self.checkpoints, done), self.step.state(), header)
        checkpoints.keep_newest(self.checkpoints, self.keep)

    def validate(self, done: int, trainee: Trainee, journal: Journal) -> None:
        """Measures the averaged weights, and keeps them apart if they are the best so far."""
        with self.step.averaged():
            figures = {name: float(value) for name, value in trainee.validate().items()}
            self.last = {"step": done, **figures}
            if self.figure and self.figure not in figures:
                raise ValueError(
                    f"validate() gives {sorted(figures)}, but the best is chosen by {self.figure}."
                )
            if self.figure and self._better():
                self.best = self.last
                checkpoints.write(self.checkpoints / "best.npz", self.step.network_state(), self.best)
            journal.line(done, validation=figures)
            if hasattr(trainee, "pictures"):
                journal.pictures(done, trainee.pictures())

    def _better(self) -> bool:
        new = self.last[self.figure]
        return np.isfinite(new) and (not self.best or self.sign * new > self.sign * self.best[self.figure])

    def refuse(self, done, outcome, step, batches, accumulate, journal, say) -> None:
        """Writes down the batch of a step that moved nothing; the third in a row ends the run."""
        self.refused += 1
        self.refused_in_a_row += 1
        why = outcome.why(step)
        ids = _ids(batches, (done - 1) * accumulate, accumulate)
        journal.refused(done, why, outcome.losses, ids)
        say(
            f"Step {done} refused, no weight was changed: {why}. Its images are in {self.folder}/refused.jsonl."
        )
        if self.refused_in_a_row == REFUSED_IN_A_ROW:
            raise InputError(
                f"Training ended at step {done}: {REFUSED_IN_A_ROW} steps in a row were refused ({why}). The last good "
                f"checkpoint in {self.checkpoints} is intact; lower the learning rate or look at the images in "
                f"{self.folder}/refused.jsonl."
            )

    def hand_over(self) -> None:
        """Leaves in the networks what is to be released."""
        if self.best:
            path = self.checkpoints / "best.npz"
            arrays, _ = checkpoints.read(path)
            self.step.load(checkpoints.compare(arrays, self.step.network_state(), str(path)))
        else:
            self.step.keep_averages()


class _Outcome:
    """One step's results as numbers."""

    def __init__(self, results: list[dict]):
        self.examples = sum(float(r["examples"]) for r in results)
        self.losses = {
            name: sum(float(r["losses"][name]) for r in results) / self.examples
            for name in results[-1]["losses"]
        }
        self.accepted = bool(results[-1]["accepted"])
        self.gradient_norm = float(results[-1]["gradient_norm"])
        self._squares = results[-1]["squares"]

    def why(self, step: Step) -> str:
        """Names the losses, or else the weights' gradients, that are not finite."""
        bad = [f"loss {name} is {value}" for name, value in self.losses.items() if not np.isfinite(value)]
        if not bad:
            reached = [name for name in step.weights if name not in step.unreached]
            finite = np.isfinite(self._squares.numpy())
            bad = [
                f"the gradient of {n} is not finite" for n, ok in zip(reached, finite, strict=True) if not ok
            ]
        return ", ".join(bad[:3])


class _Signals:
    """Catches the signals that end a run, so that it ends between two steps; a second Ctrl-C ends it at once."""

    def __init__(self):
        self.caught: int | None = None
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._catch) for number in STOPPING}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number, frame):
        if self.caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.caught = number


def _numbers_only(data: tf.data.Dataset) -> tf.data.Dataset:
    """Leaves out strings, which no accelerator takes, and reads ahead."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    names = [name for name, spec in data.element_spec.items() if spec.dtype != tf.string]
    return data.map(lambda batch: {n: batch[n] for n in names}).prefetch(2).with_options(options)


def _ids(batches, first: int, count: int) -> list:
    """Reads the ids of some batches again: their place is all that it takes."""
    ids = []
    for batch in batches(first).take(count):
        ids += [
            i.decode() if isinstance(i, bytes) else i
            for i in batch.get("image_id", tf.zeros(0)).numpy().tolist()
        ]
    return ids


def _numbers(outcome: _Outcome, clock: Clock, left: int) -> dict:
    return {
        "losses": outcome.losses,
        "examples_per_second": clock.examples_per_second,
        "waiting": clock.waiting_share,
        "seconds_left": clock.seconds_left(left),
    }
