"""From records to batches, exactly repeatable: what a step holds depends on (seed, step) and nothing else.

B batch, H W the net's size, M the padded number of boxes. The pictures of all epochs stand in one row: a
permutation of the data set an epoch, drawn from (seed, epoch). Step s takes the B pictures from place s *
B on, and what is drawn for a picture comes from (seed, epoch, its index). So the position of training is
its step, and a run goes on anywhere exactly as it would have.
"""

import functools

import numpy as np

from .. import images
from ..errors import InputError
from .augment import PRESETS, Augmentation, Sample, augment, move_joints
from .example import Dataset, Record


class Batches:
    """Batches of a data set; called with a step, a tf.data.Dataset from that step on. Made by `batches`."""

    def __init__(self, dataset, size, batch_size, how, seed, resize, max_boxes, shuffle, repeat, threads):
        self.dataset = dataset
        self.examples = dataset.examples
        self.size = size
        self.batch_size = batch_size
        self.how = how
        self.seed = seed
        self.resize = resize
        self.max_boxes = max_boxes
        self.shuffle = shuffle
        self.repeat = repeat
        self.threads = threads
        self._order = functools.lru_cache(maxsize=4)(self._permutation)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every picture comes once, rounded up."""
        return -(-len(self.examples) // self.batch_size)

    def _permutation(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(len(self.examples))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.examples))

    def places(self, step: int) -> list[tuple[int, int]]:
        """The (epoch, index) of each picture of a step; fewer than the batch at the end of a single pass."""
        count = len(self.examples)
        first = step * self.batch_size
        last = first + self.batch_size if self.repeat else min(first + self.batch_size, count)
        return [(p // count, int(self._order(p // count)[p % count])) for p in range(first, last)]

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """One step's batch as NumPy arrays; rows that pad the last batch of a single pass have image_id
        ''."""
        arrays = {key: np.full(*spec) for key, spec in self._spec().items()}
        for row, (epoch, index) in enumerate(self.places(step)):
            self._fill(arrays, row, epoch, index)
        return arrays

    def _spec(self) -> dict[str, tuple]:
        """Shape, padding value and dtype of each array of a batch."""
        b, m = self.batch_size, self.max_boxes
        spec = {
            "image": ((b, *self.size, 3), 0, np.float32),
            "image_id": ((b,), "", object),
            "scale": ((b, 2), 1, np.float32),
            "offset": ((b, 2), 0, np.float32),
            "original_size": ((b, 2), 0, np.int32),
        }
        if self._classification:
            return spec | {"label": ((b,), -1, np.int32)}
        spec |= {
            "boxes": ((b, m, 4), 0, np.float32),
            "labels": ((b, m), -1, np.int32),
            "difficult": ((b, m), False, bool),
            "crowd": ((b, m), False, bool),
            "area": ((b, m), 0, np.float32),
        }
        joints = self.examples[0].joints
        if joints is not None:
            spec["joints"] = ((b, *((m,) if joints.ndim == 3 else ()), *joints.shape[-2:]), 0, np.float32)
        return spec

    @functools.cached_property
    def _classification(self) -> bool:
        return self.examples[0].label >= 0 and not any(len(record.boxes) for record in self.examples[:100])

    @functools.cached_property
    def _swap(self) -> np.ndarray | None:
        return mirrored_joints(self.dataset.joints) if self.dataset.joints else None

    def _fill(self, arrays: dict[str, np.ndarray], row: int, epoch: int, index: int) -> None:
        record = self.examples[index]
        sample = self.sample(epoch, index)
        arrays["image"][row] = sample.image
        arrays["image_id"][row] = str(record.image_id)
        arrays["scale"][row], arrays["offset"][row] = sample.scale, sample.offset
        arrays["original_size"][row] = record.height, record.width
        if "label" in arrays:
            arrays["label"][row] = record.label
            return
        count = min(len(sample.boxes), self.max_boxes)
        arrays["boxes"][row, :count] = sample.boxes[:count]
        for name, column in sample.columns.items():
            arrays[name][row, :count] = column[:count]
        if "joints" in arrays and sample.joints.ndim == 3:
            arrays["joints"][row, :count] = sample.joints[:count]
        elif "joints" in arrays:
            arrays["joints"][row] = sample.joints

    def sample(self, epoch: int, index: int) -> Sample:
        """The variant of a picture that an epoch shows."""
        whole = whole_sample(self.examples[index])
        if self.how is None:
            return resized(whole, self.size, self.resize)
        rng = np.random.default_rng([self.seed, epoch, index])
        return augment(whole, self.size, self.how, rng, self.resize == "letterbox", self._swap)

    def __call__(self, start_step: int = 0):
        """A tf.data.Dataset of batches from `start_step` on: dicts of tensors of static shapes."""
        import cv2
        import tensorflow as tf

        cv2.setNumThreads(1)  # the threads are one a batch; OpenCV's own would only stand in their way
        spec = self._spec()
        dtypes = [tf.string if dtype is object else tf.as_dtype(dtype) for _, _, dtype in spec.values()]

        def load(step):
            arrays = tf.numpy_function(
                lambda s: tuple(self.batch(int(s)).values()), [step], dtypes, stateful=False
            )
            for array, (shape, _, _) in zip(arrays, spec.values(), strict=True):
                array.set_shape(shape)
            return dict(zip(spec, arrays, strict=True))

        stop = np.iinfo(np.int64).max if self.repeat else self.steps_per_epoch
        steps = tf.data.Dataset.range(start_step, stop)
        return steps.map(load, num_parallel_calls=self.threads, deterministic=True).prefetch(2)


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
    threads: int = 2,
) -> Batches:
    """Batches of static shape for training (endless, shuffled) or validation (`shuffle=False,
    repeat=False`: once, in order).

    A batch is a dict: image float32 [B, H, W, 3] 0..255, image_id string [B], original_size int32 [B, 2]
    (height, width), scale and offset float32 [B, 2] (x, y): without augmentation a box goes home to the
    file's pixels as (box - offset) / scale.
    Detection: boxes float32 [B, M, 4], labels int32 [B, M] (-1 padding), difficult and crowd bool [B, M],
    area float32 [B, M], and joints where the set has them. Classification: label int32 [B] (-1 padding).

    Args:
        dataset: what a reader gave.
        size: (height, width) of the net's input, or one number for both.
        augment: an `Augmentation`, or the name of a preset: "none", "detection", "classification", "pose".
        seed: of the order and of every draw.
        resize: "stretch" to the net's size, or "letterbox": keep the ratio, the rest in the mean colour.
        max_boxes: M; objects beyond it are left out. The default is the most that a picture of the set has.
        shuffle: a new order each epoch; False keeps the data set's.
        repeat: endless; False makes one pass and pads the last batch with rows of image_id ''.
        threads: batches made at the same time.

    Raises:
        InputError: the data set is empty, or a name is unknown.
    """
    if not dataset.examples:
        raise InputError(f"The {dataset.name} data set has no pictures: check its path and split")
    if isinstance(augment, str):
        if augment not in PRESETS:
            raise InputError(f"No augmentation {augment!r}: one of {', '.join(PRESETS)}")
        augment = PRESETS[augment]
    if resize not in ("stretch", "letterbox"):
        raise InputError(f"A picture cannot be fitted by {resize!r} here: stretch or letterbox")
    size = (size, size) if isinstance(size, int) else tuple(size)
    if max_boxes is None:
        most = max(len(record.boxes) for record in dataset.examples)
        max_boxes = max(1, most * (4 if augment is not None and augment.mosaic else 1))
    return Batches(dataset, size, batch_size, augment, seed, resize, max_boxes, shuffle, repeat, threads)


def whole_sample(record: Record) -> Sample:
    """A record with its pixels, nothing changed yet."""
    image = record.image()
    columns = {name: getattr(record, name) for name in ("labels", "difficult", "crowd", "area")}
    return Sample(image, record.boxes, columns, record.joints)


def resized(sample: Sample, size: tuple[int, int], mode: str) -> Sample:
    """The whole picture at the net's size, just as `images.resize` gives it to an app."""
    image, at = images.resize(sample.image, size, mode)
    scale, offset = np.array([at.scale_x, at.scale_y]), np.array([at.offset_x, at.offset_y])
    columns = sample.columns | {"area": sample.columns["area"] * np.float32(scale.prod())}
    joints = sample.joints
    if joints is not None:
        joints = move_joints(joints, np.column_stack([np.diag(scale), offset]), size)
    boxes = np.clip(at.from_file(sample.boxes), 0, [size[1], size[0]] * 2).astype(np.float32)
    return Sample(image, boxes, columns, joints, None, tuple(scale), tuple(offset))


def mirrored_joints(names: list[str]) -> np.ndarray:
    """The joint that each joint becomes in a mirror: "left" and "right" change places in the names."""
    index = {name: place for place, name in enumerate(names)}
    return np.array([index[_mirror(name)] for name in names])


def _mirror(name: str) -> str:
    side, _, part = name.partition("_")
    return {"left": "right_", "right": "left_"}[side] + part if side in ("left", "right") else name
