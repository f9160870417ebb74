"""What is finished of a run over many pictures: a line of JSON a batch, which a killed run goes on from.

The first line is the header: which command, which pictures, which part of them. Each further line is one batch:
{"batch": its number, "shown": pictures offered to the page so far, "items": [...]}, an item being
{"entry", "kept", "lines", "shown", "card"} of a picture that is done, or {"refused": {"file", "why"}}.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from tfcnn import files
from tfcnn.errors import InputError

JOURNAL = "journal.jsonl"
_HEADER = {"app": str, "version": str, "flags": list, "shard": list, "pictures": int, "sha256": str}
_HEADER |= {"batch_size": int, "batches": list, "facts": dict}
_BLOCK = 2**20  # bytes read at once


@dataclasses.dataclass(frozen=True)
class Shard:
    """One part of a run's pictures.

    Attributes:
        number: 1..of.
        of: how many parts there are.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that "2/3" says.

        Raises:
            ValueError: it says none.
        """
        number, of = map(int, text.split("/"))
        if not 1 <= number <= of:
            raise ValueError(text)
        return cls(number, of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def folder(self) -> str:
        """Where in the output_dir of the whole run its files lie."""
        return f"shard-{self.number}-of-{self.of}"

    def part(self, batches: int) -> range:
        """Its batches of so many: shards are cut between batches, so that each picture's batch is the same in all."""
        return range(batches * (self.number - 1) // self.of, batches * self.number // self.of)


class Journal:
    """Lines that are finished, read at any time; a context, at whose end the file is closed.

    Args:
        file: opened for reading and writing, or for reading alone.
        name: what to call it in messages.

    Attributes:
        header: the first line, or {} of an empty file.
        batches: how many whole batches it holds.
        entries, refused: how many pictures of them are done, and how many were refused.
        shown: how many pictures were offered to the page.

    Raises:
        InputError: the file is no journal.
    """

    def __init__(self, file: BinaryIO, name: str):
        self._file, self.name = file, name
        self.header: dict[str, Any] = {}
        self.batches = self.entries = self.refused = self.shown = 0
        self._end = 0
        for number, (line, end) in enumerate(self._raw_lines()):
            found = _parsed(line)
            if number == 0:
                self.header = _checked_header(found, name)
            elif found is None or not self._follows(found):
                break  # a kill cut it off here
            self._end = end

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @classmethod
    def temporary(cls, folder: pathlib.Path) -> Journal:
        """A journal without a name in a folder, gone with the process."""
        return cls(tempfile.TemporaryFile(dir=folder), str(folder))

    @classmethod
    def read(cls, folder: str | os.PathLike) -> Journal:
        """The journal of a shard's folder, for reading.

        Raises:
            InputError: there is none, or it is no journal.
        """
        path = pathlib.Path(folder, JOURNAL)
        try:
            journal = cls(open(path, "rb"), str(path))
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from error
        if not journal.header:
            raise InputError(f"{path} is empty: run that shard again")
        return journal

    @classmethod
    def opened(cls, folder: pathlib.Path) -> Journal:
        """The journal of a shard's folder, for this process alone; a new one where there is none.

        Raises:
            InputError: another process is writing it.
        """
        path = folder / JOURNAL
        file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder}: another process works on this shard; wait for its end") from error
        except OSError:
            pass  # a file system without locks
        try:
            return cls(file, str(path))
        except InputError:  # whatever it was, it is no work to go on with
            file.truncate(0)
            return cls(file, str(path))

    def begin(self, header: dict[str, Any]) -> None:
        """Make `header` the first line; batches of a journal with another one are dropped."""
        header = files.plain(header)
        if self.header == header:
            self._file.truncate(self._end)
            return
        self._file.truncate(0)
        self._end = self.batches = self.entries = self.refused = self.shown = 0
        self._write(header)
        self.header = header

    def add(self, line: dict[str, Any] | str) -> None:
        """Add a batch's line, in the order of the batches."""
        found = _parsed(line) if isinstance(line, str) else files.plain(line)
        if not self._follows(found):
            raise ValueError(f"{self.name}: batch {found['batch']} does not follow")
        self._write(found)

    def items(self) -> Iterator[dict[str, Any]]:
        """Every picture's item, in order, refused ones too."""
        for number, (line, end) in enumerate(self._raw_lines()):
            if end > self._end:
                return
            if number:
                yield from json.loads(line)["items"]

    @property
    def complete(self) -> bool:
        """Whether every batch is there that the header says."""
        return bool(self.header) and self.batches == len(range(*self.header["batches"]))

    def _follows(self, line: dict[str, Any]) -> bool:
        """Count a batch in, if it is the next one."""
        try:
            follows = line["batch"] == self.header["batches"][0] + self.batches
            refused = sum("refused" in item for item in line["items"])
            shown = line["shown"] + 0
        except (TypeError, KeyError):
            return False
        if follows:
            self.batches, self.shown = self.batches + 1, shown
            self.refused, self.entries = self.refused + refused, self.entries + len(line["items"]) - refused
        return follows

    def _write(self, fields: dict[str, Any]) -> None:
        data = (json.dumps(fields) + "\n").encode()
        self._file.seek(self._end)
        self._file.write(data)
        self._file.flush()
        self._end += len(data)

    def _raw_lines(self) -> Iterator[tuple[bytes, int]]:
        """(line, where it ends) of each line that is whole; by its own place, so that several may read."""
        place, rest = 0, []
        while block := os.pread(self._file.fileno(), _BLOCK, place):
            first, *others = block.split(b"\n")
            start = place
            place += len(block)
            rest.append(first)
            for other in others:
                line = b"".join(rest)
                start += len(rest[-1]) + 1
                yield line, start
                rest = [other]


def _parsed(line: bytes | str) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(line)
    return None


def _checked_header(found: Any, name: str) -> dict[str, Any]:
    fits = isinstance(found, dict) and all(isinstance(found.get(key), kind) for key, kind in _HEADER.items())
    pairs = (found["shard"], found["batches"]) if fits else ()
    if not fits or not all(len(p) == 2 and all(isinstance(n, int) for n in p) for p in pairs):
        raise InputError(f"{name} is not the journal of a shard")
    return found
