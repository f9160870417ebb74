"""Features of all regions on the disk, R-CNN's third step: written part by part, resumed, checked.

A folder of features holds

    index.json      {"format": 2, "fingerprint": {...}, "code": D, "place": B, "image_ids": [N names],
                     "parts": [{"file", "sha256", "pictures", "rows"}]}
    part_00000.npz  of PART pictures: regions float32 [rows, 4] in the annotation's pixels, truths int32 [pictures]:
                    how many regions of each, its first ones, are ground truth; counts int32 [pictures]: regions of
                    each; code float16 [rows, D]; place float16 [rows, B]; either is float32 in a part where a number
                    passes float16's range

The fingerprint says what the numbers depend on: the net's weights and how it warps or pools regions, the pictures,
their truth, the size that they are brought to, and the proposals. A folder with another one is refused; one that was
cut off goes on after its last whole part.

N pictures, R regions of a picture, D and B numbers of a region, K classes.

Source: Girshick et al., "Rich feature hierarchies", 2014, section 2.3.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import numpy as np

from tfcnn import files, images
from tfcnn.datasets import Record
from tfcnn.datasets.example import Dataset, evenly
from tfcnn.datasets.proposals import Proposals
from tfcnn.detection.pyramid import ignored
from tfcnn.detection.rcnn import REGION_LAYERS, Describer, feature_model
from tfcnn.errors import InputError
from tfcnn.ops import boxes as box_ops

FORMAT = 2  # 1: the fingerprint did not tell how regions are warped or pooled
PART = 25  # pictures of a file
CALIBRATION = 100  # pictures by which int8's ranges are found


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """What is kept of a picture.

    Attributes:
        record: of the data set.
        regions: float32 [R, 4], pixels of the annotation.
        truths: how many of them, the first ones, are ground truth.
        code: float16 or float32 [R, D]; place: the same [R, B].
    """

    record: Record
    regions: np.ndarray
    truths: int
    code: np.ndarray
    place: np.ndarray


def fingerprint(
    model: keras.Model, dataset: Dataset, proposals: Proposals, size: int, runtime: str = "tf"
) -> dict[str, str]:
    """What features depend on: {"net", "pictures", "proposals"}, checksums of the weights and of the layers that warp
    or pool regions, of names and ground truth, and of the regions, "size", and "precision" where that is int8;
    arguments as of `write`."""
    net, pictures = hashlib.sha256(), hashlib.sha256()
    described = feature_model(model)
    for array in described.get_weights():
        net.update(np.ascontiguousarray(array).data)
    for layer in described.layers:
        if layer.name.startswith(REGION_LAYERS):
            config = layer.get_config()
            net.update(
                json.dumps({key: config[key] for key in config.keys() - {"dtype"}}, sort_keys=True).encode()
            )
    for record in dataset.examples:
        pictures.update(f"{record.image_id}\n".encode("utf-8", "surrogateescape"))
        pictures.update(np.ascontiguousarray(record.boxes).data)
        pictures.update(np.ascontiguousarray(record.labels).data)
    return {
        "net": net.hexdigest(),
        "pictures": pictures.hexdigest(),
        "proposals": proposals.fingerprint(record.file for record in dataset.examples),
        "size": str(size),
        **({"precision": "int8"} if runtime == "litert_int8" else {}),
    }


def changed(known: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """Where two fingerprints differ: "net and proposals"; "" where they are equal."""
    return " and ".join(name for name in {**wanted, **known} if known.get(name) != wanted.get(name))


def calibration(dataset: Dataset) -> list[np.ndarray]:
    """Pictures uint8 [H, W, 3] by which int8's ranges are found: CALIBRATION of a data set, evenly spread."""
    found = []
    for record in evenly(dataset.examples, CALIBRATION):
        with contextlib.suppress(InputError):  # it is refused where its features are asked for
            found.append(record.image())
    return found


