"""Training a net's last layers alone, on features that are computed once."""

import contextlib
import hashlib
import pathlib
from collections.abc import Callable, Iterator

import keras
import numpy as np

from tfcnn.datasets import pipeline
from tfcnn.datasets.example import Dataset, evenly
from tfcnn.errors import InputError
from tfcnn.runtime import Interrupted, Stop
from tfcnn.training import features, freezing
from tfcnn.training.config import ClassifierConfig, TrainingConfig

READ = 16  # pictures by whose content a cache is known again
WRITING = ("digits", "mnist")  # data sets without mirror images


def on_features(
    model: keras.Model,
    training: Dataset,
    validation: Dataset,
    config: ClassifierConfig,
    size: int,
    *,
    stop: Stop | None,
    progress: Callable[[int, dict], None] | None,
    say: Callable[[str], None],
) -> tuple[keras.Model, Callable[[], Iterator[dict]], features.Batches, list["Lacking"]]:
    """Freezes all but a classifier's last layer, and gives what trains that one.

    Args:
        model: of `training.classifier.train_classifier`.
        training, validation: data sets with a class a picture.
        config: with `cache_features`.
        size: side of the net's pictures, in pixels.
        stop, progress, say: as `training.run.fit`.

    Returns:
        The last layer as a net from `features` [N, C] to `logits`; a call that gives the validation's batches
        once through; the training batches; and which pictures each cache lacks.

    Raises:
        InputError: the net starts from random weights, an augmentation that no cache can have, or a cache is stale
            or damaged.
    """
    last = [layer for layer in model.layers if layer.weights][-1]
    if not freezing.trained_layers(model) - {last.name}:
        raise InputError(
            "cache_features is for a net that starts from weights: random features teach nothing"
        )
    if config.augment not in (None, "none", "flip"):
        raise InputError("cache_features keeps pictures and mirror images: augment can be none or flip alone")
    for layer in model.layers:
        layer.trainable = layer is last
    body = keras.Model(model.input, {"features": last.input}, name="features")
    head = keras.Model(last.input, {"logits": model.output["logits"]}, name="head")
    mirror = config.augment == "flip" or config.augment is None and training.name not in WRITING
    told = {"stop": stop, "progress": progress, "say": say}
    cached, lacking = [], []
    for part, name in ((training, "train"), (validation, "val")):
        folder = pathlib.Path(config.cache_features) / name
        cached.append(cache(body, part, folder, config, size, mirror and part is training, **told))
        lacking.append(Lacking(part, cached[-1], folder))
    labels = [
        np.array([record.label for record in part.examples], np.int32) for part in (training, validation)
    ]
    labels[1][np.array(cached[1].image_ids) == ""] = -1

    def once() -> Iterator[dict]:
        for first in range(0, len(labels[1]), config.batch_size):
            rows = slice(first, first + config.batch_size)
            found = cached[1].arrays["features"][rows, 0].astype(np.float32)
            yield {"features": found, "label": labels[1][rows]}

    batches = features.Batches(cached[0], {"label": labels[0]}, config.batch_size, config.seed)
    return head, once, batches, lacking


def code_of(part: Dataset) -> str:
    """Tells pictures from others of the same names: sizes of all files, and what some of them hold.

    Classes and objects are left out, which change no features.
    """
    content = hashlib.sha256()
    for record in evenly(part.examples, READ):
        with contextlib.suppress(InputError):  # it is refused where its features are computed
            data = record.source()
            content.update(data if isinstance(data, bytes) else np.ascontiguousarray(data).data)
    return f"{part.fingerprint().rpartition(', ')[2]}, content {content.hexdigest()}"


class Lacking:
    """The pictures that a cache has no features of, as `training.run.Reads`.

    Attributes:
        refused: {file: why}.
    """

    def __init__(self, part: Dataset, cache: features.Cache, folder: pathlib.Path):
        rows = zip(part.examples, cache.image_ids, strict=True)
        missing = [record.file for record, there in rows if not there]
        self.refused = dict.fromkeys(missing, f"it could not be read when {folder} was made")


def cache(
    body: keras.Model,
    part: Dataset,
    folder: pathlib.Path,
    config: TrainingConfig,
    size: int,
    mirror: bool,
    *,
    writes: bool = True,
    stop: Stop | None,
    progress: Callable[[int, dict], None] | None,
    say: Callable[[str], None],
) -> features.Cache:
    """Opens a split's cache, written first where it is not there.

    Args:
        body: from pictures to {"features": [N, ...]}.
        part: the split.
        folder: of the cache.
        config: batch_size, resize and threads count.
        size: side of the net's pictures, in pixels.
        mirror: keep the features of mirror images, too.
        writes: False in a worker that reads what the chief has written.
        stop, progress, say: as `training.run.fit`.

    Raises:
        InputError: the cache is stale or damaged, the chief's is not seen here, or as `features.write`.
    """
    ids = [str(record.image_id) for record in part.examples]
    wanted = features.fingerprint(body, ids, code_of(part), (size, size), config.resize)
    if not writes and not folder.exists():
        raise InputError(
            f"This worker does not see {folder}, which worker 0 has written: all must share its disk"
        )
    if not folder.exists():
        how = {"size": size, "batch_size": config.batch_size, "resize": config.resize}
        once = pipeline.batches(part, shuffle=False, repeat=False, threads=config.threads, **how)

        def tell(done: int) -> None:
            if progress:
                what = f"features of {folder.name}"
                progress(done, {"what": what, "steps": len(ids), "unreadable": dict(once.refused)})
            if stop:
                raise Interrupted("Stopped by a signal; the same command computes the features anew.")

        tell(0)
        features.write(folder, body, once, wanted, ids, flip=mirror, say=say, progress=tell)
    return features.read(folder, wanted)
