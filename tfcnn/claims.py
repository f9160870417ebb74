"""What a model's file may claim: no more numbers than it can hold, so that opening it takes memory of its own size."""

import contextlib
import math
import os
import threading
import zipfile
from collections.abc import Iterator

import h5py
import keras

from tfcnn.errors import InputError

PACKED = 16  # times that a compressed file may grow; trained weights hardly shrink
SLACK = 2**24  # bytes of descriptions, which shrink much
_PATCHING = threading.RLock()


def unpacked(path: str | os.PathLike) -> int:
    """The bytes that a model's file may hold: an archive's when unpacked; of an .h5, whose arrays may be compressed,
    PACKED times its size.

    Raises:
        InputError: an archive would grow beyond that.
    """
    most = PACKED * os.path.getsize(path) + SLACK
    if not zipfile.is_zipfile(path):
        return most
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > most:
        raise InputError(
            f"{path} claims {size:,} bytes when unpacked, from {os.path.getsize(path):,}: it is damaged"
        )
    return size


def check_arrays(path: str | os.PathLike, file: h5py.Group) -> None:
    """Sees that no array of an .h5 file claims more bytes than the file can hold, such as one that was never written.

    Raises:
        InputError: one does.
    """
    most = unpacked(path)

    def look(name, item):
        if isinstance(item, h5py.Dataset) and item.nbytes > most:
            raise InputError(
                f"{path} claims {item.nbytes:,} bytes for {name}, more than it holds: it is damaged"
            )

    file.visititems(look)


@contextlib.contextmanager
def bounded(path: str | os.PathLike) -> Iterator[None]:
    """Refuses, while a model is built from its file, layers with more numbers than the file can hold bytes.

    Keras builds every layer as the description says, and compares it with the file's arrays only then.

    Raises:
        InputError: at the first weight beyond; Keras may wrap it.
    """
    most, own, plain, seen = unpacked(path), threading.get_ident(), keras.layers.Layer.add_weight, 0

    def add_weight(layer, shape=None, *arguments, **options):
        nonlocal seen
        if threading.get_ident() == own:
            seen += math.prod(shape or ())
            if seen > most:
                raise InputError(f"its layer {layer.name} claims more weights than the file holds")
        return plain(layer, shape, *arguments, **options)

    with _PATCHING:
        keras.layers.Layer.add_weight = add_weight
        try:
            yield
        finally:
            keras.layers.Layer.add_weight = plain
