"""The training loop: one for every net of this project, from a laptop to several GPUs.

    with strategy.scope():
        trainee = ...
    train(trainee, batches, steps=1000, folder="out/run", schedule=cosine(1e-3, 1000), strategy=strategy)

The same call goes on where a killed run was, and ends with the same weights to the bit: data, draws and rate
are functions of the step, and a checkpoint keeps everything else.
"""

import itertools
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from tfcnn.errors import InputError
from tfcnn.runtime import Stop
from tfcnn.training import checkpoints, memory
from tfcnn.training.journal import Clock, Journal, Timer
from tfcnn.training.optimizers import SGD, AdamW
from tfcnn.training.schedules import Schedule
from tfcnn.training.signals import Signals
from tfcnn.training.step import Step

REFUSED_IN_A_ROW = 3  # so many refused steps one after the other end the run
LOG_LINES = 500  # of a run, at most
CHECKPOINTS = "checkpoints"  # the folder in a run's folder


class Trainee(Protocol):
    """What can be trained. `pictures() -> list of uint8 [H, W, 3]` may be there too, for TensorBoard.

    networks: the nets by name; all of their variables are trained (if trainable) and kept in checkpoints, and
      so is the state of a keras.random.SeedGenerator that is an attribute of the trainee.
    """

    networks: dict[str, keras.Model]

    def losses(self, batch: dict) -> dict[str, tf.Tensor]:
        """Gives named scalars, each a SUM over the batch's examples: the loop alone divides by their number.

        The batch is one of the data set, without its strings, plus `seed` (int32 [2], another one for every
        step, batch and replica) for stateless random draws. Nets are to be called with training=True.
        """

    def validate(self) -> dict[str, float]:
        """Gives named figures of the networks as they are (the loop has put the averaged weights in)."""


