"""Detection in the pictures that a command names: what detect and the apps of single methods share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import flags

from tfcnn.cli import box_files
from tfcnn.cli.items import Picture
from tfcnn.cli.run import Run
from tfcnn.detections import Detections

if TYPE_CHECKING:
    from tfcnn.datasets.proposals import Proposals
    from tfcnn.predictor import Predictor, Prepared

DRAW = flags.DEFINE_float(
    "draw_threshold",
    None,
    "Least score of a detection that is drawn, 0..1; none: 0.4, and 0.2 of YOLO, whose scores are smaller, e.g. "
    "--draw_threshold=0.3",
    lower_bound=0.0,
    upper_bound=1.0,
)
DRAWN = {"yolo": 0.2}  # of other kinds 0.4


def of_pictures(
    run: Run,
    predictor: Predictor,
    proposals: Proposals | None,
    found: list[dict],
    more: Callable[[Picture, Prepared], None] | None = None,
) -> list[list]:
    """Detects in every input picture.

    Args:
        run: the app's run; gets entries and pictures.
        predictor: the detector.
        proposals: of a Fast R-CNN.
        found: gets the entries of detections.json.
        more: draws more of a picture, unless --save_images=false.

    Returns:
        Rows of a table: picture, objects, the best.
    """
    rows = []

    def prepare(image):
        return predictor.prepare(image), image if run.flags.save_images else None

    for source in run.sources() if proposals else ():
        proposals.of(source.file)  # a picture without proposals is said before any work
    for batch in run.batches(predictor.batch_size, prepare):
        precomputed = [proposals.of(picture.name) for picture in batch] if proposals else None
        answers = predictor.predict([picture.prepared[0] for picture in batch], precomputed)
        for picture, detections in zip(batch, answers, strict=True):
            with picture:
                fill(run, picture, detections, least_drawn(predictor))
                found += detections.to_coco(picture.stem, predictor.category_ids)
                if run.flags.save_images and more is not None:
                    more(picture, picture.prepared[0])
                rows.append([picture.name, len(detections), words(detections)])
    return rows


def least_drawn(predictor: Predictor) -> float:
    """Least score of what is drawn: --draw_threshold, or what suits the detector's kind."""
    return DRAWN.get(predictor.card.get("kind"), 0.4) if DRAW.value is None else DRAW.value


def fill(run: Run, picture: Picture, detections: Detections, least: float) -> None:
    """Gives a picture's entry what was found in it; `picture.prepared[1]` is the image on which those with a score of
    `least` or more are drawn."""
    picture.entry["detections"] = box_files.entries(detections)
    if run.flags.save_images:
        picture.save(shown(detections, least).draw(picture.prepared[1]), "detected", main=True)
    picture.lines.append(words(detections))


def shown(detections: Detections, least: float) -> Detections:
    """Those with a score of `least` or more."""
    return detections.top(int((detections.scores >= least).sum()))


def words(detections: Detections) -> str:
    """The best three of them."""
    best = detections.top(3)
    named = (f"{best.names[n]} {s:.2f}" for n, s in zip(best.labels, best.scores, strict=True))
    return ", ".join(named) or "nothing"
