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
        finished: whether it is in the results, or refused.
    """

    def __init__(self, output: Output, index: int, name: str, stem: str, entry: dict[str, Any]):
        self._output, self.index = output, index
        self.name, self.stem, self.entry = name, stem, entry
        self.lines: list[str] = []
        self.card: report.Entry | None = report.Entry(name)
        self.shown: list[report.Shown] = []
        self.finished = False

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
        self.finished = True
        self._output.refuse(self.name, why, self.index)

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
            self._output.entries[self.index] = self


class Picture(Item):
    """An input picture.

    Attributes:
        source: where it lies.
        prepared: what `prepare` of `Run.batches` made of it.
    """

    def __init__(self, output: Output, index: int, source: images.Source, stem: str):
        super().__init__(output, index, source.file, stem, {"file": source.file})
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
    """A name for each source's files: its stem; where two have the same, its path without suffix."""
    forms = [
        [pathlib.PurePath(s.name).stem for s in sources],
        [os.path.splitext(s.name)[0] for s in sources],
        [os.path.splitext(s.file)[0] for s in sources],
        [s.file for s in sources],
    ]
    chosen: dict[str, None] = {}
    counts = [collections.Counter(form) for form in forms]
    for index in range(len(sources)):
        level = next((n for n, form in enumerate(forms) if counts[n][form[index]] == 1), len(forms) - 1)
        parts = pathlib.PurePath(forms[level][index]).parts
        stem = "/".join(part for part in parts if part not in ("/", ".."))
        chosen[stem if stem not in chosen else f"{stem}_{index}"] = None
    return list(chosen)
