"""What apps that find boxes with classes share: the localizer that --model names, and what is written of boxes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tfcnn import masks
from tfcnn.cli import classes
from tfcnn.detections import Detections
from tfcnn.errors import InputError

if TYPE_CHECKING:
    from tfcnn.cli.run import Run
    from tfcnn.predictor import Predictor


def open_localizer(run: Run, sources: Sequence[str], top: int = 5) -> tuple[Predictor, None]:
    """The localizer that the flags describe, and no proposals.

    Args:
        run: the app's run; its TensorFlow is started.
        sources: --model's parts: releases, folders or files; several are an ensemble.
        top: guesses of a picture.

    Raises:
        InputError: no such model, no localizer, other classes in a second model, or labels that cannot be read.
    """
    values = run.flags
    if values.resize in ("crop", "fit"):
        raise InputError(f"--resize={values.resize}: a localizer takes stretch or letterbox")
    labels = classes.labels_for(values.labels, sources[0])
    run.runtime  # noqa: B018  (starts TensorFlow, silently)
    from tfcnn import localizer

    predictor = localizer(
        list(sources),
        top=top,
        resize=None if values["resize"].using_default_value else values.resize,
        batch_size=values.batch_size,
        threads=run.threads,
        labels=labels,
        allow_custom_objects=values.allow_custom_objects,
    )
    if values.image_size not in (None, predictor.image_size):
        raise InputError(
            f"--image_size={values.image_size}: --model={','.join(sources)} takes pictures of {predictor.image_size} "
            "pixels"
        )
    run.net = ",".join(sources)
    return predictor, None


def entries(found: Detections) -> list[dict]:
    """A picture's detections for results.json; masks as `segmentation`, COCO's run lengths."""
    rows = [
        {"label": found.names[label], "index": int(label), "score": float(score), "box": box.tolist()}
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True)
    ]
    if found.masks is not None:
        for row, entry in zip(rows, found.to_coco(""), strict=True):
            row["segmentation"] = entry["segmentation"]
    return rows


def detections(found: Sequence[dict], names: Sequence[str]) -> Detections:
    """What `entries` wrote, from results.json again."""
    columns = [[each[key] for each in found] for key in ("box", "score", "index")]
    with_masks = bool(found) and "segmentation" in found[0]
    shown = [masks.of_entry(each["segmentation"]) for each in found] if with_masks else None
    return Detections(*columns, tuple(names), shown)


def save(run: Run, found: Iterable[dict], names: Sequence[str], ids: Sequence[int]) -> None:
    """Writes detections.json, a COCO results list, and categories.json."""
    run.save_json(iter(found), "detections.json")
    run.save_json([{"id": i, "name": name} for i, name in zip(ids, names, strict=True)], "categories.json")
