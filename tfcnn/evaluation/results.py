"""Results files made by any program, read into a table: COCO's list, and the VOC devkit's text files.

COCO's list is [{"image_id", "category_id", "bbox": [x, y, w, h], "score"}], with masks also "segmentation"; the
devkit's file of a class has a line a detection, `image score xmin ymin xmax ymax`, in VOC's 1-based inclusive pixels.
"""

import glob
import itertools
import json
import math
import pathlib
import sys
from collections.abc import Collection, Hashable, Iterable, Sequence

import numpy as np

from tfcnn import files, masks
from tfcnn.datasets.classes import match
from tfcnn.datasets.example import Record
from tfcnn.errors import InputError
from tfcnn.evaluation.tables import ResultTable, mask_column


def image_index(records: Iterable[Record]) -> dict[Hashable, int]:
    """By which names results may call a picture, and its index in the data set.

    A picture is called by the annotation's id, by its file's path without suffix or its stem, or by the id as
    text; where ids are stems that are numbers ("000012"), also by that number. The first that fits wins.
    """
    records = list(records)
    index: dict[Hashable, int] = {}
    paths = [pathlib.PurePosixPath(record.file).with_suffix("") for record in records]
    for names in (
        [record.image_id for record in records],
        [str(path) for path in paths],
        [path.name for path in paths],
        [str(record.image_id) for record in records],
        [int(r.image_id) if str(r.image_id).isdecimal() else r.image_id for r in records],
    ):
        for position, name in enumerate(names):
            index.setdefault(name, position)
    return index


def read(
    spec: str,
    images: dict[Hashable, int],
    classes: Sequence[str],
    category_ids: Sequence[int],
    present: Collection[int] = (),
) -> tuple[ResultTable, list[str]]:
    """Reads results, whoever wrote them.

    Args:
        spec: a COCO results list (.json, or a folder that holds detections.json); or the devkit's files: a
            folder, a glob, or a file's name, with %s or CLASS for the class, or without.
        images: from `image_index`.
        classes: names of the K classes.
        category_ids: the data set's own id of each class. A categories.json beside a results list comes
            first.
        present: classes 0..K-1 that have an object: of several with a name of categories.json it is that one.

    Returns:
        The table, and notes for the person on what was left out.

    Raises:
        InputError: no such file, or not what it should be.
    """
    path = pathlib.Path(spec)
    if path.is_dir() and (path / "detections.json").is_file():
        path = path / "detections.json"
    if path.is_file() and _is_json(path):
        return coco_results(load(path), images, _categories(path, classes, category_ids, present), str(path))
    return devkit_results(_devkit_files(spec, classes), images, classes)


