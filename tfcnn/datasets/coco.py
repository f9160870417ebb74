"""MS-COCO and every set in its JSON: instances, crowds, person keypoints, polygons and run lengths.

Category ids need not be contiguous: class k is the k-th category by id. A box is x, y, width, height from 0.
Source: cocodataset.org, "Data format"; cocodataset/cocoapi.
"""

import json
import math
import pathlib
from collections.abc import Callable

import numpy as np

from tfcnn.datasets import masks
from tfcnn.datasets.example import Dataset, Record, Truth, checked_boxes, report
from tfcnn.datasets.root import Root, find
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
        `joints` [M, J, 3], whose last number is 0 for not labelled, 1 for hidden, 2 for visible.

    Raises:
        InputError: no such set, split or annotation, or not COCO's JSON.
    """
    root, name, text = _locate(path, split, annotations)
    content = _content(text, name)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    broken: list[dict] = []
    objects_of = _objects(content, {category["id"] for category in categories}, name, broken)
    index_of = {category["id"]: index for index, category in enumerate(categories)}
    joints = next((list(category["keypoints"]) for category in categories if category.get("keypoints")), [])
    place = _pictures(root) if root is not None and pictures else None
    examples = []
    for image in content["images"]:
        objects = objects_of.pop(image["id"], None)
        if objects is None:
            report(broken, name, f"picture id {image['id']} comes twice", "picture skipped")
            continue
        file = str(image.get("file_name", image["id"]))
        found = place(file) if place is not None else file
        if found is None:
            report(broken, file, "the picture is missing", "picture skipped")
            continue
        source = root.file(found) if root is not None else _no_pictures(name)
        examples.append(_record(image, found, source, objects, index_of, len(joints), broken))
    names, ids = [category["name"] for category in categories], [category["id"] for category in categories]
    return Dataset("coco", names, ids, examples, broken, joints)


def _locate(path, split, annotations) -> tuple[Root | None, str, str]:
    """The set's root (None for annotations alone), and the name and the text of the annotations."""
    if annotations is not None and pathlib.Path(annotations).is_file():
        text = pathlib.Path(annotations).read_text(encoding="utf-8-sig", errors="replace")
        return None if path is None else _root_of_pictures(path), str(annotations), text
    if path is None:
        raise InputError(
            f"No annotation file at {annotations}" if annotations else "Name COCO's annotation file"
        )
    if annotations is not None:
        root = find(path, lambda r: r.exists(str(annotations)), str(annotations))
        return root, str(annotations), root.text(str(annotations))
    root = find(path, lambda r: bool(_splits(r)), "annotations/instances_*.json")
    splits = _splits(root)
    fitting = [s for s in splits if split in (None, s) or s.rstrip("0123456789") == split]
    if split not in splits and len(fitting) != 1:
        raise InputError(f"{root} has the splits {', '.join(splits)}: name one, not {split or 'none'}")
    file = splits[split if split in splits else fitting[0]]
    return root, file, root.text(file)


def _splits(root: Root) -> dict[str, str]:
    """The annotation file of each split."""
    files = [
        file for file in root.files("annotations") if file.startswith("instances_") and file.endswith(".json")
    ]
    own = {folder: f"{folder}/_annotations.coco.json" for folder in root.folders()}
    return {file[len("instances_") : -len(".json")]: f"annotations/{file}" for file in files} | {
        folder: file for folder, file in own.items() if root.exists(file)
    }


def _root_of_pictures(path: str | pathlib.Path) -> Root:
    """The one folder of a set that packs everything into one, else the top."""
    top = Root(path)
    folders = top.folders()
    return (
        top.at(folders[0]) if len(folders) == 1 and not top.files() and top.at(folders[0]).folders() else top
    )


def _pictures(root: Root) -> Callable[[str], str | None]:
    """A search for a picture by the name that the annotations give it: as it is, or in a folder of the
    set."""
    folders = ["", *(folder + "/" for folder in root.folders())]
    folders += [f"images/{folder}/" for folder in root.folders("images")]

    def place(file: str) -> str | None:
        for index, folder in enumerate(folders):
            if root.exists(folder + file):
                folders.insert(0, folders.pop(index))  # the next picture most likely lies there too
                return folder + file
        return None

    return place