def truths(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """The objects that are to be found: (boxes float32 [M, 4], labels int32 [M])."""
    wanted = ~(record.difficult | record.crowd)
    return record.boxes[wanted], record.labels[wanted]


def write(
    folder: str | pathlib.Path,
    model: keras.Model,
    dataset: Dataset,
    proposals: Proposals,
    size: int,
    *,
    runtime: str = "tf",
    threads: int = 1,
    say: Callable[[str], None] = print,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, str]:
    """Computes the features of every picture's ground truth and proposals, and keeps them.

    Args:
        folder: of the features; what is there of the same fingerprint is kept and gone on with.
        model: of `rcnn.described_regions`.
        dataset: the pictures, each with its proposals.
        proposals: of the pictures.
        size: side of the square in which each picture is placed in its own shape, as the detector will see it.
        runtime, threads: as of `rcnn.Describer`; int8's ranges are found on pictures of the data set.
        say: told the size before anything is written.
        progress: called with the number of pictures done since the last call.

    Returns:
        {file: why} of pictures that could not be read; they have no regions.

    Raises:
        InputError: the folder holds other features, the disk has too little room or cannot be written to, or features
            are not finite.
    """
    folder = pathlib.Path(folder)
    seen = calibration(dataset) if runtime == "litert_int8" else ()
    describe = Describer(feature_model(model), runtime, threads, seen)
    widths = {name: describe.outputs[name] for name in ("code", "place")}
    found = fingerprint(model, dataset, proposals, size, runtime)
    index = {
        "format": FORMAT,
        "fingerprint": found,
        **widths,
        "image_ids": [str(record.image_id) for record in dataset.examples],
        "parts": [],
    }
    if (folder / "index.json").exists():
        index["parts"] = _index(folder, found)["parts"]
    groups = [dataset.examples[first : first + PART] for first in range(0, len(dataset), PART)]
    rows = sum(len(truths(record)[0]) + len(proposals.of(record.file)) for record in dataset.examples)
    needed = rows * (2 * sum(widths.values()) + 16)
    done = len(index["parts"])
    say(
        f"features of {rows:,} regions of {len(dataset):,} pictures, {widths['code']} + {widths['place']} numbers "
        f"each: {needed / 1e6:,.1f} MB in {folder}"
        + (f", of which {done} of {len(groups)} parts are there" if done else "")
    )
    _check_room(folder, round(needed * (1 - done / max(1, len(groups)))))
    progress(min(len(dataset), PART * done))
    refused: dict[str, str] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, group in list(enumerate(groups))[done:]:
            arrays = _described(describe, group, proposals, size, refused)
            for wide in (name for name in ("code", "place") if arrays[name].dtype == np.float32):
                say(
                    f"features {wide} of part {number} pass float16's range: they are kept as float32, which is larger"
                )
            name = f"part_{number:05}.npz"
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)
            files.write_bytes(folder / name, buffer.getvalue())
            digest = hashlib.sha256(buffer.getvalue()).hexdigest()
            index["parts"].append(
                {"file": name, "sha256": digest, "pictures": len(group), "rows": len(arrays["regions"])}
            )
            files.write_bytes(folder / "index.json", (json.dumps(index) + "\n").encode())
            progress(len(group))
    except OSError as error:
        raise InputError(f"The features cannot be written to {folder}: {error.strerror}.") from error
    return refused


def _described(describe, group, proposals, size, refused):
    parts: dict[str, list] = {"regions": [], "code": [], "place": [], "truths": [], "counts": []}
    for record in group:
        regions, count, image = np.zeros((0, 4), np.float32), 0, np.zeros((8, 8, 3), np.uint8)
        try:
            image = record.image()
            regions, count = _regions(record, proposals, record.placement(image.shape))
        except InputError as error:
            refused[record.file] = str(error)
        seen, at = images.resize(image, size, "letterbox")
        answer = describe(seen, at.from_file(record.placement(image.shape).from_file(regions)))
        for name in ("code", "place"):
            if not np.isfinite(answer[name]).all():
                raise InputError(
                    f"The features of {record.file} are not finite: the net's weights are damaged."
                )
            parts[name].append(answer[name])
        parts["regions"].append(regions)
        parts["truths"].append(count)
        parts["counts"].append(len(regions))
    arrays = {name: np.concatenate(parts[name]) for name in ("regions", "code", "place")}
    for name in ("code", "place"):
        if np.abs(arrays[name]).max(initial=0) <= np.finfo(np.float16).max:
            arrays[name] = arrays[name].astype(np.float16)
    return arrays | {name: np.array(parts[name], np.int32) for name in ("truths", "counts")}


