"""What a run writes: its files, whole or not at all, its messages, and one line where the disk fails."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from absl import flags

from tfcnn import files, images, report
from tfcnn.errors import InputError

RESULTS, FLAGS_FILE, PAGE = "results.json", "flags.txt", "index.html"


class OutputError(Exception):
    """The disk is full or the output_dir is gone: the run ends with one line."""


def one_line(text: str) -> str:
    """Text for a terminal: what would break a line or steer the terminal, as a file's name may, is escaped."""
    controls = ("Cc", "Zl", "Zp")
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in controls else c for c in text)


@contextlib.contextmanager
def guarded(folder: pathlib.Path) -> Iterator[None]:
    """Turn a full disk or a vanished folder into OutputError, and a file's name that is too long into InputError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"the disk of {folder} is full; the finished files are whole") from error
        if error.errno == errno.ENAMETOOLONG:
            raise InputError("the name of a file to write for it would be too long") from error
        raise OutputError(f"{folder} cannot be written any more: {error.strerror or error}") from error


class Output:
    """The folder of a run, and its standard error.

    Attributes:
        app: the app's name.
        flags: its flags, parsed.
        output_dir: made at the first file.
        entries: what results.json lists under `images`: {place in the list: its Item}.
        refused: what it lists under `refused`: {place in the list: {"file", "why"}}; of a journal's, see `Run`.
        refused_count: how many were refused.
        resume: of a trainer: output_dir holds an unfinished run of the same command, so go on from its
            checkpoint; where it is False, what output_dir holds is to be replaced.
        writes: False in a worker that is not the chief of its training: nothing is written to output_dir, nothing said.
        shown: how many pictures were offered to index.html.
        begun: whether the work has begun: the command is right, and from here on a failure is status 1, not 2.
    """

    def __init__(self, app: str, values: flags.FlagValues):
        self.app, self.flags = app, values
        self.output_dir = pathlib.Path(values.output_dir)
        self.entries: dict[int, Any] = {}
        self.refused: dict[int, dict[str, str]] = {}
        self.refused_count = 0
        self.resume = self.begun = False
        self.writes = True
        self._held: list[str] = []
        self.shown = 0
        self._made_dir = False

    # ------------------------------------------------------------------------------------- messages

    def say(self, line: str) -> None:
        """A line on standard error for the person, not with --quiet; held back until the work begins.

        So a command that is wrong is answered by its error alone.
        """
        if not self.begun:
            self._held.append(line)
        elif not self.flags.quiet and self.writes:
            print(one_line(f"{self.app}: {line}"), file=sys.stderr, flush=True)

    def begin(self) -> None:
        """Say that the command is right and work begins."""
        if not self.begun:
            self.begun = True
            for line in self._held:
                self.say(line)

    def refuse(self, name: str, why: str, index: int | None = None, listed: bool = True) -> None:
        """List an input under `refused` and name it on standard error; the run's status becomes 1.

        Args:
            name: the input's.
            why: in a clause.
            index: its place in the list; None: at the end.
            listed: False where a journal lists it.
        """
        self.refused_count += 1
        if listed:
            self.refused[len(self.refused) + 10**9 if index is None else index] = {"file": name, "why": why}
        line = why if why.startswith(name) else f"{name}: {why}"
        print(one_line(f"{self.app}: refused {line}"), file=sys.stderr, flush=True)

    # ------------------------------------------------------------------------------------- files

    def check_output_dir(self) -> None:
        """See that output_dir, or else the folder that it will be made in, can be written, and leave no trace.

        Raises:
            InputError: it cannot, or --overwrite=false and it holds results.
        """
        try:
            with contextlib.suppress(FileNotFoundError):
                os.stat(self.output_dir)  # fails of a name that is too long, or that lies in a file
            # No folder is made to try it out: another run that starts now would find it, and then miss it.
            places = (self.output_dir, *self.output_dir.parents)
            probe = files.beside(next(filter(os.path.lexists, places)) / RESULTS)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InputError(f"--output_dir={self.output_dir} cannot be written: {error.strerror}") from error
        if not self.flags.overwrite and not self.resume and (self.output_dir / RESULTS).exists():
            raise InputError(f"{self.output_dir} holds a {RESULTS}, and --overwrite=false")

    def place(self, relative: str | os.PathLike) -> pathlib.Path:
        """Where in output_dir a file goes; its folder is made."""
        self.begin()
        path = self.output_dir / relative
        if self._made_dir and not self.output_dir.is_dir():
            raise OutputError(f"{self.output_dir} is gone: it was removed while the run was writing to it")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._made_dir = True
        return path

    def save_bytes(self, data: bytes, relative: str) -> str:
        """Write a file to output_dir; its path relative to it.

        Raises:
            OutputError: the disk is full or output_dir is gone.
        """
        if self.writes:
            with guarded(self.output_dir):
                files.write_bytes(self.place(relative), data)
        return relative

    def save_json(self, obj: object, relative: str) -> str:
        """Write JSON to output_dir, as `files.json_parts` makes it; an iterator is a list. See `save_bytes`."""
        if not self.writes:
            return relative
        with guarded(self.output_dir), files.written(self.place(relative)) as part, open(part, "w") as file:
            file.writelines(files.json_parts(obj))
            file.write("\n")
        return relative

    def say_what_stays(self, entries: Iterable[dict[str, Any]]) -> None:
        """Say which files of an earlier run in output_dir stay there; they took time, and are never deleted.

        Args:
            entries: of this run: what they name in `files` is this run's.
        """
        there = self._files_there() if self.writes else set()
        for entry in entries if there else ():
            there.difference_update(entry.get("files", ()))
        if there:
            some = ", ".join(sorted(there)[:3]) + (", ..." if len(there) > 3 else "")
            self.say(
                f"{self.output_dir} keeps {len(there)} file{'s' * (len(there) > 1)} of an earlier run, no longer in "
                f"{RESULTS} and {PAGE}: {some}"
            )

    def _files_there(self):
        """The files that the results.json in output_dir names, and that are still there."""
        found, listing = set(), False
        try:
            with open(self.output_dir / RESULTS, errors="surrogateescape") as file:
                for line in file:  # as `files.json_parts` writes it: it may be longer than what memory holds
                    text = line.strip().rstrip(",")
                    if listing and text.startswith('"'):
                        found.add(json.loads(text))
                    listing = text == '"files": [' or (listing and text != "]")
            return {name for name in found if (self.output_dir / name).is_file()}
        except (OSError, ValueError):  # it is no file of ours
            return set()

    def save_picture(self, image: np.ndarray, relative: str) -> str:
        """Write a picture to output_dir, unless --save_images=false.

        Args:
            image: as `images.write` takes it.
            relative: its path in output_dir; one without a suffix gets that of --image_format.

        Returns:
            The path relative to output_dir; "" with --save_images=false.

        Raises:
            InputError: a value is not finite.
        """
        suffix = pathlib.PurePath(relative).suffix
        if suffix.lower() not in (".png", ".jpg", ".jpeg"):
            suffix = f".{getattr(self.flags, 'image_format', 'png')}"
            relative += suffix
        data = images.encode(image, suffix)
        return self.save_bytes(data, relative) if self.flags.save_images else ""

    def reduced(self, image: np.ndarray, caption: str, file: str = "") -> list[report.Shown]:
        """[a picture for index.html], or [] when it shows enough already."""
        self.shown += 1
        if self.shown > report.MOST_PICTURES or not self.flags.save_images:
            return []
        return [report.Shown(caption, report.reduced(image), file)]
