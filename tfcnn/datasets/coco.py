"""MS-COCO and every set in its JSON: instances, crowds, person keypoints, polygons and run lengths.

Category ids need not be contiguous: class k is the k-th category by id. A box is x, y, width, height from 0.
Every field is checked once, where it is read; a number may be written as a text.
Source: cocodataset.org, "Data format"; cocodataset/cocoapi.
"""

import dataclasses
import functools
import math
import pathlib
import posixpath
import re
import string
import unicodedata
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tfcnn import files, masks
from tfcnn.datasets.example import Dataset, Record, annotated, read_size, report
from tfcnn.datasets.root import Root, decoded, find
from tfcnn.errors import InputError

SKIPPED = "object skipped"
AREAS = {
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}  # COCO's sizes, pixels


def read(
    path: str | pathlib.Path | None,
    split: str | None = None,
    annotations: str | pathlib.Path | None = None,
    pictures: bool = True,
) -> Dataset:
    """Reads a COCO set from a folder or a .zip, or its annotations alone.

    Args:
        path: a folder or .zip with annotations/instances_SPLIT.json, or SPLIT/_annotations.coco.json, at
            its top or one level down; None for annotations alone.
        split: "val2017", or "val" where one year is there; None where there is one split only.
        annotations: a JSON file on disk, or in the set ("annotations/person_keypoints_val2017.json"),
            instead.
        pictures: False for annotations alone, as evaluation needs them: then no picture has to be there.

    Returns:
        The data set; every listed picture is an example, with objects or without. A file with keypoints gives
        `joints` [M, J, 3], whose last number is 0 for not labelled, 1 for hidden, 2 for visible, and the skeleton.

    Raises:
        InputError: no such set, split or annotation, not COCO's JSON, or a picture's name found in two folders.
    """
    where = _locate(path, split, annotations)
    root, name = where.root, where.name
    content = _content(where.text, name)
    broken: list[dict] = []
    if "\ufffd" in where.text:
        report(broken, name, "letters that are not UTF-8", "read as \ufffd: save the file as UTF-8")
    categories = _categories(content, name, broken)
    keys = [_key(_entry(content, "images", k, name, "id")["id"]) for k in range(len(content["images"]))]
    objects_of = _objects(content, dict.fromkeys(keys), set(categories), name, broken)
    index_of = {category_id: index for index, category_id in enumerate(categories)}
    person = next((category for category in categories.values() if category["joints"]), {})
    joints = person.get("joints", [])
    search = _search(root, where.folders) if root is not None and pictures else None
    examples = []
    for key, image in zip(keys, content["images"], strict=True):
        objects = objects_of.pop(key, None)
        if objects is None:
            report(broken, name, f"picture id {image['id']!r} comes twice", "picture skipped")
            continue
        file = str(image.get("file_name") or image["id"])
        found = search(file) if search is not None else file
        if found is None:
            report(broken, file, "the picture is missing", "picture skipped")
            continue
        width, height = (int(_number(image.get(side)) or 0) for side in ("width", "height"))
        if search is not None and (width <= 0 or height <= 0):
            size = read_size(root.file(found), found, file, broken)
            if size is None:
                continue
            width, height = size
        source = root.file(found) if root is not None else _no_pictures(name)
        size = {"width": max(0, width), "height": max(0, height), "file": found}
        fields = _fields(objects, index_of, len(joints), broken, **size)
        examples.append(Record(image_id=image["id"], source=source, **size, **fields))
    names = [category["name"] for category in categories.values()]
    return Dataset("coco", names, list(categories), examples, broken, joints, person.get("skeleton", []))


@dataclasses.dataclass
class _Location:
    """Where a split is: its root (None for annotations alone), the annotations' name and text, and the folders to look
    for its pictures in, as `_folders_of`."""

    root: Root | None
    name: str
    text: str
    folders: list[list[str]]