def _regions(record, proposals, placement):
    """A picture's ground truth and then its proposals, in the annotation's pixels, and how many are ground truth."""
    boxes, _ = truths(record)
    given = placement.to_file(proposals.of(record.file))
    return np.concatenate([boxes, given]).astype(np.float32), len(boxes)


def _check_room(folder: pathlib.Path, needed: int) -> None:
    there = next(parent for parent in [folder, *folder.absolute().parents] if parent.is_dir())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise InputError(
            f"{folder} needs {needed / 1e9:.1f} GB for its features, and the disk has {free / 1e9:.1f} GB left: take "
            "fewer proposals or pictures."
        )


def _index(folder, wanted):
    try:
        index = files.from_json((folder / "index.json").read_bytes(), "index.json")
        known, parts = index["fingerprint"], index["parts"]
        sound = index["format"] == FORMAT and all({"file", "sha256", "rows"} <= part.keys() for part in parts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} holds no features of regions ({error}): run the features step."
        ) from error
    if not sound:
        raise InputError(f"{folder} holds features of another format: delete it and run the features step.")
    if what := changed(known, wanted):
        raise InputError(
            f"The features in {folder} are of other {what}: delete them and run the features step."
        )
    return index


class Features:
    """Features that were written, read a part at a time; every part's checksum is compared once.

    Args:
        folder: of `write`.
        model, dataset, proposals, size, runtime: as given there: features of others are refused.

    Attributes:
        code, place: D and B.
        fingerprint: of `fingerprint`.

    Raises:
        InputError: there are none, they are of another net, other pictures or proposals, not complete, or damaged.
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        model: keras.Model,
        dataset: Dataset,
        proposals: Proposals,
        size: int,
        runtime: str = "tf",
    ):
        self.folder, self.dataset = pathlib.Path(folder), dataset
        self.fingerprint = fingerprint(model, dataset, proposals, size, runtime)
        index = _index(self.folder, self.fingerprint)
        self.code, self.place, self._parts = index["code"], index["place"], index["parts"]
        if sum(part["pictures"] for part in self._parts) != len(dataset):
            raise InputError(f"The features in {folder} are not complete: run the features step again.")
        self._checked: set[str] = set()

    def __iter__(self) -> Iterator[Picture]:
        number = 0
        for part in self._parts:
            data = self._read(part)
            starts = np.cumsum([0, *data["counts"]])
            for count, first, last in zip(data["truths"], starts[:-1], starts[1:], strict=True):
                own = slice(first, last)
                yield Picture(
                    self.dataset.examples[number],
                    data["regions"][own],
                    int(count),
                    data["code"][own],
                    data["place"][own],
                )
                number += 1

    def _read(self, part) -> dict[str, np.ndarray]:
        try:
            content = (self.folder / part["file"]).read_bytes()
            if part["file"] not in self._checked and hashlib.sha256(content).hexdigest() != part["sha256"]:
                raise ValueError("its checksum differs")
            with np.load(io.BytesIO(content)) as archive:
                data = dict(archive)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.folder / part['file']} is damaged ({error}): delete the folder."
            ) from error
        self._checked.add(part["file"])
        return data


def overlaps(picture: Picture, classes: Sequence[str] | int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How much a picture's regions overlap its objects.

    Args:
        picture: of `Features`.
        classes: K names, or their number.

    Returns:
        (per class float32 [R, K], the greatest IoU with an object of it, difficult ones and crowds included, and 1 for
        a region that lies inside one of these two; best float32 [R], the greatest IoU with an object to be found; its
        index int64 [R] among `truths`).
    """
    count = classes if isinstance(classes, int) else len(classes)
    record, per_class = picture.record, np.zeros((len(picture.regions), count), np.float32)
    boxes, _ = truths(record)
    best, index = np.zeros(len(picture.regions), np.float32), np.zeros(len(picture.regions), np.int64)
    if len(record.boxes) and len(picture.regions):
        table = box_ops.iou(picture.regions, record.boxes).numpy()
        for label in np.unique(record.labels):
            per_class[:, label] = table[:, record.labels == label].max(axis=1)
            per_class[ignored(picture.regions, record.boxes, record, label), label] = 1.0
    if len(boxes) and len(picture.regions):
        table = box_ops.iou(picture.regions, boxes).numpy()
        best, index = table.max(axis=1), table.argmax(axis=1)
    return per_class, best, index
