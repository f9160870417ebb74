"""From records to batches, exactly repeatable: what a step holds depends on (seed, step) and nothing else.

B batch, H W the net's size, M the padded number of objects, J joints. The pictures of all epochs stand in one
row, for each epoch a permutation of the data set drawn from (seed, epoch). Step s takes the B pictures from
place s * B on, and what is drawn for a picture comes from (seed, epoch, its index). So the position of
training is its step, and a run goes on from any step just as it would have gone on without a stop.
"""

import functools
import os

import numpy as np

from tfcnn import images
from tfcnn.datasets.augment import PRESETS, Augmentation, augment, mosaic
from tfcnn.datasets.example import Dataset, Record
from tfcnn.datasets.sample import Sample, mirrored_joints, move_joints
from tfcnn.errors import InputError

COLUMNS = ("labels", "difficult", "crowd", "area")


class Batches:
    """Batches of a data set; called with a step, a tf.data.Dataset from that step on. Made by `batches`.

    Attributes:
        examples: the data set's records.
        refused: {file: why} of pictures that could not be read so far.
    """

    def __init__(
        self, dataset, size, batch_size, how, seed, resize, max_boxes, shuffle, repeat, masks, threads
    ):
        self.dataset = dataset
        self.examples = dataset.examples
        self.refused: dict[str, str] = {}
        self._size = size
        self._batch_size = batch_size
        self._how = how
        self._seed = seed
        self._resize = resize
        self._shuffle = shuffle
        self._repeat = repeat
        self._masks = masks
        self._threads = threads
        self._swap = mirrored_joints(dataset.joints) if dataset.joints else None
        self._spec = _spec(dataset, size, batch_size, max_boxes, masks)
        self._order = functools.lru_cache(maxsize=4)(self._permutation)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every picture comes once, rounded up."""
        return -(-len(self.examples) // self._batch_size)

    def _permutation(self, epoch: int) -> np.ndarray:
        if not self._shuffle:
            return np.arange(len(self.examples))
        return np.random.default_rng([self._seed, epoch]).permutation(len(self.examples))

    def places(self, step: int) -> list[tuple[int, int]]:
        """The (epoch, index) of each picture of a step; fewer than B at the end of a single pass."""
        count = len(self.examples)
        first = step * self._batch_size
        last = first + self._batch_size if self._repeat else min(first + self._batch_size, count)
        return [
            (place // count, int(self._order(place // count)[place % count])) for place in range(first, last)
        ]

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """One step's batch as NumPy arrays, as `batches` describes them."""
        arrays = self._bytes(step)
        return arrays | {"image": arrays["image"].astype(np.float32)}

    def _bytes(self, step: int) -> dict[str, np.ndarray]:
        """The batch with pictures of uint8, a quarter of the memory on the way to TensorFlow."""
        arrays = {name: np.full(*spec) for name, spec in self._spec.items()}
        for row, (epoch, index) in enumerate(self.places(step)):
            found = self._readable(epoch, index)
            if found is not None:
                _fill(arrays, row, *found)
        return arrays

    def _readable(self, epoch: int, index: int) -> tuple[Record, Sample] | None:
        """The picture, or in training the next that can be read; a single pass leaves its row empty."""
        count = len(self.examples)
        for step in range(count if self._repeat else 1):
            record = self.examples[(index + step) % count]
            try:
                return record, self.sample(epoch, (index + step) % count)
            except InputError as error:
                self.refused[record.file] = str(error)
        if self._repeat:
            raise InputError(
                f"No picture of the {self.dataset.name} data set can be read: {self.refused[record.file]}"
            )
        return None

    def sample(self, epoch: int, index: int) -> Sample:
        """The variant of a picture that an epoch shows.

        Raises:
            InputError: the picture cannot be read.
        """
        whole = whole_sample(self.examples[index], self._masks)
        how, letterbox = self._how, self._resize == "letterbox"
        if how is None:
            return resized(whole, self._size, self._resize)
        rng = np.random.default_rng([self._seed, epoch, index])
        if how.mosaic and rng.random() < how.mosaic:
            others = rng.integers(len(self.examples), size=3)
            four = [whole, *(whole_sample(self.examples[other], self._masks) for other in others)]
            return mosaic(four, self._size, how, rng, letterbox)
        return augment(whole, self._size, how, rng, letterbox, self._swap)

    def __call__(self, start_step: int = 0):
        """A tf.data.Dataset of batches from `start_step` on: dicts of tensors of static shapes."""
        import cv2
        import tensorflow as tf

        cv2.setNumThreads(1)  # a thread makes a batch; OpenCV's own threads would only stand in its way
        dtypes = [tf.string if dtype is object else tf.as_dtype(dtype) for _, _, dtype in self._spec.values()]

        def load(step):
            arrays = tf.numpy_function(
                lambda step: tuple(self._bytes(int(step)).values()), [step], dtypes, stateful=False
            )
            for array, (shape, _, _) in zip(arrays, self._spec.values(), strict=True):
                array.set_shape(shape)
            batch = dict(zip(self._spec, arrays, strict=True))
            return batch | {"image": tf.cast(batch["image"], tf.float32)}

        stop = np.iinfo(np.int64).max if self._repeat else self.steps_per_epoch
        steps = tf.data.Dataset.range(start_step, stop)
        return steps.map(load, num_parallel_calls=self._threads, deterministic=True).prefetch(2)