def _locate(
    path: str | pathlib.Path | None, split: str | None, annotations: str | pathlib.Path | None
) -> _Location:
    # "instances_val2017.json", "person_keypoints_val2017.json": pictures of val2017
    named = split or pathlib.PurePath(annotations or "").stem.rpartition("_")[2]
    if annotations is not None and pathlib.Path(annotations).is_file():
        text = decoded(pathlib.Path(annotations).read_bytes())
        root = None if path is None else _root_of_pictures(path)
        return _Location(root, str(annotations), text, _folders_of(root, named) if root else [])
    if path is None:
        raise InputError(
            f"No annotation file at {annotations}" if annotations else "Name COCO's annotation file"
        )
    if annotations is not None:
        root = find(path, lambda r: r.exists(str(annotations)), str(annotations))
        return _Location(root, str(annotations), root.text(str(annotations)), _folders_of(root, named))
    root = find(path, lambda r: bool(_splits(r)), "annotations/instances_*.json")
    splits = _splits(root)
    fitting = [s for s in splits if split in (None, s) or s.rstrip(string.digits) == split]
    if split not in splits and len(fitting) != 1:
        raise InputError(f"{root} has the splits {', '.join(splits)}: name one, not {split or 'none'}")
    chosen = split if split in splits else fitting[0]
    return _Location(root, splits[chosen], root.text(splits[chosen]), _folders_of(root, chosen))


def _splits(root: Root) -> dict[str, str]:
    """The annotation file of each split."""
    found = [
        file for file in root.files("annotations") if file.startswith("instances_") and file.endswith(".json")
    ]
    own = {folder: f"{folder}/_annotations.coco.json" for folder in root.folders()}
    return {file[len("instances_") : -len(".json")]: f"annotations/{file}" for file in found} | {
        folder: file for folder, file in own.items() if root.exists(file)
    }


def _root_of_pictures(path: str | pathlib.Path) -> Root:
    """The one folder of a set that packs everything into one, else the top."""
    top = Root(path)
    folders = top.folders()
    return (
        top.at(folders[0]) if len(folders) == 1 and not top.files() and top.at(folders[0]).folders() else top
    )


def _picture_folders(root: Root) -> list[str]:
    return ["", *root.folders(), *(f"images/{folder}" for folder in root.folders("images"))]


def _folders_of(root: Root, split: str) -> list[list[str]]:
    """The folders to look for a split's pictures in, the likeliest first: named as the split is; but for a year that
    one of the two lacks; with it as a word among others ("train_images"); all others, but those of another year."""
    names = {folder: posixpath.basename(folder) for folder in _picture_folders(root)}
    bare, tiers = split.rstrip(string.digits), ([], [], [], [])
    for folder, name in names.items():
        if name == split:
            tiers[0].append(folder)
        elif name.rstrip(string.digits) == bare:
            if bare in (name, split):
                tiers[1].append(folder)
        elif split in re.split(r"[\W_]+", name):
            tiers[2].append(folder)
        else:
            tiers[3].append(folder)
    return list(tiers)


def _search(root: Root, tiers: list[list[str]]) -> Callable[[str], str | None]:
    """A search for a picture by the name that the annotations give it, in one lot of folders after the other; in the
    first lot that has it, it has to be in one folder alone."""
    listed = functools.cache(lambda folder: frozenset(root.files(folder)))

    def exists(file: str) -> bool:
        folder, name = posixpath.split(file)
        return name in listed(folder)

    def search(file: str) -> str | None:
        if posixpath.isabs(file) and root.exists(file):
            return file
        for spelling in _spellings(file):
            for folders in tiers:
                found = list(filter(exists, (posixpath.join(folder, spelling) for folder in folders)))
                if len(found) > 1:
                    names = " and ".join(found)
                    raise InputError(f"{file} is {names}: name the folder of pictures of one split")
                if found:
                    return found[0]
        return None

    return search


