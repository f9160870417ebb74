"""The flags that name a data set, and the data set that they name."""

from __future__ import annotations

import pathlib
from collections.abc import Collection
from typing import TYPE_CHECKING

from absl import flags

from tfcnn.errors import InputError, unknown

if TYPE_CHECKING:
    from tfcnn.cli.run import Run
    from tfcnn.datasets import Dataset

DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "Kind of data: voc, coco, yolo, imagenet_loc, imagenet_det, tiny_imagenet, lsp, folder, cifar10, mnist, digits, "
    "shapes, figures or tfds:NAME; evaluate takes those that a rule belongs to, e.g. --dataset=coco",
)
DATA = flags.DEFINE_string(
    "data", None, "Folder or .zip that holds the data, e.g. --data=VOCdevkit/VOC2007 or --data=pictures.zip"
)


def define_split(
    what: str = "Part of --dataset",
    default: str | None = None,
    none: str = "the layout's first",
    example: str = "val",
) -> flags.FlagHolder:
    """Defines --split, the part of the data set that an app reads.

    Args:
        what: the app takes it for, the beginning of the flag's help.
        default: the part that is read where the flag is not given.
        none: the part that None stands for, in words.
        example: a value, as a person types it.
    """
    without = f"; none takes {none}" if default is None else ""
    return flags.DEFINE_string("split", default, f"{what}{without}, e.g. --split={example}")


def kind(known: Collection[str] | None = None) -> str:
    """The reader that --dataset names.

    Args:
        known: those that it may be; by default all.

    Raises:
        InputError: none is given, or it is unknown.
    """
    from tfcnn import datasets

    known = datasets.READERS if known is None else known
    if not DATASET.value:
        raise InputError(
            f"name the data set: --dataset={next(iter(known))}, or another of {', '.join(known)}"
        )
    if DATASET.value not in known and not (known is datasets.READERS and DATASET.value.startswith("tfds:")):
        raise unknown("--dataset", DATASET.value, known, f"one of {', '.join(known)}")
    return DATASET.value


def open_split(
    split: str | None, annotations: str | None = None, pictures: bool = True, name: str | None = None
) -> Dataset:
    """A part of the data set that the flags name.

    Args:
        split: as the layout names its parts; None is the reader's default.
        annotations: COCO's annotation file, where it is not the split's own.
        pictures: False to read annotations alone.
        name: the reader, where it is another than --dataset's.

    Raises:
        InputError: the flags name no data set, or there is no such data.
    """
    from tfcnn import datasets

    name = name or kind()
    if annotations is not None and pathlib.Path(annotations).is_dir():
        raise InputError(f"--annotations={annotations} is a folder: name the data set's own folder by --data")
    if (
        DATA.value is None
        and name in datasets.READERS
        and name not in datasets.PACKAGED
        and annotations is None
    ):
        raise InputError(f"--dataset={name} needs its folder or .zip: name it by --data")
    return datasets.open(name, DATA.value, split, annotations, pictures)


def instead_of_pictures(
    run: Run, split: str | None, only: Collection[flags.FlagHolder], what: str
) -> Dataset | None:
    """The part of a data set that an app takes in the place of pictures; None where the flags name none.

    Args:
        run: of the app.
        split: as the layout names its parts; None is the reader's default.
        only: flags that mean something with a data set alone.
        what: the data set must have, for the message.

    Raises:
        InputError: pictures are named too, such a flag is given without a data set, or there is no such data.
    """
    if DATASET.value is None:
        for flag in only:
            if flag.present:
                raise InputError(f"--{flag.name} belongs to --dataset: name a data set with {what}")
        return None
    if run.flags.images:
        raise InputError("--images and --dataset are two inputs; give one of them")
    return open_split(split)


def say_broken(run: Run, *datasets: Dataset, pictures: bool = True) -> None:
    """Says what of data sets their readers left out or clipped, and where pictures do not fit their annotations.

    Args:
        run: speaks.
        *datasets: parts of one set.
        pictures: False where no picture is opened.
    """
    said = {}  # two splits of one folder find the same things
    for dataset in datasets:
        said |= dict.fromkeys(f"{dataset.name}: {note}" for note in (dataset.notes() if pictures else ()))
        if dataset.broken:
            first = dataset.broken[0]
            count = f"{len(dataset.broken)} findings" if len(dataset.broken) > 1 else "a finding"
            what = f"{first['file']}: {first['why']}; {first['rule']}"
            said[f"{dataset.name}: {count} in the annotations, which dataset_stats lists; {what}"] = None
    for line in said:
        run.say(line)
