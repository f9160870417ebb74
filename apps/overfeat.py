"""Slide a classifier or a localizer over an image pyramid, and merge the boxes of all windows (OverFeat)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.cli import box_files, lists
from tfcnn.detections import Detections
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import keras

    from tfcnn.localization.class_rpn import AnchorWindow
    from tfcnn.localization.overfeat import Found, SlidingWindow, Windows

DRAWN = 5  # merged boxes of the best class on a picture
GROUP, SUMMARY = (
    "localization",
    "slide a net over a picture at several scales, and merge its boxes (OverFeat)",
)

VARIANT = flags.DEFINE_enum(
    "variant",
    "overfeat",
    ["overfeat", "vgg"],
    "OverFeat's four scales and offset pooling, or VGG's two without it",
)
SCALES = flags.DEFINE_string(
    "scales",
    None,
    "Shorter sides of the pyramid in pixels instead, e.g. --scales=245,281,317; each becomes the nearest at which "
    "windows end at the picture's edge",
)
OFFSETS = flags.DEFINE_bool(
    "offsets",
    None,
    "Repeat the last max pooling at every offset; none: as --variant says, e.g. --offsets=false",
)
FLIP = flags.DEFINE_bool("flip", False, "Look at each scale mirrored, too")
TOP = flags.DEFINE_integer("top", 5, "Classes of a scale that are localized, e.g. --top=1", lower_bound=1)
MIN_SCORE = flags.DEFINE_float(
    "min_score", 0.05, "Least probability of a window's class, 0..1", lower_bound=0.0, upper_bound=1.0
)
MATCH = flags.DEFINE_float(
    "match_threshold",
    0.75,
    "Boxes are merged while the two nearest differ by no more: distance of centres in sides, plus 1 - IoU",
    lower_bound=0.0,
)


def main(run: cli.Run) -> None:
    scales = lists.numbers(SCALES.value or "", "scales", int)
    if SCALES.value is not None and min(scales, default=0) < 1:
        raise InputError(f"--scales={SCALES.value}: whole numbers of pixels from 1 on")
    if max(scales, default=0) > math.isqrt(images.MOST_PIXELS):
        raise InputError(
            f"--scales={SCALES.value}: at most {math.isqrt(images.MOST_PIXELS)}, since a picture is looked at with no "
            f"more than {images.MOST_PIXELS // 10**6} million pixels"
        )
    for name in ("image_size", "resize", "batch_size"):
        if run.flags[name].present:
            raise InputError(
                f"--{name} does nothing here: --scales says at which sizes a picture is looked at"
            )
    net = run.load_net(at_own_size=True)
    from tfcnn.localization import class_rpn, overfeat

    variant = overfeat.VARIANTS[VARIANT.value]
    if "objectness" in outputs(net.model):
        if OFFSETS.present:
            raise InputError(f"--offsets is for windows, and {net.name} has region proposal networks")
        window = class_rpn.AnchorWindow(net.model)
    else:
        offsets = variant.offsets if OFFSETS.value is None else OFFSETS.value
        window = overfeat.SlidingWindow(net.model, offsets)
    scales = scales or [round(factor * window.window) for factor in variant.scales]
    names = [label for _, label in net.classes]
    run.say(
        f"windows of {window.window} px every {window.step} px, at scales of {', '.join(map(str, scales))} px"
        + (
            ""
            if "boxes" in outputs(net.model)
            else f"; {net.name} has no box head: a box is the window itself"
        )
    )
    rows, listed = [], []
    for picture in run.pictures():
        with picture:
            begun = time.perf_counter()
            looks = look(window, picture.image, scales)
            before, merged = overfeat.localize(looks, TOP.value, MIN_SCORE.value, MATCH.value)
            seconds = time.perf_counter() - begun
            picture.entry |= {
                "windows": [
                    {"box": box.tolist(), "index": int(label), "score": float(score)}
                    for box, score, label in zip(before.boxes, before.scores, before.labels, strict=True)
                ],
                "merged": box_files.entries(detections(merged, names)),
                "maps": [{"size": list(each.size), "windows": list(each.scores.shape[:2])} for each in looks],
                "seconds": round(seconds, 4),
            }
            best = guesses(merged, names)
            listed += best.to_coco(picture.stem)
            if run.flags.save_images:
                show(picture, looks, before, merged, names)
            count = sum(each.scores[..., 0].size for each in looks)
            label, score = names[best.labels[0]], f"{best.scores[0]:.2f}"
            picture.lines.append(f"{label}: {score} of {count} windows")
            rows.append([picture.name, count, len(merged.boxes), label, score])
    box_files.save(run, listed, names, range(1, len(names) + 1))
    run.table(["file", "windows", "merged boxes", "best", "accumulated score"], rows)


def outputs(model: keras.Model) -> dict:
    """A model's outputs by name."""
    return model.output if isinstance(model.output, dict) else {}


def look(window: SlidingWindow | AnchorWindow, image: np.ndarray, scales: Sequence[int]) -> list[Windows]:
    """The picture at every scale, with --flip mirrored too; scales at which it has one size are one.

    A scale is the wish of a size, and a window is never smaller than the net's own: seen twice, every window would
    count twice.
    """
    looks: dict[tuple[int, ...], list[Windows]] = {}
    for scale in scales:
        found = window(image, scale, False)
        if tuple(found.size) not in looks:
            looks[tuple(found.size)] = [found, *([window(image, scale, True)] if FLIP.value else [])]
    return [each for found in looks.values() for each in found]


def detections(found: Found, names: Sequence[str]) -> Detections:
    """The same as Detections with the names of the classes."""
    return Detections(found.boxes, found.scores, found.labels, names)


def guesses(merged: Found, names: Sequence[str]) -> Detections:
    """The best box of each class, best first: what ImageNet's rule counts."""
    _, first = np.unique(merged.labels, return_index=True)
    kept = np.sort(first)[: TOP.value]
    return Detections(merged.boxes[kept], merged.scores[kept], merged.labels[kept], names)


def show(
    picture: cli.Picture, looks: Sequence[Windows], before: Found, merged: Found, names: Sequence[str]
) -> None:
    """Save a picture of the best class at each step: its map at each scale, the boxes of windows, the merged ones."""
    best = int(merged.labels[0])
    image = picture.image
    answers = [each.scores[..., best] for each in looks]
    span = (0.0, max(float(scores.max()) for scores in answers))  # one for all scales: they are compared
    maps = [draw.heat_map(nearest(scores, image.shape[:2]), image, span) for scores in answers]
    captions = [f"{' x '.join(map(str, reversed(each.scores.shape[:2])))} windows" for each in looks]
    own = before.labels == best
    boxes = draw.boxes(image, before.boxes[own], before.labels[own])
    kept = merged.labels == best
    after = detections(merged, names)
    after = Detections(after.boxes[kept], after.scores[kept], after.labels[kept], names)
    picture.save(after.top(DRAWN).draw(image), "merged", f"merged: {names[best]}", main=True)
    picture.save(boxes, "windows", f"{int(own.sum())} boxes before merging")
    columns = min(len(maps), 4)
    picture.save(draw.grid(maps, columns=columns, captions=captions), "maps", f"where {names[best]} answers")


def nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map [h, w] at a picture's size, each number as a patch: the windows can be counted."""
    rows, columns = (np.arange(side) * count // side for side, count in zip(size, values.shape, strict=True))
    return values[rows][:, columns]


if __name__ == "__main__":
    cli.start(main, image_size=None)
