"""YOLO's layout: data.yaml, images/ and labels/, a text file of shares a picture, as annotation tools export it."""

import collections
import math
import pathlib
import posixpath
from collections.abc import Sequence

import numpy as np
import yaml

from tfcnn import masks
from tfcnn.datasets import decode
from tfcnn.datasets.example import Dataset, Record, annotated, report
from tfcnn.datasets.root import Root, find
from tfcnn.errors import InputError
from tfcnn.sources import SUFFIXES

LARGEST_YAML = 1 << 20  # bytes
KEYS = {"val": ("val", "valid", "validation"), "train": ("train", "training"), "test": ("test",)}


def read(path: str | pathlib.Path, split: str = "train") -> Dataset:
    """Reads boxes in YOLO's text files, from a folder or a .zip.

    Args:
        path: a folder or .zip with a data.yaml at its top or one level down. It has `names` (a list, or {index: name})
            and for each split a folder of pictures, several, or a text file that lists pictures; where that is not
            found as written, the folders images/SPLIT and SPLIT/images are tried. The labels of
            .../images/NAME.jpg are .../labels/NAME.txt: a line an object, "class cx cy w h" in shares of the picture,
            or "class x1 y1 x2 y2 x3 y3 ...", a polygon. A picture without such a file has no objects.
        split: the key of data.yaml; val, valid and validation are the same.

    Returns:
        The data set; masks where there are polygons. A picture's id is its stem; where several pictures have one, its
        path without suffix.

    Raises:
        InputError: no such data set or split, or a data.yaml that is not one.
    """
    root = find(path, lambda root: bool(_yaml(root)), "a data.yaml")
    content = _content(root)
    classes = _names(root, content)
    broken: list[dict] = []
    examples = []
    pictures = _pictures(root, content, split)
    for picture, image_id in zip(pictures, _ids(pictures), strict=True):
        record = _record(root, picture, image_id, classes, broken)
        if record is not None:
            examples.append(record)
    return Dataset("yolo", classes, list(range(len(classes))), examples, broken)


def _yaml(root: Root) -> str | None:
    """The name of the description: data.yaml, else the only .yaml."""
    known = [name for name in root.files() if name.endswith((".yaml", ".yml"))]
    named = [name for name in known if posixpath.splitext(name)[0] in ("data", "dataset")]
    found = named or known
    return found[0] if len(found) == 1 else None


def _content(root: Root) -> dict:
    name = _yaml(root)
    if root.size(name) > LARGEST_YAML:
        raise InputError(
            f"{root}: {name} is larger than {LARGEST_YAML >> 20} MiB, and no description of a data set"
        )
    try:
        content = yaml.safe_load(root.text(name))
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{root}: {name} is no YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise InputError(f"{root}: {name} has no keys such as names and train")
    return content


def _names(root: Root, content: dict) -> list[str]:
    names = content.get("names")
    if isinstance(names, dict) and all(isinstance(key, int) for key in names):
        if sorted(names) != list(range(len(names))):
            raise InputError(
                f"{root}: names in {_yaml(root)} have the numbers {sorted(names)}, not 0, 1, 2 ..."
            )
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise InputError(f"{root}: {_yaml(root)} has no list of names")
    return [str(name) for name in names]


def _pictures(root: Root, content: dict, split: str) -> list[str]:
    """The split's pictures, by name; those of a list in its order."""
    aliases = next((keys for keys in KEYS.values() if split in keys), (split,))
    values = [content[key] for key in (split, *aliases) if content.get(key)]
    if not values:
        known = [key for key in content if any(key in keys for keys in KEYS.values()) and content[key]]
        raise InputError(f"{root} has no split {split!r}: {_yaml(root)} names {', '.join(known) or 'none'}")
    written = values[0] if isinstance(values[0], list) else [values[0]]
    top = str(content.get("path") or "")
    found = []
    for place in map(str, written):
        found += _at(root, place, top, aliases)
    if not found:
        raise InputError(f"{root} has no pictures of split {split!r} at {', '.join(map(str, written))}")
    return found


