"""Values of flags that are lists: names, files or numbers separated by commas."""

from __future__ import annotations

import os
from collections.abc import Callable

from tfcnn.errors import InputError


def names(text: str, known: Callable[[str], object]) -> list[str]:
    """The names in a list, each without the blanks around it.

    Args:
        text: the flag's value.
        known: whether a name is one that there is. A comma inside such a name does not divide it: the longest
            known name is taken first, the whole text before all.
    """
    parts, found, first = text.split(","), [], 0
    while first < len(parts):
        last = len(parts)
        while last > first + 1 and not known(",".join(parts[first:last]).strip()):
            last -= 1
        found.append(",".join(parts[first:last]).strip())
        first = last
    return [name for name in found if name]


def paths(text: str) -> list[str]:
    """The files or folders in a list; a comma in the name of one that is there does not divide it."""
    return names(text, os.path.lexists)


def numbers(text: str, flag: str, kind: type = float) -> list:
    """The numbers in a list.

    Args:
        text: the flag's value.
        flag: its name, for the error.
        kind: int or float.

    Raises:
        InputError: one is no number, or below 0.
    """
    try:
        found = [kind(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(f"--{flag}={text} is not a list of numbers separated by commas") from error
    if not all(number >= 0 for number in found):
        raise InputError(f"--{flag}={text}: a number is below 0")
    return found