def _is_json(path: pathlib.Path) -> bool:
    try:
        with path.open("rb") as file:
            return path.suffix.lower() == ".json" or file.read(64).lstrip()[:1] in (b"[", b"{")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def load(path: pathlib.Path) -> object:
    """A JSON file.

    Raises:
        InputError: it is not there, or not JSON.
    """
    try:
        return files.from_json(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _categories(
    path: pathlib.Path, classes: Sequence[str], category_ids: Sequence[int], present: Collection[int]
) -> dict[Hashable, int]:
    beside = path.parent / "categories.json"
    if beside.is_file() and beside != path:
        try:
            ids, names = zip(*((c["id"], str(c["name"])) for c in load(beside)), strict=True)
            label_of = dict(zip(ids, match(names, ids, classes, category_ids, present), strict=True))
        except (TypeError, KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f'{beside} is not a list of {{"id", "name"}}') from None
        if max(label_of.values()) >= 0:
            return {category: label for category, label in label_of.items() if label >= 0}
    return {category: label for label, category in enumerate(category_ids)}


def coco_results(
    entries: object, images: dict[Hashable, int], categories: dict[Hashable, int], where: str = "results"
) -> tuple[ResultTable, list[str]]:
    """The table of a COCO results list, in its order.

    Args:
        entries: the list.
        images: the index of each picture by its names, as `image_index` gives it.
        categories: the label of each category_id; detections of others are left out, as pycocotools does.
        where: what to call the list in messages.

    Returns:
        The table, and notes on what was left out.

    Raises:
        InputError: not such a list, or pictures that the data set does not have.
    """
    shown = _masks(entries, where)
    entries = _with_boxes(entries, shown)
    columns = _columns(entries, ("image_id", "category_id", "bbox", "score"), where)
    sides = _numbers(entries, columns["bbox"], "bbox", 4, where)
    score = _numbers(entries, columns["score"], "score", 1, where).reshape(-1)
    image = image_indices(columns["image_id"], images, where)
    label = _labels(columns["category_id"], categories, where)
    corners = np.concatenate([sides[:, :2], sides[:, :2] + sides[:, 2:]], axis=1)
    table = ResultTable(image, label, score, corners, sides[:, 2] * sides[:, 3], mask_column(shown))
    known = label >= 0
    if known.all():
        return table, []
    ids = ", ".join(sorted({str(columns["category_id"][i]) for i in np.flatnonzero(~known)})[:5])
    if not known.any():
        own = ", ".join(map(str, list(categories)[:5]))
        raise InputError(f"{where}: no category_id is the data set's: {ids} here, {own} there")
    note = f"{where}: {np.count_nonzero(~known)} detections of unknown category_id ({ids}) are left out"
    return table.take(known), [note]


def _masks(entries: object, where: str) -> list[dict | None]:
    """The run lengths of each entry, None of one without; [] where the entries are no list."""
    found: list[dict | None] = []
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        written = entry.get("segmentation") if isinstance(entry, dict) else None
        try:
            found.append(None if written in (None, []) else masks.of_entry(written))
        except InputError as error:
            raise InputError(f"{where}: segmentation of entry {index + 1} is {error}") from None
    return found


def _with_boxes(entries: object, shown: list[dict | None]) -> object:
    """The entries; one with a mask and no box gets the box round its mask, as pycocotools has it."""
    if all(mask is None for mask in shown):
        return entries
    return [
        entry if mask is None or "bbox" in entry else {**entry, "bbox": masks.box(mask)}
        for entry, mask in zip(entries, shown, strict=True)
    ]


def _labels(names: Sequence[Hashable], categories: dict[Hashable, int], where: str) -> np.ndarray:
    try:
        return np.array([categories.get(name, -1) for name in names], np.int32)
    except TypeError:
        raise InputError(f"{where}: a category_id is neither a number nor a text") from None


def _columns(entries: object, keys: Sequence[str], where: str) -> dict[str, list]:
    if not isinstance(entries, list):
        run = isinstance(entries, dict) and "images" in entries
        hint = "; a run's results.json is another file than the detections.json beside it" if run else ""
        raise InputError(f"{where} is no COCO results list: a list of entries with {', '.join(keys)}{hint}")
    columns = {}
    for key in keys:
        try:
            columns[key] = [entry[key] for entry in entries]
        except (TypeError, KeyError):
            bad = next(i for i, e in enumerate(entries) if not (isinstance(e, dict) and key in e))
            raise InputError(f"{where}: entry {bad + 1} has no {key}") from None
    return columns


def _numbers(entries: list, column: list, key: str, width: int, where: str) -> np.ndarray:
    """A column as float64 [n, width]: numbers, neither texts nor truth values."""
    try:
        flat = column if width == 1 else itertools.chain.from_iterable(column)
        if all(map(_is_number, set(map(type, flat)))):
            numbers = np.array(column, np.float64)
            shape = (len(entries), width) if width > 1 and entries else (len(entries),)
            if numbers.shape == shape and np.isfinite(numbers).all():
                return numbers.reshape(len(entries), width)
    except (TypeError, ValueError, OverflowError):
        pass
    bad = next(i for i, value in enumerate(column) if not _sound(value, width))
    what = "a finite number" if width == 1 else f"{width} finite numbers"
    raise InputError(
        f"{where}: {key} of entry {bad + 1} is not {what}: {json.dumps(column[bad], default=str)[:60]}"
    )


def _sound(value: object, width: int) -> bool:
    numbers = [value] if width == 1 else value
    if not isinstance(numbers, list) or len(numbers) != width:
        return False
    numbers = [n.item() if isinstance(n, np.generic) else n for n in numbers]
    return all(_is_number(type(n)) and abs(n) <= sys.float_info.max for n in numbers)


def _is_number(kind: type) -> bool:
    """Whether values of this type are numbers: JSON's, or NumPy's where a list was made in Python."""
    return issubclass(kind, (int, float, np.integer, np.floating)) and kind is not bool


def image_indices(names: Sequence[Hashable], images: dict[Hashable, int], where: str) -> np.ndarray:
    """The index of each named picture, int32 [n].

    Raises:
        InputError: a picture that the data set does not have.
    """
    try:
        position = np.array([images.get(name, -1) for name in names], np.int32)
    except TypeError:
        raise InputError(f"{where}: an image_id is neither a number nor a text") from None
    unknown = {str(names[i]) for i in np.flatnonzero(position < 0)}
    if unknown:
        known = ", ".join(str(name) for name in list(images)[:2])
        raise InputError(
            f"{where} names pictures that are not in this split ({len(unknown)}, such as {sorted(unknown)[0]}; "
            f"the split's are like {known}): name the results of this split"
        )
    return position


def _devkit_files(spec: str, classes: Sequence[str]) -> dict[str, pathlib.Path]:
    """The file of each class: {class: path}; the name of a class stands after an underscore at the end."""
    path = pathlib.Path(spec)
    if path.is_dir():
        found = sorted(path.glob("*.txt"))
    elif path.is_file():
        found = [path]
    else:
        pattern = spec.replace("%s", "*").replace("CLASS", "*")
        found = [pathlib.Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
    files: dict[str, pathlib.Path] = {}
    for file in filter(pathlib.Path.is_file, found):
        names = [name for name in classes if file.stem == name or file.stem.endswith(f"_{name}")]
        if names:
            name = max(names, key=len)
            if list(classes).count(name) > 1:
                raise InputError(
                    f"{file}: several classes are named {name}; a COCO results list tells them apart by id"
                )
            if name in files:
                raise InputError(f"{spec} has two files of class {name}: {files[name]} and {file}")
            files[name] = file
    if not files and found:
        raise InputError(
            f"{found[0]} is no results file: its name ends with no known class (comp3_det_test_cat.txt)"
        )
    if not files:
        raise InputError(
            f"No results at {spec}: name a COCO results list, or the devkit's comp3_det_*_CLASS.txt"
        )
    return files


def devkit_results(
    files: dict[str, pathlib.Path], images: dict[Hashable, int], classes: Sequence[str]
) -> tuple[ResultTable, list[str]]:
    """The table of the devkit's text files, class by class, each in its file's order.

    Args:
        files: the file of each class; a class without one has no detections.
        images: the index of each picture by its names, as `image_index` gives it.
        classes: names of the K classes.

    Returns:
        The table, and notes on classes without a file.

    Raises:
        InputError: a line that is not `image score xmin ymin xmax ymax`, or an unknown picture.
    """
    parts = []
    for label, name in enumerate(classes):
        if name not in files:
            continue
        where = str(files[name])
        try:
            lines = files[name].read_text(encoding="utf-8-sig", errors="replace").splitlines()
        except OSError as error:
            raise InputError(f"{where} cannot be read: {error.strerror}") from None
        rows = [line.split() for line in lines if line.strip()]
        try:
            numbers = np.array([row[1:] for row in rows], np.float64).reshape(len(rows), 5)
            sound = np.isfinite(numbers).all()
        except ValueError:
            sound = False
        if not sound:
            bad = next(row for row in rows if not _sound_row(row))
            raise InputError(f"{where}: not `image score xmin ymin xmax ymax`: {' '.join(bad)[:80]}")
        corners = numbers[:, 1:] - [1, 1, 0, 0]
        sides = corners[:, 2:] - corners[:, :2]
        image = image_indices([row[0] for row in rows], images, where)
        labels = np.full(len(rows), label, np.int32)
        parts.append((image, labels, numbers[:, 0], corners, sides[:, 0] * sides[:, 1]))
    absent = [name for name in classes if name not in files]
    notes = [f"no results file of {', '.join(absent)}: taken as nothing found"] if absent else []
    return ResultTable(*(np.concatenate(column) for column in zip(*parts, strict=True))), notes


def _sound_row(row: list[str]) -> bool:
    try:
        return len(row) == 6 and all(math.isfinite(float(word)) for word in row[1:])
    except ValueError:
        return False


def poses(entries: object, images: dict[Hashable, int], joints: int, where: str = "results") -> np.ndarray:
    """The best pose of each picture.

    Args:
        entries: a COCO results list of keypoints, [{"image_id", "keypoints": [x, y, v, x, y, v, ..],
            "score"}]; or the results.json of app `pose`. Of equal scores, and without any, a picture's first
            pose counts.
        images: the index of each picture by its names, as `image_index` gives it.
        joints: J.
        where: what to call the list in messages.

    Returns:
        float64 [pictures, J, 2], NaN where a picture has no pose.

    Raises:
        InputError: not such a list, or pictures that the data set does not have.
    """
    if isinstance(entries, dict) and "images" in entries:
        entries = _entries_of_run(entries["images"], where)
    columns = _columns(entries, ("image_id", "keypoints"), where)
    points = _numbers(entries, columns["keypoints"], "keypoints", 3 * joints, where)
    points = points.reshape(-1, joints, 3)[:, :, :2]
    image = image_indices(columns["image_id"], images, where)
    score = _numbers(entries, [entry.get("score", 0) for entry in entries], "score", 1, where).reshape(-1)
    best = np.full((max(images.values(), default=-1) + 1, joints, 2), np.nan)
    for index in np.argsort(-score, kind="stable")[::-1]:
        best[image[index]] = points[index]
    return best


def _entries_of_run(pictures: object, where: str) -> list[dict]:
    """The poses in the results.json of app `pose`, as COCO's list has them."""
    try:
        if pictures and not any("persons" in picture for picture in pictures):
            raise KeyError("persons")  # another app's
        return [
            {
                "image_id": pathlib.PurePath(picture["file"]).stem,
                "keypoints": [number for x, y in person["joints"] for number in (x, y, 1)],
            }
            for picture in pictures
            for person in picture.get("persons", ())
        ]
    except (TypeError, KeyError, ValueError, AttributeError):
        raise InputError(
            f'{where}: its images are not [{{"file", "persons": [{{"joints": [[x, y], ..]}}]}}]'
        ) from None
