"""What every reader gives: records of pictures with their objects, and what was wrong with the files.

M objects of a picture, J joints. Boxes are (x1, y1, x2, y2) in pixels of the file, continuous: pixel i
covers [i, i+1).
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from tfcnn import images
from tfcnn.datasets import decode
from tfcnn.errors import InputError

NOTHING = np.zeros((0, 4), np.float32)
# EXIF's orientations of a quarter turn, as a person sees them: the stored x and y change places, then these axes
# (x, y) are mirrored.
QUARTER_TURNS = {5: (False, False), 6: (True, False), 7: (True, True), 8: (False, True)}


def evenly(items: Sequence, count: int) -> list:
    """Takes `count` of the items, evenly spread over them, or all where there are fewer."""
    return [items[i * len(items) // count] for i in range(count)] if count < len(items) else list(items)


@dataclasses.dataclass(slots=True, eq=False)
class Truth:
    """All objects of a picture just as the annotation has them, before any rule of training: what
    evaluation counts.

    Attributes:
        boxes: float64 [T, 4], continuous corners of the numbers as written (COCO: x, y, x + w, y + h);
            never clipped.
        box_areas: float64 [T], width times height as written (COCO: w * h).
        areas: float64 [T], the annotated area (COCO's `area`), elsewhere the box's.
        labels: int32 [T], 0..K-1.
        ignored: bool [T], objects that are neither to be found nor wrong to be found: VOC's difficult,
            COCO's crowd.
        joints: float64 [J, 3] of the one person of a pose set: x, y, and above 0 where the joint is
            annotated.
        masks: a call that gives the run lengths of each of the T objects, {"size": [H, W], "counts"} of the
            annotation's size, None of an object without a mask; None where the picture has no masks.
        annotated_areas: whether `areas` are the annotation's own and not the boxes'.
    """

    boxes: np.ndarray
    box_areas: np.ndarray
    areas: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    joints: np.ndarray | None = None
    masks: Callable[[], list[dict | None]] | None = None
    annotated_areas: bool = False


@dataclasses.dataclass(slots=True, eq=False)
class Record:
    """One picture and what is known of it; its pixels are read when asked for.

    Attributes:
        image_id: the data set's own id (COCO's number), or the file's stem.
        file: the picture's name in the data set, to show to people.
        width, height: pixels of the file as a person sees it; 0 where only the picture itself tells.
        source: a call that gives the encoded file as bytes, or the pixels as uint8 [H, W, 3].
        boxes: float32 [M, 4].
        labels: int32 [M], 0..K-1.
        difficult: bool [M], VOC's flag.
        truncated: bool [M], VOC's flag.
        crowd: bool [M], COCO's iscrowd.
        area: float32 [M], COCO's annotated area, elsewhere the box's.
        label: the picture's own class in a classification set, else -1.
        joints: float32 [M, J, 3] as x, y, visible (0 or 1), or None.
        masks: a call that gives bool [M, H, W], or None; of an object without a mask nothing but False.
        void: a call that gives bool [H, W], the pixels that count for nobody (the border in VOC's masks), or None.
        truth: the annotation's own objects in float64 for evaluation; None in sets without boxes.
    """

    image_id: int | str
    file: str
    width: int
    height: int
    source: Callable[[], bytes | np.ndarray]
    boxes: np.ndarray = dataclasses.field(default_factory=lambda: NOTHING)
    labels: np.ndarray | None = None
    difficult: np.ndarray | None = None
    truncated: np.ndarray | None = None
    crowd: np.ndarray | None = None
    area: np.ndarray | None = None
    label: int = -1
    joints: np.ndarray | None = None
    masks: Callable[[], np.ndarray] | None = None
    void: Callable[[], np.ndarray] | None = None
    truth: Truth | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.labels is None:
            self.labels = np.zeros(count, np.int32)
        for name in ("difficult", "truncated", "crowd"):
            if getattr(self, name) is None:
                setattr(self, name, np.zeros(count, bool))
        if self.area is None:
            self.area = (self.boxes[:, 2] - self.boxes[:, 0]) * (self.boxes[:, 3] - self.boxes[:, 1])

    def image(self) -> np.ndarray:
        """The picture, uint8 [H, W, 3] RGB, as a person sees it.

        Raises:
            InputError: the file is missing or is no whole picture.
        """
        data = self.source()
        return data if isinstance(data, np.ndarray) else decode.picture(data, self.file)

    def placement(self, shape: tuple[int, ...]) -> images.Placement:
        """Where the annotation's pixels lie in the picture: its boxes go there by `from_file`, detections come
        back to be compared with `truth` by `to_file`.

        They differ where a picture was made smaller after it was annotated, and where a tool annotated the
        stored pixels of a picture that EXIF turns by a quarter: then one of the two is upright and the other
        is not.

        Args:
            shape: (H, W, ...) of the picture, as `image` gives it.
        """
        height, width = shape[:2]
        if not self.width or (self.width, self.height) == (width, height):
            return images.Placement(1.0, 1.0)
        if (self.width - self.height) * (width - height) < 0:
            data = self.source()
            orientation = decode.orientation(data) if isinstance(data, bytes) else 1
            if orientation in QUARTER_TURNS:
                mirror_x, mirror_y = QUARTER_TURNS[orientation]
                scale_x, scale_y = width / self.height, height / self.width
                return images.Placement(
                    -scale_x if mirror_x else scale_x,
                    -scale_y if mirror_y else scale_y,
                    width if mirror_x else 0.0,
                    height if mirror_y else 0.0,
                    swapped=True,
                )
        return images.Placement(width / self.width, height / self.height)

    def drawn_masks(self, shape: tuple[int, int]) -> dict[str, np.ndarray]:
        """The objects' masks, in pixels of the picture or in the annotation's.

        Args:
            shape: (H, W) of the picture, as `image` gives it.

        Returns:
            {masks: bool [M, H, W], void: bool [H, W]}, all False where the picture has none.

        Raises:
            InputError: they are of a third size, or cannot be read.
        """
        shown = self.masks() if self.masks else np.zeros((len(self.boxes), *shape), bool)
        sides = shown.shape[1:]
        if sides not in (shape, (self.height, self.width)):
            raise InputError(
                f"{self.file} is {shape[1]}x{shape[0]}, its annotation says {self.width}x{self.height}, and its masks "
                f"are {sides[1]}x{sides[0]}"
            )
        return {"masks": shown, "void": self.void() if self.void else np.zeros(sides, bool)}

    def misfit(self, shape: tuple[int, ...]) -> tuple[str, str] | None:
        """How a picture and its annotation do not fit.

        Args:
            shape: (H, W, ...) of the picture, as `image` gives it.

        Returns:
            (what does not fit, what is done about it); None where they fit.
        """
        at = self.placement(shape)
        if at == images.Placement(1.0, 1.0):
            return None
        why = f"the picture is {shape[1]}x{shape[0]}, its annotation says {self.width}x{self.height}"
        if at.swapped:
            return why, "boxes turned with the picture, as EXIF says"
        return why, "boxes scaled with the picture"


@dataclasses.dataclass(slots=True)
class Dataset:
    """A data set as its reader understood it.

    Attributes:
        name: of its reader.
        classes: names of the K classes.
        category_ids: the data set's own id of each class (COCO's have gaps); the index + 1 elsewhere.
        examples: the pictures, in the split's order.
        broken: what was wrong: {"file", "why", "rule"}, the rule being what was done about it.
        joints: names of the J joints of a pose set.
        skeleton: the pairs of joints, 0..J-1, that are connected in a drawing.
    """

    name: str
    classes: list[str]
    category_ids: list[int]
    examples: list[Record]
    broken: list[dict] = dataclasses.field(default_factory=list)
    joints: list[str] = dataclasses.field(default_factory=list)
    skeleton: list[tuple[int, int]] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.examples)

    def fingerprint(self) -> str:
        """What would make another training of the same flags: counts, and a code each of the classes, the objects
        and the pictures' files, so that two fingerprints say what differs. No picture is read.

        Returns:
            e.g. "2500 pictures, classes 5f1c2a9e, objects 81d02f77, files 0c9e4b13"; the same for a folder and
            the .zip of it.
        """
        classes, objects, files = (hashlib.sha256() for _ in range(3))
        classes.update(repr((self.classes, self.category_ids, self.joints)).encode())
        for record in self.examples:
            size = getattr(record.source, "size", None)
            files.update(repr((record.image_id, record.file, size)).encode())
            objects.update(repr((record.label, record.width, record.height)).encode())
            columns = [record.boxes, record.labels, record.difficult, record.crowd, record.joints]
            for column in columns:
                objects.update(b"-" if column is None else np.ascontiguousarray(column).tobytes())
        codes = [code.hexdigest()[:8] for code in (classes, objects, files)]
        return "{} pictures, classes {}, objects {}, files {}".format(len(self.examples), *codes)

    def notes(self, count: int = 16) -> list[str]:
        """What a person should know of how ground truth and pictures fit together, a sentence each.

        Args:
            count: pictures to look at, evenly spread; they are read.
        """
        looked_at, found = 0, {}
        for record in evenly(self.examples, count):
            if not record.width:
                continue
            try:
                image = record.image()
            except InputError:  # named where the picture is used
                continue
            looked_at += 1
            if misfit := record.misfit(image.shape):
                found.setdefault(misfit[1], []).append((record.file, misfit[0]))
        return [
            f"{len(misfits)} of {looked_at} pictures looked at do not fit their annotations "
            f"({misfits[0][0]}: {misfits[0][1]}): {rule}"
            for rule, misfits in found.items()
        ]


def annotated(
    corners: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    width: int,
    height: int,
    file: str,
    broken: list[dict],
    difficult: np.ndarray | None = None,
    truncated: np.ndarray | None = None,
    crowd: np.ndarray | None = None,
    areas: np.ndarray | None = None,
    box_areas: np.ndarray | None = None,
    slack: float = 0.5,
) -> tuple[dict, np.ndarray]:
    """The fields of a `Record` that tell of its objects: the annotation's own for evaluation, and those that can be
    trained on.

    Args:
        corners: [T, 4], continuous corners of the numbers as written.
        labels: [T].
        names: T names for the report: of the objects' classes, or of the annotation's entries.
        width, height: the picture's size; 0 unknown.
        file: the annotation's name, for the report.
        broken: list of what was wrong.
        difficult, truncated, crowd: bool [T]; all False by default.
        areas: [T], the annotated ones; by default the boxes'.
        box_areas: [T], width times height as written.
        slack: of `checked_boxes`.

    Returns:
        (keyword arguments of `Record`, the indices int [M] of the T objects that were kept).
    """
    corners = np.asarray(corners, np.float64).reshape(-1, 4)
    labels = np.asarray(labels, np.int32).reshape(-1)
    none = np.zeros(len(corners), bool)
    flags = {
        name: none if flag is None else np.asarray(flag, bool).reshape(-1)
        for name, flag in (("difficult", difficult), ("truncated", truncated), ("crowd", crowd))
    }
    if box_areas is None:
        box_areas = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    ignored = flags["difficult"] | flags["crowd"]
    own_areas = areas is not None
    truth = Truth(corners, box_areas, areas if own_areas else box_areas, labels, ignored)
    truth.annotated_areas = own_areas
    boxes, kept = checked_boxes(corners, names, width, height, file, broken, slack)
    fields = {"boxes": boxes, "labels": labels[kept], "truth": truth}
    fields |= {name: flag[kept] for name, flag in flags.items()}
    if areas is not None:
        fields["area"] = areas[kept].astype(np.float32)
    return fields, kept


def read_size(
    source: Callable[[], bytes], picture: str, annotation: str, broken: list[dict]
) -> tuple[int, int] | None:
    """Width and height of a picture whose annotation does not tell them.

    Args:
        source: gives the encoded picture.
        picture, annotation: names, for the report.
        broken: list of what was wrong.

    Returns:
        Pixels as a person sees the picture; None where it cannot be read: then it is skipped.
    """
    report(broken, annotation, "no size of the picture", "size read from the picture")
    try:
        return decode.size(source(), picture)
    except InputError as error:
        report(broken, picture, str(error), "picture skipped")
        return None


def checked_boxes(
    boxes: np.ndarray,
    names: Sequence[str],
    width: int,
    height: int,
    file: str,
    broken: list[dict],
    slack: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that can be trained on, by rules that every reader shares.

    A box that is not finite, inverted, empty or wholly outside the picture is skipped; one that sticks out
    is clipped. Each case is added to `broken`. Sizes of 0 mean that the picture's size is not known: then
    nothing is clipped.

    Args:
        boxes: float64 [M, 4], continuous pixels.
        names: M names of the objects' classes, for the report.
        width, height: the picture's size in pixels.
        file: the annotation's name, for the report.
        broken: list to which {"file", "why", "rule"} are added.
        slack: pixels that a box may stick out without a report: the rounding of whoever wrote it.

    Returns:
        float32 [M', 4] clipped boxes, and the indices int [M'] of those kept.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    edge = np.array([width, height] * 2, np.float64) if width and height else np.full(4, np.inf)
    low = 0.0 if width and height else -np.inf
    with np.errstate(invalid="ignore", over="ignore"):
        clipped = np.clip(boxes, low, edge).astype(np.float32)
        finite = np.isfinite(boxes).all(1) & np.isfinite(clipped).all(1)
        good = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & finite
        inside = good & (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
        out = np.abs(clipped - boxes).max(axis=1, initial=0) > slack
    if inside.all() and not out.any():
        return clipped, np.arange(len(boxes))
    for index, box in enumerate(boxes):
        if not finite[index]:
            why, rule = "is not finite", "object skipped"
        elif not good[index]:
            inverted = box[2] < box[0] or box[3] < box[1]
            why, rule = "is inverted" if inverted else "is empty", "object skipped"
        elif not inside[index]:
            why, rule = f"lies outside the picture of {width}x{height}", "object skipped"
        elif out[index]:
            why, rule = f"sticks out of the picture of {width}x{height}", "box clipped"
        else:
            continue
        numbers = ", ".join(f"{number:g}" for number in box)
        report(broken, file, f"box [{numbers}] of object {index + 1} ({names[index]}) {why}", rule)
    kept = np.flatnonzero(inside)
    return clipped[kept], kept


def report(broken: list[dict], file: str, why: str, rule: str) -> None:
    """Adds one finding.

    Args:
        broken: list to which {"file", "why", "rule"} is added.
        file: which file, picture or split.
        why: what is wrong.
        rule: what was done about it.
    """
    broken.append({"file": file, "why": why.removeprefix(f"{file}: "), "rule": rule})
