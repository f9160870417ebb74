"""PASCAL VOC, 2007 to 2012, and every set in its layout: Annotations/*.xml, ImageSets/Main/*.txt, JPEGImages.

VOC's corners are 1-based and inclusive: (xmin, ymin, xmax, ymax) is the box (xmin - 1, ymin - 1, xmax, ymax).
Source: the development kit of the PASCAL Visual Object Classes Challenge (Everingham et al., IJCV 88(2),
2010).
"""

import pathlib
import posixpath
import re
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from defusedxml import DefusedXmlException, ElementTree

from tfcnn import files, masks
from tfcnn.datasets import decode
from tfcnn.datasets.example import Dataset, Record, annotated, read_size, report
from tfcnn.datasets.root import Root, find
from tfcnn.errors import InputError
from tfcnn.sources import SUFFIXES

CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
).split()
PICTURES = (".jpg", ".jpeg", ".JPG", ".JPEG", ".png", ".PNG", ".bmp")  # in the order they are looked for
LISTS = ("Main/", "Segmentation/")  # where a split's list lies
CORNERS = ("xmin", "ymin", "xmax", "ymax")
VOID = 255  # in SegmentationObject, the border between objects


def read(path: str | pathlib.Path, split: str = "trainval", pictures: bool = True) -> Dataset:
    """Reads a split of a VOC set from a folder or a .zip.

    Args:
        path: a folder or .zip with Annotations and ImageSets at its top or one level down.
        split: a list of ImageSets/Main or else ImageSets/Segmentation ("train"), of another folder of ImageSets
            ("Layout/val"), or a text file of one's own; several are joined by "+". In a list with flags
            ("cat_train") pictures of flag -1 are left out.
        pictures: False for annotations alone, as evaluation needs them: then no picture has to be there.

    Returns:
        The data set. Its classes are those of categories.json; else VOC's 20, where the annotations of all
        splits name no other; else the names found in all splits, sorted.

    Raises:
        InputError: no such set or split.
    """
    root = find(path, _is_root, "the folders Annotations and ImageSets")
    broken: list[dict] = []
    parsed, names_of = [], {}
    for image_id in _split_ids(root, split):
        file = f"Annotations/{image_id}.xml"
        if not root.exists(file):
            report(broken, file, "the annotation is missing", "picture skipped")
            continue
        annotation = parse_annotation(root.read(file), file, broken)
        if annotation is not None:
            parsed.append((image_id, file, annotation))
            names_of[file] = {obj["name"] for obj in annotation["objects"]}
    classes, category_ids = _classes(root, names_of, split, broken)
    index_of = {name: index for index, name in enumerate(classes)}
    records = [_record(root, *entry, index_of, pictures, broken) for entry in parsed]
    examples = [record for record in records if record is not None]
    return Dataset("voc", classes, category_ids, examples, broken)


def _is_root(root: Root) -> bool:
    return "ImageSets" in root.folders() and bool(root.folders("Annotations") or root.files("Annotations"))


def _split_ids(root: Root, split: str) -> list[str]:
    ids: dict[str, None] = {}
    for name in split.split("+"):
        lists = [f"ImageSets/{folder}{name}.txt" for folder in (("",) if "/" in name else LISTS)]
        if file := next(filter(root.exists, lists), None):
            lines = root.text(file).splitlines()
        elif name.endswith(".txt") and pathlib.Path(name).is_file():
            lines = files.read_lines(name)
        else:
            lists = {
                f[:-4] for folder in LISTS for f in root.files(f"ImageSets/{folder}") if f.endswith(".txt")
            }
            known = sorted(name for name in lists if "_" not in name)
            raise InputError(f"{root} has no split {name!r}: it has {', '.join(known) or 'none'}")
        ids |= dict.fromkeys(_image_ids(root, lines))
    return list(ids)


def _image_ids(root: Root, lines: list[str]) -> Iterator[str]:
    """The pictures of a list. A line is a name, blanks and all; the development kit's last column, 1, 0 or -1 for
    a class's own list, is cut where no annotation has it in its name, and so are a picture's folder and suffix."""
    for line in filter(None, map(str.strip, lines)):
        name, flag = re.fullmatch(r"(.*?)(?:\s+(-1|0|1))?", line).groups()
        candidates = [line, name]
        for each in (line, name):
            stem, suffix = posixpath.splitext(posixpath.basename(each.replace("\\", "/")))
            candidates.append(stem if suffix.lower() in (".xml", *SUFFIXES) else stem + suffix)
        found = next((c for c in candidates if root.exists(f"Annotations/{c}.xml")), name)
        if flag != "-1" or found == line:
            yield found


