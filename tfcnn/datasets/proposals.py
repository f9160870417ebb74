"""Proposals that another method made, read from a file: what Fast R-CNN looks at.

R proposals of a picture, K classes.
"""

import dataclasses
import json
import pathlib

import numpy as np

from tfcnn.errors import InputError


class Proposals:
    """The proposals that the app `propose` wrote: {"images": [{"file", "proposals": [[x1, y1, x2, y2, score]]}]}.

    Args:
        path: the file.
        count: the best so many of each picture.

    Raises:
        InputError: the file is not there or is no such list.
    """

    def __init__(self, path, count=2000):
        try:
            entries = json.loads(pathlib.Path(path).read_text())["images"]
            self._boxes = {pathlib.PurePath(e["file"]).stem: _best(e["proposals"], count) for e in entries}
        except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
            raise InputError(
                f"--proposals={path} is no results.json of the app propose ({error})."
            ) from error
        self.path, self.count = path, count

    def of(self, file):
        """The proposals of a picture by its file's stem, float32 [R, 4], best first.

        Raises:
            InputError: the file of proposals does not have the picture.
        """
        stem = pathlib.PurePath(file).stem
        if stem not in self._boxes:
            raise InputError(f"--proposals={self.path} has none for {file}; make them with the app propose.")
        return self._boxes[stem]

    def join(self, dataset):
        """The data set with each picture's proposals as further objects, of class K: they move as its boxes do.

        Returns:
            (Dataset, the greatest number of true boxes of a picture); true boxes stand before proposals.
        """
        examples = []
        for record in dataset.examples:
            boxes = self.of(record.file)
            more = len(boxes)
            columns = {
                name: np.pad(getattr(record, name), (0, more))
                for name in ("difficult", "truncated", "crowd", "area")
            }
            labels = np.pad(record.labels, (0, more), constant_values=len(dataset.classes))
            joined = np.concatenate([record.boxes, boxes])
            examples.append(dataclasses.replace(record, boxes=joined, labels=labels, **columns))
        return dataclasses.replace(dataset, examples=examples), max(len(r.boxes) for r in dataset.examples)


def _best(rows, count):
    rows = np.asarray(rows, np.float32).reshape(-1, 5)
    rows = rows[np.argsort(-rows[:, 4], kind="stable")][:count]
    if not np.isfinite(rows[:, :4]).all():
        raise ValueError("a proposal is not finite")
    return rows[:, :4]
