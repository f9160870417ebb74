"""An app's work on batches of pictures by the machines of a Ray cluster: Ray Data hands the batches out.

Every machine must see the pictures, the model and the output_dir by the same paths.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import itertools
import logging
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from tfcnn import files, images
from tfcnn.cli import scale
from tfcnn.cli.items import Picture
from tfcnn.errors import InputError
from tfcnn.report import MOST_PICTURES
from tfcnn.runtime import quiet

if TYPE_CHECKING:
    from tfcnn.cli.run import Run

BLOCKS = 1000  # that Ray Data divides the batches into, at most: what goes on together is lost together


def check() -> None:
    """See that Ray is installed.

    Raises:
        InputError: it is not.
    """
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise InputError(f"--engine=ray needs Ray ({error}): pip install 'tfcnn[ray]'") from error


def lines(run: Run, begin: str, parts: Sequence[tuple[int, list, list]]) -> Iterator[dict[str, Any]]:
    """What a journal says of each batch, in their order, as they are done.

    Args:
        run: the app's run.
        begin: the name of the function of the app's module that begins its work.
        parts: of each batch (index of its first picture, its sources, its pictures' stems).
    """
    import ray

    if not ray.is_initialized():  # RAY_ADDRESS names a cluster; without it one is begun on this machine
        paths = [os.getcwd(), *filter(None, sys.path)]
        variables = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "TF_CPP_MIN_LOG_LEVEL": "3"}
        ray.init(
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            runtime_env={"env_vars": variables},
        )
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    there = ray.cluster_resources()
    threads = run.flags.threads or int(min(node["Resources"].get("CPU", 1) for node in ray.nodes()))
    if there.get("GPU", 0) >= 1 and run.flags.device != "cpu":
        needs, count = {"num_gpus": 1}, int(there["GPU"])
    else:
        needs, count = {"num_cpus": threads}, max(1, int(there.get("CPU", 1)) // threads)
    state = {name: (run.flags[name].value, run.flags[name].using_default_value) for name in run.flag_names}
    state["threads"] = (threads, False)
    module = sys.modules["__main__"].__spec__.name
    rows = [
        {
            "first": first,
            "sources": files.to_json(list(map(_told, sources)), None),
            "stems": files.to_json(stems, None),
        }
        for first, sources, stems in parts
    ]
    if not rows:
        return
    data = ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS)).map(
        Worker,
        fn_constructor_args=(run.app, module, begin, state, os.getcwd()),
        concurrency=(1, min(count, len(rows))),
        **needs,
    )
    with quiet():  # Ray's C++ writes to this terminal as its actors start
        found = iter(data.iter_rows())
        first = next(found)
    for row in itertools.chain([first], found):
        yield files.from_json(row["line"], "what Ray gave back")


def _told(source: images.Source) -> list:
    return [source.file, source.name, os.fspath(source.path), source.member]


class Worker:
    """One of Ray's actors: the app's net, and its work on one batch after the other.

    Args:
        app: the app's name.
        module: where it lies.
        begin: the function of it that begins its work.
        state: {flag: (value, whether it is the default)}.
        folder: where the command was given, which its paths start from.
    """

    def __init__(self, app: str, module: str, begin: str, state: dict[str, tuple[Any, bool]], folder: str):
        from tfcnn.cli.run import Run

        os.chdir(folder)
        begin = getattr(importlib.import_module(module), begin)
        flags.FLAGS.mark_as_parsed()
        for name, (value, default) in state.items():
            flags.FLAGS[name].value, flags.FLAGS[name].using_default_value = value, default
        self.run = Run(app, flags.FLAGS)
        self.run.begun = True
        self.work = begin(self.run)
        self.readers = concurrent.futures.ThreadPoolExecutor(self.run.threads, "reader")

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """A batch's line."""
        sources = [
            images.Source(file, name, pathlib.Path(path), member)
            for file, name, path, member in files.from_json(row["sources"], "sources")
        ]
        stems = files.from_json(row["stems"], "stems")
        group = [
            Picture(self.run, row["first"] + k, source, stem, journaled=True)
            for k, (source, stem) in enumerate(zip(sources, stems, strict=True))
        ]
        for picture, loaded in [(p, self.readers.submit(p.load, self.work.prepare)) for p in group]:
            with picture:
                loaded.result()
        # Those that may be shown on the page; the run decides.
        self.run.shown = 0 if row["first"] < 2 * MOST_PICTURES else MOST_PICTURES
        before = self.run.shown
        line = scale.answered(self.run, self.work, group)
        line["shown"] -= before
        return {"line": files.to_json(line, None)}


def counted(run: Run, line: dict[str, Any]) -> dict[str, Any]:
    """A batch's line as this process would have written it: what is shown in its place, what is refused said."""
    room = max(0, MOST_PICTURES - run.shown)
    run.shown += line["shown"]
    for item in line["items"]:
        if "refused" in item:
            run.refuse(item["refused"]["file"], item["refused"]["why"], listed=False)
        elif "shown" in item:
            item["shown"], room = item["shown"][:room], max(0, room - len(item["shown"]))
            if not item["shown"]:
                del item["shown"]
    return line | {"shown": run.shown}
