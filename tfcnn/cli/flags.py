"""The flags of every app, of every app that takes a picture, and of every trainer."""

from __future__ import annotations

import re
from collections.abc import Iterable

from absl import flags
from absl import logging as _absl_logging  # noqa: F401  (defines --verbosity before TensorFlow would)

from tfcnn import images, runtime
from tfcnn.errors import InputError

FLAGS = flags.FLAGS

EVERY_APP = "Flags of every app"
PICTURES = "Flags of every app that takes a picture"
TRAINERS = "Flags of every trainer"
AT_SCALE = "Flags of an app that goes over any number of pictures"
GROUPS: dict[str, str] = {}
MOST_SIDE = 10_000  # of --image_size: a square of as many pixels as --max_pixels allows of a file
MOST_THREADS = (
    1024  # of --threads: TensorFlow starts all that it is told, and so many more than cores stand still
)


# What names a net of the factory, and what names any: an app without the one or the other refuses them.
NO_FACTORY = ("net", "weights", "preprocessing")
NO_NET = (*NO_FACTORY, "model", "allow_custom_objects", "labels")


def _flag(group, define, name, *definition, **options):
    define(name, *definition, **options)
    GROUPS[name] = group


def _define():
    integer, string, boolean, enum = (
        flags.DEFINE_integer,
        flags.DEFINE_string,
        flags.DEFINE_bool,
        flags.DEFINE_enum,
    )
    group = TRAINERS
    _flag(group, boolean, "resume", True, "Go on where the same command stopped; false starts anew")
    text = "Minutes between two checkpoints"
    _flag(group, flags.DEFINE_float, "checkpoint_minutes", 1.0, text, lower_bound=0.0)
    text = "The processes of one training, host:port each, the chief first; auto takes what SLURM's step or TF_CONFIG "
    text += "says, none is one alone, e.g. --workers=node1:20000,node2:20000"
    _flag(group, string, "workers", "auto", text)
    text = "Which of --workers this process is, from 0, e.g. --worker=1"
    _flag(group, integer, "worker", None, text, lower_bound=0)
    text = "Seconds that the workers wait for each other at the start"
    _flag(group, flags.DEFINE_float, "worker_seconds", 600.0, text, lower_bound=0.0)
    group = AT_SCALE
    text = "Do one part of the pictures, in a folder of its own in --output_dir; killed and run again it goes on, and "
    text += "`tfcnn merge` makes one result of all parts (merged is its own word), e.g. --shard=2/3"
    _flag(group, string, "shard", None, text)
    text = "What computes: this process, or the machines of a Ray cluster (pip install 'tfcnn[ray]')"
    _flag(group, enum, "engine", "local", ["local", "ray"], text)
    group = PICTURES
    text = "Side in pixels of the square that the net sees; none takes the net's own, e.g. --image_size=224"
    _flag(group, integer, "image_size", None, text, lower_bound=1, upper_bound=MOST_SIDE)
    text = "How a picture becomes that square: all of it, ImageNet's middle 87.5 %, or all of it with bars"
    _flag(group, enum, "resize", "stretch", ["stretch", "crop", "letterbox", "fit"], text)
    text = (
        "--resize=fit keeps a picture's shape: its shorter side is --image_size, its longer one at most this"
    )
    _flag(group, integer, "longest", 1000, text, lower_bound=1)
    text = "Pixels of a picture above which it is refused before decoding"
    _flag(group, integer, "max_pixels", images.MAX_PIXELS, text, lower_bound=1)
    _flag(group, enum, "image_format", "png", ["png", "jpg"], "Format of the pictures written")
    group = EVERY_APP
    text = "Pictures: files, folders, globs, .zip, by commas or repeated, or as plain arguments; none takes "
    text += "packaged photographs, e.g. --images=photos,cat.jpg"
    _flag(group, flags.DEFINE_multi_string, "images", [], text)
    _flag(group, string, "output_dir", None, "Folder of everything the run writes; made if missing")
    _flag(group, string, "net", "efficientnet_lite0", "Net of the factory, e.g. --net=resnet50")
    text = "imagenet, none, or a file of weights (.weights.h5, .keras, .h5), e.g. --weights=my.weights.h5"
    _flag(group, string, "weights", "imagenet", text)
    text = (
        "Instead of --net: a .keras, .h5 or SavedModel, or a release by name or folder, e.g. --model=my.keras"
    )
    _flag(group, string, "model", None, text)
    text = "A factory net's preprocessing for a --model that has none inside, e.g. --preprocessing=resnet50"
    _flag(group, string, "preprocessing", None, text)
    _flag(group, boolean, "allow_custom_objects", False, "Let a --model's file run the code that it names")
    text = "Text file of class names, a line each; none takes the net's own, e.g. --labels=names.txt"
    _flag(group, string, "labels", None, text)
    _flag(group, integer, "batch_size", 1, "Pictures computed at once", lower_bound=1)
    _flag(group, integer, "limit", None, "Take only so many inputs, e.g. --limit=10", lower_bound=1)
    _flag(group, string, "device", "auto", "auto, cpu, gpu, or one GPU of several, e.g. --device=gpu:1")
    _flag(group, enum, "precision", "float32", list(runtime.PRECISIONS), "Number format of the net")
    text = "The same command gives the same bits, as it always does on a CPU; on a GPU false allows faster kernels, "
    text += "whose sums differ in their last bits from run to run"
    _flag(group, boolean, "deterministic", True, text)
    text = "Threads for reading and for TensorFlow; 0 takes all"
    _flag(group, integer, "threads", 0, text, lower_bound=0, upper_bound=MOST_THREADS)
    text = "Seed of all randomness: the same command and seed give the same files"
    _flag(group, integer, "seed", 0, text, lower_bound=0, upper_bound=runtime.LARGEST_SEED)
    text = "Write over an output_dir that holds results; false refuses it"
    _flag(group, boolean, "overwrite", True, text)
    _flag(group, boolean, "save_images", True, "Write pictures; false gives results only")
    _flag(group, boolean, "quiet", False, "No progress")
    GROUPS["verbosity"] = group
    flags.FLAGS["verbosity"].help = "Above -1 TensorFlow's own messages are shown, e.g. --verbosity=1"
    _flag(group, boolean, "debug", False, "Show a traceback with an error")
    text = "File with flags, a line each, e.g. --flagfile=out/classify/flags.txt"
    _flag(group, string, "flagfile", None, text)
    _flag(group, boolean, "list_nets", False, "List the nets of --net, and end")
    _flag(group, boolean, "list_layers", False, "List the layers of the net or model, and end")
    _flag(group, boolean, "list_classes", False, "List the classes of the net or model, and end")
    _flag(group, boolean, "help", False, "Show this, and end")
    _flag(group, boolean, "version", False, "Show the version, and end")


_define()
flags.register_validator(
    "device", lambda value: re.fullmatch(r"auto|cpu|gpu(:\d+)?", value), "is none of auto, cpu, gpu, gpu:N"
)


def _is_shard(value):
    numbers = [int(number) for number in re.findall(r"\d+", value or "1/1")]
    return value in (None, "merged") or (re.fullmatch(r"\d+/\d+", value) and 1 <= numbers[0] <= numbers[1])


flags.register_validator("shard", _is_shard, "is no part of a whole, as 1/3, 2/3 or 3/3")


def refuse(names: Iterable[str], why: str) -> None:
    """Refuses flags that would do nothing: one that is given is never ignored.

    Args:
        names: of the flags; one that the app lacks is passed over.
        why: what follows the flag's name, e.g. "is for the step train, and this is detect".

    Raises:
        InputError: one of them is given.
    """
    for name in names:
        if name in FLAGS and FLAGS[name].present:
            raise InputError(f"--{name} {why}")


def refuse_longest(resize: str) -> None:
    """Refuses --longest where pictures become squares by `resize`, which fit alone does not make of them."""
    if resize != "fit":
        refuse(["longest"], f"is for --resize=fit, and pictures are brought to their size by {resize} here")
