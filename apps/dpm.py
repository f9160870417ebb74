"""Detect by deformable part models, or train them: a root, parts at twice its resolution, and springs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.cli import box_files, detecting, lists, svm_flags, testing_flags
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import keras

GROUP, SUMMARY = "detection", "detect by deformable part models, or train them"

STEP = flags.DEFINE_enum("step", "detect", ["detect", "train"], "What to do, also as the first word")
ASPECTS = flags.DEFINE_integer(
    "aspects", 2, "Components of a class, by the shape of its objects, before mirror images", lower_bound=1
)
PARTS = flags.DEFINE_integer("parts", 8, "Parts of a component", lower_bound=1)
SIDE = flags.DEFINE_integer("side", 6, "Side of a part, in cells half as large as the root's", lower_bound=1)
RADIUS = flags.DEFINE_integer(
    "radius", 4, "Most of these cells that a part moves along an axis", lower_bound=0
)
ROOT_ROUNDS = flags.DEFINE_integer(
    "root_rounds", 1, "Rounds of hard negatives for the roots, before there are parts", lower_bound=1
)
MOST_PARTS = 3  # objects whose parts are drawn: more hide the picture


def main(run: cli.Run) -> None:
    svm_flags.check_flags(STEP.value, (ASPECTS, PARTS, SIDE, RADIUS, ROOT_ROUNDS))
    if STEP.value == "train":
        train(run)
        return
    if not run.flags.model:
        raise InputError("--model is missing: a deformable part model's release, folder or .keras file")
    sources = lists.paths(run.flags.model)
    svm_flags.check_kind(sources[0], "dpm")
    predictor, _ = testing_flags.open_detector(run, sources)
    from tfcnn.detection import dpm_figure

    def more(picture, prepared):
        seen = prepared.pictures[0]
        boxes, scores, labels, filters = predictor.method.find(seen)
        count = min(MOST_PARTS, int((scores >= detecting.DRAW.value).sum()))
        parts = dpm_figure.parts_picture(seen, filters[:count], boxes[:count], labels[:count])
        picture.save(parts, "parts", "root and parts of the best objects")
        stages = dpm_figure.stages_picture(predictor.method, seen)
        if stages is not None:
            picture.save(stages, "stages", "the model as a net, at its best object")

    found: list[dict] = []
    rows = detecting.of_pictures(run, predictor, None, found, more)
    box_files.save(run, found, predictor.names, predictor.category_ids)
    show(run, predictor.method.model, predictor.names)
    run.table(["input", "objects", "best"], rows)


def train(run: cli.Run) -> None:
    """Train mixtures of parts, measure them on the validation split, and save their release."""
    if run.flags.images:
        raise InputError(
            f"train takes no pictures, but {run.flags.images[0]} was given: name data by --dataset"
        )
    training, validation = svm_flags.read_data(run)
    run.runtime  # noqa: B018  (starts TensorFlow, silently)
    from tfcnn.detection import dpm_training, hog_objects
    from tfcnn.detection.dpm_net import Dpm

    config = svm_flags.config(
        dpm_training.DpmConfig,
        aspects=ASPECTS.value,
        parts=PARTS.value,
        side=SIDE.value,
        radius=RADIUS.value,
        root_rounds=ROOT_ROUNDS.value,
    )
    hog_objects.grouped(training, config.of_roots())  # a class without objects is said before the work begins
    with svm_flags.told(run, dpm_training.steps_of(training, config)) as told:
        model = dpm_training.train_dpm(training, config, **told)
    svm_flags.finish(run, "dpm", Dpm([model]), training, validation, dataclasses.asdict(config))
    show(run, model, training.classes)


def show(run: cli.Run, model: keras.Model, names: list[str]) -> None:
    """Write components as the paper draws them: root filter, part filters, costs of moving a part."""
    from tfcnn.detection import dpm_figure, dpm_net

    components = dpm_net.components_of(model)
    drawn, tiles = [], []
    for own in components:
        if not any(_mirrors(own, other) for other in drawn):
            drawn.append(own)
            picture = dpm_figure.component_picture(own)
            tiles.append(
                (own.label, images.resize(picture, (240, 560), "letterbox", fill=(255, 255, 255))[0])
            )
    tiles = svm_flags.shown(sorted(tiles, key=lambda tile: tile[0]), names)
    sheet = draw.grid([tile for _, tile in tiles], 2, [names[label] for label, _ in tiles])
    run.sheet(
        sheet, "components.png", "root filter, part filters, and what moving a part costs (dark: little)"
    )


def _mirrors(one, other):
    return one.shape == other.shape and np.allclose(one.root, other.mirrored().root, atol=1e-3)


if __name__ == "__main__":
    cli.start(
        main,
        without=cli.NO_FACTORY,
        words="step",
        trains="train",
        resume=True,
        checkpoint_minutes=1.0,
        batch_size=8,
        model="dpm_voc",
        longest=320,
        draw_threshold=0.3,
    )
