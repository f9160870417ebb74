"""What the trainers share: the flags that carry data and steer the loop, and a run of the loop with them."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from absl import flags

from tfcnn import runtime
from tfcnn.cli import data_flags, models
from tfcnn.cli.data_flags import DATASET
from tfcnn.cli.run import Run
from tfcnn.cli.training_record import card, counted, flag_lines, limited, refuse
from tfcnn.datasets.classes import united
from tfcnn.datasets.example import Dataset
from tfcnn.errors import InputError

if TYPE_CHECKING:
    from tfcnn.training.run import Trained

Config = TypeVar("Config")

TRAIN_SPLIT = flags.DEFINE_string(
    "train_split",
    "train",
    "Part of the data that is trained on; train+val is two parts, train[:500] the first 500 pictures of one",
)
VAL_SPLIT = flags.DEFINE_string("val_split", "val", "Part of the data that figures are measured on")
EPOCHS = flags.DEFINE_float(
    "epochs", None, "How often every picture is seen, e.g. --epochs=10", lower_bound=0.0
)
STEPS = flags.DEFINE_integer(
    "steps", None, "Instead of --epochs: number of steps, e.g. --steps=1000", lower_bound=1
)
OPTIMIZER = flags.DEFINE_enum(
    "optimizer", "adamw", ["adamw", "sgd", "adagrad"], "AdamW, SGD with momentum 0.9, or Adagrad"
)
LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-3, "Highest learning rate", lower_bound=0.0)
SCHEDULE = flags.DEFINE_enum(
    "schedule",
    "cosine",
    ["constant", "cosine", "steps"],
    "Course of the rate: constant, down to 0 along half a cosine, or divided by 10 after 2/3 and 8/9 of the steps",
)
RATE_DROPS = flags.DEFINE_list(
    "rate_drops",
    [],
    "Steps at which --schedule=steps divides the rate by 10 instead, e.g. --rate_drops=50000",
)
WARMUP = flags.DEFINE_integer("warmup", 100, "First steps, in which the rate climbs; at most a tenth of all")
WARMUP_START = flags.DEFINE_float(
    "warmup_start",
    0.0,
    "Share of --learning_rate from which it climbs, e.g. --warmup_start=0.1",
    lower_bound=0.0,
    upper_bound=1.0,
)
WEIGHT_DECAY = flags.DEFINE_float(
    "weight_decay", 0.02, "Decay of kernels; biases and batch norm have none", lower_bound=0.0
)
CLIP_NORM = flags.DEFINE_float(
    "clip_norm", 10.0, "Greatest norm of all gradients together; 0 does not clip", lower_bound=0.0
)
AVERAGE = flags.DEFINE_float(
    "average",
    0.998,
    "Decay of the weights' moving average, which is what is validated and released; 0 keeps none",
    lower_bound=0.0,
    upper_bound=0.99999,
)
ACCUMULATE = flags.DEFINE_integer(
    "accumulate", 1, "Batches whose gradients make one step: memory of one, effect of all", lower_bound=1
)
BACKBONE_RATE = flags.DEFINE_float(
    "backbone_rate",
    0.3,
    "Share of the learning rate for layers that start from trained weights",
    lower_bound=0.0,
)
FREEZE = flags.DEFINE_list(
    "freeze",
    [],
    "Layers that stay: an endpoint and all before it, names, patterns, e.g. --freeze=stage4,head_*",
)
AUGMENT = flags.DEFINE_string(
    "augment", None, "How training pictures are changed, e.g. --augment=none; left out: as the data need it"
)
INIT = flags.DEFINE_string(
    "init", None, "Release (name, folder or .keras) whose weights to start from, e.g. --init=all_cnn_cifar10"
)
CHECK_MEMORY = flags.DEFINE_bool(
    "check_memory",
    True,
    "Refuse a step whose estimated memory is more than is free; false runs it all the same",
)
VALIDATE_EPOCHS = flags.DEFINE_float(
    "validate_epochs", 1.0, "Epochs between two validations; 0: at the end only", lower_bound=0.0
)
TENSORBOARD = flags.DEFINE_bool(
    "tensorboard", True, "Write files for TensorBoard into output_dir/tensorboard"
)
LICENCE = flags.DEFINE_string("licence", "as the data's", "Terms of the released weights, for their card")

flags.register_validator(
    RATE_DROPS, lambda value: all(step.isdigit() for step in value), "steps are whole numbers"
)


def read_data(run: Run, open_split: Callable[[str], Dataset] = data_flags.open_split) -> list[Dataset]:
    """Opens the two splits, with --limit so many pictures of each, evenly spread; results.json says which they are.

    Args:
        run: the app's run; where it is finished already, this is as far as it goes.
        open_split: opens a split by its name.

    Returns:
        (training, validation): tfcnn.datasets.Dataset each.

    Raises:
        InputError: no such data, an id that is another class in each of them, a flag of a trained model, or a
            finished run on other data in output_dir.
        NothingToDo: output_dir holds the finished run of this command on these data.
    """
    if flags.FLAGS.model:
        raise InputError(
            "--model is for trained nets: --init starts from one, with --net naming its architecture"
        )
    for name in ("labels", "preprocessing", "allow_custom_objects"):
        if flags.FLAGS[name].value:
            raise InputError(
                f"--{name} is for a --model; a trainer has its classes and pictures from --dataset"
            )
    parts = [open_split(split) for split in (TRAIN_SPLIT.value, VAL_SPLIT.value)]
    for part, split in zip(parts, (TRAIN_SPLIT.value, VAL_SPLIT.value), strict=True):
        if not part.examples:
            raise InputError(f"the split {split} of {DATASET.value} has no pictures")
    parts = [limited(part, flags.FLAGS.limit) for part in united(parts)]
    run.trains_on({n: p.fingerprint() for n, p in zip(("training", "validation"), parts, strict=True)})
    return parts


def config(kind: type[Config], **others: object) -> Config:
    """Builds a training's config from the flags of its fields' names.

    Args:
        kind: TrainingConfig or a subclass; a flag that is not given leaves the field's default.
        **others: fields that are put over the flags: resume=run.resume is the run's own.

    Raises:
        InputError: flags that exclude each other, or a value out of its range.
    """
    if STEPS.value and EPOCHS.value is not None:
        raise InputError("--steps and --epochs say the same thing; give one of them")
    if RATE_DROPS.value and SCHEDULE.value != "steps":
        raise InputError(f"--rate_drops is for --schedule=steps, and this is --schedule={SCHEDULE.value}")
    names = [field.name for field in dataclasses.fields(kind) if field.name in flags.FLAGS]
    values = {name: flags.FLAGS[name].value for name in names if flags.FLAGS[name].value is not None}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    values["rate_drops"] = tuple(map(int, RATE_DROPS.value))
    values["threads"] = flags.FLAGS.threads or runtime.cores()
    return kind(**values | others)


def classifier_start(run: Run) -> pathlib.Path | str | None:
    """What a classifier starts from: the file of --init, or else what --weights asks for.

    Raises:
        InputError: both are given, or --init names no release.
    """
    if INIT.value is not None and not run.flags["weights"].using_default_value:
        raise InputError("--init and --weights both say what to start from; give one of them")
    return init_file() or models.weights_of(run)


def init_file(darknet: bool = False) -> pathlib.Path | None:
    """The .keras file that --init names, or None; where `darknet` is true also a .weights file of darknet."""
    if INIT.value is None:
        return None

    from tfcnn.cards import is_darknet, releases

    path = pathlib.Path(releases().get(INIT.value, INIT.value))
    path = path / "model.keras" if path.is_dir() else path
    if not path.is_file():
        raise InputError(
            f"--init={INIT.value} is no release: {', '.join(releases()) or 'none is here'}, or a file"
        )
    if is_darknet(path) and not darknet:
        raise InputError(f"--init={INIT.value} is a YOLO of darknet: train_detector goes on from it")
    return path


def say_data(run: Run, training: Dataset, validation: Dataset, more: str) -> None:
    """Says how much is trained on and validated, `more` of it, and what of the data was left out or clipped."""
    pictures, classes = counted(len(training), "picture"), counted(len(training.classes), "class")
    run.say(f"{pictures} of {classes} to train on, {len(validation)} to validate, {more}")
    data_flags.say_broken(run, training, validation)


@contextlib.contextmanager
def told(run: Run) -> Iterator[dict]:
    """Gives the arguments by which a trainer of the library speaks to an app's run, inside a context.

    They are strategy, stop, say, show (pictures on the run's page), progress (bars; a new one whenever `what` is
    another), card and flags (how the release repeats the run).
    """
    from tfcnn.training.memory import MemoryEstimate

    with contextlib.ExitStack() as stack:
        bar, shown = None, None

        def progress(done: int, numbers: dict) -> None:
            nonlocal bar, shown
            refuse(run, numbers["unreadable"])
            if numbers["what"] != shown:
                stack.close()
                shown, unit = numbers["what"], "images" if "losses" not in numbers else "steps"
                bar = stack.enter_context(run.progress(numbers["steps"], shown, unit))
                bar.skip(done)
            elif "losses" in numbers:
                losses = numbers["losses"]
                bar.advance(
                    done - bar.done,
                    loss=sum(losses.values()),
                    **(losses if len(losses) > 1 else {}),
                    **{"images/s": numbers["examples_per_second"] or 0.0},
                    **{"waiting %": 100 * (numbers["waiting"] or 0.0)},
                )
            else:
                bar.advance(done - bar.done)

        arguments = {
            "strategy": run.runtime.strategy,
            "stop": run.stop,
            "say": run.say,
            "show": lambda image, name, title: run.sheet(image, name, title),
            "progress": progress,
            "card": card(run) | {"licence": LICENCE.value},
            "flags": "".join(f"{line}\n" for line in flag_lines(run)),
        }
        try:
            yield arguments
        except MemoryEstimate as error:
            raise InputError(f"{error} (--check_memory=false tries it all the same)") from error


def record(run: Run, trained: Trained) -> None:
    """Writes what came of a training into the run's results."""
    refuse(run, trained.unreadable)
    run.metrics |= trained.metrics
    run.results |= {
        "steps": trained.result.step,
        "skipped_steps": trained.result.skipped,
        "images_per_second": trained.result.examples_per_second,
        "waiting": trained.result.waiting,
        "release": trained.release.name,
    }
