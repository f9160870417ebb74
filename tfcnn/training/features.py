"""Features of a frozen net, computed once and kept on disk, for training heads on them.

A cache is a folder, made beside its place and renamed when it is whole:

    index.json   {"format": 1, "fingerprint": {...}, "image_ids": [N names, "" of a picture that was unreadable],
                  "arrays": {endpoint: {"file", "shape", "dtype", "sha256"}}}
    ENDPOINT.npy NumPy's own format, [N, V, h, w, C] (or [N, V, C]); V is 1, or 2 with each picture's mirror
                 image

The fingerprint says what the features depend on: the net's layers, weights and precision, the pictures' names and
files, and how they were brought to the net's size. A cache with another one is stale, and refused with what has
changed.
"""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfcnn.errors import InputError
from tfcnn.training.releases import clean_config

FORMAT = 1
CHUNK = 2**24  # bytes hashed at once


@dataclass(frozen=True)
class Cache:
    """A cache that was opened.

    image_ids: N names, "" where the picture could not be read and its row is empty.
    arrays: {endpoint: float array [N, V, ...], mapped from the disk}.
    """

    image_ids: list[str]
    arrays: dict[str, np.ndarray]


def fingerprint(
    model: keras.Model, image_ids: list[str], files: str, size: tuple[int, int], resize: str
) -> dict[str, str]:
    """Says what a net's features of some pictures depend on.

    Args:
        model: from pictures to a dict of endpoints.
        image_ids: names of the pictures, in order.
        files: a code of the pictures' files, which tells other pictures of the same names apart.
        size: height and width that they are brought to.
        resize: how: stretch or letterbox.

    Returns:
        {"layers", "weights", "pictures", "size", "precision"}: hashes, the last two in words.
    """
    config = clean_config(json.loads(model.to_json()))
    weights = hashlib.sha256()
    for array in model.get_weights():
        weights.update(np.ascontiguousarray(array).data)
    return {
        "layers": _digest(json.dumps(config, sort_keys=True)),
        "weights": weights.hexdigest(),
        "pictures": _digest("\n".join([files, *image_ids])),
        "size": f"{size[0]} x {size[1]}, {resize}",
        "precision": ", ".join(sorted({layer.dtype_policy.name for layer in model.layers})),
    }


