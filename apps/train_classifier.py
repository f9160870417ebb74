"""Train a net to name what is in pictures: from scratch, or from a net that knows ImageNet."""

from __future__ import annotations

import dataclasses

import numpy as np
from absl import flags

from tfcnn import cli, draw
from tfcnn.cli import models, training_flags
from tfcnn.errors import InputError, unknown
from tfcnn.runtime import Interrupted

GROUP, SUMMARY = "start", "train a net to name what is in pictures"

CLASSES = flags.DEFINE_string(
    "classes",
    None,
    "Train on these classes only: how many of the first, or names by commas, e.g. --classes=20",
)
BACKBONE_RATE = flags.DEFINE_float(
    "backbone_rate", 0.3, "Share of the learning rate for layers that start from weights", lower_bound=0.0
)
FREEZE_BATCH_NORM = flags.DEFINE_bool(
    "freeze_batch_norm", None, "Keep batch norm's statistics; none: where the net starts from weights"
)
SYNC_BATCH_NORM = flags.DEFINE_bool(
    "sync_batch_norm", False, "Take live batch norm's statistics over the batches of all devices"
)
SMOOTHING = flags.DEFINE_float(
    "label_smoothing", 0.0, "Share of a label spread over all classes", lower_bound=0.0, upper_bound=1.0
)
CACHE = flags.DEFINE_string(
    "cache_features",
    None,
    "Train the last layer alone, on features of pictures and mirror images that are computed once and kept in this "
    "folder, e.g. --cache_features=out/features",
)
LICENCE = flags.DEFINE_string("licence", "as the data's", "Terms of the released weights, for their card")

DEFAULT_EPOCHS = 20.0
# What --augment names beside the presets of tfcnn.datasets: for small pictures, and for writing, which has no
# mirror.
SMALL = {
    "shift": {"window": (0.85, 1.2), "aspect": 0.2, "rotation": 10.0, "fill": (0, 0, 0)},
    "shift_flip": {"window": (0.75, 1.1), "aspect": 0.1, "flip": 0.5},
}
WRITING = ("digits", "mnist")
SHOWN = 32  # pictures of the first batch on the run's page


def main(run: cli.Run) -> None:
    training, validation = (chosen_classes(only_labels(part)) for part in training_flags.read_data())
    row = net_row(run)
    size = run.flags.image_size or row.size
    batches, first, check = make_batches(run, training, validation, size)
    steps = training_flags.steps_of(batches, DEFAULT_EPOCHS)
    strategy = run.runtime.strategy  # starts TensorFlow, silently
    weights = training_flags.init_file() or models.weights_of(run)
    if CACHE.value and weights is None:
        raise InputError(
            "--cache_features is for a net that starts from weights: random features are worth nothing"
        )
    run.say(
        f"{len(training)} pictures of {len(training.classes)} classes to train on, {len(validation)} to validate, "
        f"at {size} px; {steps} steps of {run.flags.batch_size * training_flags.ACCUMULATE.value}"
    )
    with strategy.scope():
        trainee, multiplier = make_trainee(run, row, weights, training.classes, size, check)
        data, pictures = batches, [batches, check]
        if CACHE.value:
            pictures = []
            trainee, data = on_features(run, trainee.networks["classifier"], training, validation, size)
    show_batch(run, first, training.classes)
    result = training_flags.train(
        run, trainee, data, steps=steps, best="top1", multiplier=multiplier, pictures=pictures
    )
    for sheet in trainee.pictures():
        run.sheet(sheet, "answers", "What the released net answers to pictures of the validation split")
    model = trainee.networks["classifier"]
    card = training_flags.release(
        run,
        model,
        f"{training.name}, {training_flags.TRAIN_SPLIT.value}: {len(training)} pictures; validated on "
        f"{training_flags.VAL_SPLIT.value}: {len(validation)}",
        training.classes,
        LICENCE.value,
        image_size=size,
        start="random" if weights is None else str(training_flags.INIT.value or weights),
    )
    run.table(*table(result, card))


