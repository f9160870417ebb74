"""MNIST, and every set in its idx files: grey pictures of 28 x 28 and a class each.

Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
"""

import gzip
import io
import math
import pathlib
import struct
import zlib
from collections.abc import Callable

import numpy as np

from tfcnn import sources
from tfcnn.datasets.example import Dataset, Record
from tfcnn.datasets.root import Root, find
from tfcnn.errors import InputError

PARTS = {"train": "train", "test": "t10k", "val": "t10k"}


def read(path: str | pathlib.Path, split: str = "train") -> Dataset:
    """Reads MNIST from a folder or a .zip.

    Args:
        path: a folder or .zip with train-images-idx3-ubyte and its like, plain or .gz, at its top or one
            level down.
        split: "train", or "test" ("val" is the same).

    Returns:
        The data set, its pictures grey in all three channels; classes are the digits.

    Raises:
        InputError: no such files, or files of another kind.
    """
    if split not in PARTS:
        raise InputError(f"{path} has no split {split!r}: it has train, test")
    images_file, labels_file = f"{PARTS[split]}-images", f"{PARTS[split]}-labels"
    root = find(path, lambda r: _name(r, images_file) is not None, f"{images_file}-idx3-ubyte")
    pixels = _array(root, images_file)
    labels = _array(root, labels_file)
    if pixels.ndim != 3 or labels.shape != pixels.shape[:1]:
        raise InputError(
            f"{root}: {images_file} holds {pixels.shape}, {labels_file} {labels.shape}: no pair of MNIST's"
        )
    classes = [str(digit) for digit in range(max(10, int(labels.max(initial=0)) + 1))]
    return pictures("mnist", PARTS[split], pixels[..., None], labels, classes)


def pictures(name: str, part: str, pixels: np.ndarray, labels: np.ndarray, classes: list[str]) -> Dataset:
    """A data set of small pictures that lie in one array, which is all that is kept in memory.

    Args:
        name: of the data set.
        part: what the pictures' names begin with.
        pixels: uint8 [N, H, W, 1 or 3].
        labels: int [N].
        classes: K names.
    """
    height, width = pixels.shape[1:3]
    examples = [
        Record(f"{part}-{index}", f"{part}-{index}", width, height, _source(pixels, index), label=int(label))
        for index, label in enumerate(labels)
    ]
    return Dataset(name, classes, list(range(1, len(classes) + 1)), examples)


def _source(pixels: np.ndarray, index: int) -> Callable[[], np.ndarray]:
    return lambda: np.ascontiguousarray(np.broadcast_to(pixels[index], (*pixels.shape[1:3], 3)))


def _name(root: Root, start: str) -> str | None:
    return next((file for file in root.files() if file.startswith(start)), None)


def _array(root: Root, start: str) -> np.ndarray:
    """One idx file: two zeros, the type (8: unsigned bytes), the number of sizes, the sizes, the data."""
    file = _name(root, start)
    if file is None:
        raise InputError(f"{root} has no {start}-idx*-ubyte")
    try:
        data = root.read(file)
        with gzip.open(io.BytesIO(data)) if data[:2] == b"\x1f\x8b" else io.BytesIO(data) as stream:
            zeros, kind, dimensions = struct.unpack(">HBB", stream.read(4))
            shape = struct.unpack(f">{dimensions}I", stream.read(4 * dimensions))
            if zeros or kind != 8:
                raise ValueError("another type of file")
            if (count := math.prod(shape)) > sources.MAX_MEMBER_BYTES:
                raise ValueError(f"{count:,} bytes when unpacked, above {sources.MAX_MEMBER_BYTES:,}")
            return np.frombuffer(stream.read(count + 1), np.uint8).reshape(shape)
    except (struct.error, ValueError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{root}/{file} is no whole idx file of bytes ({error})") from None
