"""Find objects in pictures, videos or a camera's picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from tfcnn import cli
from tfcnn.cli import box_files, lists, testing_flags
from tfcnn.cli.film import over_frames
from tfcnn.detections import Detections
from tfcnn.errors import InputError

if TYPE_CHECKING:
    from tfcnn import video
    from tfcnn.datasets.proposals import Proposals
    from tfcnn.predictor import Predictor

GROUP, SUMMARY = "detection", "find objects in pictures or a video"

VIDEO = flags.DEFINE_string("video", None, "A video file instead of pictures, e.g. --video=street.mp4")
CAMERA = flags.DEFINE_integer(
    "camera", None, "A camera's number instead of pictures, until Ctrl-C or --limit frames, e.g. --camera=0"
)
DRAW = flags.DEFINE_float(
    "draw_threshold", 0.4, "Least score of a detection that is drawn, 0..1", lower_bound=0.0, upper_bound=1.0
)


def main(run: cli.Run) -> None:
    if VIDEO.value is not None and CAMERA.value is not None:
        raise InputError("--video and --camera are two inputs; give one of them")
    moving = VIDEO.value is not None or CAMERA.value is not None
    if moving and run.flags.images:
        raise InputError("--images and a video are two inputs; give one of them")
    film = _open_video() if moving else None
    if not run.flags.model:
        raise InputError(
            "--model is missing: a detector's release, folder or .keras file, e.g. --model=faster_rcnn_voc"
        )
    sources = lists.paths(run.flags.model)
    predictor, proposals = testing_flags.open_detector(run, sources)
    if moving and proposals:
        raise InputError("--proposals_file belongs to pictures, not to a video's frames")
    found: list[dict] = []
    if moving:
        rows = of_video(run, predictor, film, found)
    else:
        rows = of_pictures(run, predictor, proposals, found)
    box_files.save(run, found, predictor.names, predictor.category_ids)
    run.table(["input", "objects", "best"], rows)


def of_pictures(
    run: cli.Run, predictor: Predictor, proposals: Proposals | None, found: list[dict]
) -> list[list]:
    """Detect in every input picture; a table's rows."""
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
                picture.entry["detections"] = box_files.entries(detections)
                found += detections.to_coco(picture.stem, predictor.category_ids)
                if run.flags.save_images:
                    picture.save(shown(detections).draw(picture.prepared[1]), "detected", main=True)
                picture.lines.append(_words(detections))
                rows.append([picture.name, len(detections), _words(detections)])
    return rows


def of_video(run: cli.Run, predictor: Predictor, source: video.Video, found: list[dict]) -> list[list]:
    """Detect in a video's frames and write it with the boxes drawn; a table's rows."""

    def answer(name, frame):
        (detections,) = predictor([frame])
        found.extend(detections.to_coco(name, predictor.category_ids))
        return box_files.entries(detections), lambda: shown(detections).draw(frame)

    return over_frames(run, source, "detect", "detections", "detected", answer)


def _open_video():
    from tfcnn.video import open_video

    return open_video(CAMERA.value if VIDEO.value is None else VIDEO.value)


def shown(detections: Detections) -> Detections:
    """Those of --draw_threshold or more."""
    return detections.top(int((detections.scores >= DRAW.value).sum()))


def _words(detections):
    best = detections.top(3)
    words = (f"{best.names[n]} {s:.2f}" for n, s in zip(best.labels, best.scores, strict=True))
    return ", ".join(words) or "nothing"


if __name__ == "__main__":
    cli.start(main, batch_size=8, model="faster_rcnn_voc", longest=1000)
