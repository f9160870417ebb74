"""How fast pictures are read, augmented and put into batches: images a second, beside tf.data's own ops.

    python benchmarks/data.py [VOC folder or .zip]

Without VOC's pictures 500 JPEGs of 320 x 240 are made of scikit-image's photographs. "plain" is what a competent
user writes in ten lines of TensorFlow: decode, resize, flip, brightness, contrast, saturation of the picture, no
boxes, with AUTOTUNE. Medians of paired rounds on all cores; the first batches of each are left out. Where other
programs run beside, the processor's time an image says what the cores would give alone.
"""

import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from tfcnn import datasets, images  # noqa: E402
from tfcnn.datasets import pipeline  # noqa: E402
from tfcnn.datasets.example import Dataset, Record  # noqa: E402

SIDE, BATCH, WARM, STEPS, ROUNDS = 320, 16, 4, 25, 4
VOC = pathlib.Path(os.environ.get("TFCNN_DATA", ROOT.parent / "shared" / "data")) / "voc2007-320.zip"


def made() -> Dataset:
    """Pictures for those without VOC, three boxes each."""
    photographs = [images.read(source) for source in images.packaged()]
    rng = np.random.default_rng(0)
    records = []
    for index in range(500):
        photograph = photographs[index % len(photographs)]
        corner = rng.integers(0, np.array(photograph.shape[:2]) // 3)
        image = images.resize(photograph[corner[0] :, corner[1] :], (240, 320))[0]
        data = images.encode(image, ".jpg", quality=75)
        points = np.sort(rng.uniform(0, [[320], [240]], (3, 2, 2)), axis=-1)
        boxes = points.transpose(0, 2, 1).reshape(3, 4).astype(np.float32)
        records.append(Record(str(index), f"{index}.jpg", 320, 240, lambda data=data: data, boxes))
    return Dataset("photographs", ["thing"], [1], records)


def plain(data: Dataset):
    """The same pictures through TensorFlow's ops, an endless tf.data.Dataset."""
    import tensorflow as tf

    def picture(index):
        encoded = tf.numpy_function(lambda k: data.examples[k].source(), [index], tf.string, stateful=False)
        image = tf.image.resize(tf.io.decode_jpeg(encoded, channels=3), (SIDE, SIDE))
        image = tf.image.random_flip_left_right(image)
        image = tf.image.random_brightness(image, 30)
        image = tf.image.random_contrast(image, 0.7, 1.3)
        return tf.image.random_saturation(image, 0.6, 1.4)

    indices = tf.data.Dataset.range(len(data)).shuffle(len(data)).repeat()
    return indices.map(picture, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)


def speed(stream) -> tuple[float, float]:
    """Images a second, and the processor's milliseconds an image, after the first few batches."""
    iterator = iter(stream)
    for _ in range(WARM):
        next(iterator)
    start, processor = time.perf_counter(), time.process_time()
    for _ in range(STEPS):
        next(iterator)
    count = STEPS * BATCH
    return count / (time.perf_counter() - start), (time.process_time() - processor) / count * 1000


def main() -> None:
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else VOC
    if path.exists():
        start = time.perf_counter()
        data = datasets.open("voc", path)
        print(f"{path.name}: {len(data)} annotations read in {time.perf_counter() - start:.2f} s")
    else:
        data = made()
        print(f"{len(data)} JPEGs made of photographs")
    options = {"size": SIDE, "batch_size": BATCH}
    rows = {
        "plain tf.data (no boxes, no windows)": lambda: plain(data),
        "stretch, no augmentation": lambda: pipeline.batches(data, **options)(0),
        "letterbox, no augmentation": lambda: pipeline.batches(data, resize="letterbox", **options)(0),
        "stretch, detection": lambda: pipeline.batches(data, augment="detection", **options)(0),
        "letterbox, detection": lambda: pipeline.batches(
            data, augment="detection", resize="letterbox", **options
        )(0),
        "stretch, detection, half mosaics": lambda: pipeline.batches(
            data, augment="detection_mosaic", **options
        )(0),
    }
    speeds = {name: [] for name in rows}
    for _ in range(ROUNDS):
        for name, stream in rows.items():
            speeds[name].append(speed(stream()))
    base = [first for first, _ in speeds["plain tf.data (no boxes, no windows)"]]
    print(
        f"{SIDE} px, batches of {BATCH}, {os.cpu_count()} cores\n{'':42}images/s  times plain  CPU ms an image"
    )
    for name, values in speeds.items():
        firsts = [first for first, _ in values]
        ratio = statistics.median(first / other for first, other in zip(firsts, base, strict=True))
        processor = statistics.median(second for _, second in values)
        print(f"{name:42}{statistics.median(firsts):8.0f}  {ratio:11.2f}  {processor:15.2f}")


if __name__ == "__main__":
    main()
