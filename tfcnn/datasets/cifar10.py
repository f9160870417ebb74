"""CIFAR-10: the official binary version, or its pictures in a folder a class.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import pathlib

import numpy as np

from tfcnn.datasets import folder, mnist
from tfcnn.datasets.example import Dataset
from tfcnn.datasets.root import Root, find
from tfcnn.errors import InputError

CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()
ROW = 1 + 3 * 32 * 32


def read(path: str | pathlib.Path, split: str = "train") -> Dataset:
    """Reads CIFAR-10 from a folder or a .zip.

    Args:
        path: data_batch_1.bin .. data_batch_5.bin and test_batch.bin, or train/CLASS and test/CLASS, at
            its top or one level down.
        split: "train", or "test" ("val" is the same).

    Returns:
        The data set in the files' order.

    Raises:
        InputError: no such files. Python's pickled version is not read: unpickling runs code.
    """
    if split not in ("train", "test", "val"):
        raise InputError(f"{path} has no split {split!r}: it has train, test")
    part = "train" if split == "train" else "test"
    top = Root(path)
    if not any(_batches(root, part) for root in (top, *map(top.at, top.folders()))):
        if any(root.exists("data_batch_1") for root in (top, *map(top.at, top.folders()))):
            raise InputError(
                f"{path} is CIFAR-10's pickled version, which can run code: take the binary version"
            )
        return folder.read(path, part, "cifar10")
    root = find(path, lambda r: bool(_batches(r, part)), "data_batch_*.bin")
    rows = []
    for file in _batches(root, part):
        data = np.frombuffer(root.read(file), np.uint8)
        if len(data) % ROW:
            raise InputError(
                f"{root}/{file} is not CIFAR-10's binary version: {len(data)} bytes are no rows of {ROW}"
            )
        rows.append(data.reshape(-1, ROW))
    table = np.concatenate(rows)
    if table[:, 0].max(initial=0) >= len(CLASSES):
        raise InputError(f"{root} is not CIFAR-10: it has a class {table[:, 0].max()}")
    pixels = table[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return mnist.pictures("cifar10", part, pixels, table[:, 0], list(CLASSES))


def _batches(root: Root, part: str) -> list[str]:
    start = "data_batch_" if part == "train" else "test_batch"
    return [file for file in root.files() if file.startswith(start) and file.endswith(".bin")]
