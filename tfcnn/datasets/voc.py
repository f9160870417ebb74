"""PASCAL VOC, 2007 to 2012, and every set in its layout: Annotations/*.xml, ImageSets/Main/*.txt, JPEGImages.

VOC's corners are 1-based and inclusive: (xmin, ymin, xmax, ymax) is the box (xmin - 1, ymin - 1, xmax, ymax).
Source: the development kit of the PASCAL Visual Object Classes Challenge (Everingham et al., IJCV 88(2),
2010).
"""

import json
import pathlib
import posixpath

import numpy as np
from defusedxml import DefusedXmlException, ElementTree

from tfcnn.datasets import decode
from tfcnn.datasets.example import Dataset, Record, Truth, checked_boxes, report
from tfcnn.datasets.root import Root, find
from tfcnn.errors import InputError

CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
).split()
SUFFIXES = (".jpg", ".jpeg", ".JPG", ".JPEG", ".png", ".PNG", ".bmp")


def read(path: str | pathlib.Path, split: str = "trainval", pictures: bool = True) -> Dataset:
    """Reads a split of a VOC set from a folder or a .zip.

    Args:
        path: a folder or .zip with Annotations and ImageSets at its top or one level down.
        split: a list of ImageSets/Main ("train"), of another folder of ImageSets ("Segmentation/val"), or
            a text file of one's own; several are joined by "+". In a list with flags ("cat_train")
            pictures of flag -1 are left out.
        pictures: False for annotations alone, as evaluation needs them: then no picture has to be there.

    Returns:
        The data set; classes come from categories.json, else are VOC's, else those that the annotations
        name, sorted.

    Raises:
        InputError: no such set or split.
    """
    root = find(
        path, lambda r: bool(r.folders("Annotations") or r.files("Annotations")) and _has_splits(r), _SIGN
    )
    broken: list[dict] = []
    parsed = []
    for image_id in _split_ids(root, split):
        file = f"Annotations/{image_id}.xml"
        if not root.exists(file):
            report(broken, file, "the annotation is missing", "picture skipped")
            continue
        annotation = parse_annotation(root.read(file), file, broken)
        if annotation is None:
            report(broken, file, "not a readable annotation", "picture skipped")
            continue
        parsed.append((image_id, file, annotation))
    classes, category_ids = _classes(root, [obj["name"] for _, _, a in parsed for obj in a["objects"]])
    index_of = {name: index for index, name in enumerate(classes)}
    examples = []
    for image_id, file, annotation in parsed:
        record = _record(root, image_id, file, annotation, index_of, pictures, broken)
        if record is not None:
            examples.append(record)
    return Dataset("voc", classes, category_ids, examples, broken)


_SIGN = "the folders Annotations and ImageSets"


def _has_splits(root: Root) -> bool:
    return "ImageSets" in root.folders()


def _split_ids(root: Root, split: str) -> list[str]:
    ids: dict[str, None] = {}
    for name in split.split("+"):
        file = f"ImageSets/{name}.txt" if "/" in name else f"ImageSets/Main/{name}.txt"
        if root.exists(file):
            text = root.text(file)
        elif name.endswith(".txt") and pathlib.Path(name).is_file():
            text = pathlib.Path(name).read_text()
        else:
            known = [f[:-4] for f in root.files("ImageSets/Main") if f.endswith(".txt") and "_" not in f]
            raise InputError(f"{root} has no split {name!r}: it has {', '.join(known) or 'none'}")
        for line in text.splitlines():
            words = line.split()
            if words and (len(words) == 1 or words[1] != "-1"):
                ids[words[0]] = None
    return list(ids)


def _classes(root: Root, named: list[str]) -> tuple[list[str], list[int]]:
    if root.exists("categories.json"):
        categories = json.loads(root.text("categories.json"))
        return [c["name"] for c in categories], [c["id"] for c in categories]
    found = set(named)
    # A set of one's own may share some names with VOC ("car", "person"): it is VOC's only if most names are.
    ours = CLASSES if len(found - set(CLASSES)) <= len(found & set(CLASSES)) // 2 else sorted(found)
    return list(ours), list(range(1, len(ours) + 1))


