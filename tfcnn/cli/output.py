"""What a run says where the disk fails."""

from __future__ import annotations

import contextlib
import errno


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
