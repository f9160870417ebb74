"""What a trainer's run keeps: which pictures it took, what it refused, the command on its release's card."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping

from absl import flags

from tfcnn.cli import usage
from tfcnn.cli.run import Run
from tfcnn.datasets.example import Dataset, evenly
from tfcnn.errors import InputError


def whole_numbers(flag: flags.FlagHolder) -> tuple[int, ...]:
    """The numbers of a list flag, from 1 on.

    Raises:
        InputError: one is none.
    """
    try:
        numbers = tuple(int(number) for number in flag.value if number)
    except ValueError:
        numbers = (0,)
    if min(numbers, default=1) < 1:
        raise InputError(f"--{flag.name}={','.join(flag.value)}: whole numbers from 1 on")
    return numbers


def limited(dataset: Dataset, limit: int | None) -> Dataset:
    """The data set with at most `limit` pictures, evenly spread over it."""
    if limit is None or limit >= len(dataset.examples):
        return dataset
    return dataclasses.replace(dataset, examples=evenly(dataset.examples, limit))


def counted(count: int, what: str) -> str:
    """A number with its noun: "1 picture", "2,500 pictures", "20 classes"."""
    plural = "" if count == 1 else "es" if what.endswith("s") else "s"
    return f"{count:,} {what}{plural}"


def refuse(run: Run, unreadable: Mapping[str, str]) -> None:
    """Lists pictures that could not be read ({file: why}) among the run's refused ones, each once."""
    known = {entry["file"] for entry in run.refused.values()}
    for file, why in unreadable.items():
        if file not in known:
            run.refuse(file, why)


def flag_lines(run: Run) -> list[str]:
    """The flags that repeat the run elsewhere, as lines of a flagfile."""
    return usage.as_lines(run.flags, [name for name in run.flag_names if name not in usage.OF_THE_MACHINE])


def card(run: Run) -> dict:
    """What the run alone can say for a release's card."""
    command = shlex.join(["python", "-m", f"apps.{run.app}", *flag_lines(run)])
    return {"command": command, "net": run.net}


def percent(share: float | None) -> str:
    """A share for a person's table; "none" where it could not be measured."""
    return "none" if share is None else f"{share:.1%}"
