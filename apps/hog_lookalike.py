"""Change a picture until its HOG is another's: pictures that differ to the eye, and are the same to the descriptor."""

from __future__ import annotations

import io

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.errors import InputError

GROUP, SUMMARY = "fooling", "give a picture the HOG of another one"

STEPS = flags.DEFINE_integer(
    "steps", 150, "Evaluations of L-BFGS for the look-alike, e.g. --steps=1000", lower_bound=1
)
KEEP = flags.DEFINE_float(
    "keep",
    0.2,
    "Weight of the distance from the start picture; less matches better, e.g. --keep=0.05",
    lower_bound=0.0,
)
CELL = flags.DEFINE_integer("cell", 8, "Side of HOG's cells in pixels, e.g. --cell=16", lower_bound=2)
INVERSE = flags.DEFINE_integer(
    "inverse_steps",
    200,
    "Steps for the picture that the source's HOG stands for; 0 makes none, e.g. --inverse_steps=400",
    lower_bound=0,
)


def main(run: cli.Run) -> None:
    if len(run.flags.images) > 2:
        raise InputError(f"two pictures are compared, but {len(run.flags.images)} were given")
    sources = run.sources()
    if len(sources) != 2:
        raise InputError(f"two pictures are needed, the source and the start; given: {len(sources)}")
    size = run.flags.image_size
    if size < 2 * CELL.value:
        raise InputError(f"--image_size={size} has less than two cells of --cell={CELL.value} a side")
    run.runtime  # noqa: B018  (starts TensorFlow, silently)
    from tfcnn.fooling.hog_lookalike import descriptor

    for pair in run.batches(2, lambda image: images.resize(image, size, run.flags.resize)[0]):
        if len(pair) < 2:
            raise InputError("one of the two pictures cannot be read")
        source, start = pair
        target = descriptor(source.prepared, CELL.value)
        if not target.any():
            raise InputError(f"{source.name} is flat: it has no gradients, and its HOG is 0")
        with source, start:
            match(run, source, start, target)


def match(run: cli.Run, source: cli.Picture, start: cli.Picture, target: np.ndarray) -> None:
    """Make the look-alike with the descriptor `target` and what shows it; both entries are filled."""
    from tfcnn.fooling import hog_lookalike as library
    from tfcnn.ops.hog import cell_weights

    with run.progress(STEPS.value, "look-alike", "steps") as progress:
        result = library.lookalike(
            source.prepared,
            start.prepared,
            CELL.value,
            STEPS.value,
            KEEP.value,
            lambda moment: progress.advance(1, value=float(moment.value[0])),
        )
    made = read_back(result.image[0])
    found = {
        name: library.descriptor(image, CELL.value)
        for name, image in (("before", start.prepared), ("after", made))
    }
    distances = {name: library.distance(blocks, target) for name, blocks in found.items()}
    weights = [cell_weights(blocks[None]).numpy()[0] for blocks in (target, found["before"], found["after"])]
    most = np.percentile(weights[0], 99)
    glyphs = [draw.hog_glyphs(each, max(8, 512 // len(each)), most) for each in weights]
    start.save(made, "lookalike.png", "with the HOG of the other", main=True)
    for item, kind, glyph in ((source, "hog", 0), (start, "hog", 1), (start, "lookalike_hog", 2)):
        item.save(glyphs[glyph], kind, "HOG" if kind == "hog" else "HOG of the look-alike")
    start.entry |= {
        "source": source.name,
        "hog_distance": distances,
        "pixel_distance": root_mean_square(made, source.prepared),
        "change": root_mean_square(made, start.prepared),
        "history": result.history(0),
        "final": result.final_entry(0),
    }
    shown = [source.prepared, start.prepared, made]
    captions = ["source", "start", "start with the source's HOG"]
    if INVERSE.value:
        with run.progress(INVERSE.value, "inverse", "steps") as progress:
            inverse = library.inverse(
                target,
                *source.prepared.shape[:2],
                CELL.value,
                INVERSE.value,
                run.flags.seed,
                lambda moment: progress.advance(1, value=float(moment.value[0])),
            )
        picture = read_back(inverse.image[0])
        blocks = library.descriptor(picture, CELL.value)
        source.save(picture, "inverse", "what its HOG stands for", main=True)
        source.entry |= {
            "hog_distance": {"after": library.distance(blocks, target)},
            "history": inverse.history(0),
            "final": inverse.final_entry(0),
        }
        shown.append(picture)
        captions.append("from noise, the source's HOG")
        glyphs.append(
            draw.hog_glyphs(cell_weights(blocks[None]).numpy()[0], max(8, 512 // len(weights[0])), most)
        )
    side = max(256, len(shown[0]))
    cells = [images.resize(each, side)[0] for each in [*shown, *glyphs]]
    run.sheet(
        draw.grid(cells, len(shown), [*captions, *["its HOG"] * len(glyphs)]),
        "sheet.png",
        "above, and below its HOG",
    )
    run.metrics |= {
        "hog_distance_before": distances["before"],
        "hog_distance_after": distances["after"],
        "pixel_distance": start.entry["pixel_distance"],
    }
    rows = [["HOG, relative", f"{distances['before']:.3f}", f"{distances['after']:.3f}"]]
    before = root_mean_square(start.prepared, source.prepared)
    rows.append(["pixels, grey levels", f"{before:.1f}", f"{start.entry['pixel_distance']:.1f}"])
    run.table(["distance from the source", "before", "after"], rows)


def read_back(image: np.ndarray) -> np.ndarray:
    """A picture as its PNG file has it."""
    return images.read(io.BytesIO(images.encode(np.asarray(image))))


def root_mean_square(one: np.ndarray, other: np.ndarray) -> float:
    """The difference of two pictures, grey levels."""
    return float(np.sqrt(np.square(one.astype(np.float64) - other).mean()))


if __name__ == "__main__":
    cli.start(main, without=cli.NO_NET, image_size=256, resize="crop", limit=2)
