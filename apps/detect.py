"""Find objects in pictures, videos or a camera's picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from tfcnn import cli
from tfcnn.cli import box_files, detecting, lists, testing_flags
from tfcnn.cli.film import over_frames
from tfcnn.errors import InputError

if TYPE_CHECKING:
    from tfcnn import video
    from tfcnn.predictor import Predictor

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
        rows = detecting.of_pictures(run, predictor, proposals, found)
    box_files.save(run, found, predictor.names, predictor.category_ids)
    run.table(["input", "objects", "best"], rows)


def of_video(run: cli.Run, predictor: Predictor, source: video.Video, found: list[dict]) -> list[list]:
    """Detect in a video's frames and write it with the boxes drawn; a table's rows."""

    def answer(name, frame):
        (detections,) = predictor([frame])
        found.extend(detections.to_coco(name, predictor.category_ids))
        return box_files.entries(detections), lambda: detecting.shown(detections).draw(frame)

    return over_frames(run, source, "detect", "detections", "detected", answer)


def _open_video():
    from tfcnn.video import open_video

    return open_video(CAMERA.value if VIDEO.value is None else VIDEO.value)


if __name__ == "__main__":
    cli.start(main, batch_size=8, model="faster_rcnn_voc", longest=1000)
