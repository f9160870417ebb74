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

import keras
import tensorflow as tf

from tfcnn.runtime import Stop
from tfcnn.training import checkpoints, memory
from tfcnn.training.config import check_seed
from tfcnn.training.journal import Clock, Journal, Timer
from tfcnn.training.optimizers import AdamW, KerasOptimizer, Ours
from tfcnn.training.run_state import RunState
from tfcnn.training.schedules import Schedule
from tfcnn.training.signals import Signals
from tfcnn.training.step import Step, Trainee
from tfcnn.training.team import Team, explained

LearningRateSchedule = keras.optimizers.schedules.LearningRateSchedule
LOG_LINES = 500  # of a run, at most
UNREAD_STEPS = 100  # so many steps may go by before their losses are fetched from the device


@dataclass
class Result:
    """What came of a run.

    step: number of steps done.   trained: number of these that this call did.
    last, best: figures of the last and the best validation, each with its `step`; {} without validation.
    examples_per_second: speed of this call.   waiting: share of its time that steps waited for their input.
    skipped: steps that changed nothing because a loss or gradient was not finite.
    chief: False in a worker that is not the one that writes.
    """

    step: int
    trained: int
    last: dict = field(default_factory=dict)
    best: dict = field(default_factory=dict)
    examples_per_second: float | None = None
    waiting: float | None = None
    skipped: int = 0
    chief: bool = True

    @property
    def metrics(self) -> dict:
        """{"last", "best"} of the validations; best is None where no figure of one was finite."""
        return {"last": self.last, "best": self.best or None}


