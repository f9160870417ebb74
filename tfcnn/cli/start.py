"""Starts an app and ends it with the exit status that it promises."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import sys
import traceback
import warnings
from collections.abc import Callable

from absl import flags

from tfcnn import files, runtime
from tfcnn.cli import usage
from tfcnn.cli.classes import read_labels
from tfcnn.cli.flags import GROUPS, PICTURES, TRAINERS
from tfcnn.cli.output import FLAGS_FILE, RESULTS, OutputError
from tfcnn.cli.run import NothingToDo, Run
from tfcnn.errors import InputError
from tfcnn.version import __version__

FLAGS = flags.FLAGS


def start(
    main: Callable[[Run], None],
    *,
    pictures: bool = True,
    trainer: bool = False,
    words: str | None = None,
    **defaults: object,
) -> None:
    """Run an app and exit with the status that every app promises.

    Args:
        main: the app's work; its module has GROUP and SUMMARY.
        pictures: whether it takes pictures by --images.
        trainer: whether it trains: --resume, and signals stop it with a checkpoint.
        words: an enum flag of the app that may be given as the first word: `dpm train` is `dpm --step=train`.
        defaults: the app's own defaults of common flags, e.g. batch_size=32; an app that takes no pictures keeps
            those of the picture flags that it names here. An app whose pictures need not be squares names longest:
            only there --resize may be fit.
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
            main,
            name,
            names["SUMMARY"],
            pictures,
            trainer,
            words,
            {"output_dir": f"out/{name}", **defaults},
        )
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output went away; Python would complain of it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


def _run(main, name, summary, pictures, trainer, words, defaults):
    absent = [f for f, group in GROUPS.items() if group == TRAINERS and not trainer]
    if not pictures and not trainer:
        absent += [f for f, group in GROUPS.items() if group == PICTURES and f not in defaults]
    absent += ["max_pixels", "image_format"] if trainer else []
    if "longest" not in defaults:
        absent.append("longest")
        if "resize" in FLAGS and "fit" in FLAGS["resize"].parser.enum_values:
            FLAGS["resize"].parser.enum_values.remove("fit")
    for flag in absent:
        if flag in FLAGS:
            delattr(FLAGS, flag)
    for flag, value in defaults.items():
        FLAGS.set_default(flag, value)
    if {"--help", "-help", "-h", "--helpfull", "--helpshort"} & set(sys.argv[1:]):
        print(usage.help_text(name, summary, FLAGS, GROUPS))
        return 0
    try:
        arguments = FLAGS(sys.argv)[1:]
        if words and arguments and arguments[0] in FLAGS[words].parser.enum_values:
            FLAGS[words].value = arguments.pop(0)
        if FLAGS.help:
            print(usage.help_text(name, summary, FLAGS, GROUPS))
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
        if FLAGS.labels:
            read_labels(FLAGS.labels)  # a file that cannot be used is said before any net is loaded
        if FLAGS.list_nets or FLAGS.list_layers or FLAGS.list_classes:
            _list(run)
            return 0
        if pictures:
            run.sources()
        if trainer:
            _look_for_a_run(run)
            run.stop.listen()
        run.check_output_dir()
        main(run)
        run.begin()
    except NothingToDo as done:
        print(done)
        return 0
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
        elif type(error).__name__ == "UnimplementedError" and "determinis" in str(error).lower():
            status = _say(run.app, f"{error}: --deterministic=false does without", 1)
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
    # a --model whose layers are asked need be no classifier
    net = run.load_net("backbone" if FLAGS.model and not FLAGS.list_classes else "classifier")
    if FLAGS.list_layers:
        for layer in net.model.layers:
            print(f"{layer.name}  {getattr(layer.output, 'shape', '')}")
    if FLAGS.list_classes:
        for index, (synset, label) in enumerate(net.classes):
            print(f"{index}  {synset}  {label}".replace("    ", "  "))


def _look_for_a_run(run):
    """Find out whether output_dir holds a run of this command, which sets `run.resume`, and a finished one."""
    there, results = run.output_dir / FLAGS_FILE, run.output_dir / RESULTS
    if not FLAGS.resume or not (there.exists() or results.exists()):
        return
    lines = there.read_text(errors="surrogateescape").splitlines() if there.exists() else []
    other = lines[0].split()[2] if lines and lines[0].startswith("# tfcnn ") else "another program"
    differing = usage.differences(lines, usage.as_lines(FLAGS, run.flag_names))
    if other != run.app or differing:
        what = "; ".join(differing) if other == run.app else f"of {other}"
        raise InputError(f"{run.output_dir} holds another run ({what}); --resume=false starts anew there")
    run.resume = True
    if results.exists():
        with contextlib.suppress(ValueError):
            found = files.from_json(results.read_bytes(), RESULTS)
            run.finished = found if found.get("finished") else None
