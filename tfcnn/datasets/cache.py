"""Decoded and reduced pictures kept for the next epoch, in memory or on disk.

A cached picture is reduced until its shorter side has `side` pixels, never enlarged. Boxes stay in the file's
pixels: the pipeline sees that a picture is smaller than its record says, and scales.
"""

import dataclasses
import hashlib
import io
import pathlib
import zipfile
from collections.abc import Callable

import numpy as np

from tfcnn import files, images
from tfcnn.datasets.example import Dataset, Record
from tfcnn.errors import InputError


def in_memory(dataset: Dataset, side: int) -> Dataset:
    """The data set with every picture kept in memory, reduced, once it was read.

    Args:
        dataset: any; 320 x 240 pixels take 230 kB.
        side: pixels of the shorter side that are enough; with a window of half the picture twice the net's
            size.
    """

    def keep(record: Record, kept: Record) -> Callable[[], np.ndarray]:
        pictures: list[np.ndarray] = []

        def source() -> np.ndarray:
            if not pictures:
                pictures.append(_reduced(record, kept, side))
            return pictures[0]

        return source

    return _with_sources(dataset, keep)


def on_disk(dataset: Dataset, folder: str | pathlib.Path, side: int) -> Dataset:
    """The data set with every picture kept in a folder, reduced, once it was read; a file each (.npz:
    image, size).

    Args:
        dataset: any; a file's name is a fingerprint of the encoded picture's and of `side`.
        folder: made if missing; 320 x 240 pixels take 230 kB.
        side: pixels of the shorter side that are enough; with a window of half the picture twice the net's
            size.

    Raises:
        InputError: the folder cannot be made.
    """
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot hold the cache ({error.strerror})") from None

    def keep(record: Record, kept: Record) -> Callable[[], np.ndarray]:
        key = f"{dataset.name}/{record.file}/{record.width}x{record.height}/{side}"
        file = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"

        def source() -> np.ndarray:
            try:
                with np.load(file, allow_pickle=False) as content:
                    kept.height, kept.width = content["size"].tolist()
                    return content["image"]
            except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # not there yet, or damaged
                image = _reduced(record, kept, side)
            buffer = io.BytesIO()
            np.savez(buffer, image=image, size=[kept.height, kept.width])
            files.write_bytes(file, buffer.getvalue())
            return image

        return source

    return _with_sources(dataset, keep)


def _reduced(record: Record, kept: Record, side: int) -> np.ndarray:
    """The record's picture, reduced; its size is noted in `kept`, for sets whose annotations do not tell
    it."""
    image = record.image()
    kept.height, kept.width = image.shape[:2]
    share = side / min(image.shape[:2])
    if share >= 1:
        return image
    return images.resize(image, [max(1, round(length * share)) for length in image.shape[:2]])[0]


def _with_sources(dataset: Dataset, keep: Callable[[Record, Record], Callable]) -> Dataset:
    examples = []
    for record in dataset.examples:
        kept = dataclasses.replace(record)
        kept.source = keep(record, kept)
        examples.append(kept)
    return dataclasses.replace(dataset, examples=examples)
