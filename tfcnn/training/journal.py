"""What a run writes down as it goes: a log of JSON lines, TensorBoard's files, and its speed."""

import contextlib
import json
import pathlib
import time
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tfcnn import files
from tfcnn.errors import InputError


class Journal:
    """Log of one run.

    log.jsonl has a line for every logged step ({step, losses, rate, gradient_norm, examples_per_second,
    waiting}; the losses are means since the line before) and for every validation ({step, validation});
    skipped.jsonl has one for every skipped step ({step, why, losses, image_ids}).

    Args:
        folder: where log.jsonl and tensorboard/ lie.
        step: the step that the run goes on from; later lines of a run that was killed are dropped.
        tensorboard: also write scalars and pictures for TensorBoard.
        writes: False in a worker that is not the chief: nothing is written.

    Raises (so do its methods):
        InputError: the disk is full, or the folder cannot be written to.
    """

    def __init__(self, folder: pathlib.Path, step: int, tensorboard: bool = True, writes: bool = True):
        self.folder, self.writes = folder, writes
        self.log, self.skips = folder / "log.jsonl", folder / "skipped.jsonl"
        self.board = None
        if not writes:
            return
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            _drop_later(self.log, step)
            _drop_later(self.skips, step)
            if tensorboard:
                self.board = tf.summary.create_file_writer(str(folder / "tensorboard"))

    def line(self, step: int, **fields: object) -> None:
        """Adds a line to the log, and its numbers to TensorBoard."""
        if not self.writes:
            return
        with self._writing():
            _append(self.log, {"step": step, **fields})
            if self.board:
                with self.board.as_default():
                    for name, value in _scalars(fields):
                        tf.summary.scalar(name, value, step=step)

    def skipped(self, step: int, why: str, losses: dict, image_ids: list) -> None:
        """Adds a skipped step and its images to skipped.jsonl."""
        if not self.writes:
            return
        with self._writing():
            _append(self.skips, {"step": step, "why": why, "losses": losses, "image_ids": image_ids})

    def pictures(self, step: int, pictures: list[np.ndarray]) -> None:
        """Shows uint8 pictures [H, W, 3] in TensorBoard."""
        if self.board:
            with self._writing(), self.board.as_default():
                for k, picture in enumerate(pictures):
                    tf.summary.image(f"validation/{k}", picture[None], step=step)

    def flush(self) -> None:
        """Brings TensorBoard's files to the disk."""
        if self.board:
            with self._writing():
                self.board.flush()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            why = error.strerror if isinstance(error, OSError) else error.message
            raise InputError(
                f"{self.folder} cannot be written to ({why}): the last good checkpoint is kept; make room and "
                "start the same command again."
            ) from error


class Clock:
    """Measures where the time of a run goes: steps, waiting for input, and everything beside.

    The first step is left out, since it compiles.
    """

    def __init__(self):
        self.steps = 0
        self.examples = self.stepping = self.waiting = 0.0
        self._first = True

    def add(self, waited: float, stepped: float, examples: float) -> None:
        """Counts a step: seconds waited for its input, seconds it took, examples it had."""
        if self._first:
            self._first = False
            return
        self.steps += 1
        self.waiting += waited
        self.stepping += stepped
        self.examples += examples

    @property
    def examples_per_second(self) -> float | None:
        """Examples a second, waiting included."""
        seconds = self.waiting + self.stepping
        return self.examples / seconds if seconds else None

    @property
    def waiting_share(self) -> float | None:
        """Share of the time in which a step waited for its input."""
        seconds = self.waiting + self.stepping
        return self.waiting / seconds if seconds else None

    def speed(self) -> dict[str, float | None]:
        """Gives `examples_per_second` and `waiting`, the share of the time."""
        return {"examples_per_second": self.examples_per_second, "waiting": self.waiting_share}

    def left(self, steps: int) -> float | None:
        """Seconds that so many more steps take."""
        return (self.waiting + self.stepping) / self.steps * steps if self.steps else None


class Timer:
    """Says every so many seconds that it is time."""

    def __init__(self, seconds: float):
        self.seconds, self.last = seconds, time.monotonic()

    def due(self) -> bool:
        """True when the time is over; then it starts anew."""
        if time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True


def _append(file: pathlib.Path, fields: dict) -> None:
    with open(file, "a") as opened:
        opened.write(files.to_json(fields, indent=None) + "\n")


def _drop_later(file: pathlib.Path, step: int) -> None:
    if file.exists():
        kept = [line for line in file.read_text().splitlines() if _step_of(line) <= step]
        files.write_text(file, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    """The step of a line of the log; a line that a kill cut off counts as later than all."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return float("inf")


def _scalars(fields: dict, prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
            yield prefix + name, float(value)