def only_labels(dataset):
    """The data set without boxes, so that the pipeline sees a picture's class alone."""
    if any(record.label < 0 for record in dataset.examples):
        raise InputError(
            f"--dataset={training_flags.DATASET.value} gives no class a picture; train_detector reads it"
        )
    plain = {name: None for name in ("labels", "difficult", "truncated", "crowd", "area", "truth")}
    boxes = np.zeros((0, 4), np.float32)
    examples = [dataclasses.replace(record, boxes=boxes, **plain) for record in dataset.examples]
    return dataclasses.replace(dataset, examples=examples)


def chosen_classes(dataset):
    """The part of the data set that --classes asks for; its classes are numbered anew."""
    if CLASSES.value is None:
        return dataset
    names = list(enumerate(dataset.classes))
    if CLASSES.value.isdigit():
        if not 1 < int(CLASSES.value) <= len(names):
            raise InputError(
                f"--classes={CLASSES.value}: the data have {len(names)} classes; at least 2 are needed"
            )
        chosen = list(range(int(CLASSES.value)))
    else:
        chosen = cli.resolve_class(CLASSES.value, [("", name) for _, name in names])
    index = {old: new for new, old in enumerate(chosen)}
    examples = [dataclasses.replace(r, label=index[r.label]) for r in dataset.examples if r.label in index]
    kept = [dataset.classes[old] for old in chosen]
    return dataclasses.replace(
        dataset, classes=kept, category_ids=[i + 1 for i in index.values()], examples=examples
    )


def net_row(run):
    """The row of the factory's table that --net names."""
    from tfcnn.backbones import table

    if run.flags.model:
        raise InputError(
            "--model is for trained nets: --init starts from one, with --net naming its architecture"
        )
    run.net = run.flags.net
    return table.net(run.flags.net)


def make_batches(run, training, validation, size):
    """(training batches, the same for the first pictures alone, a call that gives the validation's once through)."""
    from tfcnn.datasets import augment, pipeline

    name = training_flags.AUGMENT.value or ("shift" if training.name in WRITING else "classification")
    if name in SMALL:
        how = augment.Augmentation(**SMALL[name])
    elif name in augment.PRESETS:
        how = augment.PRESETS[name]
    else:
        raise unknown("--augment", name, [*SMALL, *augment.PRESETS])
    same = {"size": size, "batch_size": run.flags.batch_size, "seed": run.flags.seed, "threads": run.threads}
    same["resize"] = run.flags.resize
    check = pipeline.batches(validation, augment=None, shuffle=False, repeat=False, **same)
    few = same | {"batch_size": min(SHOWN, run.flags.batch_size)}
    parts = [pipeline.batches(training, augment=how, **each) for each in (same, few)]
    return *parts, check


def make_trainee(run, row, weights, classes, size, check):
    """The trainee, with what is to be frozen frozen, and the factor of each weight's learning rate."""
    from tfcnn import backbones
    from tfcnn.training import freezing
    from tfcnn.training.classifier import Classifier

    model = backbones.classifier(run.flags.net, weights, classes=len(classes), size=size)
    for name in training_flags.FREEZE.value:
        tapped = backbones.tap(model, [name], row.endpoints) if name in row.endpoints else model
        freezing.freeze(tapped, [name])
    if not model.trainable_variables:
        raise InputError(
            f"--freeze={','.join(training_flags.FREEZE.value)} freezes every layer: nothing is left to train"
        )
    frozen = weights is not None if FREEZE_BATCH_NORM.value is None else FREEZE_BATCH_NORM.value
    if frozen:
        freezing.freeze_batch_norm(model)
    if SYNC_BATCH_NORM.value:
        freezing.synchronize_batch_norm(model)
    body = backbones.tap(model, [list(row.endpoints)[-1]], row.endpoints)
    given = {id(variable) for variable in body.variables} if weights is not None else set()
    return Classifier(
        model, check, classes, SMOOTHING.value
    ), lambda v: BACKBONE_RATE.value if id(v) in given else 1.0


