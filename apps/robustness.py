"""Measure how a net's error grows with the size of an attack, beside noise of that size, and who else is fooled."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.cli import data_flags
from tfcnn.cli.data_flags import DATASET
from tfcnn.cli.flags import refuse
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import keras

    from tfcnn.datasets.example import Dataset

GROUP, SUMMARY = "fooling", "measure a net's error against the size of an attack"

EPS = flags.DEFINE_list(
    "eps", ["0", "1", "2", "4", "8"], "Largest changes of a value, grey levels of 0..255, e.g. --eps=0,64"
)
METHOD = flags.DEFINE_enum(
    "method", "fgsm", ["fgsm", "bim", "pgd", "momentum"], "The attack, within each --eps in linf"
)
STEPS = flags.DEFINE_integer(
    "steps", None, "Gradients of an attack; none takes the method's own, e.g. --steps=40", lower_bound=1
)
TRANSFER = flags.DEFINE_list(
    "transfer",
    [],
    "Other nets of the factory, of the same classes, to be shown the pictures of the largest --eps, "
    "e.g. --transfer=mobilenet_v2,efficientnet_lite2",
)
SPLIT = data_flags.define_split("With --dataset: its part", "val", example='test or --split="test[8000:]"')
TRUTH = flags.DEFINE_string(
    "truth",
    None,
    "With pictures: CSV with the columns file and class_index; none takes the net's own answers as labels, "
    "e.g. --truth=labels.csv",
)
SHOWN, SIDE = 6, 112  # pictures on the sheet, and their sides in pixels at least


def main(run: cli.Run) -> None:
    sizes = the_sizes()
    if not DATASET.value:
        refuse(("data", "split"), "belongs to --dataset: name a data set with a class a picture")
    if DATASET.value and (run.flags.images or TRUTH.value):
        raise InputError("--dataset has pictures and labels of its own: leave --images and --truth away")
    part = data_flags.open_split(SPLIT.value) if DATASET.value else None
    others = other_nets(run)
    net = run.load_net()
    from tfcnn.evaluation import robustness
    from tfcnn.fooling import Attack
    from tfcnn.fooling.classifier import Classifier

    seen, labels, pictures = of_data(run, net, part) if part else of_files(run, net)
    classifier = Classifier(net.model)
    answers = answer_function(classifier.logits, run.flags.batch_size)
    if labels is None:
        labels = answers(seen)
        run.say("no --truth: the net's own answers are the labels, and eps 0 has no error")
    whole = sum(1 for size in sizes if size)
    shown: list[tuple[float, np.ndarray, np.ndarray]] = []
    with run.progress(max(1, whole) * len(seen), METHOD.value) as progress:

        def attack(pictures: np.ndarray, labels: np.ndarray, eps: float) -> np.ndarray:
            by = Attack(classifier, METHOD.value, eps, steps=STEPS.value, seed=run.flags.seed)
            made = []
            for begin in range(0, len(pictures), run.flags.batch_size):
                rows = slice(begin, begin + run.flags.batch_size)
                made.append(by(pictures[rows], labels[rows]).images)
                progress.advance(len(made[-1]))
            return np.concatenate(made)

        curve = robustness.error_curve(
            answers, attack, seen, labels, sizes, run.flags.seed, lambda *each: shown.append(each)
        )
    for place, picture in enumerate(pictures):
        fooled = [eps for eps, _, found in shown if found[place] != labels[place]]
        picture.entry |= {"label": net.classes[labels[place]][1], "least_eps": min(fooled, default=None)}
    run.metrics |= {"curve": curve, "transfer": {}, "images": len(seen), "method": METHOD.value}
    if others:
        largest = int(np.argmax(sizes))
        compare(run, others, seen, shown[largest][1], labels, net.size, sizes[largest])
    run.sheet(
        robustness.plot(curve, f"{'/'.join(pathlib.PurePath(net.name).parts[-2:])}, {METHOD.value}"),
        "curve",
        "error against eps",
    )
    run.sheet(examples(net, shown, labels), "examples", "one row a picture, and what the net says of it")
    rows = [[f"{entry['eps']:g}", f"{entry['error']:.1%}", f"{entry['noise_error']:.1%}"] for entry in curve]
    run.table(["eps", f"error under {METHOD.value}", "under noise"], rows)
    for name, each in run.metrics["transfer"].items():
        run.say(f"{name}: error {each:.1%} on the same pictures")


def the_sizes() -> list[float]:
    """The numbers of --eps."""
    try:
        sizes = [float(text) for text in EPS.value]
    except ValueError:
        sizes = []
    if not sizes or not all(0 <= size <= 255 for size in sizes) or len(set(sizes)) < len(sizes):
        raise InputError(f"--eps={','.join(EPS.value)}: different numbers from 0 to 255, by commas")
    return sizes


def other_nets(run: cli.Run) -> dict[str, Callable[[int], keras.Model]]:
    """The nets of --transfer, whose weights are here: {name: function of a size to the net}."""
    from tfcnn import backbones
    from tfcnn.backbones import table

    found = {}
    for name in TRANSFER.value:
        table.net(name)
        backbones.locate(name, "imagenet")
        found[name] = lambda size, name=name: backbones.classifier(name, size=size)
    return found


def of_data(run: cli.Run, net: cli.Net, part: Dataset) -> tuple[np.ndarray, np.ndarray, list]:
    """Pictures of a data set, with --limit so many, evenly spread: uint8 [N, H, W, 3], int32 [N], no entries."""
    if not part.examples or part.examples[0].label < 0:
        raise InputError(f"{part.name} has no pictures with a class each in split {SPLIT.value}")
    if len(part.classes) != len(net.classes):
        raise InputError(
            f"{part.name} has {len(part.classes)} classes, and {net.name} answers with {len(net.classes)}"
        )
    how = "stretch" if run.flags["resize"].using_default_value else run.flags.resize  # as trainers do
    records = part.examples
    if run.flags.limit:
        records = records[:: -(-len(records) // run.flags.limit)]
    with run.progress(len(records), "pictures read") as progress:
        pictures, labels = [], []
        for record in records:
            try:
                pictures.append(images.resize(record.image(), net.size, how)[0])
                labels.append(record.label)
            except InputError as error:
                run.refuse(record.file, str(error))
            progress.advance()
    if not pictures:
        raise InputError("no picture is left to measure on")
    return np.stack(pictures), np.array(labels, np.int32), []


def of_files(run: cli.Run, net: cli.Net) -> tuple[np.ndarray, np.ndarray | None, list[cli.Picture]]:
    """The pictures that the command names as the net sees them, their labels where --truth has them, and themselves."""
    truth = cli.read_truth(TRUTH.value, run.sources(), net.classes) if TRUTH.value else {}
    seen, labels, pictures = [], [], []
    for batch in run.batches(1, lambda image: images.resize(image, net.size, run.flags.resize)[0]):
        for picture in batch:
            with picture:
                if truth and picture.source not in truth:
                    raise InputError(f"--truth={TRUTH.value} does not name it")
                seen.append(picture.prepared)
                labels.append(truth.get(picture.source, -1))
                pictures.append(picture)
                picture.show(picture.prepared)
    if not seen:
        raise InputError("no picture is left to measure on")
    return np.stack(seen), np.array(labels, np.int32) if truth else None, pictures


def answer_function(
    logits: Callable[[np.ndarray], np.ndarray], batch_size: int
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from pictures, uint8 [N, H, W, 3], to classes, int32 [N]."""

    def answers(pictures):
        parts = range(0, len(pictures), batch_size)
        found = np.concatenate([logits(pictures[begin : begin + batch_size]) for begin in parts])
        if not np.isfinite(found).all():
            raise InputError("the net's answers are not finite: there is no class to compare")
        return found.argmax(axis=1).astype(np.int32)

    return answers


