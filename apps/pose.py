"""Find the joints of persons in pictures or a video."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, draw
from tfcnn.cli import lists, person_flags
from tfcnn.cli.film import over_frames
from tfcnn.cli.flags import refuse
from tfcnn.cli.person_flags import BOXES, DETECTOR
from tfcnn.errors import InputError

if TYPE_CHECKING:
    from tfcnn import video
    from tfcnn.localization.pose_estimator import Pose
    from tfcnn.predictor import Predictor

GROUP, SUMMARY = "localization", "find the joints of a person, or of each person that a detector finds"

FLIP = flags.DEFINE_bool("flip", False, "Look at each person mirrored, too, and average the joints")
VIDEO = flags.DEFINE_string("video", None, "A video file instead of pictures, e.g. --video=dance.mp4")


def main(run: cli.Run) -> None:
    check(run)
    film = None
    if VIDEO.value is not None:
        from tfcnn.video import open_video

        film = open_video(VIDEO.value)
    boxes = person_flags.read_boxes(run.sources()) if BOXES.value else {}
    run.runtime  # noqa: B018  (starts TensorFlow, silently)
    from tfcnn import pose_estimator

    run.net = run.flags.model
    estimator = pose_estimator(
        lists.paths(run.flags.model),
        flip=FLIP.value,
        batch_size=run.flags.batch_size,
        threads=run.threads,
        allow_custom_objects=run.flags.allow_custom_objects,
    )
    if run.flags.image_size not in (None, estimator.image_size):
        raise InputError(
            f"--image_size={run.flags.image_size}: --model={run.net} takes pictures of {estimator.image_size} pixels"
        )
    find = person_flags.open_detector(run) if DETECTOR.value else None
    found: list[dict] = []
    try:
        if film:
            of_video(run, estimator, film, find, found)
        else:
            rows = of_pictures(run, estimator, find, boxes, found)
            run.table(["input", "persons", "box"], rows)
    finally:  # also when Ctrl-C ends the work
        if run.begun:
            run.save_json(found, "poses.json")


def check(run: cli.Run) -> None:
    """Refuse what cannot be, before anything is opened."""
    if not run.flags.model:
        raise InputError(
            "--model is missing: a pose net's release, folder or .keras file, e.g. --model=pose_lsp"
        )
    if BOXES.value and DETECTOR.value:
        raise InputError("--boxes and --person_detector both say where the persons are; give one of them")
    if VIDEO.value is not None and (run.flags.images or BOXES.value):
        raise InputError("--video and --images (or --boxes of pictures) are two inputs; give one of them")
    if not BOXES.value and not DETECTOR.value:
        refuse(["person_score"], "belongs to --boxes or --person_detector")
    for name in ("net", "weights", "preprocessing"):
        if run.flags[name].present:
            raise InputError(f"--{name} is not for a pose net, which --model names")
    if not run.flags["resize"].using_default_value:
        raise InputError("--resize is not for a pose net: it sees a person undistorted")


def of_pictures(
    run: cli.Run,
    estimator: Predictor,
    find: Callable[[np.ndarray], np.ndarray] | None,
    boxes: dict[str, np.ndarray],
    found: list[dict],
) -> list[list]:
    """Estimate the poses in every input picture; a table's rows."""
    rows = []
    for batch in run.batches(estimator.batch_size):
        ready = []
        for picture in batch:
            with picture:
                ready.append((picture, _places(picture, find, boxes)))
        answers = poses_of(estimator, [(picture.image, places) for picture, places in ready])
        for (picture, _), poses in zip(ready, answers, strict=True):
            with picture:
                picture.entry["persons"] = [pose.fields() for pose in poses]
                for pose in poses:
                    found += pose.to_coco(picture.stem)
                if run.flags.save_images:
                    picture.save(drawn(picture.image, poses), "pose", main=True)
                    stages = len(poses[0].stages) if poses else 0
                    if stages > 1:
                        each = [drawn(picture.image, poses, stage) for stage in range(stages)]
                        captions = [f"stage {stage}" for stage in range(1, stages + 1)]
                        picture.save(
                            draw.grid(each, columns=stages, captions=captions), "stages", "stage by stage"
                        )
                picture.lines.append(f"{len(poses)} persons" if len(poses) != 1 else "a person")
                box = " ".join(f"{side:.0f}" for side in poses[0].box) if poses else "-"
                rows.append([picture.name, len(poses), box])
    run.results["images_per_second"] = run.rate
    return rows


def _places(picture, find, boxes):
    """Boxes [n, 4] of a picture's persons; None: it shows one, and whole."""
    if find is not None:
        return find(picture.image)
    if not BOXES.value:
        return None
    if picture.stem not in boxes:
        raise InputError(f"{picture.name}: --boxes={BOXES.value} does not name it")
    return boxes[picture.stem]


def poses_of(estimator: Predictor, pictures: list[tuple[np.ndarray, np.ndarray | None]]) -> list[list[Pose]]:
    """The poses of pictures (image, boxes); of one without boxes that of the whole picture."""
    from tfcnn.localization.pose_estimator import in_boxes

    whole = [image for image, places in pictures if places is None]
    singles = iter(estimator(whole) if whole else [])
    several = iter(in_boxes(estimator, [pair for pair in pictures if pair[1] is not None]))
    return [[next(singles)] if places is None else next(several) for _, places in pictures]


def of_video(
    run: cli.Run,
    estimator: Predictor,
    source: video.Video,
    find: Callable[[np.ndarray], np.ndarray] | None,
    found: list[dict],
) -> None:
    """Estimate the poses in a video's frames and write it with the skeletons drawn."""

    def answer(name, frame):
        (poses,) = poses_of(estimator, [(frame, find(frame) if find else None)])
        for pose in poses:
            found.extend(pose.to_coco(name))
        return [pose.fields() for pose in poses], lambda: drawn(frame, poses)

    over_frames(run, source, "pose", "persons", "pose", answer)


def drawn(image: np.ndarray, poses: list[Pose], stage: int = -1) -> np.ndarray:
    """The picture with all skeletons."""
    for pose in poses:
        image = pose.draw(image, stage)
    return image


if __name__ == "__main__":
    cli.start(main, without=["labels"], batch_size=8, image_size=None, model="pose_lsp")