def categories(root: Root) -> list[dict[str, Any]] | None:
    """The classes that a set of VOC's or ImageNet's layout lists itself.

    Args:
        root: of the set.

    Returns:
        The entries of its categories.json, [{"id", "name", ...}]; None where it has none.

    Raises:
        InputError: it is no such list.
    """
    if not root.exists("categories.json"):
        return None
    try:
        entries = files.from_json(root.text("categories.json"), "the file")
        if type(entries) is not list or not all(
            type(entry["name"]) is str and type(entry["id"]) is int for entry in entries
        ):
            raise ValueError("a name is a text, an id a whole number")
        for keys in (
            [entry["id"] for entry in entries],
            [entry.get("synset", entry["name"]) for entry in entries],
        ):
            if len(set(keys)) < len(keys):
                raise ValueError("each has an id and a name of its own")
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f'{root}/categories.json is no list of {{"id", "name"}} ({error})') from None
    return entries


def _classes(
    root: Root, names_of: dict[str, set[str]], split: str, broken: list[dict]
) -> tuple[list[str], list[int]]:
    """Names and ids of the classes.

    Args:
        names_of: the names of the objects in each annotation that was parsed.
    """
    if (entries := categories(root)) is not None:
        return [entry["name"] for entry in entries], [entry["id"] for entry in entries]
    own = set().union(*names_of.values()) - {""}
    found = set(own)
    for name in root.walk("Annotations"):
        file = f"Annotations/{name}"
        if file not in names_of and name.endswith(".xml"):
            found |= _object_names(root.read(file), file) - {""}
    if found <= set(CLASSES):
        return list(CLASSES), list(range(1, len(CLASSES) + 1))
    if len(found & set(CLASSES)) >= len(CLASSES) // 2:
        why = f"{', '.join(sorted(found - set(CLASSES)))} beside VOC's own classes"
        report(
            broken, "Annotations", why, "the classes are all names found; a categories.json says otherwise"
        )
    if lacking := sorted(found - own):
        why = f"no object of {', '.join(lacking)} here, but in other splits"
        report(broken, split, why, "class kept; a categories.json beside Annotations says which there are")
    return sorted(found), list(range(1, len(found) + 1))


def _object_names(data: bytes, file: str) -> set[str]:
    """Names of the objects of an annotation of another split. What is plain is not parsed: a set has thousands."""
    if not data.isascii() or any(sign in data for sign in (b"&", b"<!", b"\0")):
        annotation = parse_annotation(data, file, [])
        return {obj["name"] for obj in annotation["objects"]} if annotation else set()
    found = set()
    for element in re.findall(rb"<object\b[^>]*>(.*?)</object>", data, re.DOTALL):
        name = re.search(rb"<name>([^<]*)<", re.sub(rb"<part>.*?</part>", b"", element, flags=re.DOTALL))
        if name and b"bndbox" in element:
            found.add(name[1].decode().strip())
    return found


def parse_annotation(data: bytes, file: str, broken: list[dict]) -> dict[str, Any] | None:
    """Reads one XML file of VOC's or ImageNet's kind.

    Args:
        data: the file's bytes.
        file: its name, for the report.
        broken: list that what is wrong is added to.

    Returns:
        {"filename", "size": [width, height] (0 unknown), "objects": [{"name", "box": [xmin, ymin, xmax,
        ymax] as written, "difficult", "truncated", "position" (in the file, from 0)}]}; None where it is no
        annotation.
    """
    try:
        tree = _tree(data)
    except (ElementTree.ParseError, DefusedXmlException, LookupError, ValueError) as error:
        report(broken, file, f"not a readable annotation ({error})", "picture skipped")
        return None
    objects = []
    for position, element in enumerate(tree.iterfind("object")):
        name = (element.findtext("name") or "").strip()
        corners = element.find("bndbox")
        for parent, tags in ((element, ("name", "bndbox")), (corners, CORNERS)):
            for tag in tags if parent is not None else ():
                if (count := len(parent.findall(tag))) > 1:
                    why = f"object {position + 1} ({name}) has {count} elements {tag}"
                    report(broken, file, why, "the first is taken")
        try:
            box = [float(corners.findtext(key)) for key in CORNERS]
            if not np.isfinite(box).all():
                raise ValueError
        except (AttributeError, TypeError, ValueError):
            report(
                broken, file, f"object {position + 1} ({name}) has no box of four numbers", "object skipped"
            )
            continue
        objects.append(
            {
                "name": name,
                "box": box,
                "difficult": (element.findtext("difficult") or "0").strip() == "1",
                "truncated": (element.findtext("truncated") or "0").strip() == "1",
                "position": position,
            }
        )
    return {
        "filename": (tree.findtext("filename") or "").strip(),
        "size": [_number(tree.findtext(f"size/{key}")) for key in ("width", "height")],
        "objects": objects,
    }