def write(
    folder: str | pathlib.Path,
    model: keras.Model,
    batches: Callable[[], Iterable[dict]],
    found: dict[str, str],
    image_ids: list[str],
    *,
    flip: bool = True,
    dtype: str = "float16",
    say: Callable[[str], None] = print,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Computes the features of pictures and keeps them.

    Args:
        folder: of the cache; one that is there is replaced.
        model: from pictures [N, H, W, 3] to a dict of endpoints with known shapes.
        batches: a call that gives batches of `image` and `image_id`, once through, in order; "" stands for a
            picture that could not be read, and pads the last one.
        found: the `fingerprint`.
        image_ids: names of the pictures, in order.
        flip: keep the features of each picture's mirror image too.
        dtype: of the arrays on the disk; one with values beyond its range becomes float32, which is said.
        say: called with the size on the disk before anything is written.
        progress: called after each batch with the number of pictures done.

    Raises:
        InputError: the disk has too little room, the folder cannot be written to, or features are not finite.
    """
    folder = pathlib.Path(folder)
    try:
        _write(folder, model, batches, found, image_ids, flip, dtype, say, progress)
    except OSError as error:
        raise InputError(f"The features cannot be written to {folder}: {error.strerror}.") from error


def _write(
    folder: pathlib.Path,
    model: keras.Model,
    batches: Callable[[], Iterable[dict]],
    found: dict[str, str],
    image_ids: list[str],
    flip: bool,
    dtype: str,
    say: Callable[[str], None],
    progress: Callable[[int], None] | None,
) -> None:
    views = 2 if flip else 1
    shapes = {name: (len(image_ids), views, *tensor.shape[1:]) for name, tensor in model.output.items()}
    needed = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape in shapes.values())
    folder.parent.mkdir(parents=True, exist_ok=True)
    say(f"The features of {len(image_ids)} pictures take {needed / 1e6:.1f} MB in {folder}.")
    _check_room(folder, needed)

    beside = folder.with_name(folder.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    paths = {name: beside / f"{name}.npy" for name in shapes}
    arrays = {name: _mapped(paths[name], dtype, shape) for name, shape in shapes.items()}
    compute = tf.function(lambda image: model(image, training=False), reduce_retracing=True)
    readable = []
    for batch in batches():
        done = len(readable)
        count = min(len(batch["image_id"]), len(image_ids) - done)
        for view in range(views):
            image = tf.reverse(batch["image"], [2]) if view else batch["image"]
            for name, output in compute(image).items():
                values = output.numpy()[:count]
                if not np.isfinite(values).all():
                    raise InputError(f"The net's features {name} are not finite: its weights are damaged.")
                if np.abs(values).max(initial=0) > np.finfo(arrays[name].dtype).max:
                    say(
                        f"The features {name} pass {dtype}'s range: they are kept as float32, which is larger."
                    )
                    arrays[name] = _widened(paths[name], arrays[name])
                arrays[name][done : done + count, view] = values
        readable += [i != b"" for i in batch["image_id"].numpy()[:count].tolist()]
        if progress:
            progress(len(readable))
    ids = [i if there else "" for i, there in zip(image_ids, readable, strict=True)]
    index = {"format": FORMAT, "fingerprint": found, "image_ids": ids, "arrays": {}}
    for name, array in arrays.items():
        array.flush()
        index["arrays"][name] = {
            "file": paths[name].name,
            "shape": list(shapes[name]),
            "dtype": str(array.dtype),
            "sha256": _file_digest(paths[name]),
        }
    (beside / "index.json").write_text(json.dumps(index) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def _check_room(folder: pathlib.Path, needed: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise InputError(f"{folder} needs {needed / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB left.")


def _mapped(path: pathlib.Path, dtype: str, shape: tuple[int, ...]) -> np.memmap:
    """Makes a file for an array and takes its room on the disk."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    _reserve(path)
    return array


def _widened(path: pathlib.Path, array: np.memmap) -> np.memmap:
    """Gives the array as float32, in a file of the same name."""
    _check_room(path.parent, array.size * 4)
    wide_path = path.with_suffix(".wide")
    wide = _mapped(wide_path, "float32", array.shape)
    wide[:] = array
    os.replace(wide_path, path)
    return wide


def read(folder: str | pathlib.Path, wanted: dict[str, str], check: bool = True) -> Cache:
    """Opens a cache.

    Args:
        folder: of the cache.
        wanted: the fingerprint that the features must have.
        check: compare the files' checksums, which reads them once.

    Raises:
        InputError: there is none, it is damaged, or it is stale: what has changed is named.
    """
    folder = pathlib.Path(folder)
    try:
        index = json.loads((folder / "index.json").read_text())
        found, listed, ids = index["fingerprint"], index["arrays"], index["image_ids"]
        arrays = {n: np.load(folder / entry["file"], mmap_mode="r") for n, entry in listed.items()}
        whole = index["format"] == FORMAT and all(
            list(arrays[n].shape) == entry["shape"]
            and (not check or _file_digest(folder / entry["file"]) == entry["sha256"])
            for n, entry in listed.items()
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} is no whole cache of features ({error}); delete it.") from error
    changed = [name for name, value in wanted.items() if found.get(name) != value]
    if changed:
        raise InputError(f"The features in {folder} are stale: other {' and '.join(changed)}; delete them.")
    if not whole:
        raise InputError(f"{folder} is damaged: its checksums differ; delete it.")
    return Cache(ids, arrays)


class Batches:
    """Endless, shuffled batches of features, a picture or its mirror image by chance.

    Called with the first step, a tf.data.Dataset of {endpoint: [B, ...] float32, column: [B, ...], image_id:
    [B], position: int64 [B]}. Order and choice are functions of seed, epoch and place, as in tfcnn.datasets.pipeline,
    so that a run resumes exactly.

    Args:
        cache: what `read` gave.
        columns: further arrays [N, ...] such as `label`, which a mirror image leaves as they are.
        batch_size: pictures a batch.
        seed: of order and choice.
        views: further arrays [N, V, ...] that a mirror image changes, such as boxes.
    """

    def __init__(
        self,
        cache: Cache,
        columns: dict[str, np.ndarray],
        batch_size: int,
        seed: int,
        views: dict[str, np.ndarray] | None = None,
    ):
        self.cache, self.columns, self.batch_size, self.seed = cache, columns, batch_size, seed
        self.views = views or {}
        self._ids = np.array(cache.image_ids, object)
        self._rows = np.flatnonzero(self._ids != "")
        if not len(self._rows):
            raise InputError("No picture could be read: there is no feature to train on.")

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every picture comes once, rounded up."""
        return -(-len(self._rows) // self.batch_size)

    def batch(self, step: int, shard: int = 0, of: int = 1) -> dict[str, np.ndarray]:
        """Gives one step's batch, or a shard's rows of it, as NumPy arrays."""
        count, arrays = len(self._rows), self.cache.arrays
        views_kept = next(iter(arrays.values())).shape[1]
        first, last = (step * self.batch_size + self.batch_size * k // of for k in (shard, shard + 1))
        places = np.arange(first, last)
        picks, views = np.empty(len(places), np.int64), np.empty(len(places), np.int64)
        for epoch in np.unique(places // count):
            rng = np.random.default_rng([self.seed, epoch])
            here = places // count == epoch
            order = rng.permutation(count)[places[here] % count]
            picks[here] = self._rows[order]
            views[here] = rng.integers(views_kept, size=count)[order]
        features = {name: array[picks, views].astype(np.float32) for name, array in arrays.items()}
        columns = {name: column[picks] for name, column in self.columns.items()}
        columns |= {name: array[picks, views] for name, array in self.views.items()}
        return features | columns | {"image_id": self._ids[picks], "position": places}

    def __call__(self, start: int = 0, shard: int = 0, of: int = 1) -> tf.data.Dataset:
        """Gives the batches from number `start` on, or the rows of each that shard `shard` of `of` computes."""
        first = self.batch(0, shard, of)
        dtypes = [tf.string if a.dtype == object else tf.as_dtype(a.dtype) for a in first.values()]

        def arrays_of(step: np.int64) -> tuple[np.ndarray, ...]:
            arrays = self.batch(int(step), shard, of)
            # A file's name need not be UTF-8, which is what TensorFlow makes of a str.
            ids = [name.encode("utf-8", "surrogateescape") for name in arrays["image_id"].tolist()]
            return tuple((arrays | {"image_id": np.array(ids, object)}).values())

        def load(step: tf.Tensor) -> dict[str, tf.Tensor]:
            arrays = tf.numpy_function(arrays_of, [step], dtypes, stateful=False)
            for array, like in zip(arrays, first.values(), strict=True):
                array.set_shape(like.shape)
            return dict(zip(first, arrays, strict=True))

        steps = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
        return steps.map(load, num_parallel_calls=1, deterministic=True).prefetch(2)


def _reserve(file: pathlib.Path) -> None:
    """Takes a file's room on the disk, since a mapped one that runs out of it kills the process."""
    if hasattr(os, "posix_fallocate"):
        with open(file, "r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _file_digest(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
