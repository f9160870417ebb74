"""Fool a linear classifier: ten numbers, and pictures moved along a class's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.cli import data_flags
from tfcnn.cli.classes import resolve_class
from tfcnn.errors import InputError

if TYPE_CHECKING:
    from tfcnn.datasets import Dataset

GROUP, SUMMARY = "fooling", "fool a linear classifier by a step along its weights"

TRAIN_SPLIT = flags.DEFINE_string(
    "train_split", "train", "Part of the data that is trained on, e.g. --train_split=train"
)
VAL_SPLIT = flags.DEFINE_string(
    "val_split",
    "val",
    "Part of the data for the accuracy and the picture that is moved, e.g. --val_split=test",
)
CLASS = flags.DEFINE_string(
    "class", None, "Classes to move to, by index or name; none takes the first ten, e.g. --class=goldfish"
)
EPOCHS = flags.DEFINE_integer(
    "epochs", 20, "How often every picture is seen, e.g. --epochs=40", lower_bound=1
)
DECAY = flags.DEFINE_float(
    "decay",
    1e-3,
    "Weight of the squared weights; more makes smoother templates, e.g. --decay=0.01",
    lower_bound=0.0,
)
RATE = flags.DEFINE_float("learning_rate", 1e-3, "Of Adam, e.g. --learning_rate=1e-4", lower_bound=0.0)
SCORE = flags.DEFINE_float(
    "score",
    0.995,
    "Probability at which a picture is left, e.g. --score=0.9",
    lower_bound=0.0,
    upper_bound=1.0,
)

SHOWN = 224  # pixels at least of a picture on the sheet


def main(run: cli.Run) -> None:
    parts = [data_flags.open_split(split) for split in (TRAIN_SPLIT.value, VAL_SPLIT.value)]
    names = [name.split(",")[0] for name in parts[0].classes]  # of several synonyms the first
    wanted = (
        resolve_class(CLASS.value or "", [("", name) for name in names], run.say) or range(len(names))[:10]
    )
    run.runtime  # noqa: B018  (starts TensorFlow, silently)
    from tfcnn.fooling import linear

    size = run.flags.image_size or 32
    (seen, labels), (test, truth) = (in_memory(run, part, size) for part in parts)
    with run.progress(EPOCHS.value, "linear softmax", "epochs") as progress:
        model = linear.train(
            seen,
            labels,
            len(names),
            epochs=EPOCHS.value,
            learning_rate=RATE.value,
            decay=DECAY.value,
            batch_size=run.flags.batch_size,
            seed=run.flags.seed,
            callback=lambda loss: progress.advance(1, loss=loss),
        )
    answers = linear.probabilities(model, test)
    right = answers.argmax(axis=1) == truth
    if not right.any():
        raise InputError("the linear classifier is right on no picture: give it more --epochs")
    rows, sheet, captions = [], [], []
    weights = linear.templates(model)
    for index in wanted:
        with run.item(names[index], f"{index:03d}") as item:
            others = np.flatnonzero(right & (truth != index))
            if not len(others):
                raise InputError("no picture of another class is classified rightly: give it more --epochs")
            start = int(others[0])
            made = linear.move_until(model, test[start], index, SCORE.value)
            path = item.save(made, "fooled.png", f"taken for {names[index]}", main=True)
            made = images.read(run.output_dir / path) if path else made
            template = linear.template_picture(weights[index])
            item.save(template, "template.png", "its weights")
            answer = linear.probabilities(model, made[None])[0]
            change = np.abs(made.astype(float) - test[start])
            item.entry |= {
                "class": {"index": index, "synset": "", "label": names[index]},
                "score": float(answer[index]),
                "success": bool(answer.argmax() == index),
                "label_before": names[int(truth[start])],
                "score_before": float(answers[start].max()),
                "linf": float(change.max()),
                "l2": float(np.sqrt(np.square(change).sum())),
                "mean_change": float(change.mean()),
            }
            entry = item.entry
            sheet += [enlarged(each) for each in (test[start], template, made)]
            captions += [
                f"{entry['label_before']} {entry['score_before']:.0%}",
                f"+ weights of {names[index]}",
                f"= {names[index]} {entry['score']:.0%}",
            ]
            change = f"{entry['mean_change']:.1f}"
            rows.append([names[index], entry["label_before"], f"{entry['score']:.1%}", change])
    if sheet:
        run.sheet(draw.grid(sheet, 3, captions), "sheet.png", "picture + a little of the weights = picture")
    ten, ends = linear.ten_numbers()
    run.results["ten_numbers"] = {
        "rows": [dict(zip(("x", "w", "moved"), row, strict=True)) for row in ten],
        "score": [score for score, _ in ends],
        "probability": [probability for _, probability in ends],
    }
    run.say(f"the lecture's ten numbers: p {ends[0][1]:.4f} before, {ends[1][1]:.2f} after a step of 0.5")
    run.metrics |= {"top1": float(right.mean()), "images": len(test), "train_images": len(seen)}
    run.say(f"linear softmax on {len(seen)} pictures: top-1 {right.mean():.1%} of {len(test)} others")
    run.table(["class", "was", "score", "mean change"], rows)


def in_memory(run: cli.Run, part: Dataset, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of a part, with --limit at most so many, evenly spread: uint8 [N, size, size, 3], and their labels."""
    if not part.examples or part.examples[0].label < 0:
        raise InputError(
            f"{part.name} has no pictures with a class each: take cifar10, tiny_imagenet or folder"
        )
    records = part.examples[:: -(-len(part) // (run.flags.limit or len(part)))]
    pictures, labels = [], []
    with run.progress(len(records), "pictures read") as progress:
        for record in records:
            try:
                pictures.append(images.resize(record.image(), size)[0])
                labels.append(record.label)
            except InputError as error:
                run.refuse(record.file, str(error))
            progress.advance()
    if not pictures:
        raise InputError(f"{part.name}: no picture can be read")
    return np.stack(pictures), np.array(labels, np.int32)


def enlarged(image: np.ndarray) -> np.ndarray:
    """A small picture with each of its pixels as a square."""
    times = -(-SHOWN // len(image))
    return image.repeat(times, axis=0).repeat(times, axis=1)


if __name__ == "__main__":
    cli.start(main, pictures=False, without=cli.NO_NET, dataset="digits", image_size=None, batch_size=64)
