"""From records to batches, exactly repeatable: what a step holds depends on (seed, step) and nothing else.

B batch, H W the net's size, M the padded number of objects, J joints, R proposals. The pictures of all epochs
stand in one row, for each epoch a permutation of the data set drawn from (seed, epoch). Step s takes the B
pictures from position s * B on, and what is drawn for a picture comes from (seed, epoch, its index). So the
position of training is its step, and a run goes on from any step just as it would have gone on without a stop.
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tfcnn import images
from tfcnn.datasets.augment import GREY, PRESETS, Augmentation, augment, mosaic
from tfcnn.datasets.example import Dataset, Record
from tfcnn.datasets.proposals import Proposals
from tfcnn.datasets.sample import Sample, mirrored_joints, placed, resized
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

COLUMNS = ("labels", "difficult", "crowd", "area")
RESIZES = ("stretch", "letterbox", "fit")
MULTIPLE = 32  # sides of a padded batch: a stride of every backbone divides them


@dataclasses.dataclass(eq=False)
class Batches:
    """Batches of a data set; called with a step, a tf.data.Dataset from that step on. Made by `batches`.

    Attributes:
        dataset: what a reader gave.
        size, longest, batch_size, how, seed, resize, shuffle, repeat, masks, proposals, threads: as `batches`
            takes them (`how` is its `augment`).
        max_boxes: M.
        refused: {file: why} of pictures that could not be read so far.
    """

    dataset: Dataset
    size: tuple[int, int]
    longest: int | None
    batch_size: int
    how: Augmentation | None
    seed: int
    resize: str
    max_boxes: int
    shuffle: bool
    repeat: bool
    masks: bool
    proposals: Proposals | None
    threads: int
    refused: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._swap = mirrored_joints(self.dataset.joints) if self.dataset.joints else None
        self._order = functools.lru_cache(maxsize=4)(self._permutation)

    @property
    def examples(self) -> list[Record]:
        """The data set's records."""
        return self.dataset.examples

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every picture comes once, rounded up."""
        return -(-len(self.examples) // self.batch_size)

    def _permutation(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(len(self.examples))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.examples))

    def picks(self, step: int) -> list[tuple[int, int]]:
        """Which pictures a step shows.

        Args:
            step: 0, 1, ...

        Returns:
            (epoch, index) of each; fewer than B at the end of a single pass.
        """
        count = len(self.examples)
        first = step * self.batch_size
        last = first + self.batch_size if self.repeat else min(first + self.batch_size, count)
        return [(k // count, int(self._order(k // count)[k % count])) for k in range(first, last)]

    def batch(self, step: int, shard: int = 0, of: int = 1) -> dict[str, np.ndarray]:
        """One step's batch, or a shard's rows of it.

        Args:
            step, shard, of: as the call of `Batches` takes them.

        Returns:
            NumPy arrays as `batches` describes them.
        """
        arrays = self._bytes(step, shard, of)
        return arrays | {"image": arrays["image"].astype(np.float32)}

    def _rows(self, shard: int, of: int) -> slice:
        """The rows of each batch that a shard makes."""
        if not 0 <= shard < of <= self.batch_size:
            raise InputError(
                f"Shard {shard} of {of} has no rows of a batch of {self.batch_size}: take a larger batch"
            )
        return slice(self.batch_size * shard // of, self.batch_size * (shard + 1) // of)

    def _bytes(self, step: int, shard: int, of: int) -> dict[str, np.ndarray]:
        """The batch with pictures of uint8, a quarter of the memory on the way to TensorFlow."""
        rows = self._rows(shard, of)
        found = [self._readable(*pick) for pick in self.picks(step)[rows]]
        arrays = {}
        largest = np.max([(1, 1), *(pair[1].image.shape[:2] for pair in found if pair)], axis=0)
        for name, (shape, fill, dtype) in self._spec(rows.stop - rows.start).items():
            padded = iter((-(-largest // MULTIPLE) * MULTIPLE).tolist())
            shape = [next(padded) if side is None else side for side in shape]
            arrays[name] = np.full(shape, fill, dtype)
        arrays["position"] += step * self.batch_size + np.arange(rows.start, rows.stop)
        for row, pair in enumerate(found):
            if pair is not None:
                _fill(arrays, row, *pair)
        return arrays

    def _readable(self, epoch: int, index: int) -> tuple[Record, Sample] | None:
        """The picture, or in training the next that can be read; a single pass leaves its row empty."""
        if self.repeat:
            index, sample = self._next_readable(index, functools.partial(self.sample, epoch))
            return self.examples[index], sample
        try:
            return self.examples[index], self.sample(epoch, index)
        except InputError as error:
            self.refused[self.examples[index].file] = str(error)
            return None

    def _next_readable(self, index: int, load: Callable[[int], Sample]) -> tuple[int, Sample]:
        """The first picture from `index` on that `load` can read; those before it are refused."""
        count = len(self.examples)
        for other in range(index, index + count):
            try:
                return other % count, load(other % count)
            except InputError as error:
                file, why = self.examples[other % count].file, str(error)
                self.refused[file] = why
        raise InputError(f"No picture of the {self.dataset.name} data set can be read: {why}")

    def sample(self, epoch: int, index: int) -> Sample:
        """The variant of a picture that an epoch shows.

        Args:
            epoch, index: of `picks`.

        Raises:
            InputError: the picture cannot be read.
        """
        whole, how = self._whole(index), self.how
        if how is None:
            return resized(
                whole, self.size[0] if self.resize == "fit" else self.size, self.resize, self.longest
            )
        size, letterbox = self.size, self.resize != "stretch"
        if self.resize == "fit":
            size = images.fit_size(*whole.image.shape[:2], self.size[0], self.longest)
        rng = np.random.default_rng([self.seed, epoch, index])
        if how.mosaic and rng.random() < how.mosaic:
            others = rng.integers(len(self.examples), size=3).tolist()
            four = [whole, *(self._next_readable(other, self._whole)[1] for other in others)]
            return mosaic(four, size, how, rng, letterbox)
        return augment(whole, size, how, rng, letterbox, self._swap)

    def _whole(self, index: int) -> Sample:
        return whole_sample(self.examples[index], self.masks, self.proposals)

    def __call__(self, start: int = 0, shard: int = 0, of: int = 1) -> "tf.data.Dataset":
        """Batches from a step on: dicts of tensors of static shapes (but for the sides under "fit").

        Args:
            start: the first step.
            shard, of: which share of the rows of each step's batch is made: of a cluster's `of` workers each
                decodes its own rows only, and all shards together are the batch, whatever `of` is (under "fit"
                each is padded for itself).

        Raises:
            InputError: more shards than rows.
        """
        import cv2
        import tensorflow as tf

        cv2.setNumThreads(1)  # a thread makes a batch; OpenCV's own threads would only stand in its way
        rows = self._rows(shard, of)
        spec = self._spec(rows.stop - rows.start)
        dtypes = [tf.string if dtype is object else tf.as_dtype(dtype) for _, _, dtype in spec.values()]

        def arrays_of(step):
            arrays = self._bytes(int(step), shard, of)
            # A file's name need not be UTF-8, which is what TensorFlow makes of a str.
            ids = [name.encode("utf-8", "surrogateescape") for name in arrays["image_id"].tolist()]
            return tuple((arrays | {"image_id": np.array(ids, object)}).values())

        def load(step):
            arrays = tf.numpy_function(arrays_of, [step], dtypes, stateful=False)
            for array, (shape, _, _) in zip(arrays, spec.values(), strict=True):
                array.set_shape(shape)
            batch = dict(zip(spec, arrays, strict=True))
            return batch | {"image": tf.cast(batch["image"], tf.float32)}

        stop = np.iinfo(np.int64).max if self.repeat else self.steps_per_epoch
        steps = tf.data.Dataset.range(start, stop)
        return steps.map(load, num_parallel_calls=self.threads, deterministic=True).prefetch(2)

    def _spec(self, b: int) -> dict[str, tuple]:
        """Shape (None: by the batch's pictures), padding and dtype of each array of a batch of `b` rows."""
        sides = (None, None) if self.resize == "fit" else self.size
        spec = {
            "image": ((b, *sides, 3), GREY[0] if self.resize == "fit" else 0, np.uint8),
            "image_id": ((b,), "", object),
            "position": ((b,), 0, np.int64),
            "original_size": ((b, 2), 0, np.int32),
            "size": ((b, 2), 0, np.int32),
            "scale": ((b, 2), 1, np.float32),
            "offset": ((b, 2), 0, np.float32),
        }
        first, m = self.examples[0], self.max_boxes
        if first.label >= 0:
            spec["label"] = ((b,), -1, np.int32)
        if first.label < 0 or any(len(record.boxes) for record in self.examples):
            spec["boxes"] = ((b, m, 4), 0, np.float32)
            spec["labels"] = ((b, m), -1, np.int32)
            spec["difficult"] = spec["crowd"] = ((b, m), False, bool)
            spec["area"] = ((b, m), 0, np.float32)
        if first.joints is not None:
            lead = (b, m) if first.joints.ndim == 3 else (b,)
            spec["joints"] = ((*lead, *first.joints.shape[-2:]), 0, np.float32)
        if self.masks:
            spec["masks"] = ((b, m, *sides), False, bool)
            spec["void"] = ((b, *sides), False, bool)
        if self.proposals is not None:
            spec["proposals"] = ((b, self._max_proposals, 4), 0, np.float32)
        return spec

    @functools.cached_property
    def _max_proposals(self) -> int:
        most = max(len(self.proposals.of(record.file)) for record in self.examples)
        return max(1, most * (4 if self.how is not None and self.how.mosaic else 1))


def batches(
    dataset: Dataset,
    *,
    size: int | tuple[int, int],
    batch_size: int,
    augment: Augmentation | str | None = None,
    seed: int = 0,
    resize: str = "stretch",
    longest: int | None = None,
    max_boxes: int | None = None,
    shuffle: bool = True,
    repeat: bool = True,
    masks: bool = False,
    proposals: Proposals | None = None,
    threads: int = 0,
) -> Batches:
    """Batches of static shapes: endless and shuffled for training; for validation with `shuffle=False,
    repeat=False` once and in order.

    A batch is a dict:
        image: float32 [B, H, W, 3], 0..255.
        image_id: string [B], a file's name in its own bytes; '' in rows that pad the last batch of a single pass.
        position: int64 [B], in the row of all epochs' pictures: s * B + 0, 1, ... at step s; seeds a picture's draws.
        original_size: int32 [B, 2], height and width of the file.
        size: int32 [B, 2], height and width of the picture inside the array; 0 in rows of padding.
        scale, offset: float32 [B, 2] (x, y). Without augmentation (box - offset) / scale is the box in the
            file's pixels.
        label: int32 [B], the picture's class, in sets of classification; -1 padding.
        boxes: float32 [B, M, 4], with labels int32 [B, M] (-1 padding), difficult and crowd bool [B, M] and
            area float32 [B, M] (in the net's pixels), in sets with boxes. Difficult objects and crowds are
            handed on as they are: it is training that neither learns them nor takes regions on them as
            background.
        proposals: float32 [B, R, 4], zero rows are padding, when given.
        joints: float32 [B, J, 3] or, of objects, [B, M, J, 3], in sets of poses.
        masks: bool [B, M, H, W], when asked for, nothing but False for an object without one; with them void:
            bool [B, H, W], the pixels that count for nobody.

    A picture that cannot be read is named in `refused`; training takes the data set's next one instead, a
    single pass leaves the row empty.

    Args:
        dataset: what a reader gave.
        size: (height, width) of the net's input, or one number for both; under "fit" the shorter side.
        batch_size: B.
        augment: an `Augmentation`, or the name of one of `augment.PRESETS`.
        seed: of the order and of every draw.
        resize: "stretch" to the net's size, "letterbox": keep the ratio and fill the rest, or "fit": keep the
            ratio, and pad at the right and below to the batch's largest sides, rounded up to a multiple of 32.
            An augmented picture keeps the fitted size of the whole picture, whatever its window.
        longest: under "fit", pixels that the longer side has at most.
        max_boxes: M; objects beyond it are left out. The default is the most that a picture of the set has.
        shuffle: a new order each epoch; False keeps the data set's.
        repeat: endless; False makes one pass.
        masks: whether to give the objects' masks; without augmentation they are not resized with care for
            their edges, but by nearest pixels.
        proposals: precomputed ones of every picture, which move with it.
        threads: batches made at the same time; 0 is one a core.

    Raises:
        InputError: the data set is empty, has no masks, a picture has no proposals, or a name is unknown.
    """
    if not dataset.examples:
        raise InputError(f"The {dataset.name} data set has no pictures: check its path and split")
    if isinstance(augment, str):
        if augment not in PRESETS:
            raise InputError(f"No augmentation {augment!r}: one of {', '.join(PRESETS)}")
        augment = PRESETS[augment]
    if resize not in RESIZES:
        raise InputError(f"A picture cannot be fitted by {resize!r} here: one of {', '.join(RESIZES)}")
    if resize == "fit" and not isinstance(size, int):
        raise InputError(f"resize='fit' takes one number, the shorter side, not {size}")
    if masks and not any(record.masks for record in dataset.examples):
        raise InputError(f"The {dataset.name} data set has no masks")
    if augment is not None and augment.mosaic and dataset.joints:
        raise InputError("A mosaic of four pictures has no pose: take another augmentation")
    if max_boxes is None:
        most = max(len(record.boxes) for record in dataset.examples)
        max_boxes = max(1, most * (4 if augment is not None and augment.mosaic else 1))
    if proposals is not None:
        for record in dataset.examples:
            proposals.of(record.file)  # an error now, not in the middle of training
    return Batches(
        dataset=dataset,
        size=(size, size) if isinstance(size, int) else tuple(size),
        longest=longest,
        batch_size=batch_size,
        how=augment,
        seed=seed,
        resize=resize,
        max_boxes=max_boxes,
        shuffle=shuffle,
        repeat=repeat,
        masks=masks,
        proposals=proposals,
        threads=threads or _cores(),
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def whole_sample(record: Record, masks: bool = False, proposals: Proposals | None = None) -> Sample:
    """A record with its pixels, everything in the picture's own pixels as a person sees it.

    Args:
        record: of a data set.
        masks: whether to draw the objects' masks.
        proposals: a file that has the picture's.

    Raises:
        InputError: the picture cannot be read.
    """
    image = record.image()
    columns = {name: getattr(record, name) for name in COLUMNS}
    at = record.placement(image.shape)
    size = (record.height, record.width) if record.width else image.shape[:2]
    sample = Sample(image, record.boxes, columns, record.joints, original_size=tuple(size))
    drawn = record.drawn_masks(image.shape[:2]) if masks else {}
    if (
        drawn and drawn["void"].shape != image.shape[:2]
    ):  # else they are the picture's, whatever was annotated
        sample, drawn = dataclasses.replace(sample, **drawn), {}
    sample = dataclasses.replace(placed(sample, image, at), **drawn)
    if proposals is not None:
        sample.proposals = proposals.of(record.file)
    return sample


def _fill(arrays: dict[str, np.ndarray], row: int, record: Record, sample: Sample) -> None:
    """Writes a picture into its row of the batch; what is longer than the array is cut."""
    values = {
        "image": sample.image,
        "image_id": str(record.image_id),
        "position": arrays["position"][row],  # as it is
        "original_size": sample.original_size,
        "size": sample.image.shape[:2],
        "scale": sample.scale,
        "offset": sample.offset,
        "label": record.label,
        "boxes": sample.boxes,
        "joints": sample.joints,
        "masks": sample.masks,
        "void": sample.void,
        "proposals": sample.proposals,
        **sample.columns,
    }
    for name, array in arrays.items():
        value = np.asarray(values[name])
        there = tuple(slice(min(pair)) for pair in zip(array.shape[1:], value.shape, strict=True))
        array[(row, *there)] = value[there]