@dataclass
class Result:
    """What came of a run.

    step: number of steps done.   trained: number of these that this call did.
    last, best: figures of the last and the best validation, each with its `step`; {} without validation.
    examples_per_second: speed of this call.   waiting: share of its time that steps waited for their input.
    skipped: steps that changed nothing because a loss or gradient was not finite.
    """

    step: int
    trained: int
    last: dict = field(default_factory=dict)
    best: dict = field(default_factory=dict)
    examples_per_second: float | None = None
    waiting: float | None = None
    skipped: int = 0

    @property
    def metrics(self) -> dict:
        """{"last", "best"} of the validations; best is None where no figure of one was finite."""
        return {"last": self.last, "best": self.best or None}


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
    resume: bool = True,
    tensorboard: bool = True,
    data: Mapping | None = None,
    check_memory: bool = True,
    progress: Callable[[int, dict], None] | None = None,
    stop: Stop | None = None,
    say: Callable[[str], None] = lambda sentence: print(sentence, file=sys.stderr),
) -> Result:
    """Trains until `steps` steps are done; the networks then hold what is to be released.

    That is: the weights of the best validation where `best` names a figure, else the averaged weights, else
    the last.

    Args:
      trainee: nets, losses and validation, made in the strategy's scope, with frozen layers frozen.
      batches: gives the data set from a batch on: batches(n) begins with what batches(0) has at place n. Each
        element is a dict of tensors with the examples along the first axis, the same number in each; an
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
      resume: go on from the newest checkpoint in `folder`; False deletes what a run left there.
      tensorboard: write scalars and pictures for TensorBoard.
      data: what says which data these are (`training.run.summary`): kept in checkpoints, and compared at a resume.
      check_memory: refuse a step whose estimated memory is more than is free.
      progress: called before the first step and after each one with the number of steps done and a dict of
        numbers to show: `losses`, `examples_per_second`, `waiting` (share of the time), `seconds_left`.
      stop: tells of SIGTERM and SIGUSR1 where the app listens from its start; else the loop listens itself.
      say: called with sentences for a person: refused steps, memory, where the run goes on.

    Returns:
      A Result.

    Raises:
      InputError: too little memory, a checkpoint of another architecture, a full disk, or three refused steps
        in a row; the last good checkpoint is intact.
      runtime.Interrupted: SIGTERM or SIGUSR1 came, and a checkpoint was written.
      KeyboardInterrupt: Ctrl-C came, and a checkpoint was written.
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
    if not resume:
        discard(folder)
    run = _Run(step, folder, best, keep, say, data)
    start = done = run.resume()
    run.journal = Journal(folder, done, tensorboard)
    clock, save_timer = Clock(), Timer(60 * checkpoint_minutes)
    log_steps, tenth = max(1, steps // LOG_LINES), max(1, -(-steps // 10))
    places = itertools.count(done * accumulate)  # in the row of batches
    if done < steps:
        source = strategy.experimental_distribute_dataset(_numbers_only(batches(done * accumulate)))
        step.compile(source.element_spec)
        size = _batch_size(source.element_spec)
        if size and check_memory:
            memory.check(step, size, say)  # before any batch is read
        iterator = iter(source)

    if progress and done < steps:
        progress(done, {"losses": {}, "examples_per_second": None, "waiting": None, "seconds_left": None})
    with Signals(stop) as signals:
        while done < steps:
            began = time.perf_counter()
            taken = list(itertools.islice(iterator, accumulate))
            if len(taken) < accumulate:
                raise ValueError(f"The data ended after {done} of {steps} steps: it must repeat itself.")
            arrived = time.perf_counter()
            if done == start and not size and check_memory:
                first = strategy.experimental_local_results(next(iter(taken[-1].values())))[0]
                memory.check(step, len(first), say)
            rate = schedule(done)
            seeds = [(seed, next(places) * strategy.num_replicas_in_sync) for _ in taken]
            with memory.explained():
                outcome = _Outcome(step(taken, rate, seeds))
            clock.add(arrived - began, time.perf_counter() - arrived, outcome.examples)
            done += 1

            run.take(done, outcome, lambda first=(done - 1) * accumulate: _ids(batches, first, accumulate))
            if done % log_steps == 0 or done == steps:
                run.log(done, rate, clock)
            if progress:
                speed = {"examples_per_second": clock.examples_per_second, "waiting": clock.waiting_share}
                progress(done, {"losses": outcome.losses, **speed, "seconds_left": clock.left(steps - done)})
            if validate_steps and done % validate_steps == 0 or done == steps and validate_steps is not None:
                run.validate(done)
            if done == steps or done % tenth == 0 or save_timer.due() or signals.caught:
                run.save(done)
            if signals.caught and done < steps:
                run.journal.flush()
                raise signals.exception(done)
    run.journal.flush()
    run.hand_over()
    return Result(
        step=done,
        trained=done - start,
        last=run.last,
        best=run.best,
        examples_per_second=clock.examples_per_second,
        waiting=clock.waiting_share,
        skipped=run.refused,
    )


def discard(folder: pathlib.Path) -> None:
    """Deletes what a run of the loop left in a folder."""
    for name in (CHECKPOINTS, "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("log.jsonl", "refused.jsonl"):
        (folder / name).unlink(missing_ok=True)


class _Run:
    """What a run has reached: its checkpoints, its figures and its refused steps."""

    journal: Journal

    def __init__(self, step: Step, folder: pathlib.Path, best: str | None, keep: int, say: Callable, data):
        self.step, self.keep, self.say, self.data = step, keep, say, data
        self.checkpoints = folder / CHECKPOINTS
        self.sign, self.figure = (-1, best[1:]) if best and best.startswith("-") else (1, best)
        self.last: dict = {}
        self.best: dict = {}
        self.refused = self.refused_in_a_row = 0
        self.since_log: list[_Outcome] = []

    def resume(self) -> int:
        """Takes up the newest whole checkpoint and gives its step, or 0."""
        found = checkpoints.newest(self.checkpoints)
        if not found:
            return 0
        arrays, header = found
        checkpoints.compare_data(header.get("data"), self.data, str(self.checkpoints.parent))
        self.step.load(checkpoints.compare(arrays, self.step.state(), str(self.checkpoints)))
        self.last, self.best, self.refused = header["last"], header["best"], header["refused"]
        self.refused_in_a_row = header["refused_in_a_row"]
        self.say(f"Going on from step {header['step']}.")
        return header["step"]

    def save(self, done: int) -> None:
        """Writes a checkpoint, and deletes the oldest."""
        kept = ("last", "best", "refused", "refused_in_a_row")
        header = {"step": done, "data": self.data} | {name: getattr(self, name) for name in kept}
        checkpoints.write(checkpoints.path_of(self.checkpoints, done), self.step.state(), header)
        checkpoints.keep_newest(self.checkpoints, self.keep)

    def take(self, done: int, outcome: "_Outcome", ids: Callable[[], list]) -> None:
        """Takes a step's outcome; a refused one is written down, and the third in a row ends the run."""
        if outcome.accepted:
            self.refused_in_a_row = 0
            self.since_log.append(outcome)
            return
        self.refused += 1
        self.refused_in_a_row += 1
        why = outcome.why(self.step)
        self.journal.refused(done, why, outcome.losses, ids())
        self.say(f"Step {done} refused, no weight was changed: {why}; its images: {self.journal.refusals}.")
        if self.refused_in_a_row == REFUSED_IN_A_ROW:
            raise InputError(
                f"Training ended at step {done}: {REFUSED_IN_A_ROW} steps in a row were refused ({why}), and "
                f"the last good checkpoint in {self.checkpoints} is intact; lower the learning rate, or look "
                f"at the images in {self.journal.refusals}."
            )

    def log(self, done: int, rate: float, clock: Clock) -> None:
        """Logs the losses' means since the line before."""
        if self.since_log:
            means = {
                n: float(np.mean([o.losses[n] for o in self.since_log])) for n in self.since_log[0].losses
            }
            norm = self.since_log[-1].gradient_norm
            speed = {"examples_per_second": clock.examples_per_second, "waiting": clock.waiting_share}
            self.journal.line(done, losses=means, rate=rate, gradient_norm=norm, **speed)
            self.since_log = []

    def validate(self, done: int) -> None:
        """Measures the averaged weights, and keeps them apart if they are the best so far."""
        trainee = self.step.trainee
        with self.step.averaged():
            figures = {name: float(value) for name, value in trainee.validate().items()}
            self.last = {"step": done, **figures}
            if self.figure and self.figure not in figures:
                raise ValueError(
                    f"validate() gives {sorted(figures)}, but not {self.figure}, to find the best."
                )
            if self.figure and self._better():
                self.best = self.last
                checkpoints.write(self.checkpoints / "best.npz", self.step.network_state(), self.best)
            self.journal.line(done, validation=figures)
            if hasattr(trainee, "pictures"):
                self.journal.pictures(done, trainee.pictures())

    def _better(self) -> bool:
        if not all(np.isfinite(value) for value in self.last.values()):
            return False
        new = self.last[self.figure]
        return not self.best or self.sign * new > self.sign * self.best[self.figure]

    def hand_over(self) -> None:
        """Leaves in the networks what is to be released."""
        if self.best:
            path = self.checkpoints / "best.npz"
            arrays, _ = checkpoints.read(path)
            self.step.load(checkpoints.compare(arrays, self.step.network_state(), str(path)))
        else:
            self.step.keep_averages()