def batches(
    dataset: Dataset,
    *,
    size: int | tuple[int, int],
    batch_size: int,
    augment: Augmentation | str | None = None,
    seed: int = 0,
    resize: str = "stretch",
    max_boxes: int | None = None,
    shuffle: bool = True,
    repeat: bool = True,
    masks: bool = False,
    threads: int = 0,
) -> Batches:
    """Batches of static shapes: endless and shuffled for training; for validation with `shuffle=False,
    repeat=False` once and in order.

    A batch is a dict:
        image: float32 [B, H, W, 3], 0..255.
        image_id: string [B]; '' in rows that pad the last batch of a single pass.
        original_size: int32 [B, 2], height and width of the file.
        scale, offset: float32 [B, 2] (x, y). Without augmentation (box - offset) / scale is the box in the
            file's pixels.
        label: int32 [B], the picture's class, in sets of classification; -1 padding.
        boxes: float32 [B, M, 4], with labels int32 [B, M] (-1 padding), difficult and crowd bool [B, M] and
            area float32 [B, M] (in the net's pixels), in sets with boxes.
        joints: float32 [B, J, 3] or, of objects, [B, M, J, 3], in sets of poses.
        masks: bool [B, M, H, W], when asked for.

    A picture that cannot be read is named in `refused`; training takes the data set's next one instead, a
    single pass leaves the row empty.

    Args:
        dataset: what a reader gave.
        size: (height, width) of the net's input, or one number for both.
        augment: an `Augmentation`, or the name of one of `augment.PRESETS`.
        seed: of the order and of every draw.
        resize: "stretch" to the net's size, or "letterbox": keep the ratio and fill the rest.
        max_boxes: M; objects beyond it are left out. The default is the most that a picture of the set has.
        shuffle: a new order each epoch; False keeps the data set's.
        repeat: endless; False makes one pass.
        masks: whether to give the objects' masks; without augmentation they are not resized with care for
            their edges, but by nearest pixels.
        threads: batches made at the same time; 0 is one a core.

    Raises:
        InputError: the data set is empty, has no masks, or a name is unknown.
    """
    if not dataset.examples:
        raise InputError(f"The {dataset.name} data set has no pictures: check its path and split")
    if isinstance(augment, str):
        if augment not in PRESETS:
            raise InputError(f"No augmentation {augment!r}: one of {', '.join(PRESETS)}")
        augment = PRESETS[augment]
    if resize not in ("stretch", "letterbox"):
        raise InputError(f"A picture cannot be fitted by {resize!r} here: stretch or letterbox")
    if masks and not any(record.masks for record in dataset.examples):
        raise InputError(f"The {dataset.name} data set has no masks")
    if augment is not None and augment.mosaic and dataset.joints:
        raise InputError("A mosaic of four pictures has no pose: take another augmentation")
    if max_boxes is None:
        most = max(len(record.boxes) for record in dataset.examples)
        max_boxes = max(1, most * (4 if augment is not None and augment.mosaic else 1))
    size = (size, size) if isinstance(size, int) else tuple(size)
    threads = threads or (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )
    return Batches(
        dataset, size, batch_size, augment, seed, resize, max_boxes, shuffle, repeat, masks, threads
    )