def train(
    trainee: Trainee,
    batches: Callable[..., tf.data.Dataset],
    *,
    steps: int,
    folder: str | pathlib.Path,
    schedule: Schedule | keras.optimizers.schedules.LearningRateSchedule | None,
    optimizer: Ours | keras.optimizers.Optimizer | None = None,
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
        batches: gives the data set from a batch on: batches(n) begins with the batch number n of batches(0). Each
            element is a dict of tensors with the examples along the first axis, the same number in each; an
            `image_id` among them is written down when a step is skipped. With several replicas
            batches(n, shard, of) gives the part of each batch that replica `shard` of `of` computes.
        steps: number of steps of the whole run.
        folder: takes checkpoints/, log.jsonl, skipped.jsonl and tensorboard/. What lies there is gone on with.
        schedule: learning rate as a function of the step, or one of keras.optimizers.schedules; None: the rate of
            one of Keras' optimizers.
        optimizer: AdamW() unless given. With one of keras.optimizers (on one device) the loop says what does not
            hold: every layer has the same rate, and weight decay is the optimizer's own. Skipped steps, averages
            and resuming to the bit hold for all.
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
        say: called with sentences for a person: skipped steps, memory, where the run goes on.

    Returns:
        A Result.

    Raises:
        InputError: too little memory, a checkpoint of another architecture, a full disk, or three skipped steps
            in a row; the last good checkpoint is intact.
        runtime.Interrupted: SIGTERM or SIGUSR1 came to one of the workers, and a checkpoint was written; or one of
            them is gone, and the last checkpoint is intact.
        KeyboardInterrupt: Ctrl-C came, and a checkpoint was written.
    """
    folder = pathlib.Path(folder)
    strategy = strategy or tf.distribute.get_strategy()
    check_seed(seed)
    team = Team(strategy)
    rate_at = _on_host(schedule) if isinstance(schedule, LearningRateSchedule) else schedule
    with strategy.scope():
        if isinstance(optimizer, keras.optimizers.Optimizer):
            optimizer = KerasOptimizer(optimizer, rate_at)
        elif rate_at is None:
            raise ValueError("A schedule is needed: only Keras' optimizers have a rate of their own.")
        step = Step(
            trainee,
            optimizer or AdamW(),
            multiplier=multiplier,
            clip_norm=clip_norm,
            average=average,
            accumulate=accumulate,
            strategy=strategy,
        )
    if isinstance(optimizer, KerasOptimizer):
        lost = optimizer.broken_promises(step.multipliers.values())
        if lost:
            say(lost)
    if not resume and team.chief:
        discard(folder)
    with checkpoints.Writer() as writer, Signals(stop) as signals, explained(team, folder):
        team.each(0.0)  # nobody looks for a checkpoint before the chief has deleted those of a run given up
        run = RunState(step, folder, best, keep, say, data, writer, team)
        start = done = run.resume()
        run.journal = Journal(folder, done, tensorboard, team.chief)
        clock, save_timer = Clock(), Timer(60 * checkpoint_minutes)
        log_steps, tenth = max(1, steps // LOG_LINES), max(1, -(-steps // 10))
        places = itertools.count(done * accumulate)  # in the row of batches
        if done < steps:
            source = distributed(batches, done * accumulate, strategy)
            step.compile(source.element_spec)
            size = _batch_size(source.element_spec)
            if size and check_memory:
                memory.check(step, size, say)  # before any batch is read
            iterator = iter(source)
            if progress:
                progress(done, {"losses": {}, "seconds_left": None, **clock.speed()})

        while done < steps:
            began = time.perf_counter()
            taken = list(itertools.islice(iterator, accumulate))
            if len(taken) < accumulate:
                raise ValueError(f"The data ended after {done} of {steps} steps: it must repeat itself.")
            arrived = time.perf_counter()
            if done == start and not size and check_memory:
                first = strategy.experimental_local_results(next(iter(taken[-1].values())))[0]
                memory.check(step, len(first), say)
            rate = rate_at(done) if rate_at else 0.0  # not looked at where the optimizer has its own
            seeds = [(seed, next(places) * strategy.num_replicas_in_sync) for _ in taken]
            examples = sum(_examples(batch, strategy) for batch in taken) * team.size
            done += 1
            logs = done % log_steps == 0 or done == steps
            validates = validate_steps and done % validate_steps == 0
            validates = validates or (done == steps and validate_steps is not None)
            saves = done == steps or done % tenth == 0
            wishes = None
            if team.size > 1:
                wishes = team.wishes(bool(signals.caught), not writer.busy and save_timer.due())
            with memory.explained():
                run.unread.append(report := step(taken, rate, seeds, wishes))
                if logs or validates or saves or len(run.unread) == UNREAD_STEPS:
                    run.fetch(done, lambda n: _ids(batches, (n - 1) * accumulate, accumulate))
            clock.add(arrived - began, time.perf_counter() - arrived, examples)

            if logs:
                run.log(done, rate if rate_at else optimizer.rate(), clock)
            if progress:
                left = clock.left(steps - done)
                progress(done, {"losses": run.losses, "seconds_left": left, **clock.speed()})
            if validates:
                run.validate(done)
            if team.size > 1:
                stopping, due = team.granted(report.wishes)
            else:
                stopping, due = bool(signals.caught), not writer.busy and save_timer.due()
            if saves or due or stopping:
                run.fetch(done, lambda n: _ids(batches, (n - 1) * accumulate, accumulate))
                run.save(done)
            if stopping and done < steps:
                writer.wait()
                run.journal.flush()
                raise signals.exception(done)
        writer.wait()
        run.journal.flush()
        run.hand_over()
    return Result(
        step=done,
        trained=done - start,
        last=run.last,
        best=run.best,
        examples_per_second=clock.examples_per_second,
        waiting=clock.waiting_share,
        skipped=run.skipped,
        chief=team.chief,
    )


def discard(folder: pathlib.Path) -> None:
    """Deletes what a run of the loop left in a folder."""
    for name in (checkpoints.FOLDER, "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("log.jsonl", "skipped.jsonl"):
        (folder / name).unlink(missing_ok=True)


def distributed(
    batches: Callable[..., tf.data.Dataset], start: int, strategy: tf.distribute.Strategy
) -> tf.data.Dataset:
    """Gives the batches from number `start` on, each replica's part made by a pipeline of its own."""
    count = strategy.num_replicas_in_sync
    if count == 1:
        return _numbers_only(batches(start))

    def local(context: tf.distribute.InputContext) -> tf.data.Dataset:
        each = count // context.num_input_pipelines  # replicas of this worker
        first = context.input_pipeline_id * each
        parts = [_numbers_only(batches(start, shard, count)) for shard in range(first, first + each)]
        return tf.data.Dataset.choose_from_datasets(parts, tf.data.Dataset.range(each).repeat())

    return strategy.distribute_datasets_from_function(local)


def _numbers_only(data: tf.data.Dataset) -> tf.data.Dataset:
    """Leaves out strings, which no accelerator takes, and reads ahead."""
    names = [name for name, spec in data.element_spec.items() if spec.dtype != tf.string]
    return data.map(lambda batch: {n: batch[n] for n in names}).prefetch(2)


def _batch_size(element_spec: dict) -> int | None:
    """Number of examples of every batch of one replica, or None where the data leave it open."""
    spec = next(iter(element_spec.values()))
    return spec.shape[0] if isinstance(spec, tf.TensorSpec) else None


def _examples(batch: dict, strategy: tf.distribute.Strategy) -> int:
    """Number of examples of a batch on this worker, which no device is asked for."""
    return sum(len(part) for part in strategy.experimental_local_results(next(iter(batch.values()))))


def _on_host(schedule: LearningRateSchedule) -> Schedule:
    """Gives one of Keras' schedules as a function from the step to a number, computed on the CPU."""

    def rate(step: int) -> float:
        with tf.device("CPU:0"):
            return float(schedule(step))

    return rate


def _ids(batches: Callable[..., tf.data.Dataset], first: int, count: int) -> list:
    """Reads the ids of some batches again: their place is all that it takes."""
    taken = batches(first).take(count)
    ids = [i for batch in taken if "image_id" in batch for i in batch["image_id"].numpy().tolist()]
    return [i.decode("utf-8", "surrogateescape") if isinstance(i, bytes) else i for i in ids]
