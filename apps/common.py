"""What every app promises: its flags, its exit status, and the files that a run leaves.

An app is
    GROUP, SUMMARY = "detection", "find objects in pictures"
    TOP = flags.DEFINE_integer("top", 5, "How many objects to name", lower_bound=1)
    def main(run: common.Run) -> None: ...
    if __name__ == "__main__":
        common.start(main, batch_size=32)
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import sys
import traceback
import warnings

from absl import flags
from absl import logging as _absl_logging  # noqa: F401  (defines --verbosity before TensorFlow would)

from tfcnn import images
from tfcnn.errors import InputError
from tfcnn.training import runtime
from tfcnn.version import __version__

from . import usage
from .items import Item, Picture
from .models import Net, resolve_class
from .output import OutputError
from .run import FLAGS_FILE, RESULTS, Run
from .usage import nearest, unknown

__all__ = ["Item", "Net", "Picture", "Run", "nearest", "resolve_class", "start", "unknown"]

FLAGS = flags.FLAGS

_EVERY_APP = "Flags of every app"
_PICTURES = "Flags of every app that takes a picture"
_TRAINERS = "Flags of every trainer"
_GROUPS: dict[str, str] = {}


def _flag(group, define, name, *definition, **options):
    define(name, *definition, **options)
    _GROUPS[name] = group


def _define():
    integer, string, boolean, enum = (
        flags.DEFINE_integer,
        flags.DEFINE_string,
        flags.DEFINE_bool,
        flags.DEFINE_enum,
    )
    group = _TRAINERS
    _flag(group, boolean, "resume", True, "Go on where the same command stopped; false starts anew")
    text = "Minutes between two checkpoints"
    _flag(group, flags.DEFINE_float, "checkpoint_minutes", 1.0, text, lower_bound=0.0)
    group = _PICTURES
    text = "Side in pixels of the square that the net sees; none takes the net's own, e.g. --image_size=224"
    _flag(group, integer, "image_size", None, text, lower_bound=1)
    text = "How a picture becomes that square: all of it, ImageNet's middle 87.5 %, or all of it with bars"
    _flag(group, enum, "resize", "stretch", ["stretch", "crop", "letterbox"], text)
    text = "Pixels of a picture above which it is refused before decoding"
    _flag(group, integer, "max_pixels", images.MAX_PIXELS, text, lower_bound=1)
    _flag(group, enum, "image_format", "png", ["png", "jpg"], "Format of the pictures written")
    group = _EVERY_APP
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
    text = "Threads for reading and for TensorFlow; 0 takes all"
    _flag(group, integer, "threads", 0, text, lower_bound=0)
    text = "Seed of all randomness: the same command and seed give the same files"
    _flag(group, integer, "seed", 0, text, lower_bound=0, upper_bound=2**32 - 1)
    text = "Write over an output_dir that holds results; false refuses it"
    _flag(group, boolean, "overwrite", True, text)
    _flag(group, boolean, "save_images", True, "Write pictures; false gives results only")
    _flag(group, boolean, "quiet", False, "No progress")
    _GROUPS["verbosity"] = group
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


def start(main, *, pictures: bool = True, trainer: bool = False, **defaults) -> None:
    """Run an app and exit with the status that APPS promises.

    Args:
        main: the app's work; its module has GROUP and SUMMARY.
        pictures: whether it takes pictures by --images.
        trainer: whether it trains: --resume, and signals stop it with a checkpoint.
        defaults: the app's own defaults of common flags, e.g. batch_size=32; an app that takes no pictures keeps
            those of the picture flags that it names here.
    """
    names = main.__globals__
    spec = names.get("__spec__")
    name = spec.name.rpartition(".")[2] if spec else pathlib.Path(names["__file__"]).stem
    warnings.filterwarnings("ignore", module="PIL")  # a damaged picture's file is refused by name
    with contextlib.suppress(AttributeError):  # a stream that a test put in place
        sys.stdout.reconfigure(errors="backslashreplace")
        sys.stderr.reconfigure(errors="backslashreplace")
    try:
        status = _run(
            main, name, names["SUMMARY"], pictures, trainer, {"output_dir": f"out/{name}", **defaults}
        )
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output went away; Python would complain of it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


def _run(main, name, summary, pictures, trainer, defaults):
    absent = [f for f, group in _GROUPS.items() if group == _TRAINERS and not trainer]
    if not pictures and not trainer:
        absent += [f for f, group in _GROUPS.items() if group == _PICTURES and f not in defaults]
    absent += ["max_pixels", "image_format"] if trainer else []
    for flag in absent:
        if flag in FLAGS:
            delattr(FLAGS, flag)
    for flag, value in defaults.items():
        FLAGS.set_default(flag, value)
    if {"--help", "-help", "-h", "--helpfull", "--helpshort"} & set(sys.argv[1:]):
        print(usage.help_text(name, summary, FLAGS, _GROUPS))
        return 0
    try:
        arguments = FLAGS(sys.argv)[1:]
        if FLAGS.help:
            print(usage.help_text(name, summary, FLAGS, _GROUPS))
            return 0
        if FLAGS.version:
            print(f"tfcnn {__version__}")
            return 0
        FLAGS.images = [*FLAGS.images, *arguments]
        if FLAGS.images and not pictures:
            raise InputError(f"{name} takes no pictures, but {FLAGS.images[0]} was given")
    except (flags.Error, InputError, OSError) as error:
        return _say(name, error, 2)
    run = Run(name, FLAGS, trainer)
    return _guard(run, main, pictures, trainer)


def _guard(run, main, pictures, trainer):
    """Run main; every way to fail becomes its exit status."""
    status = 0
    try:
        if FLAGS.list_nets or FLAGS.list_layers or FLAGS.list_classes:
            _list(run)
            return 0
        if pictures:
            run.sources()
        if trainer:
            if _is_finished(run):
                return 0
            run.stop.listen()
        run.check_output_dir()
        main(run)
        run.begin()
    except InputError as error:
        status = _say(run.app, error, 1 if run.begun else 2)
    except OutputError as error:
        return _say(run.app, error, 1)
    except runtime.Interrupted as error:
        status = _say(run.app, error, 75)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        status = _say(run.app, "stopped by Ctrl-C", 130)
    except MemoryError as error:
        status = _say(run.app, f"out of memory ({error}): take a smaller --batch_size or --image_size", 1)
    except Exception as error:
        if type(error).__name__ == "ResourceExhaustedError":
            status = _say(run.app, "out of memory: take a smaller --batch_size or --image_size", 1)
        else:
            traceback.print_exc()
            status = 1
    if run.begun:
        try:
            run.finish(finished=status == 0)
        except (OutputError, InputError) as error:
            return _say(run.app, error, status or 1)
    return status or int(bool(run.refused))


def _say(name, error, status):
    if FLAGS.is_parsed() and FLAGS.debug and isinstance(error, Exception):
        traceback.print_exception(error)
    print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return status


def _list(run):
    """--list_nets, --list_layers, --list_classes."""
    if FLAGS.list_nets:
        from tfcnn.backbones.table import NETS

        for name, net in NETS.items():
            print(
                f"{name}  {net.size} px, {net.parameters:,} weights, {', '.join(net.weights) or 'no weights'}"
            )
        return
    net = run.load_net()
    if FLAGS.list_layers:
        for layer in net.model.layers:
            print(f"{layer.name}  {getattr(layer.output, 'shape', '')}")
    if FLAGS.list_classes:
        for index, (synset, label) in enumerate(net.classes):
            print(f"{index}  {synset}  {label}".replace("    ", "  "))


def _is_finished(run):
    """Whether output_dir holds this trainer's finished run; an unfinished one sets `run.resume`."""
    there, results = run.output_dir / FLAGS_FILE, run.output_dir / RESULTS
    if not FLAGS.resume or not (there.exists() or results.exists()):
        return False
    lines = there.read_text(errors="surrogateescape").splitlines() if there.exists() else []
    other = lines[0].split()[2] if lines and lines[0].startswith("# tfcnn ") else "another program"
    differing = usage.differences(lines, usage.as_lines(FLAGS, run.flag_names))
    if other != run.app or differing:
        what = "; ".join(differing) if other == run.app else f"of {other}"
        raise InputError(f"{run.output_dir} holds another run ({what}); --resume=false starts anew there")
    run.resume = True
    if results.exists():
        with contextlib.suppress(ValueError):
            if json.loads(results.read_text()).get("finished"):
                print(f"nothing to do: the run in {run.output_dir} is finished; see {results}")
                return True
    return False
