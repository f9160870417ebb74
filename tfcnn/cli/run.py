"""One run of an app: its pictures in, its entries and files out."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags

from tfcnn import images, report, runtime
from tfcnn.cli import lists, models, usage
from tfcnn.cli.classes import resolve_class
from tfcnn.cli.items import Item, Picture, Single, unique_stems
from tfcnn.cli.output import FLAGS_FILE, PAGE, RESULTS, Output
from tfcnn.cli.progress import Progress
from tfcnn.errors import InputError
from tfcnn.version import __version__


class NothingToDo(Exception):
    """A trainer's output_dir holds the finished run of the same command on the same data: status 0."""


class Run(Output):
    """What `cli.start` hands to an app's main: all of `Output`, and below.

    Attributes:
        trainer: whether the app trains.
        flag_names: the flags that the app has.
        threads: for reading.
        metrics: figures of the whole run for results.json.
        results: more fields of results.json beside `metrics`.
        net: the net's name for results.json.
        finished: of a trainer: results.json of the same command's finished run in output_dir, else None.
        stop: of a trainer: true once a signal asks it to stop; see `runtime.Interrupted`.
        rate: of the last iteration over pictures, in images a second.
    """

    def __init__(self, app: str, flag_values: flags.FlagValues, trainer: bool = False):
        super().__init__(app, flag_values)
        self.trainer = trainer
        self.flag_names = usage.names(flag_values)
        self.threads = flag_values.threads or runtime.cores()
        self.metrics: dict[str, Any] = {}
        self.results: dict[str, Any] = {}
        self.net: str | None = None
        self.finished: dict[str, Any] | None = None
        self.stop = runtime.Stop()
        self.rate: float | None = None
        self._began_at = time.monotonic()
        self._progress: list[Progress] = []
        self._table: tuple = ()
        self._sheets: list[report.Entry] = []

    # ------------------------------------------------------------------------------------- in

    @functools.cached_property
    def runtime(self) -> runtime.Runtime:
        """TensorFlow, set up as the flags say; the first use starts it."""
        wanted = self.flags
        begun = runtime.start(
            wanted.device,
            wanted.precision,
            wanted.threads,
            wanted.seed,
            wanted.verbosity,
            wanted.deterministic,
        )
        self.say(begun.note)
        return begun

    def sources(self) -> list[images.Source]:
        """The pictures that the command names, --limit of them; packaged photographs where it names none."""
        return self._sources[: self.flags.limit]

    @functools.cached_property
    def _sources(self):
        specs = [path for spec in self.flags.images for path in lists.paths(spec)]
        return images.find(specs) if specs else images.packaged()

    def load_net(self, kind: str = "classifier", **options: Any) -> models.Net:
        """The net that --net, --weights, --model and --labels name; see `models.load_net`."""
        return models.load_net(self, kind, **options)

    def classes(self, net: models.Net) -> list[int]:
        """The indices that the app's flag --class names; [] where it is not given."""
        return resolve_class(self.flags["class"].value or "", net.classes, self.say)

    def pictures(self) -> Iterator[Picture]:
        """The input pictures one by one, read ahead; those that cannot be read are refused.

        Work on each inside `with picture:`, so that an InputError refuses that picture and the run goes on.
        """
        for batch in self.batches(1):
            yield from batch

    def batches(
        self, size: int, prepare: Callable[[np.ndarray], Any] | None = None, listed: bool = True
    ) -> Iterator[list[Picture]]:
        """The input pictures in lists of up to `size`, read ahead in --threads threads.

        Args:
            size: pictures a list.
            prepare: done to the image in the reading thread, e.g. a resize; its result is
                `picture.prepared`, and the image itself is let go (asked for, it is read again).
            listed: False where results.json lists something else (units, say) than the pictures.
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
                    ahead.append((picture, pool.submit(picture.load, prepare)))
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
                        if listed:
                            picture.finish()
                        picture.let_go()
                    progress.advance(len(batch))
                    self.rate = round(progress.rate, 2)
                    batch = []

    def item(self, name: str, stem: str | None = None, **fields: Any) -> Item:
        """An entry that is no picture's, e.g. a class's; use it as a context, then it is in the results."""
        self.begin()
        return Single(self, len(self.entries) + len(self.refused), name, stem or name, fields)

    def begin(self) -> None:
        """Say that the command is right and work begins: from here on a failure is status 1, not 2."""
        if self.begun:
            return
        super().begin()
        if self.trainer:  # a killed run's flags say whose it is, and no older result speaks for it
            (self.output_dir / RESULTS).unlink(missing_ok=True)
            self.write_flags()

    def trains_on(self, data: dict[str, str]) -> None:
        """Say what a trainer trains on; a finished run of the same command goes no further.

        Args:
            data: each part's fingerprint; results.json keeps them.

        Raises:
            InputError: output_dir holds a finished run on other data.
            NothingToDo: it holds the finished run on these.
        """
        self.results["data"] = data
        if self.finished is None:
            return
        then = self.finished.get("data", data)
        if then != data:
            what = "; ".join(f"{n} {then.get(n)} then, {data[n]} now" for n in data if then.get(n) != data[n])
            raise InputError(
                f"{self.output_dir} holds a finished run on other data ({what}); --resume=false starts anew"
            )
        raise NothingToDo(
            f"nothing to do: the run in {self.output_dir} is finished; see {self.output_dir / RESULTS}"
        )

    def progress(self, total: int | None, what: str, unit: str = "images") -> Progress:
        """A context whose `advance(n, **numbers)` shows how far the work is."""
        self.begin()
        return Progress(total, what, unit, not self.flags.quiet, self._progress)

    # ------------------------------------------------------------------------------------- out

    def sheet(self, image: np.ndarray, relative: str, title: str) -> str:
        """Write a picture of the whole run, as `save_picture`; index.html shows it first, as wide as the page."""
        relative = self.save_picture(image, relative)
        if relative:
            shown = report.Shown(title, report.reduced(image, report.SHEET_SIDE), relative)
            self._sheets.append(report.Entry("", [shown], sheet=True))
            self.results.setdefault("files", []).append(relative)
        return relative

    def add(self, entry: dict[str, Any]) -> None:
        """Add an entry that no picture or item carries."""
        self.begin()
        item = Item(self, len(self.entries) + len(self.refused), str(entry.get("file", "")), "", entry)
        item.finish()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """What to print at the end; of more than 20 rows the first 20."""
        self._table = (columns, rows)

    def write_flags(self) -> None:
        """Write the flagfile that repeats the run; a trainer's is there from the first step on."""
        lines = [f"# tfcnn {self.app} {__version__}", *usage.as_lines(self.flags, self.flag_names)]
        self.save_bytes(("\n".join(lines) + "\n").encode(errors="surrogateescape"), FLAGS_FILE)

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
        bare = not any(item.card for item in entries)
        parts = [report.Entry("", lines=self._table_lines(), sheet=True)] if self._table and bare else []
        parts += [
            *self._sheets,
            *(
                dataclasses.replace(item.card, pictures=item.shown, lines=item.lines)
                for item in entries
                if item.card
            ),
        ]
        page = report.gallery(
            f"tfcnn {self.app}",
            parts,
            lines=[f"{file['file']} was refused: {file['why']}" for file in results["refused"]],
            more=self._shown - sum(len(item.shown) for item in entries) if self.flags.save_images else 0,
        )
        self.save_bytes(page, PAGE)
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
