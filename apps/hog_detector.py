"""Detect by HOG windows and linear SVMs, or train them: detection as classification of every window."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.cli import box_files, detecting, lists, svm_flags, testing_flags, training_record
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import keras

GROUP, SUMMARY = "detection", "detect by HOG windows and linear SVMs, or train them"

STEP = flags.DEFINE_enum("step", "detect", ["detect", "train"], "What to do, also as the first word")
FEATURES = flags.DEFINE_enum(
    "features",
    "felzenszwalb",
    ["felzenszwalb", "dalal_triggs"],
    "31 features of a cell, or normalised blocks of 2 x 2 cells",
)
WINDOW = flags.DEFINE_list(
    "window",
    [],
    "Height and width in cells of one template a class, instead of aspects: Dalal's person is --window=16,8",
)
MARGIN = flags.DEFINE_integer(
    "margin", 1, "Cells round an object that its window shows, too (Dalal's person: 2)", lower_bound=0
)
ASPECTS = flags.DEFINE_integer(
    "aspects", 3, "Templates of a class, by the shape of its objects", lower_bound=1
)
MIRRORED = flags.DEFINE_bool(
    "mirrored", True, "Give each template its mirror image; false: one learns from objects of both facings"
)


def main(run: cli.Run) -> None:
    svm_flags.check_flags(STEP.value, (FEATURES, WINDOW, MARGIN, ASPECTS, MIRRORED))
    if STEP.value == "train":
        train(run)
        return
    if not run.flags.model:
        raise InputError("--model is missing: a HOG detector's release, folder or .keras file")
    sources = lists.paths(run.flags.model)
    svm_flags.check_kind(sources[0], "hog_svm")
    predictor, _ = testing_flags.open_detector(run, sources)
    found: list[dict] = []
    rows = detecting.of_pictures(run, predictor, None, found)
    box_files.save(run, found, predictor.names, predictor.category_ids)
    show(run, predictor.method.model, predictor.names)
    run.table(["input", "objects", "best"], rows)


def train(run: cli.Run) -> None:
    """Train templates, measure them on the validation split, and save their release."""
    if run.flags.images:
        raise InputError(
            f"train takes no pictures, but {run.flags.images[0]} was given: name data by --dataset"
        )
    window = training_record.whole_numbers(WINDOW)
    if window and (len(window) != 2 or min(window) < 2 * MARGIN.value + 1):
        raise InputError(
            f"--window={','.join(WINDOW.value)}: height and width in cells, more than twice --margin={MARGIN.value}"
        )
    training, validation = svm_flags.read_data(run)
    run.runtime  # noqa: B018  (starts TensorFlow, silently)
    from tfcnn.detection import hog_objects, hog_svm_training
    from tfcnn.detection.hog_svm import HogSvm

    config = svm_flags.config(
        hog_objects.HogSvmConfig,
        features=FEATURES.value,
        window=tuple(window) or None,
        margin=MARGIN.value,
        aspects=ASPECTS.value,
        mirrored=MIRRORED.value,
    )
    hog_objects.grouped(training, config)  # a class without objects is said before the work begins
    with svm_flags.told(run, hog_svm_training.steps_of(training, config)) as told:
        model = hog_svm_training.train_hog_svm(training, config, **told)
    svm_flags.finish(run, "hog_svm", HogSvm([model]), training, validation, dataclasses.asdict(config))
    show(run, model, training.classes)


def show(run: cli.Run, model: keras.Model, names: list[str]) -> None:
    """Write templates as glyphs, strokes along the edges that they ask for; of two mirror images the first one."""
    from tfcnn.ops import hog

    output, features = model.layers[-1], model.get_layer("hog").features
    tiles = []
    for (h, w), labels in zip(output.shapes, output.labels, strict=True):
        kernels = np.moveaxis(model.get_layer(f"templates_{h}x{w}").kernel.numpy(), -1, 0)
        for column, label in enumerate(labels):
            if column and np.allclose(kernels[column], hog.mirrored(kernels[column - 1]), atol=1e-3):
                continue
            if features == "felzenszwalb":
                glyph = draw.hog_glyphs(hog.orientation_weights(kernels[column]), 20, offset=0)
            else:  # what the blocks that a cell lies in ask of it
                asked = hog.cell_weights(np.maximum(kernels[column], 0)[None]).numpy()[0]
                glyph = draw.hog_glyphs(asked, 20)
            tiles.append((label, images.resize(glyph, 200, "letterbox", fill=(255, 255, 255))[0]))
    tiles = svm_flags.shown(sorted(tiles, key=lambda tile: tile[0]), names)
    sheet = draw.grid([tile for _, tile in tiles], 6, [names[label] for label, _ in tiles])
    run.sheet(sheet, "templates.png", "templates: the edges that each asks for")


if __name__ == "__main__":
    cli.start(
        main,
        without=cli.NO_FACTORY,
        words="step",
        trains="train",
        resume=True,
        checkpoint_minutes=1.0,
        batch_size=8,
        model="hog_voc",
        longest=320,
        draw_threshold=0.3,
    )
