"""What a run writes: numbers that JSON has, and one line where the disk fails."""

from __future__ import annotations

import contextlib
import errno
import math
import os


class OutputError(Exception):
    """The disk is full or the output_dir is gone: the run ends with one line."""


@contextlib.contextmanager
def guarded(folder):
    """Turn a full disk or a vanished folder into OutputError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"the disk of {folder} is full; the finished files are whole") from error
        raise OutputError(f"{folder} cannot be written any more: {error.strerror or error}") from error


def plain(obj):
    """NumPy's numbers and arrays -> Python's."""
    if isinstance(obj, dict):
        return {str(key): plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [plain(value) for value in obj]
    if hasattr(obj, "tolist"):
        return plain(obj.tolist())
    return os.fspath(obj) if isinstance(obj, os.PathLike) else obj


def finite(obj):
    """The same object where all its numbers are finite, else a copy with None for those that are not."""
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, dict):
        copy = {key: finite(value) for key, value in obj.items()}
        return obj if all(copy[key] is obj[key] for key in obj) else copy
    if isinstance(obj, list | tuple):
        copy = [finite(value) for value in obj]
        return obj if all(a is b for a, b in zip(copy, obj, strict=True)) else copy
    return obj