def _no_pictures(name: str) -> Callable[[], bytes]:
    def source():
        raise InputError(f"{name} was read without its pictures: name the folder that holds them (--data)")

    return source


def _content(text: str, name: str) -> dict:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{name} is no JSON: {error}") from None
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise InputError(f"{name} is not COCO's JSON: it needs the lists images, annotations and categories")
    return content


def _objects(content: dict, categories: set, name: str, broken: list[dict]) -> dict:
    """Annotations of each picture id, without those that no rule can save."""
    objects_of: dict = {image["id"]: [] for image in content["images"]}
    files = {image["id"]: str(image.get("file_name", image["id"])) for image in content["images"]}
    seen: set = set()
    for entry in content["annotations"]:
        number, image_id = entry.get("id"), entry.get("image_id")
        file = files.get(image_id, name)
        if image_id not in objects_of:
            report(
                broken, file, f"annotation {number} is of picture {image_id}, which is not listed", SKIPPED
            )
            continue
        if entry.get("category_id") not in categories:
            report(
                broken, file, f"annotation {number} has unknown category {entry.get('category_id')}", SKIPPED
            )
            continue
        if not _four_numbers(entry.get("bbox")):
            report(broken, file, f"annotation {number} has no box of four numbers", SKIPPED)
            continue
        if number == 0:
            report(broken, file, "annotation has id 0, which pycocotools counts as unmatched", "object kept")
        elif number in seen:
            report(broken, file, f"annotation id {number} comes twice", "object kept")
        seen.add(number)
        objects_of[image_id].append(entry)
    return objects_of


def _four_numbers(box) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(type(number) in (int, float) and math.isfinite(number) for number in box)
    )


def _record(image, file, source, objects, index_of, joint_count, broken) -> Record:
    width, height = int(image.get("width") or 0), int(image.get("height") or 0)
    written = np.array([entry["bbox"] for entry in objects], np.float64).reshape(-1, 4)
    corners = np.concatenate([written[:, :2], written[:, :2] + written[:, 2:]], axis=1)
    labels = np.array([index_of[entry["category_id"]] for entry in objects], np.int32)
    crowd = np.array([bool(entry.get("iscrowd", 0)) for entry in objects], bool)
    box_areas = written[:, 2] * written[:, 3]
    areas = np.array(
        [float(entry.get("area", w_h)) for entry, w_h in zip(objects, box_areas, strict=True)], np.float64
    )
    names = [f"annotation {entry.get('id')}" for entry in objects]
    boxes, kept = checked_boxes(corners, names, width, height, file, broken)
    joints = None
    if joint_count:
        empty = [0] * (3 * joint_count)
        points = [objects[k].get("keypoints") or empty for k in kept]
        joints = np.array(points, np.float32).reshape(-1, joint_count, 3)
    shapes = [_compact(objects[k].get("segmentation")) for k in kept]
    return Record(
        image_id=image["id"],
        file=file,
        width=width,
        height=height,
        source=source,
        boxes=boxes,
        labels=labels[kept],
        crowd=crowd[kept],
        area=areas[kept].astype(np.float32),
        joints=joints,
        masks=_masks(shapes, height, width, file) if any(shape is not None for shape in shapes) else None,
        truth=Truth(corners, box_areas, areas, labels, crowd),
    )


def _compact(segmentation):
    """A segmentation without Python's numbers, which would fill the memory: polygons, runs or compressed
    runs."""
    if isinstance(segmentation, list) and segmentation:
        return [np.array(polygon, np.float32) for polygon in segmentation if len(polygon) >= 6]
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        return counts if isinstance(counts, str) else np.array(counts, np.uint32)
    return None


def _masks(shapes: list, height: int, width: int, file: str) -> Callable[[], np.ndarray]:
    def draw(shape) -> np.ndarray:
        if shape is None:
            return np.zeros((height, width), bool)
        if isinstance(shape, list):
            return masks.from_polygons(shape, height, width)
        return masks.from_runs(shape, height, width)

    def draw_all() -> np.ndarray:
        try:
            return np.array([draw(shape) for shape in shapes], bool).reshape(-1, height, width)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None

    return draw_all
