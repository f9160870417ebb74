"""The objects that templates of HOG learn from: sorted by class and aspect, stretched to one shape, facing one side.

Letters: n objects, kh kw a template's sides in cells, D features of a cell.

Source: Felzenszwalb et al. 2010, section 5.2 (components by aspect, warped positives); the facings: release 4 of the
authors' program.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfcnn import images
from tfcnn.datasets import Dataset, Record
from tfcnn.errors import InputError
from tfcnn.ops import hog

ASPECTS = (2.6, 1.6, 1.0, 0.62, 0.42)  # height over width: all templates have one of these shapes
FEWEST = 20  # whole objects of a class; with less, cut off ones are taken, too
ALIKE = 1.5  # the most by which the aspect of an object that a given window learns from differs, as a factor
COVERED = 0.5  # least IoU that the smallest window can have with an object to learn from


@dataclasses.dataclass(frozen=True)
class HogSvmConfig:
    """Settings of `train_hog_svm`.

    Attributes:
        features, cell, margin, largest, per_octave: of `tfcnn.detection.hog_svm.hog_svm`.
        area: cells of an object in its template.
        window: (height, width) in cells of one template a class, its margin included, instead of aspects: Dalal's
            person has 16 x 8 cells with a margin of 2. It learns from the objects of about its shape.
        aspects: templates of a class, before mirroring.
        mirrored: give each template its mirror image, and sort objects by the side that they face; else one template
            learns from objects and their mirror images.
        image_size: longer side of a picture, pixels.
        objects: that a template learns from, at most.
        rounds: of hard negatives.
        pictures: mined in each round.
        negatives: windows of a template that are kept, at most: memory is this times templates times their size.
        c: of the SVM.
        positive_weight: of an object's loss, where a template has `objects`; fewer weigh as much together.
        calibrated: make scores probabilities at the end, by half as many pictures as a round has.
        least_score: least score of the model's detections.
        seed: of the choice of pictures and first negatives.
    """

    features: str = "felzenszwalb"
    cell: int = 8
    margin: int = 1
    area: int = 40
    window: tuple[int, int] | None = None
    aspects: int = 3
    mirrored: bool = True
    largest: float = 1.5
    per_octave: int = 4
    image_size: int = 320
    objects: int = 400
    rounds: int = 3
    pictures: int = 400
    negatives: int = 2000
    c: float = 0.01
    positive_weight: float = 2.0
    calibrated: bool = True
    least_score: float = 0.005
    seed: int = 0


def in_turn(training: Dataset, rng: np.random.Generator) -> np.ndarray:
    """The pictures at random, but one of each class in turn as long as there are: int [pictures], each once."""
    shuffled = rng.permutation(len(training.examples))
    of_class = [
        [i for i in shuffled if (training.examples[i].labels == label).any()]
        for label in range(len(training.classes))
    ]
    longest = max(map(len, of_class), default=0)
    turns = [own[place] for place in range(longest) for own in of_class if place < len(own)]
    return np.array(list(dict.fromkeys([*turns, *shuffled])))


def grouped(training: Dataset, config: HogSvmConfig) -> list[tuple[tuple[int, int], int, list]]:
    """Sorts objects by class and aspect, those left out that no window can cover or that are cut off.

    With a window given, objects of other shapes are left out as well: an upright person's window learns little from one
    who sits. A class with fewer than FEWEST objects keeps the others, too.

    Returns:
        ((kh, kw), class, [(record, box float32 [4]), ...]) of each template.

    Raises:
        InputError: a class has no objects.
    """
    found = []
    for label, name in enumerate(training.classes):
        objects = [
            (record, box, truncated)
            for record in training.examples
            for box, own, unclear, truncated in zip(
                record.boxes, record.labels, record.difficult | record.crowd, record.truncated, strict=True
            )
            if own == label and not unclear and min(box[2:] - box[:2]) >= 4
        ]
        if not objects:
            raise InputError(
                f"{name} has no object to learn from in the {len(training)} pictures: leave the class out, or take "
                "more pictures."
            )
        large = [each for each in objects if findable(*each[:2], config)]
        alike = [each for each in large if has_shape(each[1], config)]
        uncut = [[each for each in own if not each[2]] for own in (alike, large)]
        choices = (uncut[0], alike, uncut[1], large, objects)
        chosen = next((each for each in choices if len(each) >= FEWEST), objects)
        whole = [(record, box) for record, box, _ in chosen]
        whole.sort(key=lambda pair: _aspect(pair[1]), reverse=True)
        by_shape: dict[tuple[int, int], list] = {}
        for part in np.array_split(np.arange(len(whole)), config.aspects if config.window is None else 1):
            if len(part):
                middle = _aspect(whole[part[len(part) // 2]][1])
                shape = config.window or shape_of(middle, config.area, config.margin)
                by_shape.setdefault(shape, []).extend(whole[i] for i in part)
        for shape, own in by_shape.items():
            step = max(1.0, len(own) / config.objects)
            found.append((shape, label, [own[int(i * step)] for i in range(int(len(own) / step))]))
    return found


def has_shape(box: np.ndarray, config: HogSvmConfig) -> bool:
    """Whether the aspect of an object's box [4] is within a factor of ALIKE of the window that is given, if one is."""
    if config.window is None:
        return True
    height, width = (side - 2 * config.margin for side in config.window)
    return abs(np.log(_aspect(box) * width / height)) <= np.log(ALIKE)