def parse_annotation(data: bytes, file: str, broken: list[dict]) -> dict | None:
    """Reads one XML file of VOC's or ImageNet's kind.

    Args:
        data: the file's bytes.
        file: its name, for the report.
        broken: list that objects without a box are reported to.

    Returns:
        {"filename", "size": [width, height] (0 unknown), "objects": [{"name", "box": [xmin, ymin, xmax,
        ymax] as written, "difficult", "truncated", "place" (in the file, from 0)}]}; None where it is no
        annotation.
    """
    try:
        tree = ElementTree.fromstring(data)
    except (ElementTree.ParseError, DefusedXmlException):
        return None
    objects = []
    for place, element in enumerate(tree.iterfind("object")):
        name = (element.findtext("name") or "").strip()
        corners = element.find("bndbox")
        try:
            box = [float(corners.findtext(key)) for key in ("xmin", "ymin", "xmax", "ymax")]
            if not np.isfinite(box).all():
                raise ValueError
        except (AttributeError, TypeError, ValueError):
            report(broken, file, f"object {place + 1} ({name}) has no box of four numbers", "object skipped")
            continue
        objects.append(
            {
                "name": name,
                "box": box,
                "difficult": (element.findtext("difficult") or "0").strip() == "1",
                "truncated": (element.findtext("truncated") or "0").strip() == "1",
                "place": place,
            }
        )
    return {
        "filename": (tree.findtext("filename") or "").strip(),
        "size": [_number(tree.findtext(f"size/{key}")) for key in ("width", "height")],
        "objects": objects,
    }


def _number(text: str | None) -> int:
    try:
        return int(float(text))
    except (TypeError, ValueError, OverflowError):
        return 0


def _picture_file(root: Root, image_id: str, filename: str) -> str | None:
    plain = [f"JPEGImages/{image_id}{suffix}" for suffix in SUFFIXES]
    named = [f"JPEGImages/{posixpath.basename(filename)}"] if filename else []
    return next((name for name in plain[:1] + named + plain[1:] if root.exists(name)), None)


def _record(
    root: Root,
    image_id: str,
    file: str,
    annotation: dict,
    index_of: dict[str, int],
    pictures: bool,
    broken: list[dict],
) -> Record | None:
    picture = f"JPEGImages/{image_id}.jpg"
    width, height = annotation["size"]
    if pictures:
        picture = _picture_file(root, image_id, annotation["filename"])
        if picture is None:
            report(broken, file, f"no picture JPEGImages/{image_id}.*", "picture skipped")
            return None
        if width <= 0 or height <= 0:
            report(broken, file, "no size of the picture", "size read from the picture")
            try:
                height, width = decode.picture(root.read(picture), picture).shape[:2]
            except InputError as error:
                report(broken, picture, str(error), "picture skipped")
                return None
    known = []
    for obj in annotation["objects"]:
        if obj["name"] in index_of:
            known.append(obj)
        else:
            report(
                broken, file, f"object {obj['place'] + 1} has unknown class {obj['name']!r}", "object skipped"
            )
    corners = np.array([obj["box"] for obj in known], np.float64).reshape(-1, 4) - [1, 1, 0, 0]
    names = [obj["name"] for obj in known]
    labels = np.array([index_of[name] for name in names], np.int32)
    difficult = np.array([obj["difficult"] for obj in known], bool)
    areas = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    boxes, kept = checked_boxes(corners, names, width, height, file, broken)
    return Record(
        image_id=image_id,
        file=picture,
        width=width,
        height=height,
        source=root.file(picture),
        boxes=boxes,
        labels=labels[kept],
        difficult=difficult[kept],
        truncated=np.array([obj["truncated"] for obj in known], bool)[kept],
        masks=_masks(root, image_id, [known[k]["place"] for k in kept]),
        truth=Truth(corners, areas, areas, labels, difficult),
    )


def _masks(root: Root, image_id: str, places: list[int]):
    """SegmentationObject numbers a picture's objects from 1 in the annotation's order; 255 is nobody's
    border."""
    file = f"SegmentationObject/{image_id}.png"
    if not root.exists(file):
        return None

    def masks() -> np.ndarray:
        numbers = decode.indices(root.read(file), file)
        return np.array([numbers == place + 1 for place in places], bool).reshape(-1, *numbers.shape)

    return masks