def _tree(data: bytes) -> Element:
    """The XML tree. The parser itself knows UTF-8, UTF-16 and encodings of one byte a character; of others (GB2312,
    Shift JIS) the decoded text is parsed."""
    try:
        return ElementTree.fromstring(data)
    except (ValueError, LookupError):
        declared = re.match(rb"<\?xml[^>]*encoding\s*=\s*[\"']([\w.-]+)", data)
        if declared is None:
            raise
        return ElementTree.fromstring(data.decode(declared[1].decode()))


def _number(text: str | None) -> int:
    try:
        return int(float(text))
    except (TypeError, ValueError, OverflowError):
        return 0


def _picture_file(root: Root, image_id: str, filename: str) -> str | None:
    plain = [f"JPEGImages/{image_id}{suffix}" for suffix in PICTURES]
    named = [f"JPEGImages/{posixpath.basename(filename)}"] if filename else []
    return next((name for name in plain[:1] + named + plain[1:] if root.exists(name)), None)


def known_objects(
    annotation: dict[str, Any], index_of: dict[str, int], file: str, broken: list[dict]
) -> list[dict[str, Any]]:
    """The objects of an annotation whose class is known; the others are reported.

    Args:
        annotation: of `parse_annotation`.
        index_of: the index of each class by its name.
        file: the annotation's name, for the report.
        broken: list of what was wrong.
    """
    for obj in annotation["objects"]:
        if obj["name"] not in index_of:
            why = f"object {obj['position'] + 1} has unknown class {obj['name']!r}"
            report(broken, file, why, "object skipped")
    return [obj for obj in annotation["objects"] if obj["name"] in index_of]


def _record(
    root: Root,
    image_id: str,
    file: str,
    annotation: dict[str, Any],
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
            size = read_size(root.file(picture), picture, file, broken)
            if size is None:
                return None
            width, height = size
    known = known_objects(annotation, index_of, file, broken)
    names = [obj["name"] for obj in known]
    fields, kept = annotated(
        np.array([obj["box"] for obj in known], np.float64).reshape(-1, 4) - [1, 1, 0, 0],
        [index_of[name] for name in names],
        names,
        width=width,
        height=height,
        file=file,
        broken=broken,
        difficult=[obj["difficult"] for obj in known],
        truncated=[obj["truncated"] for obj in known],
    )
    if numbers := _segmentation(root, image_id, width, height):
        of_all = [obj["position"] + 1 for obj in known]
        own = np.array([of_all[k] for k in kept], np.int64)[:, None, None]
        fields["truth"].masks = lambda: _run_lengths(numbers(), of_all, width, height)
        fields |= {"masks": lambda: numbers() == own, "void": lambda: numbers() == VOID}
    return Record(
        image_id=image_id,
        file=picture,
        width=width,
        height=height,
        source=root.file(picture),
        **fields,
    )


def _segmentation(root: Root, image_id: str, width: int, height: int) -> Callable[[], np.ndarray] | None:
    """A call that gives the number of the object of each pixel, uint8 [H, W], or None where there is no such file.

    SegmentationObject numbers a picture's objects from 1 in the annotation's order; 255 is nobody's border. The file
    may be smaller than the annotation says where the picture is, too; one of another shape is an error.
    """
    file = f"SegmentationObject/{image_id}.png"
    if not root.exists(file):
        return None

    def numbers() -> np.ndarray:
        found = decode.indices(root.read(file), file)
        high, wide = found.shape
        if width and height and abs(high * width - wide * height) > max(width, height):
            raise InputError(f"{file} is {wide}x{high}, its annotation says {width}x{height}")
        return found

    return numbers


def _run_lengths(numbers: np.ndarray, of_all: list[int], width: int, height: int) -> list[dict | None]:
    """The run lengths of each object in pixels of the annotation, None of one that has no pixel."""
    if width and height:
        numbers = masks.resized(numbers, height, width)
    found = [numbers == number for number in of_all]
    return [masks.encode(mask) if mask.any() else None for mask in found]
