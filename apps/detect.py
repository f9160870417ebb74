"""Find objects in pictures, videos or a camera's picture."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from tfcnn import cli
from tfcnn.cli import box_files, detecting, lists, testing_flags
from tfcnn.cli.film import over_frames
from tfcnn.errors import InputError

if TYPE_CHECKING:
    from tfcnn import video
    from tfcnn.predictor import Predictor

COLUMNS = ["input", "objects", "best"]
GROUP, SUMMARY = "detection", "find objects in pictures or a video"

VIDEO = flags.DEFINE_string("video", None, "A video file instead of pictures, e.g. --video=street.mp4")
CAMERA = flags.DEFINE_integer(
    "camera", None, "A camera's number instead of pictures, until Ctrl-C or --limit frames, e.g. --camera=0"
)


def main(run: cli.Run) -> None:
    if VIDEO.value is not None and CAMERA.value is not None:
        raise InputError("--video and --camera are two inputs; give one of them")
    moving = VIDEO.value is not None or CAMERA.value is not None
    if moving and run.flags.images:
        raise InputError("--images and a video are two inputs; give one of them")
    if moving and (run.shard or run.merging or run.flags.engine != "local"):
        raise InputError("--shard and --engine belong to pictures, not to a video's frames")
    film = _open_video() if moving else None
    if not run.flags.model:
        raise InputError(
            "--model is missing: a detector's release, folder or .keras file, e.g. --model=faster_rcnn_voc"
        )
    if not moving:
        of_pictures(run)
        return
    predictor, proposals = testing_flags.open_detector(run, lists.paths(run.flags.model))
    if proposals:
        raise InputError("--proposals_file belongs to pictures, not to a video's frames")
    found: list[dict] = []
    try:
        of_video(run, predictor, film, found)
    finally:  # also when Ctrl-C ends a camera
        if run.begun:
            box_files.save(run, found, predictor.names, predictor.category_ids)


def of_pictures(run: cli.Run) -> None:
    """Detect in every input picture."""
    facts = run.over_pictures(work)
    found = (
        detection
        for entry, stem in run.finished_pictures()
        for detection in box_files.detections(entry["detections"], facts["names"]).to_coco(stem, facts["ids"])
    )
    box_files.save(run, found, facts["names"], facts["ids"])
    rows = []
    for entry, _ in itertools.islice(run.finished_pictures(), cli.TABLE_ROWS):
        found = box_files.detections(entry["detections"], facts["names"])
        rows.append([entry["file"], len(found), detecting.words(found)])
    run.table(COLUMNS, rows, sum(journal.entries for journal in run.journals))


def work(run: cli.Run) -> cli.Work:
    """The detector, and what it does with a batch of pictures."""
    predictor, proposals = testing_flags.open_detector(run, lists.paths(run.flags.model))
    for source in run.sources() if proposals else ():
        proposals.of(source.file)  # a picture without proposals is said before any work

    least = detecting.least_drawn(predictor)

    def prepare(image):
        return predictor.prepare(image), image if run.flags.save_images else None

    def answer(batch: Sequence[cli.Picture]) -> None:
        precomputed = [proposals.of(picture.name) for picture in batch] if proposals else None
        answers = predictor.predict([picture.prepared[0] for picture in batch], precomputed)
        for picture, detections in zip(batch, answers, strict=True):
            with picture:
                picture.kept = picture.stem
                detecting.fill(run, picture, detections, least)

    facts = {"names": predictor.names, "ids": predictor.category_ids}
    return cli.Work(answer, predictor.batch_size, prepare, facts)


def of_video(run: cli.Run, predictor: Predictor, source: video.Video, found: list[dict]) -> None:
    """Detect in a video's frames and write it with the boxes drawn."""
    least = detecting.least_drawn(predictor)

    def answer(name, frame):
        (detections,) = predictor([frame])
        found.extend(detections.to_coco(name, predictor.category_ids))
        return box_files.entries(detections), lambda: detecting.shown(detections, least).draw(frame)

    over_frames(run, source, "detect", "detections", "detected", answer)


def _open_video():
    from tfcnn.video import open_video

    return open_video(CAMERA.value if VIDEO.value is None else VIDEO.value)


if __name__ == "__main__":
    cli.start(
        main, without=cli.NO_FACTORY, batch_size=8, model="faster_rcnn_voc", longest=1000, at_scale=True
    )
