"""Checkpoints that a kill at any moment leaves whole.

A checkpoint is one .npz file: an array a variable under its name, and `header`, a JSON text in bytes, with
what else training needs to go on. It is written beside its place, flushed to the disk and renamed. The zip
format keeps a CRC-32 of every array, so a damaged file is noticed when it is read, and the one before it is
taken. Nothing in it is pickled.
"""

import concurrent.futures
import io
import json
import os
import pathlib
import zipfile
import zlib

import numpy as np

from tfcnn import files
from tfcnn.errors import InputError

FOLDER = "checkpoints"  # in a run's folder
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def write(path: pathlib.Path, arrays: dict[str, np.ndarray], header: dict) -> None:
    """Writes a checkpoint whole or not at all.

    Args:
        path: where it shall lie.
        arrays: the variables by name.
        header: what else is needed, for JSON.

    Raises:
        InputError: the disk is full or the folder cannot be written to; what lay at `path` is still there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.written(path) as beside, open(beside, "wb") as file:
            np.savez(file, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(
            f"Could not write the checkpoint {path} ({error.strerror}): the last good one is kept; "
            "make room and start the same command again."
        ) from error


class Writer:
    """Writes checkpoints in a thread of its own, one at a time, so that training goes on meanwhile.

    A context: at its end the last write is done. At most one state waits in memory beside the nets.
    """

    def __init__(self):
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._pending: concurrent.futures.Future | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error) -> None:
        self._thread.shutdown()

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._pending is not None and not self._pending.done()

    def write(self, path: pathlib.Path, arrays: dict[str, np.ndarray], header: dict, keep: int = 0) -> None:
        """Begins to write a checkpoint, once the one before it is written.

        Args:
            path, arrays, header: as the function `write`; the arrays must not change any more.
            keep: delete all but so many of the folder's newest afterwards; 0 deletes none.

        Raises:
            InputError: the checkpoint before this one could not be written.
        """
        self.wait()
        self._pending = self._thread.submit(_write_and_keep, path, arrays, header, keep)

    def wait(self) -> None:
        """Waits until the last checkpoint is written.

        Raises:
            InputError: it could not be.
        """
        pending, self._pending = self._pending, None
        if pending:
            pending.result()


def _write_and_keep(path: pathlib.Path, arrays: dict[str, np.ndarray], header: dict, keep: int) -> None:
    write(path, arrays, header)
    if keep:
        keep_newest(path.parent, keep)


def read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict]:
    """Reads a checkpoint whole, checking every array's checksum.

    Returns:
        The arrays by name, in the order in which they were written, and the header.

    Raises:
        InputError: the file is damaged or not a checkpoint.
    """
    try:
        arrays = {}
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                # Reading a member to its end is what compares its checksum.
                content = archive.read(member)
                arrays[member.filename.removesuffix(".npy")] = _array(content)
        header = json.loads(arrays.pop("header").tobytes())
    except DAMAGED as error:
        raise InputError(f"{path} is not a whole checkpoint ({error}); delete it.") from error
    return arrays, header


def newest(folder: pathlib.Path) -> tuple[dict[str, np.ndarray], dict] | None:
    """Reads the newest whole checkpoint of a folder, passing over damaged ones; None: there is none."""
    for path in sorted(folder.glob("step-*.npz"), reverse=True):
        try:
            return read(path)
        except InputError:
            continue
    return None


def keep_newest(folder: pathlib.Path, count: int) -> None:
    """Deletes all but the newest checkpoints of a folder, and what a kill left half written."""
    for path in [*sorted(folder.glob("step-*.npz"))[:-count], *folder.glob(".*.part.npz")]:
        path.unlink(missing_ok=True)


def path_of(folder: pathlib.Path, step: int) -> pathlib.Path:
    """Gives the file of a step's checkpoint."""
    return folder / f"step-{step:09d}.npz"


def compare(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], what: str) -> dict[str, np.ndarray]:
    """Gives the arrays that were found under the names that are wanted, or says where they differ.

    Names may differ as long as number, order and shapes agree: Keras numbers unnamed layers anew in every
      process.

    Args:
        found: a checkpoint's arrays.
        wanted: the arrays of the nets to be trained.
        what: the checkpoint's file, for the message.

    Raises:
        InputError: another architecture; the first three differences are named with both shapes.
    """
    first_copies = {name: array for name, array in found.items() if "@" not in name}
    if set(first_copies) == set(wanted):
        pairs = [(name, name) for name in wanted]
    else:
        pairs = list(zip(first_copies, wanted, strict=False))
    differences = [
        f"{ours} {wanted[ours].shape} here, {theirs} {found[theirs].shape} there"
        for theirs, ours in pairs
        if found[theirs].shape != wanted[ours].shape
    ]
    if len(first_copies) != len(wanted):
        differences.append(f"{len(wanted)} arrays here, {len(first_copies)} there")
    if differences:
        raise InputError(f"{what} is of another architecture: {'; '.join(differences[:3])}.")
    renamed = {ours: found[theirs] for theirs, ours in pairs}
    for name, array in found.items():
        if "@" in name:
            first, copy = name.rsplit("@", 1)
            renamed[f"{dict(pairs)[first]}@{copy}"] = array
    return renamed


def _array(content: bytes) -> np.ndarray:
    return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)


def newest_header(folder: pathlib.Path) -> dict | None:
    """Reads the header alone of the newest checkpoint of a folder that has a readable one."""
    for path in sorted(folder.glob("step-*.npz"), reverse=True):
        try:
            with zipfile.ZipFile(path) as archive:
                return json.loads(_array(archive.read("header.npy")).tobytes())
        except DAMAGED:
            continue
    return None


def compare_data(found: dict | None, wanted: dict | None, what: str) -> None:
    """Sees that a run goes on with the data that it began with.

    Args:
        found, wanted: `training.run.summary` of then and of now; None: not known.
        what: the run's folder, for the message.

    Raises:
        InputError: they differ; classes are named first, then counts.
    """
    keys = ("classes", "training", "validation")
    if not found or not wanted:
        return
    if not all(key in found for key in keys):
        raise InputError(f"{what} holds a run of another version of tfcnn: start anew without resuming")
    if all(found[key] == wanted[key] for key in keys):
        return
    names = [found["classes"], wanted["classes"]]
    if names[0] != names[1]:
        gone, new = (sorted(set(a) - set(b)) for a, b in (names, names[::-1]))
        parts = [f"class {n} is gone" for n in gone[:3]] + [f"class {n} is new" for n in new[:3]]
        how = ", ".join(parts) or "the classes stand in another order"
    else:
        pairs = [
            (part, key, found[part][key], wanted[part][key])
            for part in ("training", "validation")
            for key in wanted[part]
            if found.get(part, {}).get(key) != wanted[part][key]
        ]
        part, key, then, now = pairs[0]
        how = f"{then} {key} for {part} then, {now} now"
        if key == "fingerprint":
            how = f"other pictures or boxes for {part}, though as many"
    raise InputError(
        f"{what} holds a run on other data: {how}; bring the data back, or start anew without resuming"
    )
