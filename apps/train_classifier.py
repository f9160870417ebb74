"""Train a net that classifies pictures: from scratch, or from a net that knows ImageNet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from absl import flags

from tfcnn import cli
from tfcnn.backbones import Net
from tfcnn.cli import training_flags, training_record
from tfcnn.datasets.example import Dataset
from tfcnn.errors import InputError

GROUP, SUMMARY = "start", "train a classifier, from scratch or fine-tuned"

CLASSES = flags.DEFINE_string(
    "classes",
    None,
    "Train on these classes only: how many of the first, or names by commas, e.g. --classes=20",
)
FREEZE_BATCH_NORM = flags.DEFINE_bool(
    "freeze_batch_norm", None, "Keep batch norm's statistics; none: where they have been trained"
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


def main(run: cli.Run) -> None:
    training, validation = training_flags.read_data(run)
    training, validation = chosen_classes(training, run.say), chosen_classes(validation)
    row = net_row(run)
    strategy = run.runtime.strategy  # starts TensorFlow, silently
    from tfcnn import backbones
    from tfcnn import training as library

    size = run.flags.image_size or row.size
    config = training_flags.config(library.ClassifierConfig, image_size=size, resume=run.resume)
    weights = training_flags.classifier_start(run)
    with strategy.scope():
        model = backbones.classifier(run.flags.net, weights, classes=len(training.classes), size=size)
    training_flags.say_data(run, training, validation, f"at {size} px")
    endpoints = {name: place.layer or name for name, place in row.endpoints.items()}
    card = {
        "data": f"{training.name}, {training_flags.TRAIN_SPLIT.value}: {len(training)} pictures; validated on "
        f"{training_flags.VAL_SPLIT.value}: {len(validation)}",
        "start": "random" if weights is None else str(training_flags.INIT.value or weights),
    }
    with training_flags.told(run) as told:
        told["card"] |= card
        trained = library.train_classifier(
            model, training, validation, config, run.output_dir, endpoints=endpoints, **told
        )
    training_flags.record(run, trained)
    run.table(*table(trained.metrics, trained.card))


def chosen_classes(dataset: Dataset, say: Callable[[str], None] = lambda line: None) -> Dataset:
    """The part of the data set that --classes asks for; its classes are numbered anew."""
    if CLASSES.value is None:
        return dataset
    count = len(dataset.classes)
    if CLASSES.value.isdigit():
        if not 1 < int(CLASSES.value) <= count:
            raise InputError(
                f"--classes={CLASSES.value}: the data have {count} classes; at least 2 are needed"
            )
        chosen = list(range(int(CLASSES.value)))
        if CLASSES.value in dataset.classes:
            say(f"--classes={CLASSES.value} is how many of the first, though a class has that name")
    else:
        chosen = cli.resolve_class(CLASSES.value, [("", name) for name in dataset.classes], say)
    index = {old: new for new, old in enumerate(chosen)}
    examples = [dataclasses.replace(r, label=index[r.label]) for r in dataset.examples if r.label in index]
    kept = [dataset.classes[old] for old in chosen]
    return dataclasses.replace(
        dataset, classes=kept, category_ids=[i + 1 for i in index.values()], examples=examples
    )


def net_row(run: cli.Run) -> Net:
    """The row of the factory's table that --net names."""
    from tfcnn.backbones import table

    run.net = run.flags.net
    return table.net(run.flags.net)


def table(metrics: dict, card: dict) -> tuple[list[str], list[list]]:
    """Columns and rows for the end."""
    rows = []
    for name in ("best", "last"):
        figures = metrics[name]
        if not figures:
            continue
        shown = [training_record.percent(figures[f]) if f in figures else "" for f in ("top1", "top5")]
        rows.append([name, figures["step"], *shown, f"{figures['loss']:.3f}"])
    rows.append(["release", f"{card['bytes'] / 1e6:.2f} MB", f"{card['parameters']} weights", "", ""])
    return ["validation", "step", "top-1", "top-5", "loss"], rows


if __name__ == "__main__":
    cli.start(main, pictures=False, trainer=True, net="tiny", batch_size=32, dataset="digits")
