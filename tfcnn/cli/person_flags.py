"""Where the persons of pictures are: a results file of detect, or a detector of the run's own."""

from __future__ import annotations

import collections
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import images
from tfcnn.cli.items import unique_stems
from tfcnn.errors import InputError

if TYPE_CHECKING:
    from tfcnn.cli.run import Run
    from tfcnn.predictor import Predictor

PERSON = "person"
BOXES = flags.DEFINE_string(
    "boxes",
    None,
    "Results of detect with the persons' boxes, results.json or detections.json, e.g. "
    "--boxes=out/detect/results.json",
)
DETECTOR = flags.DEFINE_string(
    "person_detector", None, "A detector that finds the persons first, e.g. --person_detector=faster_rcnn_voc"
)
SCORE = flags.DEFINE_float(
    "person_score", 0.5, "Least score of a person's box, 0..1", lower_bound=0.0, upper_bound=1.0
)


def read_boxes(sources: Sequence[images.Source]) -> dict[str, np.ndarray]:
    """The persons of --boxes for these pictures.

    An entry of results.json is a picture's where their paths are the same, or else their unique stems; an image_id
    of detections.json is a stem.

    Returns:
        {stem of `unique_stems(sources)`: float64 [n, 4]}, of the pictures that the file names.

    Raises:
        InputError: no such file, no results in it, none of the pictures, or a stem of several entries.
    """
    from tfcnn.evaluation import results

    path = pathlib.Path(BOXES.value)
    path = path / "results.json" if path.is_dir() else path
    content = results.load(path)
    of_run = isinstance(content, dict)
    try:
        listed = _of_run(content["images"]) if of_run else _of_coco(content, path)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"--boxes={path} is neither detect's results.json nor its detections.json") from None
    stems = unique_stems(sources)
    find = _by_path(listed) if of_run else lambda source, stem: listed.get(stem)
    found = {stem: find(source, stem) for source, stem in zip(sources, stems, strict=True)}
    found = {stem: boxes for stem, boxes in found.items() if boxes is not None}
    if not found:
        raise InputError(
            f"--boxes={path} has none of these pictures, such as {stems[0]}: name the results of detect on them"
        )
    return found


def _of_run(entries):
    found = {}
    for entry in entries:
        persons = [d for d in entry["detections"] if d["label"] == PERSON and d["score"] >= SCORE.value]
        boxes = [detection["box"] for detection in persons]
        found[entry["file"]] = np.array(boxes, np.float64).reshape(-1, 4)
    return found


def _by_path(listed):
    """A function from a picture's source and stem to its boxes, or None, by the paths of results.json."""
    paths = {os.path.abspath(file): boxes for file, boxes in listed.items()}
    stems = dict(
        zip(
            unique_stems(
                [images.Source(file, os.path.basename(file), pathlib.Path(file)) for file in listed]
            ),
            listed.values(),
            strict=True,
        )
    )
    plain = collections.Counter(pathlib.PurePath(file).stem for file in listed)

    def find(source: images.Source, stem: str) -> np.ndarray | None:
        boxes = paths.get(os.path.abspath(source.file), stems.get(stem))
        if boxes is None and plain[stem] > 1:
            raise InputError(
                f"{source.file}: --boxes={BOXES.value} has {plain[stem]} pictures {stem}, none of this path"
            )
        return boxes

    return find


def _of_coco(entries, path):
    from tfcnn.evaluation import results

    beside = path.parent / "categories.json"
    ids = {each["id"] for each in results.load(beside) if each["name"] == PERSON} if beside.exists() else None
    found = {}
    for entry in entries:
        x, y, width, height = map(float, entry["bbox"])
        boxes = found.setdefault(str(entry["image_id"]), [])
        if entry["score"] >= SCORE.value and (ids is None or entry["category_id"] in ids):
            boxes.append([x, y, x + width, y + height])
    return {name: np.array(boxes, np.float64).reshape(-1, 4) for name, boxes in found.items()}


def open_detector(run: Run) -> Callable[[np.ndarray], np.ndarray]:
    """The detector of --person_detector: from a picture uint8 [H, W, 3] to the boxes of its persons, [n, 4].

    Raises:
        InputError: there is no such detector, or it does not know persons.
    """
    run.runtime  # noqa: B018  (starts TensorFlow, silently)
    from tfcnn import detector

    found: Predictor = detector(DETECTOR.value, threads=run.threads, score_threshold=SCORE.value)
    if PERSON not in found.names:
        raise InputError(
            f"--person_detector={DETECTOR.value} knows no person, but {', '.join(found.names[:5])}"
            + (" and others" if len(found.names) > 5 else "")
        )
    label = found.names.index(PERSON)

    def persons(image: np.ndarray) -> np.ndarray:
        (detections,) = found([image])
        return detections.boxes[(detections.labels == label) & (detections.scores >= SCORE.value)]

    return persons
