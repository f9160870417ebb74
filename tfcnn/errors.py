"""Errors that a person can cause, and the names that a misspelt one may stand for."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something outside the program is wrong, and a person can put it right.

    The message is one sentence for that person: what, where, and what to do. Apps print it as it stands, without
    a traceback. Every other exception is a bug of tfcnn and shows as one.
    """


class NotFinite(InputError):
    """A net's answer holds NaN or infinity: the message is the reason by which apps refuse such a picture."""

    def __init__(self) -> None:
        super().__init__("non-finite")


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The names that are most like `name`, best first.

    Args:
        name: what was written.
        names: what there is.
        count: how many to give.
    """
    lowered: dict[str, str] = {}
    for each in names:
        lowered.setdefault(each.lower(), each)
    found = difflib.get_close_matches(name.lower(), lowered, len(lowered) or 1, cutoff=0.0)
    found.sort(key=lambda low: name.lower() not in low)  # a part of a name is a better hint than a likeness
    return [lowered[low] for low in found[:count]]


def unknown(kind: str, name: str, names: Iterable[str], hint: str = "") -> InputError:
    """The error for a name that is none of `names`, with the three nearest.

    Args:
        kind: what the name is of, e.g. "net".
        name: what was written.
        names: what there is.
        hint: how to see all of them, e.g. "tfcnn nets lists all".
    """
    near = ", ".join(nearest(name, names))
    known = f"the nearest are {near}" if near else "there is none at all"
    return InputError(f"unknown {kind} {name!r}; {known}{f' ({hint})' if hint else ''}")
