"""Show what the probability of a class becomes while a patch hides one part of the picture after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.cli import asked
from tfcnn.errors import InputError
from tfcnn.visualization import BEST, FILLS

if TYPE_CHECKING:
    from tfcnn.visualization.occlusion import Occluded

GROUP, SUMMARY = "looking inside", "what a class' probability becomes as a patch hides part after part"

METHOD = flags.DEFINE_enum(
    "method",
    "zeros",
    list(FILLS),
    "What the patch shows: the net's zero, 127.5, the picture's mean colour, or the picture blurred",
)
PATCH = flags.DEFINE_integer(
    "patch",
    None,
    "Side of the patch in pixels of what the net sees; none takes a quarter, e.g. --patch=32",
    lower_bound=1,
)
STRIDE = flags.DEFINE_integer(
    "stride",
    None,
    "Pixels from place to place; none takes a quarter of the patch, e.g. --stride=8",
    lower_bound=1,
)

NAMED = 6  # classes in the legend of the most probable ones


def main(run: cli.Run) -> None:
    question = asked.load(run)
    if PATCH.value and PATCH.value > question.net.size:
        raise InputError(
            f"--patch={PATCH.value} hides more than the {question.net.size} pixels that the net sees"
        )
    from tfcnn.visualization.occlusion import occlusion

    hide = occlusion(
        question.net.model,
        patch=PATCH.value,
        stride=STRIDE.value,
        fill=METHOD.value,
        channel_of=question.layer,
        batch_size=run.flags.batch_size,
    )
    rows = []
    for picture in run.pictures():
        with picture:
            seen, placement = images.resize(picture.image, question.net.size, run.flags.resize)
            occluded = hide(seen)
            best = int(occluded.whole.argmax())
            indices = [best if index == BEST else index for index in question.indices]
            classes, sheet = [], [(seen, "what the net sees")]
            for index in indices:
                kind = f"_{index}" if len(indices) > 1 else ""
                classes.append(describe(question, occluded, index, placement))
                sheet += save(picture, occluded, index, classes[-1], seen, kind)
            if not question.layer:
                sheet += most_probable(picture, question, occluded, seen)
            cells, captions = zip(*sheet, strict=True)
            picture.save(draw.grid(cells, min(len(cells), 5), captions), "sheet", "all of it")
            first = classes[0]
            picture.entry |= {key: first[key] for key in ("least", "place", "map")}
            picture.entry |= {"class": first, "method": METHOD.value, "layer": question.layer}
            picture.entry["patch"] = occluded.patch
            if len(classes) > 1:
                picture.entry["classes"] = classes
            rows += [
                [picture.name, one["label"], f"{one['score']:.4g}", f"{one['least']:.4g}"] for one in classes
            ]
    run.table(["file", "channel" if question.layer else "class", "score", "least"], rows)


def describe(question: asked.Asked, occluded: Occluded, index: int, placement: images.Placement) -> dict:
    """A class (or channel), what it answers to the whole picture, and where hiding a part lowers that most."""
    least, (x, y) = occluded.least(index)
    place = placement.to_file([[x, y, x, y]])[0][:2]
    return {
        **question.describe(index, occluded.whole),
        "least": least,
        "place": [float(each) for each in place],
        "map": np.round(occluded.map(index), 6).tolist(),
    }


def save(
    picture: cli.Picture, occluded: Occluded, index: int, described: dict, seen: np.ndarray, kind: str
) -> list[tuple[np.ndarray, str]]:
    """Write a class' map alone and over the picture with the patch at its lowest; both with captions, for the sheet."""
    label, score = described["label"], described["score"]
    least, (x, y) = occluded.least(index)
    values = occluded.spread(occluded.map(index), seen.shape[:2])
    alone, over = draw.heat_map(values), draw.heat_map(values, seen)
    half = occluded.patch / 2
    spot = draw.boxes(over, [[x - half, y - half, x + half, y + half]])
    picture.save(alone, f"occlusion{kind}", f"{label}: dark is low", main="picture" not in picture.entry)
    words = f"{score:.3g}, with the patch in the box {least:.3g}"
    picture.save(spot, f"overlay{kind}", words)
    return [(alone, label), (spot, words)]


def most_probable(
    picture: cli.Picture, question: asked.Asked, occluded: Occluded, seen: np.ndarray
) -> list[tuple[np.ndarray, str]]:
    """Write the most probable class at each location in colours; the map and its legend, for the sheet."""
    found, counts = np.unique(occluded.best, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    ranks = np.full(occluded.scores.shape[-1], NAMED)  # the rest have one colour together
    ranks[found[order][:NAMED]] = np.arange(min(NAMED, len(found)))
    colours = np.array([draw.colour(rank) for rank in range(NAMED)] + [(128, 128, 128)], np.uint8)
    made = colours[occluded.spread(ranks[occluded.best], seen.shape[:2], nearest=True)]
    shares = counts[order] / occluded.best.size
    picture.entry["most_probable"] = [
        {"index": int(index), "label": question.net.classes[index][1], "share": float(share)}
        for index, share in zip(found[order], shares, strict=True)
    ]
    picture.save(made, "classes", "the most probable class with the patch there")
    named = picture.entry["most_probable"][:NAMED]
    captions = [f"{each['label']} {each['share']:.0%}" for each in named]
    if len(found) > NAMED:
        captions.append(f"others {shares[NAMED:].sum():.0%}")
    swatches = [np.broadcast_to(colour, (10, seen.shape[1] // 2, 3)) for colour in colours[: len(captions)]]
    return [(made, "the most probable class"), (draw.grid(swatches, 1, captions), "")]


if __name__ == "__main__":
    cli.start(main, batch_size=32, resize="crop")
