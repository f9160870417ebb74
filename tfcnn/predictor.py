"""What every trained method answers to: pictures of any size in, results in the files' pixels out.

N pictures of a batch, H and W the sides of its padded arrays, S sizes at which each picture is looked at, R regions of
a picture, K classes.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from tfcnn import images, masks
from tfcnn.datasets import Record
from tfcnn.datasets.proposals import Proposals
from tfcnn.detections import Detections
from tfcnn.errors import InputError
from tfcnn.runtime import cores

RESIZES = ("stretch", "letterbox", "fit")
MULTIPLE = 32  # sides of a batch of `fit` are padded to multiples of the coarsest map's stride


class Method(Protocol):
    """What a method has of its own: its networks, decoding and suppression.

    Attributes:
        classes: K.
        zero_rgb: the colour that its network sees as zero, which fills what lies beside a picture.
        needs_proposals: whether a picture's regions are given with it (Fast R-CNN).
    """

    classes: int
    zero_rgb: Sequence[float]
    needs_proposals: bool

    def __call__(
        self,
        pictures: list[np.ndarray],
        sizes: list[np.ndarray],
        shapes: np.ndarray,
        proposals: np.ndarray | None,
    ) -> dict[str, np.ndarray]:
        """Computes a batch.

        Args:
            pictures: S arrays uint8 [N, H, W, 3], the same pictures at each size, padded at the right and below.
            sizes: S arrays int32 [N, 2], height and width of the real picture inside its array.
            shapes: int32 [N, 2], height and width of each file.
            proposals: float32 [N, R, 4] in pixels of pictures[0], rows of zeros are padding.

        Returns:
            arrays [N, ...], boxes among them in pixels of pictures[0]; what `detections` wants, or another `result`.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A picture as the network sees it.

    Attributes:
        pictures: uint8 [h, w, 3] at each of the predictor's sizes.
        placement: from the file's pixels to those of pictures[0].
        shape: (height, width) of the file.
    """

    pictures: list[np.ndarray]
    placement: images.Placement
    shape: tuple[int, int]


def detections(row: dict[str, np.ndarray], prepared: Prepared, names: Sequence[str]) -> Detections:
    """Makes a detector's arrays of one picture Detections in the file's pixels, clipped to the picture.

    Args:
        row: boxes float32 [D, 4], scores [D], labels int32 [D], count; and masks [D, S, S] or none.
        prepared: the picture.
        names: of the classes.
    """
    count, (height, width) = row["count"], prepared.shape
    boxes, shown = prepared.placement.to_file(row["boxes"][:count]), None
    if "masks" in row:  # pasted into the box that the network saw, which may reach beyond the picture
        small = row["masks"][:count]
        shown = [
            masks.encode(masks.paste(mask, box, height, width))
            for mask, box in zip(small, boxes, strict=True)
        ]
    boxes = np.clip(boxes, 0, [width, height, width, height])
    return Detections(boxes, row["scores"][:count], row["labels"][:count], tuple(names), shown)


class Predictor:
    """A trained method at work; made by `tfcnn.detector`.

    Args:
        method: its own part.
        names: of the K classes.
        image_size: side in pixels of the square that each picture becomes; the shorter side with resize="fit".
        longest: most pixels of the longer side with resize="fit".
        resize: "stretch", "letterbox" or "fit", as `tfcnn.images.resize`.
        scales: several such sides instead of image_size; boxes are counted in the first.
        batch_size: N, pictures computed at once.
        threads: for reading and resizing; None takes the machine's cores.
        category_ids: the data set's id of each class; None: 1..K.
        card: of the release.
        runtime: what computes the method's networks, for those who ask.
        result: makes the method's arrays of one picture the result.

    Raises:
        InputError: an unknown resize, a size below 1, or another number of names than the method has classes.
    """

    def __init__(
        self,
        method: Method,
        *,
        names: Sequence[str],
        image_size: int,
        longest: int | None = None,
        resize: str = "stretch",
        scales: Sequence[int] = (),
        batch_size: int = 8,
        threads: int | None = None,
        category_ids: Sequence[int] | None = None,
        card: dict | None = None,
        runtime: str = "tf",
        result: Callable[[dict[str, np.ndarray], Prepared, Sequence[str]], Any] = detections,
    ):
        if resize not in RESIZES:
            raise InputError(
                f"resize={resize!r} is none of {', '.join(RESIZES)}: a crop would cut objects off."
            )
        if min([image_size, batch_size, *scales]) < 1:
            raise InputError("image_size, scales and batch_size are whole numbers from 1 on.")
        if len(names) != method.classes:
            raise InputError(f"There are {len(names)} labels, and the model has {method.classes} classes.")
        self.method, self.names, self.card, self.runtime = method, list(names), card or {}, runtime
        self.category_ids = list(category_ids or range(1, method.classes + 1))
        self.image_size, self.longest, self.resize = image_size, longest, resize
        self.scales = list(scales) or [image_size]
        self.batch_size, self.threads = batch_size, threads or cores()
        self._result = result

    def __call__(self, pictures: Iterable, proposals: Sequence[np.ndarray] | None = None) -> list:
        """Finds what is in pictures of any size.

        Args:
            pictures: a list of arrays uint8 [H, W, 3], RGB, or of paths.
            proposals: for Fast R-CNN, float32 [R, 4] in pixels of each picture.

        Returns:
            A result a picture in its file's pixels: Detections, of a detector.

        Raises:
            InputError: a picture cannot be read, or is no array as above; or proposals are missing or too many.
        """
        if isinstance(pictures, str | os.PathLike) or getattr(pictures, "ndim", 4) != 4:
            raise InputError("A predictor takes a list of pictures; for a single one give [picture].")
        results = []
        for batch in self._ahead(pictures, self.prepare):
            rows = None if proposals is None else proposals[len(results) : len(results) + len(batch)]
            results += self.predict(batch, rows)
        return results

    def prepare(self, picture: np.ndarray | str | os.PathLike | images.Source) -> Prepared:
        """Reads and resizes a picture; made to run in reading threads.

        Raises:
            InputError: it cannot be read, or is no uint8 [H, W, 3].
        """
        image = picture if isinstance(picture, np.ndarray) else images.read(picture)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(f"A picture is uint8 [height, width, 3], not {image.dtype} {list(image.shape)}.")
        resized = [self._resized(image, scale) for scale in self.scales]
        return Prepared([picture for picture, _ in resized], resized[0][1], image.shape[:2])

    def predict(self, prepared: Sequence[Prepared], proposals: Sequence[np.ndarray] | None = None) -> list:
        """Computes one batch of what `prepare` gave; arguments and results as of a call."""
        if (proposals is not None) != self.method.needs_proposals:
            need = "needs proposals of each picture" if proposals is None else "makes proposals of its own"
            raise InputError(f"The model {need}.")
        if proposals is not None and len(proposals) != len(prepared):
            raise InputError(f"There are {len(prepared)} pictures, and proposals of {len(proposals)}.")
        alike: dict[tuple, list[int]] = {}
        for i, item in enumerate(prepared):
            alike.setdefault(tuple(self._sides([picture]) for picture in item.pictures), []).append(i)
        results: list = [None] * len(prepared)
        for chosen in alike.values():
            given = None if proposals is None else [proposals[i] for i in chosen]
            for i, result in zip(chosen, self._computed([prepared[i] for i in chosen], given), strict=True):
                results[i] = result
        return results

    def _computed(self, prepared, proposals):
        """The results of pictures of one padded size: what is padded more would see its neighbours' size, since a
        net may take the mean of a whole map."""
        pictures, sizes, shapes = self.stack(prepared)
        precomputed = None
        if proposals is not None:
            precomputed = np.zeros((len(prepared), max([1, *map(len, proposals)]), 4), np.float32)
            for row, item, boxes in zip(precomputed, prepared, proposals, strict=True):
                row[: len(boxes)] = item.placement.from_file(boxes)
        arrays = self.method(pictures, sizes, shapes, precomputed)
        rows = [{name: value[i] for name, value in arrays.items()} for i in range(len(prepared))]
        return [self._result(row, item, self.names) for row, item in zip(rows, prepared, strict=True)]

    def over_records(
        self,
        records: Iterable[Record],
        proposals: Proposals | None = None,
        progress: Callable[[int], None] = lambda count: None,
    ) -> tuple[dict, dict[str, str]]:
        """Finds what is in a data set's pictures, in the pixels of their annotations.

        Args:
            records: of a tfcnn.datasets Dataset.
            proposals: for Fast R-CNN.
            progress: called with the number of pictures done since the last call.

        Returns:
            ({image_id: the result, such as Detections}, {file: why} of pictures that could not be read).
        """
        found, unreadable = {}, {}
        for batch in self.read(records):
            ready = [(record, prepared) for record, prepared, _ in batch if prepared]
            precomputed = [proposals.of(record.file) for record, _ in ready] if proposals else None
            answers = self.predict([prepared for _, prepared in ready], precomputed)
            for (record, prepared), answer in zip(ready, answers, strict=True):
                found[record.image_id] = answer.to_file(record.placement(prepared.shape))
            unreadable |= {record.file: why for record, _, why in batch if why}
            progress(len(batch))
        return found, unreadable

    def read(self, records: Iterable[Record]) -> Iterator[list[tuple[Record, Prepared | None, str]]]:
        """A data set's pictures, prepared ahead in threads.

        Yields:
            lists of up to batch_size (record, Prepared, ""), or (record, None, why it cannot be read).
        """
        return self._ahead(records, self._of_record)

    def stack(self, prepared: Sequence[Prepared]) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
        """A batch as the method takes it: pictures, sizes and shapes."""
        pairs = [self._stacked(pictures) for pictures in zip(*(p.pictures for p in prepared), strict=True)]
        shapes = np.array([p.shape for p in prepared], np.int32)
        return [pictures for pictures, _ in pairs], [sizes for _, sizes in pairs], shapes

    def _of_record(self, record):
        try:
            return record, self.prepare(record.image()), ""
        except InputError as error:
            return record, None, str(error)

    def _resized(self, image, scale):
        if self.resize != "fit":
            return images.resize(image, scale, self.resize)
        longest = self.longest and round(self.longest * scale / self.image_size)
        return images.resize(image, scale, "fit", longest=longest)

    def _stacked(self, pictures):
        sizes = np.array([picture.shape[:2] for picture in pictures], np.int32)
        batch = np.empty((len(pictures), *self._sides(pictures), 3), np.uint8)
        batch[:] = np.rint(self.method.zero_rgb)
        for row, picture, (h, w) in zip(batch, pictures, sizes, strict=True):
            row[:h, :w] = picture
        return batch, sizes

    def _sides(self, pictures):
        """Height and width of an array that holds these pictures."""
        sides = [max(sides) for sides in zip(*(picture.shape[:2] for picture in pictures), strict=True)]
        step = MULTIPLE if self.resize == "fit" else 1
        return tuple(-(-side // step) * step for side in sides)

    def _ahead(self, items: Iterable, load: Callable) -> Iterator[list]:
        """Lists of up to batch_size loaded items, read ahead in threads."""
        items = iter(items)
        with concurrent.futures.ThreadPoolExecutor(self.threads, "reader") as pool:
            waiting = [pool.submit(load, item) for item in itertools.islice(items, 2 * self.batch_size)]
            while waiting:
                batch, waiting = waiting[: self.batch_size], waiting[self.batch_size :]
                waiting += [pool.submit(load, item) for item in itertools.islice(items, len(batch))]
                yield [item.result() for item in batch]


def fastest(
    runtimes: Sequence[str],
    make: Callable[[str], Predictor],
    pictures: Sequence[np.ndarray],
    say: Callable[[str], None] = lambda sentence: None,
    rounds: int = 3,
) -> Predictor:
    """Of predictors that find the same, the one that is fastest on this machine.

    Args:
        runtimes: what `make` takes; the first one always works, others may be missing here.
        make: makes the predictor of a runtime.
        pictures: uint8 [H, W, 3], on which they are measured, once each before any time is taken.
        say: is told in a sentence which one it is, and why.
        rounds: of each in turn; the median counts.
    """
    made, words = {}, []
    for runtime in runtimes:
        try:
            predictor = make(runtime)
            ready = [predictor.prepare(picture) for picture in pictures]
            given = None
            if predictor.method.needs_proposals:
                given = [np.float32([[0, 0, *picture.shape[1::-1]]]) for picture in pictures]
            predictor.predict(ready, given)
        except InputError as error:
            if not made:
                raise
            words.append(f"{runtime} not at all: {str(error).rstrip('.')}")
        else:
            made[runtime] = predictor, functools.partial(predictor.predict, ready, given), []
    for _, run, seconds in list(made.values()) * rounds:
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    cost = {name: 1000 * float(np.median(seconds)) / len(pictures) for name, (_, _, seconds) in made.items()}
    best = min(cost, key=cost.get)
    words = [f"{name} takes {ms:.1f} ms a picture" for name, ms in cost.items()] + words
    say(f"runtime {best}: {', '.join(words)}")
    return made[best][0]