def _spellings(file: str) -> Iterator[str]:
    """Names under which a person would look for a file: as written, with Windows' backslashes or a server's %20
    resolved, what a server's address asks for; each with fewer and fewer of its folders, and in both of Unicode's
    forms."""
    slashes = file.replace("\\", "/")
    unquoted = urllib.parse.unquote(slashes)
    asked = [unquoted.rpartition("=")[2]] if "?" in unquoted else []
    for name in dict.fromkeys([file, slashes, unquoted, *asked]):
        parts = [part for part in name.split("/") if part not in ("", ".", "..")]
        for first in range(len(parts)):
            shorter = "/".join(parts[first:])
            yield from dict.fromkeys([shorter, *(unicodedata.normalize(f, shorter) for f in ("NFC", "NFD"))])


def _no_pictures(name: str) -> Callable[[], bytes]:
    def source() -> bytes:
        raise InputError(f"{name} was read without its pictures: name the folder that holds them")

    return source


def _content(text: str, name: str) -> dict[str, list]:
    content = files.from_json(text, name)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise InputError(f"{name} is not COCO's JSON: it needs the lists images, annotations and categories")
    return content


def _entry(content: dict[str, list], key: str, index: int, name: str, *fields: str) -> dict[str, Any]:
    """An entry of a list that nothing can be read without."""
    entry = content[key][index]
    for field in fields:
        if not isinstance(entry, dict) or not isinstance(entry.get(field), int | float | str):
            raise InputError(f"{name}: {key}[{index}] has no {field}: export the annotations again")
    return entry


def _categories(content: dict[str, list], name: str, broken: list[dict]) -> dict[int, dict[str, Any]]:
    """{id: {"name", "joints", "skeleton"}} in the order of the ids; a name that comes twice is reported."""
    found: dict[int, dict[str, Any]] = {}
    for index in range(len(content["categories"])):
        entry = _entry(content, "categories", index, name, "id", "name")
        number = _number(entry["id"])
        if number is None or number != int(number) or int(number) in found:
            raise InputError(
                f"{name}: categories[{index}] has the id {entry['id']!r}, where each has a whole number of its own"
            )
        joints = entry.get("keypoints") or []
        joints = list(map(str, joints)) if isinstance(joints, list) else []
        skeleton = _skeleton(entry.get("skeleton"), len(joints))
        found[int(number)] = {"name": str(entry["name"]), "joints": joints, "skeleton": skeleton}
    found = dict(sorted(found.items()))
    ids_of: dict[str, list[int]] = {}
    for category_id, category in found.items():
        ids_of.setdefault(category["name"], []).append(category_id)
    for same, ids in ids_of.items():
        if len(ids) > 1:
            why = f"the categories {' and '.join(map(str, ids))} are both called {same}"
            report(broken, name, why, "classes of their own; figures tell them apart by their ids")
    return found


def _skeleton(pairs: object, count: int) -> list[tuple[int, int]]:
    """The pairs of joints, from 0, of a list that counts from 1; those that name no joint are left out."""
    numbers = [_numbers(pair, 2) for pair in pairs] if isinstance(pairs, list) else []
    ends = [(int(a) - 1, int(b) - 1) for a, b in filter(None, numbers)]
    return [(a, b) for a, b in ends if 0 <= a < count and 0 <= b < count]