def _at(root: Root, place: str, top: str, aliases: tuple[str, ...]) -> list[str]:
    """Pictures of one value of a split: a folder, or a text file of pictures' names."""
    if place.endswith(".txt"):
        lists = [name for name in _spellings(place, top) if root.exists(name)]
        lines = root.text(lists[0]).splitlines() if lists else []
        listed = (
            [n for n in _spellings(line.strip(), top) if root.exists(n)] for line in lines if line.strip()
        )
        return [names[0] for names in listed if names]
    guesses = [f"images/{alias}" for alias in aliases] + [f"{alias}/images" for alias in aliases]
    for folder in (*_spellings(place, top), *guesses):
        pictures = [
            posixpath.join(folder, name)
            for name in root.walk(folder)
            if posixpath.splitext(name)[1].lower() in SUFFIXES and "labels" not in name.split("/")
        ]
        if pictures:
            return pictures
    return []


def _spellings(written: str, top: str) -> list[str]:
    """How a path in the description may be meant, seen from the data set's top."""
    plain = posixpath.normpath(written.replace("\\", "/"))
    under = posixpath.normpath(posixpath.join(top, plain))
    parts = [part for part in plain.split("/") if part not in ("..", ".", "")]
    tails = ["/".join(parts[start:]) for start in range(len(parts))]
    return list(dict.fromkeys(name for name in (plain, under, *tails) if not name.startswith(("..", "/"))))


def _ids(pictures: Sequence[str]) -> list[str]:
    """Each picture's id: its stem; of pictures with one stem the path without suffix, or with it."""
    paths = [posixpath.splitext(picture)[0] for picture in pictures]
    stems = [posixpath.basename(path) for path in paths]
    often, often_paths = collections.Counter(stems), collections.Counter(paths)
    return [
        stem if often[stem] == 1 else path if often_paths[path] == 1 else picture
        for picture, path, stem in zip(pictures, paths, stems, strict=True)
    ]


def _labels_of(picture: str) -> str:
    """The text file of a picture: the last folder called images becomes labels."""
    parts = posixpath.splitext(picture)[0].split("/")
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return "/".join(parts) + ".txt"


def _record(root: Root, picture: str, image_id: str, classes: list[str], broken: list[dict]) -> Record | None:
    try:
        width, height = decode.size(root.read(picture), picture)
    except InputError as error:
        report(broken, picture, str(error), "picture skipped")
        return None
    file = _labels_of(picture)
    corners, labels, outlines = [], [], []
    for number, line in enumerate(root.text(file).splitlines() if root.exists(file) else (), start=1):
        numbers = _numbers(line, file, number, len(classes), broken)
        if numbers is None:
            continue
        label, values = numbers
        scaled = np.array(values) * np.resize([width, height], len(values))
        if len(values) == 4:
            center, half = scaled[:2], scaled[2:] / 2
            corners.append([*(center - half), *(center + half)])
            outlines.append(None)
        else:
            points = scaled.reshape(-1, 2)
            corners.append([*points.min(axis=0), *points.max(axis=0)])
            outlines.append([scaled.tolist()])
        labels.append(label)
    fields, kept = annotated(
        np.reshape(corners, (-1, 4)),
        labels,
        [classes[label] for label in labels],
        width=width,
        height=height,
        file=file,
        broken=broken,
    )
    shapes = [masks.compact(outline or [], height, width) for outline in outlines]
    own = [shapes[index] for index in kept]
    if any(shape is not None for shape in own):
        fields["masks"] = lambda: np.stack([masks.draw(shape, height, width) for shape in own])
    if any(shape is not None for shape in shapes):
        fields["truth"].masks = lambda: [masks.runs(shape, height, width) for shape in shapes]
    return Record(
        image_id=image_id,
        file=picture,
        width=width,
        height=height,
        source=root.file(picture),
        **fields,
    )


def _numbers(
    line: str, file: str, number: int, classes: int, broken: list[dict]
) -> tuple[int, list[float]] | None:
    """Class and shares of a line; None of an empty line, or one that is reported and skipped."""
    words = line.split()
    if not words:
        return None
    try:
        label, values = float(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        report(broken, file, f"line {number} has words that are no numbers", "object skipped")
        return None
    if not label.is_integer() or not 0 <= label < classes:
        report(broken, file, f"line {number} has class {words[0]}, and there are {classes}", "object skipped")
    elif len(values) != 4 and (len(values) < 6 or len(values) % 2):
        report(
            broken, file, f"line {number} has {len(words)} numbers, not 5 nor a polygon's", "object skipped"
        )
    elif not all(map(math.isfinite, values)) or max(map(abs, values)) > 10:
        report(broken, file, f"line {number} has numbers that are no shares of a picture", "object skipped")
    else:
        return int(label), values
    return None
