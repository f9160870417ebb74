"""One run of an app: its pictures in, its entries and files out."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import functools
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator

from absl import flags

from tfcnn import files, images, report, runtime
from tfcnn.cli import models, usage
from tfcnn.cli.items import Item, Picture, Single, load, unique_stems
from tfcnn.cli.output import OutputError, guarded
from tfcnn.cli.progress import Progress
from tfcnn.errors import InputError
from tfcnn.version import __version__

RESULTS, FLAGS_FILE, PAGE = "results.json", "flags.txt", "index.html"


class Run:
    """What `common.start` hands to an app's main.

    Attributes:
        app: its name. flags: its flags, parsed. output_dir: a Path; made at the first file.
        metrics: figures of the whole run for results.json; results: more fields beside `metrics`.
        resume: a trainer's: output_dir holds an unfinished run of the same command, so go on from its
            checkpoint; where it is False, what output_dir holds is to be replaced.
        stop: a trainer's: true once a signal asks it to stop; see `runtime.Interrupted`.
    """

    def __init__(self, app: str, values: flags.FlagValues, trainer: bool = False):
        self.app, self.flags, self.trainer = app, values, trainer
        self.flag_names = usage.names(values)
        self.output_dir = pathlib.Path(values.output_dir)
        self.threads = values.threads or runtime.cores()
        self.entries: dict[int, Item] = {}
        self.refused: dict[int, dict] = {}
        self.metrics: dict = {}
        self.results: dict = {}
        self.net: str | None = None
        self.resume, self.stop = False, runtime.Stop()
        self.begun = False
        self.rate: float | None = None  # of the last iteration over pictures, in images a second
        self._began_at, self._shown = time.monotonic(), 0
        self._progress: list[Progress] = []
        self._table: tuple = ()
        self._held: list[str] = []
        self._sheets: list[report.Entry] = []
        self._made_dir = False

    # ------------------------------------------------------------------------------------- in

    @functools.cached_property
    def runtime(self) -> runtime.Runtime:
        """TensorFlow, set up as the flags say; the first use starts it."""
        values = self.flags
        begun = runtime.start(
            values.device,
            values.precision,
            values.threads,
            values.seed,
            values.verbosity,
            values.deterministic,
        )
        self.say(begun.note)
        return begun

    def say(self, line: str) -> None:
        """A line on standard error for the person, not with --quiet; held back until the work begins.

        So a command that is wrong is answered by its error alone.
        """
        if not self.begun:
            self._held.append(line)
        elif not self.flags.quiet:
            print(f"{self.app}: {line}", file=sys.stderr, flush=True)

    def sources(self) -> list[images.Source]:
        """The pictures that the command names, --limit of them; packaged photographs where it names none."""
        return self._sources[: self.flags.limit]

    @functools.cached_property
    def _sources(self):
        specs = []
        for spec in self.flags.images:
            specs += [spec] if os.path.lexists(spec) else [part for part in spec.split(",") if part]
        return images.find(specs) if specs else images.packaged()

    def load_net(self, kind: str = "classifier", **options) -> models.Net:
        """The net that --net, --weights, --model and --labels name; see `models.load_net`."""
        return models.load_net(self, kind, **options)

    def classes(self, net: models.Net) -> list[int]:
        """The indices that the app's flag --class names; [] where it is not given."""
        return models.resolve_class(self.flags["class"].value or "", net.classes)

    def pictures(self) -> Iterator[Picture]:
        """The input pictures one by one, read ahead; those that cannot be read are refused.

        Work on each inside `with picture:`, so that an InputError refuses that picture and the run goes on.
        """
        for batch in self.batches(1):
            yield from batch

    def batches(self, size: int, prepare: Callable | None = None) -> Iterator[list[Picture]]:
        """The input pictures in lists of up to `size`, read ahead in --threads threads.

        Args:
            size: pictures a list.
            prepare: done to the image in the reading thread, e.g. a resize; its result is
                `picture.prepared`, and the image itself is let go (asked for, it is read again).
        """
        sources = self.sources()
        stems = unique_stems(sources)
        waiting = collections.deque(Picture(self, i, s, stems[i]) for i, s in enumerate(sources))
        self.begin()
        ahead = collections.deque()
        batch = []
        with self.progress(len(sources), self.app) as progress, _readers(self.threads) as pool:
            while waiting or ahead:
                while waiting and len(ahead) < max(2 * size, self.threads):
                    picture = waiting.popleft()
                    ahead.append((picture, pool.submit(load, picture, prepare)))
                picture, loaded = ahead.popleft()
                with picture:
                    loaded.result()
                    batch.append(picture)
                    for note in picture.entry.get("notes", ()):
                        self.say(f"{picture.name}: {note}")
                if picture.finished:
                    progress.advance()
                if batch and (len(batch) == size or not (waiting or ahead)):
                    yield batch
                    for picture in batch:
                        picture.finish()
                        picture.let_go()
                    progress.advance(len(batch))
                    self.rate = round(progress.rate, 2)
                    batch = []

    def item(self, name: str, stem: str | None = None, **fields) -> Item:
        """An entry that is no picture's, e.g. a class's; use it as a context, then it is in the results."""
        self.begin()
        return Single(self, len(self.entries) + len(self.refused), name, stem or name, fields)

    def begin(self) -> None:
        """Say that the command is right and work begins: from here on a failure is status 1, not 2."""
        if self.begun:
            return
        self.begun = True
        for line in self._held:
            self.say(line)
        if self.trainer:  # a killed run's flags say whose it is, and no older result speaks for it
            (self.output_dir / RESULTS).unlink(missing_ok=True)
            self.write_flags()

    def progress(self, total: int | None, what: str, unit: str = "images") -> Progress:
        """A context whose `advance(n, **numbers)` shows how far the work is."""
        self.begin()
        return Progress(total, what, unit, not self.flags.quiet, self._progress)

    # ------------------------------------------------------------------------------------- out

    def check_output_dir(self) -> None:
        """See that output_dir can be written, and leave no trace.

        Raises:
            InputError: it cannot, or --overwrite=false and it holds results.
        """
        made = []
        try:
            for folder in reversed([self.output_dir, *self.output_dir.parents]):
                if not folder.is_dir():
                    folder.mkdir(exist_ok=True)
                    made.append(folder)
            probe = self.output_dir / f".{os.getpid()}.part"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InputError(f"--output_dir={self.output_dir} cannot be written: {error.strerror}") from error
        finally:
            for folder in reversed(made):
                with contextlib.suppress(OSError):  # another run may have written there by now
                    folder.rmdir()
        if not self.flags.overwrite and not self.resume and (self.output_dir / RESULTS).exists():
            raise InputError(f"{self.output_dir} holds a {RESULTS}, and --overwrite=false")

    def place(self, relative: str) -> pathlib.Path:
        """Where in output_dir a file goes; its folder is made."""
        self.begin()
        path = self.output_dir / relative
        if self._made_dir and not self.output_dir.is_dir():
            raise OutputError(f"{self.output_dir} is gone: it was removed while the run was writing to it")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._made_dir = True
        return path

    def save_picture(self, image, relative: str) -> str:
        """Write a picture to output_dir; a name without suffix gets that of --image_format."""
        suffix = pathlib.PurePath(relative).suffix
        if suffix.lower() not in (".png", ".jpg", ".jpeg"):
            suffix = f".{getattr(self.flags, 'image_format', 'png')}"
            relative += suffix
        data = images.encode(image, suffix)
        if not self.flags.save_images:
            return ""
        with guarded(self.output_dir):
            files.write_bytes(self.place(relative), data)
        return relative

    def sheet(self, image, relative: str, title: str) -> str:
        """Write a picture of the whole run, as `save_picture`; index.html shows it first, at its own size."""
        relative = self.save_picture(image, relative)
        if relative:
            self._sheets.append(report.Entry(title, [(relative, (self.output_dir / relative).read_bytes())]))
            self.results.setdefault("files", []).append(relative)
        return relative

    def save_json(self, obj, relative: str) -> str:
        """Write JSON to output_dir: numbers that are not finite become null, NumPy's become plain."""
        with guarded(self.output_dir):
            files.write_text(self.place(relative), files.to_json(obj) + "\n")
        return relative

    def reduced(self, image, caption: str) -> list[tuple[str, bytes]]:
        """[(caption, JPEG)] for index.html, or [] when it shows enough already."""
        self._shown += 1
        if self._shown > report.MOST_PICTURES or not self.flags.save_images:
            return []
        return [(caption, report.reduced(image))]

    def refuse(self, name: str, why: str, index: int | None = None) -> None:
        """List an input under `refused` and name it on standard error; the run's status becomes 1."""
        self.refused[len(self.refused) + 10**9 if index is None else index] = {"file": name, "why": why}
        line = why if why.startswith(name) else f"{name}: {why}"
        print(f"{self.app}: refused {line}", file=sys.stderr, flush=True)

    def add(self, entry: dict) -> None:
        """Add an entry that no picture or item carries."""
        self.begin()
        item = Item(self, len(self.entries) + len(self.refused), str(entry.get("file", "")), "", entry)
        item.finish()

    def table(self, columns: list[str], rows: list[list]) -> None:
        """What to print at the end; of more than 20 rows the first 20."""
        self._table = (columns, rows)

    def write_flags(self) -> None:
        """Write the flagfile that repeats the run; a trainer's is there from the first step on."""
        lines = [f"# tfcnn {self.app} {__version__}", *usage.as_lines(self.flags, self.flag_names)]
        with guarded(self.output_dir):
            data = ("\n".join(lines) + "\n").encode(errors="surrogateescape")
            files.write_bytes(self.place(FLAGS_FILE), data)

    def finish(self, finished: bool = True) -> None:
        """Write flags.txt, results.json and index.html, print the table and where the files lie."""
        self.write_flags()
        entries = [self.entries[index] for index in sorted(self.entries)]
        started = "runtime" in self.__dict__
        results = {
            "app": self.app,
            "version": __version__,
            "flags": usage.as_values(self.flags, self.flag_names),
            "net": self.net,
            "device": self.runtime.description if started else None,
            "seconds": round(time.monotonic() - self._began_at, 3),
            "finished": finished,
            "images": [item.entry for item in entries],
            "refused": [self.refused[index] for index in sorted(self.refused)],
            "metrics": self.metrics,
            **self.results,
        }
        self.save_json(results, RESULTS)
        parts = [report.Entry("", lines=self._table_lines())] if self._table and not entries else []
        parts += [
            *self._sheets,
            *(report.Entry(item.name, item.shown, item.lines, item.link) for item in entries),
        ]
        page = report.gallery(
            f"tfcnn {self.app}",
            parts,
            lines=[f"{file['file']} was refused: {file['why']}" for file in results["refused"]],
            more=self._shown - sum(len(item.shown) for item in entries) if self.flags.save_images else 0,
        )
        with guarded(self.output_dir):
            files.write_bytes(self.place(PAGE), page)
        for line in self._table_lines():
            print(line)
        done = f"{len(entries)} done, {len(self.refused)} refused; " if entries or self.refused else ""
        print(f"{done}see {self.output_dir / PAGE}", flush=True)

    def _table_lines(self) -> list[str]:
        if not self._table:
            return []
        columns, rows = self._table
        cells = [[str(cell) for cell in row] for row in [columns, *rows[:20]]]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in cells
        ]
        more = [f"... and {len(rows) - 20} more in {self.output_dir / RESULTS}"] if len(rows) > 20 else []
        return [line.rstrip() for line in lines] + more


@contextlib.contextmanager
def _readers(threads):
    pool = concurrent.futures.ThreadPoolExecutor(threads, "reader")
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
