"""What a run of the loop has reached: its checkpoints, its figures, its losses and its skipped steps."""

import math
import pathlib
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from tfcnn.errors import InputError, NotFinite
from tfcnn.training import checkpoints
from tfcnn.training.journal import Clock, Journal
from tfcnn.training.step import Report, Step
from tfcnn.training.team import Team

KEPT = ("last", "best", "skipped", "skipped_in_a_row", "data")  # of a run's state, in a checkpoint's header
SKIPPED_IN_A_ROW = 3  # so many skipped steps one after the other end the run


class RunState:
    """What a run has reached: its checkpoints, its figures and its skipped steps."""

    journal: Journal

    def __init__(
        self,
        step: Step,
        folder: pathlib.Path,
        best: str | None,
        keep: int,
        say: Callable[[str], None],
        data: Mapping | None,
        writer: checkpoints.Writer,
        team: Team,
    ):
        self.step, self.keep, self.say, self.data, self.writer = step, keep, say, data, writer
        self.team = team
        self.checkpoints = folder / checkpoints.FOLDER
        self.sign, self.figure = (-1, best[1:]) if best and best.startswith("-") else (1, best)
        self.last: dict = {}
        self.best: dict = {}
        self.skipped = self.skipped_in_a_row = 0
        self.unread: list[Report] = []  # of the last steps
        self.losses: dict[str, float] = {}  # of the last step that was fetched
        self.since_log: list[Outcome] = []

    def resume(self) -> int:
        """Takes up the newest whole checkpoint and gives its step, or 0; of several workers all take up the same.

        Raises:
            InputError: the checkpoint is another net's or another data set's, or not every worker sees it.
        """
        if blind := self.team.blind(self.checkpoints):
            raise InputError(
                f"Worker {', '.join(map(str, blind))} does not see what worker 0 writes into {self.checkpoints}: it "
                "must lie on a disk that all of them share."
            )
        found = checkpoints.newest(self.checkpoints)
        if not found:
            return 0
        arrays, header = found
        if not all(name in header for name in ("step", *KEPT)):
            raise InputError(
                f"{self.checkpoints} holds a run of another version of tfcnn: start anew without resuming"
            )
        checkpoints.compare_data(header.get("data"), self.data, str(self.checkpoints.parent))
        self.step.load(checkpoints.compare(arrays, self.step.state(), str(self.checkpoints)))
        self.last, self.best = header["last"], header["best"]
        self.skipped, self.skipped_in_a_row = header["skipped"], header["skipped_in_a_row"]
        self.say(f"Going on from step {header['step']}.")
        return header["step"]

    def save(self, done: int) -> None:
        """Has a checkpoint written by the chief, and the oldest deleted."""
        state = self.step.state()  # in which all workers take part
        if self.team.chief:
            header = {"step": done} | {name: getattr(self, name) for name in KEPT}
            self.writer.write(checkpoints.path_of(self.checkpoints, done), state, header, self.keep)

    def fetch(self, done: int, ids: Callable[[int], list]) -> None:
        """Waits for the last steps' losses; skipped ones are written down, and the third in a row ends the run.

        Args:
            done: number of steps done.
            ids: gives the image ids of a step.
        """
        reports, self.unread = self.unread, []
        rows = tf.stack([report.numbers for report in reports]).numpy() if reports else []
        for number, (row, report) in enumerate(zip(rows, reports, strict=True), done - len(reports) + 1):
            outcome = Outcome(self.step, row)
            self.losses = outcome.losses
            if outcome.counts:
                self.skipped_in_a_row = 0
                self.since_log.append(outcome)
            else:
                self._skip(number, outcome.why(self.step, report), outcome.losses, ids(number))

    def _skip(self, number: int, why: str, losses: dict[str, float], ids: list) -> None:
        self.skipped += 1
        self.skipped_in_a_row += 1
        self.journal.skipped(number, why, losses, ids)
        self.say(f"Step {number} skipped, nothing was changed: {why}; its images: {self.journal.skips}.")
        if self.skipped_in_a_row == SKIPPED_IN_A_ROW:
            self.writer.wait()
            raise InputError(
                f"Training ended at step {number}: {SKIPPED_IN_A_ROW} steps in a row were skipped ({why}), and "
                f"the last good checkpoint in {self.checkpoints} is intact; lower the learning rate, or look "
                f"at the images in {self.journal.skips}."
            )

    def log(self, done: int, rate: float, clock: Clock) -> None:
        """Logs the losses' means since the line before."""
        if self.since_log:
            means = {
                n: float(np.mean([o.losses[n] for o in self.since_log])) for n in self.since_log[0].losses
            }
            norm = self.since_log[-1].gradient_norm
            self.journal.line(done, losses=means, rate=rate, gradient_norm=norm, **clock.speed())
            self.since_log = []

    def validate(self, done: int) -> None:
        """Measures the averaged weights, and keeps them apart if they are the best so far; the chief does."""
        if not self.team.chief:
            return
        trainee = self.step.trainee
        with self.step.averaged():
            figures = self._figures()
            self.last = {"step": done, **figures}
            if self.figure and self.figure not in figures:
                raise ValueError(
                    f"validate() gives {sorted(figures)}, but not {self.figure}, to find the best."
                )
            if self.figure and self._better():
                self.best = self.last
                self.writer.write(self.checkpoints / "best.npz", self.step.network_state(), self.best)
            self.journal.line(done, validation=figures)
            if hasattr(trainee, "pictures") and not any(map(_diverged, figures.values())):
                self.journal.pictures(done, trainee.pictures())

    def _figures(self) -> dict[str, float | None]:
        """What the trainee measures; all of it not a number where a weight or an answer is not finite."""
        try:
            if not all(np.isfinite(array).all() for array in self.step.network_state().values()):
                raise NotFinite
            found = self.step.trainee.validate()
        except NotFinite:
            names = [name for name in self.last if name != "step"] or [self.figure]
            return {name: math.nan for name in names if name}
        return {name: None if value is None else float(value) for name, value in found.items()}

    def _better(self) -> bool:
        if any(value is None or _diverged(value) for value in self.last.values()):
            return False
        new = self.last[self.figure]
        return not self.best or self.sign * new > self.sign * self.best[self.figure]

    def hand_over(self) -> None:
        """Leaves in the networks what is to be released.

        Raises:
            InputError: no validation had finite figures, the last one neither: the nets are of no use.
        """
        if self.team.each(bool(self.best)).any():  # the chief alone has validated, and has written it by now
            path = self.checkpoints / "best.npz"
            arrays, _ = checkpoints.read(path)
            self.step.load(checkpoints.compare(arrays, self.step.network_state(), str(path)))
        else:
            bad = [name for name, value in self.last.items() if _diverged(value)]
            if self.figure and bad:
                raise InputError(
                    f"Training diverged: {', '.join(bad)} of the last validation (step {self.last['step']}) is not "
                    "finite, and no validation before was better; nothing is released. Lower the learning rate."
                )
            if self.figure and self.last:
                self.say("No validation could measure every figure: the last weights are released.")
            self.step.keep_averages()


def _diverged(figure: float | None) -> bool:
    return figure is not None and not math.isfinite(figure)


class Outcome:
    """One step's results as numbers; losses are means over its examples."""

    def __init__(self, step: Step, row: np.ndarray):
        *sums, examples, norm, counts = (float(number) for number in row)
        self.losses = {name: value / examples for name, value in zip(step.loss_names, sums, strict=True)}
        self.gradient_norm, self.counts = norm, bool(counts)

    def why(self, step: Step, report: Report) -> str:
        """Names the losses, or else the weights whose gradients, are not finite."""
        bad = [f"loss {name} is {value}" for name, value in self.losses.items() if not np.isfinite(value)]
        if not bad:
            reached = [name for name in step.weights if name not in step.unreached]
            finite = np.isfinite(report.squares.numpy())
            names = [name for name, ok in zip(reached, finite, strict=True) if not ok]
            bad = [f"the gradient of {name} is not finite" for name in names]
        return ", ".join(bad[:3] or ["the moving statistics of batch norm are not finite"])
