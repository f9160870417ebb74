"""The pictures of a data set, read ahead as input pictures are, each with what the data set knows of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tfcnn.cli.items import Item, Picture

if TYPE_CHECKING:
    import numpy as np

    from tfcnn.cli.output import Output
    from tfcnn.cli.run import Run
    from tfcnn.datasets import Record


class Recorded(Picture):
    """A data set's picture.

    Attributes:
        record: what the data set knows of it.
    """

    def __init__(self, output: Output, index: int, record: Record):
        Item.__init__(self, output, index, record.file, str(record.image_id), {"file": record.file})
        self.record = record
        self.prepared = None

    @functools.cached_property
    def image(self) -> np.ndarray:
        """The picture, uint8 [H, W, 3].

        Raises:
            InputError: it cannot be read.
        """
        image = self.record.image()
        self.entry |= {"width": image.shape[1], "height": image.shape[0]}
        return image


def batches(
    run: Run, records: Sequence[Record], size: int, prepare: Callable[[np.ndarray], Any] | None = None
) -> Iterator[list[Recorded]]:
    """A data set's pictures in lists, as `Run.batches` gives the input pictures.

    Args:
        run: of the app.
        records: the pictures.
        size: pictures a list.
        prepare: done to the image in the reading thread; its result is `picture.prepared`.
    """
    pictures = (Recorded(run, number, record) for number, record in enumerate(records))
    for group in run.groups(pictures, len(records), size, prepare):
        batch = [picture for picture in group if not picture.finished]
        if batch:
            yield batch
        for picture in batch:
            picture.finish()
            picture.let_go()
