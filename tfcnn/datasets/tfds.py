"""TensorFlow Datasets, for those who have the package: any set of classification or detection in its usual
features.

Source: tensorflow.org/datasets, features of "Image classification" and "Object detection".
"""

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tfcnn.datasets.example import Dataset, Record, annotated
from tfcnn.errors import InputError


def read(path: str | None, split: str = "train", name: str = "") -> Dataset:
    """Reads a set of TensorFlow Datasets by random access, pictures left encoded until they are used.

    Args:
        path: the folder with prepared data sets (data_dir); None for the package's own.
        split: as the set names it ("train", "test[:10%]").
        name: of the set ("voc/2007", "coco/2017", "cifar10").

    Raises:
        InputError: the package is absent, or it has no such set prepared.
    """
    try:
        import tensorflow_datasets as library
    except ImportError:
        raise InputError(f"tfds:{name} needs TensorFlow Datasets: pip install tensorflow-datasets") from None
    try:
        builder = library.builder(name, data_dir=path, file_format="array_record")
        items = builder.as_data_source(split, decoders={"image": library.decode.SkipDecoding()})
    except Exception as error:  # the package has an exception of its own for each kind of trouble
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"tfds:{name} cannot be read ({first}): prepare it with tfds build --file_format=array_record"
        ) from None
    return adapt(items, _class_names(builder.info.features), f"tfds:{name}")


def _class_names(features: Mapping) -> list[str]:
    if "objects" in features:
        inner = features["objects"]
        return list(getattr(inner, "feature", inner)["label"].names)
    if "label" in features:
        return list(features["label"].names)
    raise InputError(
        "Neither `label` nor `objects` is among the set's features: it is no set of classes or boxes"
    )


def adapt(items: Sequence[dict], classes: list[str], name: str) -> Dataset:
    """A data set over anything that gives the feature dicts of TensorFlow Datasets by index.

    Args:
        items: of each picture {"image": encoded bytes or uint8 [H, W, C], and "label", or "objects":
            {"bbox": [M, 4] as (ymin, xmin, ymax, xmax) in shares of the picture, "label": [M], and where
            the set has them "is_difficult", "is_truncated", "is_crowd", "area"}}, and maybe
            "image/filename" or "image/id".
        classes: K names.
        name: of the data set.
    """
    broken: list[dict] = []
    examples = [_record(items, index, classes, broken) for index in range(len(items))]
    return Dataset(name, list(classes), list(range(1, len(classes) + 1)), examples, broken)


def _record(items: Sequence[dict], index: int, classes: list[str], broken: list[dict]) -> Record:
    item = items[index]
    file = item.get("image/filename") or item.get("file_name") or f"{index:06d}"
    file = file.decode() if isinstance(file, bytes) else str(file)
    image_id = item["image/id"] if "image/id" in item else file.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    image_id = int(image_id) if isinstance(image_id, np.integer) else image_id
    width, height = _size(item["image"])
    common = {
        "image_id": image_id,
        "file": file,
        "width": width,
        "height": height,
        "source": _source(items, index),
    }
    if "objects" not in item:
        return Record(**common, label=int(item["label"]))
    objects = {key: np.asarray(values) for key, values in item["objects"].items()}
    unit = objects["bbox"].reshape(-1, 4).astype(np.float64)
    labels = objects["label"].reshape(-1)
    fields, _ = annotated(
        unit[:, [1, 0, 3, 2]] * [width, height, width, height],
        labels,
        [classes[label] for label in labels],
        width=width,
        height=height,
        file=file,
        broken=broken,
        difficult=objects.get("is_difficult"),
        truncated=objects.get("is_truncated"),
        crowd=objects.get("is_crowd"),
        areas=objects["area"].astype(np.float64) if "area" in objects else None,
    )
    return Record(**common, **fields)


def _size(image: bytes | np.ndarray) -> tuple[int, int]:
    if not isinstance(image, bytes):
        return image.shape[1], image.shape[0]
    from PIL import Image

    with Image.open(io.BytesIO(image)) as header:
        return header.size


def _source(items: Sequence[dict], index: int) -> Callable[[], bytes | np.ndarray]:
    def source() -> bytes | np.ndarray:
        image = items[index]["image"]
        if isinstance(image, bytes):
            return image
        return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))

    return source