def on_features(run, model, training, validation, size):
    """(trainee of the last layer alone, training batches of features), computed or found in --cache_features."""
    import keras

    from tfcnn.training import features
    from tfcnn.training.classifier import Classifier

    last = [layer for layer in model.layers if layer.weights][-1]
    for layer in model.layers:
        layer.trainable = layer is last
    body = keras.Model(model.input, {"features": last.input}, name="features")
    head = keras.Model(last.input, {"logits": model.output["logits"]}, name="head")
    mirror = training.name not in WRITING
    cached = [
        features_of(run, body, part, name, size, mirror and part is training)
        for part, name in ((training, "train"), (validation, "val"))
    ]
    labels = [np.array([r.label for r in part.examples], np.int32) for part in (training, validation)]

    labels[1][np.array(cached[1].image_ids) == ""] = -1

    def check():
        for first in range(0, len(labels[1]), run.flags.batch_size):
            rows = slice(first, first + run.flags.batch_size)
            yield {
                "features": cached[1].arrays["features"][rows, 0].astype(np.float32),
                "label": labels[1][rows],
            }

    data = features.Batches(cached[0], {"label": labels[0]}, run.flags.batch_size, run.flags.seed)
    return Classifier(model, check, training.classes, SMOOTHING.value, head), data


def features_of(run, body, part, name, size, mirror):
    """A split's cache, written first where it is not there; pictures that it lacks are refused."""
    import pathlib

    from tfcnn.datasets import pipeline
    from tfcnn.training import features

    folder = pathlib.Path(CACHE.value) / name
    ids = [str(record.image_id) for record in part.examples]
    wanted = features.fingerprint(body, ids, (size, size), run.flags.resize)
    if not folder.exists():
        how = {"size": size, "batch_size": run.flags.batch_size, "resize": run.flags.resize}
        once = pipeline.batches(part, shuffle=False, repeat=False, threads=run.threads, **how)
        with run.progress(len(ids), f"features of {name}") as bar:

            def progress(done):
                bar.advance(done - bar.done)
                if run.stop:
                    raise Interrupted("Stopped by a signal; the same command computes the features anew.")

            features.write(folder, body, once, wanted, ids, flip=mirror, say=run.say, progress=progress)
        training_flags.refuse(run, once)
    cache = features.read(folder, wanted)
    missing = [r.file for r, there in zip(part.examples, cache.image_ids, strict=True) if not there]
    known = {entry["file"] for entry in run.refused.values()}
    for file in missing:
        if file not in known:
            run.refuse(file, f"it could not be read when {folder} was made")
    return cache


def show_batch(run, first, classes) -> None:
    """Shows on the run's page the first batch as it enters the net."""
    batch = first.batch(0)
    pictures = [np.clip(picture, 0, 255).astype(np.uint8) for picture in batch["image"]]
    captions = [classes[label] for label in batch["label"]]
    run.sheet(draw.grid(pictures, captions=captions), "first_batch", "The first batch as it enters the net")


def table(result, card):
    """Columns and rows for the end."""
    rows = []
    for name, figures in (("best", result.best), ("last", result.last)):
        shown = [f"{figures[f]:.1%}" if f in figures else "" for f in ("top1", "top5")]
        rows.append([name, figures["step"], *shown, f"{figures['loss']:.3f}"])
    rows.append(["release", f"{card['bytes'] / 1e6:.2f} MB", f"{card['parameters']} weights", "", ""])
    return ["validation", "step", "top-1", "top-5", "loss"], rows


if __name__ == "__main__":
    cli.start(main, pictures=False, trainer=True, net="tiny", batch_size=32, dataset="digits")
