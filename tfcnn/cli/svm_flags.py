"""What the trainers of HOG windows and of deformable parts share: data, settings, validation, release."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from absl import flags

from tfcnn.cards import card_of
from tfcnn.cli import data_flags, detecting, lists, testing_flags, training_record
from tfcnn.cli.flags import refuse
from tfcnn.cli.run import Run
from tfcnn.datasets.classes import restricted, united
from tfcnn.datasets.example import Dataset, evenly
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from tfcnn.predictor import Method

Config = TypeVar("Config")

CLASSES = flags.DEFINE_string(
    "classes", None, "Classes to train, or to draw the templates of; none: all, e.g. --classes=person,car"
)
TRAIN_SPLIT = flags.DEFINE_string("train_split", "train", "Part of the data that is trained on")
VAL_SPLIT = flags.DEFINE_string("val_split", "val", "Part of the data that figures are measured on")
TRAIN_IMAGES = flags.DEFINE_integer(
    "train_images", 0, "Pictures to train on, evenly spread; 0 takes all", lower_bound=0
)
VALIDATE_IMAGES = flags.DEFINE_integer(
    "validate_images", 200, "Pictures that are measured at the end, evenly spread; 0 takes all", lower_bound=0
)
AREA = flags.DEFINE_integer("area", 40, "Cells of a template, about", lower_bound=4)
CELL = flags.DEFINE_integer("cell", 8, "Pixels of a cell", lower_bound=2)
LARGEST = flags.DEFINE_float(
    "largest",
    1.5,
    "Largest size of a picture that is searched, times its own: above 1 finds small objects",
    lower_bound=0.25,
)
PER_OCTAVE = flags.DEFINE_integer("per_octave", 4, "Sizes until a picture is halved", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds of hard negatives", lower_bound=1)
PICTURES = flags.DEFINE_integer("pictures", 400, "Pictures that each round searches", lower_bound=1)
NEGATIVES = flags.DEFINE_integer(
    "negatives", 2000, "Windows of the background that a template keeps in memory", lower_bound=20
)
SVM_C = flags.DEFINE_float("svm_c", 0.01, "C of the SVMs", lower_bound=1e-9)
TRAIN_SIZE = flags.DEFINE_integer("train_size", 320, "Longer side of a picture in pixels", lower_bound=32)
LICENCE = flags.DEFINE_string("licence", "as the data's", "Terms of the released weights, for their card")
SHOWN = flags.DEFINE_integer("shown", 24, "Templates or components that are drawn, at most", lower_bound=1)
OF_TRAINING = (
    "dataset",
    "data",
    "train_split",
    "val_split",
    "train_images",
    "validate_images",
    "area",
    "cell",
)
OF_TRAINING += ("largest", "per_octave", "rounds", "pictures", "negatives", "svm_c", "train_size", "licence")
OF_TRAINING += ("resume", "checkpoint_minutes")
OF_DETECTION = (*(flag.name for flag in testing_flags.OF_DETECTORS), *testing_flags.OF_VIEWS)
OF_DETECTION += (detecting.DRAW.name,)


def check_flags(step: str, own: Sequence[flags.FlagHolder]) -> None:
    """Refuses flags of the other step: training searches with settings of its own, and detection with a model's.

    Args:
        step: "train" or "detect".
        own: the app's own flags of training.

    Raises:
        InputError: one of them is given.
    """
    if step == "train":
        refuse(OF_DETECTION, "is for the step detect, and this is train")
    else:
        names = (*OF_TRAINING, *(flag.name for flag in own))
        refuse(names, "is for the step train, and this is detect")


def read_data(run: Run) -> tuple[Dataset, Dataset]:
    """The two splits, of the classes that --classes names; a finished run goes no further than this.

    Raises:
        InputError: no such data, it has no boxes, or a finished run on other data lies in output_dir.
        NothingToDo: output_dir holds the finished run of this command on these data.
    """
    for name in ("model", "net", "weights", "preprocessing", "labels", "limit"):
        if flags.FLAGS[name].present:
            instead = ": --train_images and --validate_images do" if name == "limit" else ""
            raise InputError(f"--{name} says nothing of a training{instead}")
    parts = united([data_flags.open_split(split) for split in (TRAIN_SPLIT.value, VAL_SPLIT.value)])
    training, validation = (restricted(part, _chosen(part.classes)) for part in parts)
    if not any(len(record.boxes) for record in training.examples):
        raise InputError(f"--dataset={data_flags.DATASET.value} has no boxes of these classes to learn from")
    training = training_record.limited(training, TRAIN_IMAGES.value or None)
    validation = training_record.limited(validation, VALIDATE_IMAGES.value or None)
    run.trains_on({"training": training.fingerprint(), "validation": validation.fingerprint()})
    return training, validation


def _chosen(known: list[str]) -> list[str]:
    return lists.names(CLASSES.value or "", lambda name: name in known)


def shown(tiles: list[tuple[int, np.ndarray]], names: list[str]) -> list[tuple[int, np.ndarray]]:
    """Those of (class, picture) that --classes and --shown ask for."""
    chosen = _chosen(names)
    wanted = [tile for tile in tiles if not chosen or names[tile[0]] in chosen]
    return (wanted or tiles)[: SHOWN.value]


def check_kind(model: str, kind: str) -> None:
    """Refuses a model whose card names another kind.

    Args:
        model: a release, folder or file.
        kind: the one that is taken.

    Raises:
        InputError: it is another; the app detect takes any detector.
    """
    own = card_of(model).get("kind", kind)
    if own != kind:
        raise InputError(f"--model={model} is a {own}, no {kind}: the app detect takes every detector")


def config(kind: type[Config], **others: object) -> Config:
    """Builds a training's config from the flags of its fields' names and `others`."""
    renamed = {"c": SVM_C.value, "image_size": TRAIN_SIZE.value}
    names = [field.name for field in dataclasses.fields(kind)]
    values = {name: flags.FLAGS[name].value for name in names if name in flags.FLAGS}
    values |= {name: value for name, value in renamed.items() if name in names}
    return kind(**values | others)


@contextlib.contextmanager
def told(run: Run, steps: int) -> Iterator[dict]:
    """The arguments `say`, `progress` and `keeping` of a training, inside a context.

    Args:
        run: the app's run.
        steps: pictures that the training looks at.
    """
    from tfcnn.detection.rounds import Keeping
    from tfcnn.training.checkpoints import FOLDER

    minutes = flags.FLAGS.checkpoint_minutes
    keeping = Keeping(run.output_dir / FOLDER, run.resume, minutes, run.stop)
    with run.progress(steps, "train") as bar:

        def progress(done: int, what: str) -> None:
            (bar.skip if what == "before" else bar.advance)(done)

        yield {"say": run.say, "progress": progress, "keeping": keeping}


def finish(
    run: Run, kind: str, method: Method, training: Dataset, validation: Dataset, settings: dict
) -> None:
    """Measures a trained model on the validation pictures and writes its release: model.keras and card.json.

    Args:
        run: the app's run; gets metrics, release and table.
        kind: of the card.
        method: the trained model at work.
        training, validation: the parts of the data.
        settings: for the card.
    """
    from tfcnn.evaluation import voc
    from tfcnn.predictor import Predictor
    from tfcnn.training import releases

    size = TRAIN_SIZE.value
    predictor = Predictor(
        method, names=training.classes, image_size=size, longest=size, resize="fit", threads=run.threads
    )
    with run.progress(len(validation), "validate") as bar:
        found, refused = predictor.over_records(validation.examples, progress=bar.advance)
        rate = round(bar.rate, 2)
    training_record.refuse(run, refused)
    figures = voc.evaluate(validation.examples, found, validation.classes)
    map_11 = None if math.isnan(figures["map_11"]) else figures["map_11"]
    metrics = {"map_11": map_11, "images": len(validation)}
    metrics["ap_11"] = {name: own["ap_11"] for name, own in figures["per_class"].items()}
    card = training_record.card(run) | {
        "kind": kind,
        "data": f"{training.name}, {TRAIN_SPLIT.value}: {len(training)} pictures; measured on {VAL_SPLIT.value}: "
        f"{len(validation)} pictures",
        "classes": training.classes,
        "category_ids": training.category_ids,
        "seed": run.flags.seed,
        "metrics": {"last": metrics},
        "licence": LICENCE.value,
        "image_size": size,
        "longest": size,
        "resize": "fit",
        "settings": settings,
    }
    lines = "".join(f"{line}\n" for line in training_record.flag_lines(run))
    releases.save(method.model, run.output_dir / "release", card, flags=lines)
    run.metrics |= {"last": metrics, "best": metrics}
    run.results |= {"release": "release", "images_per_second": rate}
    rows = [[name, training_record.percent(own["ap_11"])] for name, own in figures["per_class"].items()]
    run.table(["class", "AP (11 points)"], [["mean", training_record.percent(map_11)], *rows])
    for record in evenly(validation.examples, 8):
        if record.image_id in found:
            run.sheet(
                found[record.image_id].top(5).draw(record.image()), f"found_{record.image_id}.png", "found"
            )