def _objects(
    content: dict[str, list], pictures: dict[str, None], categories: set[int], name: str, broken: list[dict]
) -> dict[str, list[dict[str, Any]]]:
    """Annotations of each picture, by its id as a text, without those that no rule can save: each {"id", "category",
    "bbox", "area", "crowd", "segmentation", "keypoints"}."""
    objects_of: dict[str, list] = {key: [] for key in pictures}
    files = {_key(image["id"]): str(image.get("file_name") or image["id"]) for image in content["images"]}
    seen: set[str] = set()
    for index, entry in enumerate(content["annotations"]):
        if not isinstance(entry, dict):
            report(broken, name, f"annotations[{index}] is no entry", SKIPPED)
            continue
        number, key = entry.get("id"), _key(entry.get("image_id"))
        file = files.get(key, name)
        category, box = _number(entry.get("category_id")), _numbers(entry.get("bbox"), 4)
        if key not in objects_of:
            image_id = entry.get("image_id")
            why = f"annotation {number} is of picture {image_id!r}, which is not listed"
        elif category not in categories:
            why = f"annotation {number} has unknown category {entry.get('category_id')!r}"
        elif box is None:
            why = f"annotation {number} has no box of four numbers"
        else:
            if number is not None and _number(number) == 0:
                why = "annotation has id 0, which pycocotools counts as unmatched"
                report(broken, file, why, "object kept")
            elif number is not None and _key(number) in seen:
                report(broken, file, f"annotation id {number} comes twice", "object kept")
            seen.add(_key(number))
            area = _number(entry.get("area"))
            if area is None and entry.get("area") is not None:
                report(
                    broken, file, f"annotation {number} has an area that is no number", "the box's is taken"
                )
            objects_of[key].append(
                {
                    "id": number,
                    "category": int(category),
                    "bbox": box,
                    "area": box[2] * box[3] if area is None else area,
                    "crowd": bool(_number(entry.get("iscrowd"))),
                    "segmentation": entry.get("segmentation"),
                    "keypoints": entry.get("keypoints"),
                }
            )
            continue
        report(broken, file, why, SKIPPED)
    return objects_of


def _key(value: object) -> str:
    """An id by which entries find each other, whether it is written as a number or as a text."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _number(value: object) -> float | None:
    """A finite number, also where it is written as a text; None for anything else."""
    if type(value) is float and -math.inf < value < math.inf:
        return value  # nearly all are, of millions
    if not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _numbers(values: object, count: int) -> list[float] | None:
    """A list of so many finite numbers; None for anything else."""
    if not isinstance(values, list) or len(values) != count:
        return None
    numbers = [_number(value) for value in values]
    return None if None in numbers else numbers


def _fields(
    objects: list[dict[str, Any]],
    index_of: dict[int, int],
    joint_count: int,
    broken: list[dict],
    width: int,
    height: int,
    file: str,
) -> dict[str, Any]:
    """The fields of a `Record` that tell of its objects, which are those of `_objects`."""
    written = np.array([entry["bbox"] for entry in objects], np.float64).reshape(-1, 4)
    fields, kept = annotated(
        np.concatenate([written[:, :2], written[:, :2] + written[:, 2:]], axis=1),
        [index_of[entry["category"]] for entry in objects],
        [f"annotation {entry['id']}" for entry in objects],
        width=width,
        height=height,
        file=file,
        broken=broken,
        crowd=[entry["crowd"] for entry in objects],
        areas=np.array([entry["area"] for entry in objects], np.float64),
        box_areas=written[:, 2] * written[:, 3],
    )
    joints = []
    for entry in (objects[k] for k in kept):
        points = _numbers(entry["keypoints"], 3 * joint_count) if joint_count else None
        if joint_count and entry["keypoints"] and points is None:
            why = f"annotation {entry['id']} has no {joint_count} keypoints of three numbers"
            report(broken, file, why, "joints left out")
        joints.append(points or [0] * (3 * joint_count))
    if joint_count:
        fields["joints"] = np.array(joints, np.float32).reshape(-1, joint_count, 3)
    shapes = [_shape(entry, broken, width, height, file) for entry in objects]
    own = [shapes[k] for k in kept]
    if any(shape is not None for shape in own):
        fields["masks"] = lambda: np.array([masks.draw(shape, height, width) for shape in own])
    if any(shape is not None for shape in shapes):
        fields["truth"].masks = lambda: [masks.runs(shape, height, width) for shape in shapes]
    return fields


def _shape(entry: dict[str, Any], broken: list[dict], width: int, height: int, file: str) -> masks.Shape:
    """The mask of an object; None where it has none, or where nobody can draw it."""
    if not (width and height):
        return None
    try:
        shape = masks.compact(entry["segmentation"], height, width)
    except InputError as error:
        why = f"annotation {entry['id']}: its segmentation is {error}"
        report(broken, file, why, "mask left out")
        return None
    if masks.sticks_out(shape, height, width):
        why = f"annotation {entry['id']}: its polygons stick out of the picture of {width}x{height}"
        report(broken, file, why, "mask clipped")
    return shape
