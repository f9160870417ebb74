"""Files: written whole or not at all, JSON without NaN, and lines of text as people save them."""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

from tfcnn.errors import InputError

__all__ = [
    "beside",
    "from_json",
    "json_parts",
    "plain",
    "read_labels",
    "read_lines",
    "to_json",
    "write_bytes",
    "write_text",
    "written",
]


@contextlib.contextmanager
def written(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A file that is whole or not there: made beside its place inside the context, and renamed at its end.

    Args:
        path: where it shall lie; a file there is replaced.

    Yields:
        The path to write to, with the same suffix. An exception removes it and leaves `path` as it was.
    """
    part = beside(path)
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def beside(path: str | os.PathLike) -> pathlib.Path:
    """Where to make what shall be renamed to `path`: hidden, in the same folder, a new name at each call.

    The name is short whatever that of `path` is, so that every name that a file may have can be written.
    """
    path = pathlib.Path(path)
    return path.with_name(f".{uuid.uuid4().hex}.part{path.suffix}")


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        OSError: the disk is full, or the folder is gone; what lay there is still there.
    """
    with written(path) as part:
        part.write_bytes(data)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all; raises as `write_bytes`."""
    write_bytes(path, text.encode())


def plain(obj: object) -> object:
    """The same content of Python's own types: NumPy's numbers and arrays, paths and keys made plain."""
    if isinstance(obj, dict):
        return {str(key): plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [plain(value) for value in obj]
    if hasattr(obj, "tolist"):
        return plain(obj.tolist())
    return os.fspath(obj) if isinstance(obj, os.PathLike) else obj


def to_json(obj: object, indent: int | None = 1) -> str:
    """Strict JSON of Python's and NumPy's types: a number that is not finite becomes null.

    Args:
        obj: dicts, lists, arrays, numbers, texts, paths.
        indent: blanks a level; None puts everything on one line.
    """
    return json.dumps(_finite(plain(obj)), indent=indent, allow_nan=False)


def json_parts(obj: object, indent: str = "") -> Iterator[str]:
    """The text of `to_json`, piece by piece, so that a list of any length needs little memory.

    Args:
        obj: as `to_json` takes it; an iterator, at the top or in a dict at the top, is a list that is taken as it
            comes.
        indent: of the lines after the first.
    """
    if isinstance(obj, Iterator):
        opening = "["
        for item in obj:
            yield opening + f"\n{indent} " + to_json(item).replace("\n", f"\n{indent} ")
            opening = ","
        yield "[]" if opening == "[" else f"\n{indent}]"
    elif isinstance(obj, dict) and obj and not indent:
        opening = "{"
        for key, value in obj.items():
            yield f"{opening}\n {json.dumps(str(key))}: "
            yield from json_parts(value, " ")
            opening = ","
        yield "\n}"
    else:
        yield to_json(obj).replace("\n", f"\n{indent}")


def _finite(obj):
    if isinstance(obj, dict):
        return {key: _finite(value) for key, value in obj.items()}
    if isinstance(obj, list):
        return [_finite(value) for value in obj]
    return None if isinstance(obj, float) and not math.isfinite(obj) else obj


def from_json(data: bytes | str, name: str) -> Any:
    """What a JSON text holds.

    Args:
        data: the text, bytes in UTF-8.
        name: what to call it in the message.

    Raises:
        InputError: it is no JSON, or nested deeper than any file of use.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise InputError(f"{name} is not JSON of use: its brackets are nested too deep") from None
    except ValueError as error:
        raise InputError(f"{name} is not JSON: {error}") from None


def read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a text file in UTF-8, with or without a byte order mark; empty lines at the end are dropped.

    Raises:
        InputError: it is not there, or is no text in UTF-8.
    """
    try:
        data = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: line {line} is not UTF-8; save the file as UTF-8") from error
    if "\0" in text:
        raise InputError(f"{path}: not a text file in UTF-8")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def read_labels(path: str | os.PathLike, count: int | None = None) -> list[str]:
    """The class names of a text file, a line each.

    Args:
        path: the file, as `read_lines` takes it.
        count: how many classes there are, where that is known.

    Raises:
        InputError: it cannot be read, has an empty line between names, or another number of names.
    """
    names = [line.strip() for line in read_lines(path)]
    if "" in names:
        raise InputError(f"{path}: line {names.index('') + 1} is empty; a class needs a name")
    if count is not None and len(names) != count:
        raise InputError(f"{path} has {len(names)} names, and there are {count} classes")
    if not names:
        raise InputError(f"{path} is empty; write a class name on each line")
    return names
