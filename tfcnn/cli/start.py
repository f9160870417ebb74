"""Starts an app and ends it with the exit status that it promises."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence

from absl import flags

from tfcnn import files, runtime, workers
from tfcnn.cli import scale, usage
from tfcnn.cli.classes import read_labels
from tfcnn.cli.flags import AT_SCALE, GROUPS, PICTURES, TRAINERS, refuse
from tfcnn.cli.output import FLAGS_FILE, RESULTS, OutputError, one_line
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
    trains: str | None = None,
    at_scale: bool = False,
    arguments: str | None = None,
    finds_folder: bool = False,
    without: Sequence[str] = (),
    **defaults: object,
) -> None:
    """Run an app and exit with the status that every app promises.

    Args:
        main: the app's work; its module has GROUP and SUMMARY.
        pictures: whether it takes pictures by --images.
        trainer: whether it trains: --resume, and signals stop it with a checkpoint.
        words: an enum flag of the app that may be given as the first word: `dpm train` is `dpm --step=train`.
        trains: the word with which the app is a trainer, alone: --resume, and signals stop it with a checkpoint; name
            resume and checkpoint_minutes among the defaults.
        at_scale: whether it works by `Run.over_pictures`: --shard and --engine.
        arguments: of an app without pictures: the list flag that plain arguments are added to.
        finds_folder: whether main itself finds out where it writes, and then calls `Run.check_output_dir`.
        without: common flags that mean nothing to the app, e.g. `NO_NET`: one that is given is refused.
        defaults: the app's own defaults of common flags, e.g. batch_size=32; an app that takes no pictures keeps
            those of the picture flags that it names here. An app whose pictures need not be squares names longest:
            only there --resize may be fit.
    """
    names, checked = main.__globals__, not finds_folder
    spec = names.get("__spec__")
    name = spec.name.rpartition(".")[2] if spec else pathlib.Path(names["__file__"]).stem
    warnings.filterwarnings("ignore", module="PIL")  # a damaged picture's file is refused by name
    with contextlib.suppress(AttributeError):  # a stream that a test put in place
        sys.stdout.reconfigure(errors="backslashreplace")
        sys.stderr.reconfigure(errors="backslashreplace")
    try:
        kinds = {PICTURES: pictures or trainer, TRAINERS: trainer, AT_SCALE: at_scale}
        defaults = {"output_dir": f"out/{name}", **defaults}
        words = (words, trains)
        more = (defaults, checked, without)
        status = _run(main, name, names["SUMMARY"], kinds, pictures, arguments, words, *more)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output went away; Python would complain of it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


def _run(main, name, summary, kinds, pictures, arguments_of, words, defaults, checked, without):
    (words, trains), trainer = words, kinds[TRAINERS]
    absent = [f for f, group in GROUPS.items() if not kinds.get(group, True) and f not in defaults]
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
        if arguments_of:
            FLAGS[arguments_of].value = [*FLAGS[arguments_of].value, *arguments]
        else:
            FLAGS.images = [*FLAGS.images, *arguments]
        for flag in FLAGS:
            if isinstance(FLAGS[flag].value, float) and not math.isfinite(FLAGS[flag].value):
                raise InputError(f"--{flag}={FLAGS[flag].value}: a finite number is needed")
        if FLAGS.images and not pictures:
            raise InputError(f"{name} takes no pictures, but {FLAGS.images[0]} was given")
        if not (FLAGS.list_nets or FLAGS.list_layers or FLAGS.list_classes):
            refuse(without, f"means nothing to {name}")
    except flags.UnrecognizedFlagError as error:
        alike = [each for each in sys.argv[1:] if each.lstrip("-") == error.flagname and os.path.exists(each)]
        return _say(name, f"{error}; the file of this name is ./{alike[0]}" if alike else error, 2)
    except (flags.Error, InputError, OSError) as error:
        return _say(name, error, 2)
    trainer = trainer or (trains is not None and FLAGS[words].value == trains)
    run = Run(name, FLAGS, trainer)
    run.only_as = f"--{words}={trains}" if trains else ""
    return _guard(run, main, pictures, trainer, checked)


def _guard(run, main, pictures, trainer, checked):
    """Run main and leave the other workers; a process whose TensorFlow waits for one that is gone ends at once."""
    status = _status(run, main, pictures, trainer, checked)
    if run.meeting:
        run.meeting.leave(run.failure if status not in (0, 75, 130) else "")
        if status or run.meeting.lost:
            sys.stdout.flush()
            sys.stderr.flush()
            run.meeting.linger()
            os._exit(status)
    return status


def _status(run, main, pictures, trainer, checked):
    """Run main; every way to fail becomes its exit status."""
    status = 0
    try:
        if FLAGS.labels:
            read_labels(FLAGS.labels)  # a file that cannot be used is said before any net is loaded
        if FLAGS.list_nets or FLAGS.list_layers or FLAGS.list_classes:
            _list(run)
            return 0
        if pictures and not run.merging:
            run.sources()
        if run.shard and (done := scale.look_for_a_shard(run)) is not None:
            print(f"nothing to do: shard {run.shard} in {run.output_dir} is finished")
            return done
        if trainer:
            _look_for_a_run(run)
            _look_for_workers(run)
            run.stop.listen()
        if checked:
            run.check_output_dir()
        main(run)
        run.begin()
    except NothingToDo as done:
        print(done)
        return 0
    except InputError as error:
        run.failure = str(error)
        status = _say(run.app, error, 1 if run.begun else 2)
    except OutputError as error:
        return _say(run.app, error, 1)
    except runtime.Interrupted as error:
        status = _say(run.app, (run.meeting and run.meeting.explained(error)) or error, 75)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        status = _say(run.app, "stopped by Ctrl-C", 130)
    except MemoryError as error:
        what = f" ({error})" if str(error) else ""
        status = _say(run.app, f"out of memory{what}: take a smaller --batch_size or --image_size", 1)
    except Exception as error:
        if type(error).__name__ == "ResourceExhaustedError":
            status = _say(run.app, "out of memory: take a smaller --batch_size or --image_size", 1)
        elif type(error).__name__ == "UnimplementedError" and "determinis" in str(error).lower():
            status = _say(run.app, f"{error}: --deterministic=false does without", 1)
        else:
            run.failure = f"{type(error).__name__}: {error}"
            traceback.print_exc()
            status = 1
    if run.begun:
        try:
            run.finish(finished=status == 0)
        except (OutputError, InputError) as error:
            return _say(run.app, error, status or 1)
    return status or int(run.refused_count > 0)


def _say(name, error, status):
    if FLAGS.is_parsed() and FLAGS.debug and isinstance(error, Exception):
        traceback.print_exception(error)
    print(one_line(f"{name}: {' '.join(str(error).split())}"), file=sys.stderr, flush=True)
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


def _look_for_workers(run):
    """--workers: whether this is one of several processes, and which."""
    if "workers" not in FLAGS:
        return
    if FLAGS.workers == "auto":
        run.workers = workers.from_environment(os.environ)
    elif FLAGS.workers != "none":
        run.workers = workers.named([each.strip() for each in FLAGS.workers.split(",")], FLAGS.worker)
    if run.workers and not run.workers.chief:
        run.writes, FLAGS["quiet"].value = False, True


def _look_for_a_run(run):
    """Find out whether output_dir holds a run of this command, which sets `run.resume`, and a finished one."""
    there, results = run.output_dir / FLAGS_FILE, run.output_dir / RESULTS
    if not FLAGS.resume or not (there.exists() or results.exists()):
        return
    lines = there.read_text(errors="surrogateescape").splitlines() if there.exists() else []
    if lines and run.only_as and run.only_as not in lines:
        return  # the app did something else there, which a training may overwrite
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