class _Outcome:
    """One step's results as numbers; losses are means over its examples."""

    def __init__(self, results: list[dict]):
        self.examples = sum(float(r["examples"]) for r in results)
        sums = {name: sum(float(r["losses"][name]) for r in results) for name in results[-1]["losses"]}
        self.losses = {name: total / self.examples for name, total in sums.items()}
        self.accepted = bool(results[-1]["accepted"])
        self.gradient_norm = float(results[-1]["gradient_norm"])
        self._squares = results[-1]["squares"]

    def why(self, step: Step) -> str:
        """Names the losses, or else the weights whose gradients, are not finite."""
        bad = [f"loss {name} is {value}" for name, value in self.losses.items() if not np.isfinite(value)]
        if not bad:
            reached = [name for name in step.weights if name not in step.unreached]
            finite = np.isfinite(self._squares.numpy())
            names = [name for name, ok in zip(reached, finite, strict=True) if not ok]
            bad = [f"the gradient of {name} is not finite" for name in names]
        return ", ".join(bad[:3])


def _numbers_only(data: tf.data.Dataset) -> tf.data.Dataset:
    """Leaves out strings, which no accelerator takes, and reads ahead."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    names = [name for name, spec in data.element_spec.items() if spec.dtype != tf.string]
    return data.map(lambda batch: {n: batch[n] for n in names}).prefetch(2).with_options(options)


def _batch_size(element_spec: dict) -> int | None:
    """Number of examples of every batch of one replica, or None where the data leave it open."""
    spec = next(iter(element_spec.values()))
    return spec.shape[0] if isinstance(spec, tf.TensorSpec) else None


def _ids(batches, first: int, count: int) -> list:
    """Reads the ids of some batches again: their place is all that it takes."""
    taken = batches(first).take(count)
    ids = [i for batch in taken if "image_id" in batch for i in batch["image_id"].numpy().tolist()]
    return [i.decode() if isinstance(i, bytes) else i for i in ids]
