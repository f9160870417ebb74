"""Codes of any number of pictures in a file, since they need not fit into memory.

N pictures, D numbers of a code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from tfcnn.errors import InputError

CHUNK = 1024  # rows worked on at once


class CodeFile:
    """A .npy file that grows row by row; a context, at whose end it says how many rows there are.

    Args:
        path: of the new file.

    Attributes:
        count: N so far.
        size: D; None before the first row.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: str | os.PathLike):
        self._file = open(path, "w+b")  # noqa: SIM115  (closed by the context)
        self.count, self.size = 0, None

    def __enter__(self) -> CodeFile:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with self._file:
            if self.size is not None:
                self._header()

    def add(self, code: np.ndarray) -> None:
        """Adds a row.

        Args:
            code: float32 [D].

        Raises:
            InputError: D is not that of the rows before.
        """
        if self.size is None:
            self.size = len(code)
            self._header()
        if len(code) != self.size:
            raise InputError(f"a code of {len(code)} numbers is not of the layer that gave {self.size}")
        self._file.write(np.ascontiguousarray(code, "<f4").tobytes())
        self.count += 1

    def _header(self):
        """NumPy leaves blanks in a header, so that the number of rows can grow in its place."""
        self._file.seek(0)
        described = {"descr": "<f4", "fortran_order": False, "shape": (self.count, self.size)}
        np.lib.format.write_array_header_1_0(self._file, described)


def read(path: str | os.PathLike) -> np.ndarray:
    """Opens codes without reading them: float32 [N, D], which the system brings into memory as they are used."""
    return np.load(path, mmap_mode="r")


def chunks(codes: np.ndarray, least: int = 1, rows: int = CHUNK) -> Iterator[np.ndarray]:
    """Codes in turn, float32 [up to rows + least, D] in memory.

    Args:
        codes: float32 [N, D].
        least: rows of each chunk, at least, where there are so many.
        rows: of a chunk.
    """
    first, rows = 0, max(rows, least)
    while first < len(codes):
        last = first + rows if len(codes) - first - rows >= least else len(codes)
        yield np.array(codes[first:last])
        first = last