def findable(record: Record, box: np.ndarray, config: HogSvmConfig) -> bool:
    """Whether the smallest window covers at least COVERED of an object: smaller ones are blurred when enlarged.

    Args:
        record: its picture.
        box: float [4], in the annotation's pixels.
        config: says the window, the largest level and the picture's size.
    """
    if not record.width:
        return True
    scale = config.largest * config.image_size / max(record.width, record.height)
    inner = config.window and [side - 2 * config.margin for side in config.window]
    cells = inner[0] * inner[1] if inner else config.area
    return float(np.prod(box[2:] - box[:2])) * scale**2 >= COVERED * cells * config.cell**2


def shape_of(aspect: float, area: int, margin: int) -> tuple[int, int]:
    """The template (kh, kw) for an aspect: the nearest of ASPECTS, of about `area` cells, and its margin.

    Args:
        aspect: height over width.
        area: cells of the object.
        margin: cells on each side.
    """
    nearest = min(ASPECTS, key=lambda own: abs(np.log(own / aspect)))
    h, w = round((area * nearest) ** 0.5), round((area / nearest) ** 0.5)
    return h + 2 * margin, w + 2 * margin


def _aspect(box):
    return float((box[3] - box[1]) / (box[2] - box[0]))


def shown(record: Record, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A record's picture with its longer side at `size`, uint8 [h, w, 3], and its boxes there, float32 [M, 4]."""
    image = record.image()
    boxes = record.placement(image.shape).from_file(record.boxes)
    image, placement = images.resize(image, size, "fit", longest=size)
    return image, placement.from_file(boxes)


def surrounded(box: np.ndarray, shape: tuple[int, int], margin: int) -> np.ndarray:
    """The box that a template's cells and one more on each side cover when its object fills `box`."""
    cells = np.array([shape[1] - 2 * margin, shape[0] - 2 * margin])
    more = (box[2:] - box[:2]) / cells * (margin + 1)
    return np.concatenate([box[:2] - more, box[2:] + more])


def facing(features: np.ndarray) -> np.ndarray:
    """Mirrors examples so that all face one side: that of the direction in which mirror images differ most.

    Args:
        features: float32 [n, kh, kw, D].

    Returns:
        float32 [n, kh, kw, D].
    """
    mirror = hog.mirrored(features)
    skew = (features - mirror).reshape(len(features), -1)
    _, vectors = np.linalg.eigh(
        skew @ skew.T
    )  # [n, n]: the first singular vector says which side each one faces
    return np.where(vectors[:, -1][:, None, None, None] < 0, mirror, features)
