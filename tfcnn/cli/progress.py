"""How far a run is: a bar on a terminal, a line every ten seconds otherwise, nothing with --quiet."""

from __future__ import annotations

import contextlib
import sys
import time

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """What `Run.progress` gives: a context with `advance`; one inside another shows as a second bar."""

    def __init__(self, total: int | None, what: str, unit: str, shown: bool, around: list[Progress]):
        self.total, self.what, self.unit, self.shown, self.around = total, what, unit, shown, around
        self.done, self.numbers, self.bars = 0, {}, None

    def __enter__(self) -> Progress:
        self.begun = self.last_line = time.monotonic()
        self.begun_at = self.done
        if self.shown and sys.stderr.isatty():
            self.bars = self.around[0].bars if self.around else _bars()
            if not self.around:
                self.bars.start()
            self.task = self.bars.add_task(self.what, total=self.total, speed="", numbers="")
        self.around.append(self)
        return self

    def __exit__(self, *error):
        self.around.remove(self)
        if self.bars and self.around:
            self.bars.remove_task(self.task)
        elif self.bars:
            self.bars.stop()

    def skip(self, count: int) -> None:
        """Count what was done before this run (a resumed training), without calling it this run's speed."""
        self.done += count
        self.begun_at = self.done

    def advance(self, count: int = 1, **numbers: float) -> None:
        """Say that `count` more are done; `numbers` (a loss, a value) are shown beside."""
        self.done += count
        self.numbers.update(numbers)
        if not self.shown:
            return
        if self.bars:
            values = {"speed": self._speed(), "numbers": self._values()}
            self.bars.update(self.task, completed=self.done, **values)
        elif time.monotonic() - self.last_line >= _SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            self._print_line()

    @property
    def rate(self) -> float:
        """Of this run, in units a second."""
        return (self.done - self.begun_at) / max(time.monotonic() - self.begun, 1e-9)

    def _speed(self):
        rate = self.rate
        return f"{rate:.3g} {self.unit}/s" if rate >= 0.1 else f"{1 / max(rate, 1e-9):.3g} s each"

    def _values(self):
        return " ".join(f"{name} {value:.4g}" for name, value in self.numbers.items())

    def _print_line(self):
        parts = [f"{self.done}/{self.total or '?'} {self.unit}", self._speed()]
        if self.total and self.rate > 0:
            parts.append(f"{_duration((self.total - self.done) / self.rate)} left")
        if self.numbers:
            parts.append(self._values())
        with contextlib.suppress(OSError):
            print(f"{self.what}: {', '.join(parts)}", file=sys.stderr, flush=True)


def _bars():
    from rich import progress
    from rich.console import Console

    columns = ["{task.description}", progress.BarColumn(), progress.MofNCompleteColumn()]
    columns += ["{task.fields[speed]}", progress.TimeRemainingColumn(), "{task.fields[numbers]}"]
    return progress.Progress(*columns, console=Console(stderr=True), transient=True)


def _duration(seconds):
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