def compare(
    run: cli.Run,
    others: dict[str, Callable[[int], keras.Model]],
    seen: np.ndarray,
    attacked: np.ndarray,
    labels: np.ndarray,
    size: int,
    eps: float,
) -> None:
    """Show other nets the attacked pictures, and beside them the same pictures clean and with noise."""
    from tfcnn.evaluation import robustness

    found: dict[str, dict[str, float]] = {"transfer": {}, "transfer_clean": {}, "transfer_noise": {}}
    for name, build in others.items():
        model = build(size)
        if model.output["logits"].shape[-1] <= labels.max():
            raise InputError(f"--transfer={name} has fewer classes than the net that is attacked")
        nets = {
            name: answer_function(
                lambda pictures, model=model: np.asarray(
                    model(pictures.astype(np.float32), training=False)["logits"]
                ),
                run.flags.batch_size,
            )
        }
        noise = robustness.noisy(seen, eps, run.flags.seed)
        for key, pictures in (("transfer", attacked), ("transfer_clean", seen), ("transfer_noise", noise)):
            found[key] |= robustness.transferred(nets, pictures, labels)
    run.metrics |= found | {"transfer_eps": float(eps)}


def examples(
    net: cli.Net, shown: list[tuple[float, np.ndarray, np.ndarray]], labels: np.ndarray
) -> np.ndarray:
    """A sheet: a row for each of the first pictures, a column for each eps, and the net's answers."""
    cells, captions = [], []
    for place in range(min(SHOWN, len(labels))):
        for eps, made, found in shown:
            times = max(1, -(-SIDE // len(made[place])))
            cells.append(made[place].repeat(times, axis=0).repeat(times, axis=1))
            captions.append(f"{eps:g}: {net.classes[found[place]][1]}")
    return draw.grid(cells, len(shown), captions)


if __name__ == "__main__":
    cli.start(main, batch_size=50, resize="crop")
