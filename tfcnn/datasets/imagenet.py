"""ImageNet's two tasks with boxes (ILSVRC): localization (LOC, 1000 classes) and detection (DET, 200
classes).

The layout is the challenge's own: Annotations/TASK, Data/TASK and ImageSets/TASK, the task being CLS-LOC
or DET. An object's name is its synset. Corners are 0-based and inclusive: (xmin, ymin, xmax, ymax) is the box
(xmin, ymin, xmax + 1, ymax + 1), as the development kit counts overlaps.
Source: the ILSVRC development kit; Russakovsky et al., IJCV 115(3), 2015.
"""

import pathlib
import re

import numpy as np

from tfcnn.datasets.example import Dataset, Record, annotated, read_size, report
from tfcnn.datasets.root import Root, find
from tfcnn.datasets.voc import categories, known_objects, parse_annotation
from tfcnn.errors import InputError

# Where the development kit, Kaggle's copy and people of their own keep the list of synsets.
SYNSET_FILES = (
    "LOC_synset_mapping.txt",
    "map_clsloc.txt",
    "map_det.txt",
    "devkit/data/map_clsloc.txt",
    "devkit/data/map_det.txt",
    "synsets.txt",
)


def read_loc(path: str | pathlib.Path, split: str = "val", pictures: bool = True) -> Dataset:
    """Reads a split of the localization task; `label` is the picture's class, boxes are all of that class.

    Args:
        path: a folder or .zip with Annotations/CLS-LOC at its top or one level down.
        split: "train" (the pictures with boxes; "train_cls" is all of them) or "val".
        pictures: False for annotations alone, as evaluation needs them.

    Returns:
        The data set. Classes are the synsets in sorted order, with names where a list of them lies in the
        set.

    Raises:
        InputError: no such set or split.
    """
    return _read(path, split, "CLS-LOC", "imagenet_loc", pictures)


def read_det(path: str | pathlib.Path, split: str = "val", pictures: bool = True) -> Dataset:
    """Reads a split of the detection task. A picture without objects is an example too.

    Args:
        path, split, pictures: as `read_loc` takes them, of DET.

    Returns:
        The data set, as `read_loc` gives it.

    Raises:
        InputError: no such set or split.
    """
    return _read(path, split, "DET", "imagenet_det", pictures)


def _read(path: str | pathlib.Path, split: str, task: str, name: str, pictures: bool) -> Dataset:
    root = find(path, lambda r: task in r.folders("Annotations"), f"Annotations/{task}")
    folder = split.split("_")[0]
    broken: list[dict] = []
    parsed = []
    for image_id in _ids(root, task, split):
        file = f"Annotations/{task}/{folder}/{image_id}.xml"
        annotation = {"size": [0, 0], "objects": []}  # training pictures without boxes have no annotation
        if root.exists(file):
            annotation = parse_annotation(root.read(file), file, broken)
            if annotation is None:
                continue
        elif folder != "train":
            report(broken, file, "the annotation is missing", "picture skipped")
            continue
        picture = f"Data/{task}/{folder}/{image_id}.JPEG"
        if pictures and not root.exists(picture):
            report(broken, picture, "the picture is missing", "picture skipped")
            continue
        if pictures and annotation["objects"] and min(annotation["size"]) <= 0:
            annotation["size"] = read_size(root.file(picture), picture, file, broken)
            if annotation["size"] is None:
                continue
        parsed.append((image_id, file, picture, annotation))
    found = {obj["name"] for *_, annotation in parsed for obj in annotation["objects"]}
    if task == "CLS-LOC":
        found |= {image_id.split("/")[0] for image_id, *_ in parsed if "/" in image_id}
        found |= set(root.folders(f"Annotations/{task}/train"))  # every split has the same classes
    synsets, names, ids = _synsets(root, pathlib.Path(path), found)
    index_of = {synset: index for index, synset in enumerate(synsets)}
    examples = [_record(root, *entry, index_of, task == "CLS-LOC", broken) for entry in parsed]
    return Dataset(name, names, ids, examples, broken)


def _ids(root: Root, task: str, split: str) -> list[str]:
    """Pictures of a split by the list in ImageSets (a picture's name, and a number or a flag), else all of
    its annotations."""
    lists = f"ImageSets/{task}"
    for file in (f"{split}.txt", f"{split}_loc.txt"):
        if root.exists(f"{lists}/{file}"):
            lines = filter(None, map(str.strip, root.text(f"{lists}/{file}").splitlines()))
            entries = [re.fullmatch(r"(.*?)(?:\s+(-?\d+))?", line).groups() for line in lines]
            return [image_id for image_id, number in entries if number != "-1"]
    files = root.walk(f"Annotations/{task}/{split}")
    if not files:
        known = [file[:-4] for file in root.files(lists)] or root.folders(f"Annotations/{task}")
        raise InputError(f"{root} has no split {split!r}: it has {', '.join(known) or 'none'}")
    return [file[: -len(".xml")] for file in files if file.endswith(".xml")]


def _synsets(root: Root, path: pathlib.Path, found: set[str]) -> tuple[list[str], list[str], list[int]]:
    """Synsets, names and ids of the classes, by synset: categories.json, else a list of synsets, else those found.
    Ids are the list's own, as official results have them, else the position, from 1."""
    if (entries := categories(root)) is not None:
        synsets = [entry.get("synset", entry["name"]) for entry in entries]
        return synsets, [entry["name"] for entry in entries], [entry["id"] for entry in entries]
    for folder in (root, Root(path)):
        file = next((file for file in SYNSET_FILES if folder.exists(file)), None)
        if file is not None:
            lines = [_synset_line(line) for line in folder.text(file).splitlines() if line.strip()]
            lines = sorted({synset: (synset, *rest) for synset, *rest in lines}.values())
            synsets, ids, names = map(list, zip(*lines, strict=True))
            if None in ids or len(set(ids)) < len(ids):
                ids = list(range(1, len(ids) + 1))
            return synsets, names, ids
    synsets = sorted(found)
    return synsets, synsets, list(range(1, len(synsets) + 1))


def _synset_line(line: str) -> tuple[str, int | None, str]:
    """Synset, id and name of "n01440764 tench, Tinca tinca" or the kit's "n02119789 1 kit_fox"."""
    synset, _, label = line.strip().partition(" ")
    number, _, rest = label.partition(" ")
    if number.isdecimal() and rest:
        return synset, int(number), rest.strip()
    return synset, None, label.strip() or synset


def _record(
    root: Root,
    image_id: str,
    file: str,
    picture: str,
    annotation: dict,
    index_of: dict[str, int],
    is_loc: bool,
    broken: list[dict],
) -> Record:
    width, height = (max(0, side) for side in annotation["size"])
    known = known_objects(annotation, index_of, file, broken)
    names = [obj["name"] for obj in known]
    labels = [index_of[name] for name in names]
    fields, _ = annotated(
        np.array([obj["box"] for obj in known], np.float64).reshape(-1, 4) + [0, 0, 1, 1],
        labels,
        names,
        width=width,
        height=height,
        file=file,
        broken=broken,
        slack=1.0,  # some annotators wrote the picture's size as the last pixel
    )
    label = -1
    if is_loc:
        label = labels[0] if labels else index_of.get(image_id.split("/")[0], -1)
    return Record(
        image_id=image_id.split("/")[-1],
        file=picture,
        width=width,
        height=height,
        source=root.file(picture),
        label=label,
        **fields,
    )