def whole_sample(record: Record, masks: bool = False) -> Sample:
    """A record with its pixels, nothing changed yet; a picture kept at a reduced size gets reduced boxes.

    Raises:
        InputError: the picture cannot be read.
    """
    image = record.image()
    columns = {name: getattr(record, name) for name in COLUMNS}
    shown = None
    if masks:
        shown = record.masks() if record.masks else np.zeros((len(record.boxes), *image.shape[:2]), bool)
    height, width = image.shape[:2]
    size = (record.height, record.width) if record.width else (height, width)
    sample = Sample(image, record.boxes, columns, record.joints, shown, original_size=size)
    if size == (height, width):
        return sample
    scale = np.array([width / record.width, height / record.height])
    return _moved(sample, image, scale, np.zeros(2))


def resized(sample: Sample, size: tuple[int, int], mode: str) -> Sample:
    """The whole picture at the net's size, just as `images.resize` gives it to an app."""
    image, at = images.resize(sample.image, size, mode)
    return _moved(sample, image, np.array([at.scale_x, at.scale_y]), np.array([at.offset_x, at.offset_y]))


def _moved(sample: Sample, image: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> Sample:
    """The sample with another picture in place of its own, and everything else moved to fit it."""
    h, w = image.shape[:2]
    boxes = np.clip(sample.boxes * np.tile(scale, 2) + np.tile(offset, 2), 0, [w, h, w, h]).astype(np.float32)
    columns = sample.columns | {"area": (sample.columns["area"] * scale.prod()).astype(np.float32)}
    joints, masks = sample.joints, sample.masks
    if joints is not None:
        joints = move_joints(joints, np.column_stack([np.diag(scale), offset]), (h, w))
    if masks is not None:
        masks = _nearest(masks, (h, w), scale, offset)
    return Sample(
        image,
        boxes,
        columns,
        joints,
        masks,
        tuple(np.array(sample.scale) * scale),
        tuple(np.array(sample.offset) * scale + offset),
        sample.original_size,
    )


def _nearest(masks: np.ndarray, size: tuple[int, int], scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Masks [M, H, W] read where the middle of each pixel of the result lies; False outside."""
    rows = np.floor((np.arange(size[0]) + 0.5 - offset[1]) / scale[1]).astype(int)
    columns = np.floor((np.arange(size[1]) + 0.5 - offset[0]) / scale[0]).astype(int)
    inside = ((rows >= 0) & (rows < masks.shape[1]))[:, None] & ((columns >= 0) & (columns < masks.shape[2]))
    taken = masks[:, np.clip(rows, 0, masks.shape[1] - 1)][:, :, np.clip(columns, 0, masks.shape[2] - 1)]
    return taken & inside


def _spec(dataset: Dataset, size: tuple[int, int], b: int, m: int, masks: bool) -> dict[str, tuple]:
    """Shape, padding and dtype of each array of a batch."""
    spec = {
        "image": ((b, *size, 3), 0, np.uint8),
        "image_id": ((b,), "", object),
        "original_size": ((b, 2), 0, np.int32),
        "scale": ((b, 2), 1, np.float32),
        "offset": ((b, 2), 0, np.float32),
    }
    first = dataset.examples[0]
    if first.label >= 0:
        spec["label"] = ((b,), -1, np.int32)
    if first.label < 0 or any(len(record.boxes) for record in dataset.examples):
        spec["boxes"] = ((b, m, 4), 0, np.float32)
        spec["labels"] = ((b, m), -1, np.int32)
        spec["difficult"] = spec["crowd"] = ((b, m), False, bool)
        spec["area"] = ((b, m), 0, np.float32)
    if first.joints is not None:
        lead = (b, m) if first.joints.ndim == 3 else (b,)
        spec["joints"] = ((*lead, *first.joints.shape[-2:]), 0, np.float32)
    if masks:
        spec["masks"] = ((b, m, *size), False, bool)
    return spec


def _fill(arrays: dict[str, np.ndarray], row: int, record: Record, sample: Sample) -> None:
    arrays["image"][row] = sample.image
    arrays["image_id"][row] = str(record.image_id)
    arrays["scale"][row], arrays["offset"][row] = sample.scale, sample.offset
    arrays["original_size"][row] = sample.original_size
    if "label" in arrays:
        arrays["label"][row] = record.label
    if "joints" in arrays and sample.joints.ndim == 2:
        arrays["joints"][row] = sample.joints
    if "boxes" not in arrays:
        return
    objects = {"boxes": sample.boxes, "masks": sample.masks, **sample.columns}
    if sample.joints is not None and sample.joints.ndim == 3:
        objects["joints"] = sample.joints
    for name, values in objects.items():
        if name in arrays:
            kept = values[: arrays[name].shape[1]]
            arrays[name][row, : len(kept)] = kept
