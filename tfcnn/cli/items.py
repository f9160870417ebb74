"""The entries of a run: its input pictures, and whatever else results.json has an entry for."""

from __future__ import annotations

import collections
import functools
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from tfcnn import files, images, report
from tfcnn.cli.output import Output
from tfcnn.errors import InputError

LONGEST_STEM = 180  # bytes of the 255 that file systems allow a name


class Item:
    """One entry of results.json under way: a picture's, or a class's; as a context, InputError refuses it.

    Attributes:
        index: its place in the results' list; a picture's is its number among the inputs.
        name: what the person calls it.
        stem: a unique name for its files.
        entry: its fields; give it more.
        lines: text that index.html shows under its pictures.
        card: its card on index.html, which gets the pictures `shown` and the `lines`; None: it has none.
        shown: its pictures for index.html.
        kept: what the app's end needs of it beside its entry, where it is journaled: plain JSON.
        finished: whether it is in the results, or refused.
        why: it was refused; "" where it was not.
    """

    def __init__(
        self, output: Output, index: int, name: str, stem: str, entry: dict[str, Any], journaled: bool = False
    ):
        self._output, self.index, self._journaled = output, index, journaled
        self.name, self.stem, self.entry = name, stem, entry
        self.lines: list[str] = []
        self.card: report.Entry | None = report.Entry(name)
        self.shown: list[report.Shown] = []
        self.kept: Any = None
        self.finished, self.why = False, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, InputError):
            self.refuse(str(error))
            return True
        return False

    def save(self, image: np.ndarray, kind: str = "", caption: str = "", main: bool = False) -> str:
        """Write a picture of this item, and show it in index.html.

        Args:
            image: as `images.write` takes it.
            kind: what of the item it shows; the file is STEM_KIND.
            caption: under it in index.html.
            main: whether it is the item's main result, `picture`.

        Returns:
            The file's path relative to output_dir; "" with --save_images=false.

        Raises:
            InputError: a value is not finite.
        """
        relative = f"{self.stem}_{kind}" if kind else self.stem
        relative = self._output.save_picture(image, relative)
        self.shown += self._output.reduced(image, caption or kind, relative)
        if relative:
            if main:
                self.entry["picture"] = relative
            self.entry.setdefault("files", []).append(relative)
        return relative

    def show(self, image: np.ndarray, caption: str = "") -> None:
        """Show a picture in index.html without a file of its own."""
        self.shown += self._output.reduced(image, caption)

    def refuse(self, why: str) -> None:
        """Leave this item out: it is listed under `refused`, and its files are removed."""
        for name in self.entry.pop("files", []):
            (self._output.output_dir / name).unlink(missing_ok=True)
        self.finished, self.why = True, why
        self._output.refuse(self.name, why, self.index, listed=not self._journaled)

    def finish(self) -> None:
        """Take the entry into the results; iterating on does this by itself."""
        if self.finished:
            return
        self.finished = True
        self.entry = files.plain(self.entry)
        try:
            json.dumps(self.entry, allow_nan=False)
        except ValueError:
            self.refuse("non-finite")
        else:
            if not self._journaled:
                self._output.entries[self.index] = self


class Picture(Item):
    """An input picture.

    Attributes:
        source: where it lies.
        prepared: what `prepare` of `Run.batches` made of it.
    """

    def __init__(self, output: Output, index: int, source: images.Source, stem: str, journaled: bool = False):
        super().__init__(output, index, source.file, stem, {"file": source.file}, journaled)
        self.source = source
        self.prepared: Any = None

    @functools.cached_property
    def image(self) -> np.ndarray:
        """The picture, uint8 [H, W, 3].

        Raises:
            InputError: it cannot be read.
        """
        image, notes = images.read_with_notes(self.source, self._output.flags.max_pixels)
        self.entry |= {"width": image.shape[1], "height": image.shape[0]}
        if notes:
            self.entry["notes"] = notes
        return image

    def load(self, prepare: Callable[[np.ndarray], Any] | None) -> None:
        """Read the picture, and keep what `prepare` makes of it instead of its pixels."""
        image = self.image
        if prepare is not None:
            self.prepared = prepare(image)
            del self.image

    def let_go(self) -> None:
        """Free the pixels: the entries of a run live to its end."""
        self.prepared = None
        self.__dict__.pop("image", None)


class Single(Item):
    """An Item outside any iteration: leaving its context takes it into the results."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        handled = super().__exit__(kind, error, trace)
        if kind is None:
            self.finish()
        return handled


def unique_stems(sources: Sequence[images.Source]) -> list[str]:
    """A name for each source's files: its stem; where two have the same, its path without suffix.

    Where two differ in their suffix alone, it is their names with it, within the folder that was given. What is longer
    than LONGEST_STEM is cut, so that an ending such as _detected.png fits.
    """
    forms = (
        lambda source: pathlib.PurePath(source.name).stem,
        lambda source: os.path.splitext(source.name)[0],
        lambda source: os.path.splitext(source.file)[0],
        lambda source: source.name,
        lambda source: source.file,
    )
    stems = [""] * len(sources)
    alike = list(range(len(sources)))  # whose names are not yet told apart; those of one path have one stem
    for level, form in enumerate(forms):
        if not alike:
            break
        counts = collections.Counter(map(form, sources))
        for index in alike:
            stems[index] = form(sources[index])
        alike = [index for index in alike if counts[stems[index]] > 1] if level < len(forms) - 1 else []
    chosen: set[str] = set()
    for index, stem in enumerate(stems):
        stem = "/".join(_cut(part) for part in pathlib.PurePath(stem).parts if part not in ("/", ".."))
        stems[index] = stem if stem not in chosen else f"{stem}_{index}"
        chosen.add(stems[index])
    return stems


def _cut(part: str) -> str:
    """A name of at most LONGEST_STEM bytes."""
    data = os.fsencode(part)
    return part if len(data) <= LONGEST_STEM else data[:LONGEST_STEM].decode(errors="ignore")
