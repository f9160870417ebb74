"""Precomputed proposals, read from files: the regions that Fast R-CNN classifies.

R proposals of a picture.
"""

import hashlib
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from tfcnn import files
from tfcnn.errors import InputError


class Proposals:
    """What the app propose wrote: {"images": [{"file", "proposals": [[x1, y1, x2, y2, score]]}]}.

    Args:
        paths: a file, or several of them: of a split each.
        count: the best so many of each picture.

    Attributes:
        path: the files' names.
        count: as given.

    Raises:
        InputError: a file is not there or is no such list.
    """

    def __init__(self, paths: str | pathlib.Path | Sequence[str | pathlib.Path], count: int = 2000) -> None:
        paths = [paths] if isinstance(paths, str | pathlib.Path) else list(paths)
        self.path, self.count = " and ".join(map(str, paths)), count
        self._by_stem: dict[str, dict[tuple[str, ...], np.ndarray]] = {}
        for path in paths:
            try:
                for entry in files.from_json(pathlib.Path(path).read_bytes(), "the file")["images"]:
                    name = pathlib.PurePath(entry["file"])
                    boxes = _best(entry["proposals"], count)
                    self._by_stem.setdefault(name.stem, {})[name.with_suffix("").parts] = boxes
            except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
                raise InputError(f"{path} is no results.json of the app propose ({error})") from error

    def of(self, file: str) -> np.ndarray:
        """The proposals of a picture.

        Args:
            file: the picture's name: its stem finds it, its folders tell it from others of the same stem.

        Returns:
            float32 [R, 4] (x1, y1, x2, y2), pixels of the file as a person sees it, best first.

        Raises:
            InputError: the file of proposals has none for the picture, or several pictures of that name.
        """
        name = pathlib.PurePath(file).with_suffix("").parts
        entries = self._by_stem.get(name[-1], {}) if name else {}
        if len(entries) > 1:
            entries = {parts: boxes for parts, boxes in entries.items() if parts[-len(name) :] == name}
        if len(entries) != 1:
            why = "proposals of several pictures of the name" if entries else "no proposals for"
            raise InputError(f"{self.path} has {why} {file}: make them with the app propose")
        return next(iter(entries.values()))

    def fingerprint(self, names: Iterable[str]) -> str:
        """A checksum of the proposals of these pictures, in their order; errors as of `of`."""
        found = hashlib.sha256()
        for name in names:
            found.update(np.ascontiguousarray(self.of(name)).data)
        return found.hexdigest()


def _best(rows: list, count: int) -> np.ndarray:
    rows = np.asarray(rows, np.float32).reshape(-1, 5)
    rows = rows[np.argsort(-rows[:, 4], kind="stable")][:count]
    if not np.isfinite(rows[:, :4]).all():
        raise ValueError("a proposal is not finite")
    return rows[:, :4]
