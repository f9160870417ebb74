"""One run of an app: its pictures in, its entries and files out."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags

from tfcnn import images, report, runtime, workers
from tfcnn.cli import lists, models, scale, usage
from tfcnn.cli.classes import resolve_class
from tfcnn.cli.items import Item, Picture, Single, unique_stems
from tfcnn.cli.journal import Journal, Shard
from tfcnn.cli.output import FLAGS_FILE, PAGE, RESULTS, Output, one_line
from tfcnn.cli.progress import Progress
from tfcnn.errors import InputError
from tfcnn.version import __version__

MOST_CARDS = 1000  # of pictures, on index.html
TABLE_ROWS = 20


class NothingToDo(Exception):
    """A trainer's output_dir holds the finished run of the same command on the same data: status 0."""


class Run(Output):
    """What `cli.start` hands to an app's main: all of `Output`, and below.

    Attributes:
        trainer: whether the app trains.
        only_as: a line of flags.txt without which an earlier run was no training; "": each was one.
        flag_names: the flags that the app has.
        threads: for reading.
        metrics: figures of the whole run for results.json.
        results: more fields of results.json beside `metrics`.
        net: the net's name for results.json.
        device: what computed, in words, for results.json; None: TensorFlow was not needed.
        finished: of a trainer: results.json of the same command's finished run in output_dir, else None.
        failure: what ended the run, for the other workers.
        stop: of a trainer: true once a signal asks it to stop; see `runtime.Interrupted`.
        workers: of a trainer: the processes of which this is one; None: it is alone.
        meeting: the connections between them, once TensorFlow was started.
        rate: of the last iteration over pictures, in images a second.
        shard: the part of the pictures that this run does; its files lie in a folder of its own in --output_dir.
        merging: the work is done: this run ends what the shards in output_dir began.
        journals: of the pictures that `over_pictures` has done.
        more_fields: further fields of each of their entries, in their order; [] for none.
    """

    def __init__(self, app: str, flag_values: flags.FlagValues, trainer: bool = False):
        super().__init__(app, flag_values)
        self.trainer, self.only_as = trainer, ""
        self.flag_names = usage.names(flag_values)
        self.threads = flag_values.threads or runtime.cores()
        self.metrics: dict[str, Any] = {}
        self.results: dict[str, Any] = {}
        self.net: str | None = None
        self.device: str | None = None
        self.finished: dict[str, Any] | None = None
        self.stop = runtime.Stop()
        self.failure = ""
        self.rate: float | None = None
        wanted = flag_values.shard if "shard" in flag_values else None
        self.merging = wanted == scale.MERGED
        self.shard = Shard.parse(wanted) if wanted and not self.merging else None
        if self.shard:
            self.output_dir /= self.shard.folder
        if self.merging:
            flag_values["shard"].value = None  # its results are those of a run without shards
        self.workers: workers.Workers | None = None
        self.meeting: workers.Meeting | None = None
        self.journals: list[Journal] = []
        self.more_fields: Sequence[dict[str, Any]] = []
        self._began_at = time.monotonic()
        self._progress: list[Progress] = []
        self._table: tuple = ()
        self._sheets: list[report.Entry] = []

    # ------------------------------------------------------------------------------------- in

    @functools.cached_property
    def runtime(self) -> runtime.Runtime:
        """TensorFlow, set up as the flags say; the first use starts it."""
        wanted = self.flags
        if self.workers:
            self._meet()
        begun = runtime.start(
            wanted.device,
            wanted.precision,
            wanted.threads,
            wanted.seed,
            wanted.verbosity,
            wanted.deterministic,
            self.workers,
        )
        if self.workers:
            self.stop.listen()  # anew: TensorFlow's service among workers has taken SIGTERM for itself
        self.say(begun.note)
        self.device = begun.description
        return begun

    def _meet(self):
        """Wait until all workers have come with the same command, data and view of the output_dir."""
        work = {
            "version": __version__,
            "flags": usage.as_lines(self.flags, self.flag_names),
            "data": self.results.get("data"),
            "resume": self.resume,
        }

        def differs(ours, theirs):
            if ours["resume"] != theirs.get("resume"):
                return (
                    f"it sees another content of {self.output_dir}, which must lie on a disk that all share"
                )
            found = usage.differences(theirs.get("flags") or [], ours["flags"])
            found += [f"other {key}" for key in ("version", "data") if ours[key] != theirs.get(key)]
            return "; ".join(found)

        def say(line):
            print(f"{self.app}: {line}", file=sys.stderr, flush=True)

        self.meeting = workers.Meeting(self.workers, work, differs, self.flags.worker_seconds, say)

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
        pictures = (Picture(self, i, s, stems[i]) for i, s in enumerate(sources))
        for group in self.groups(pictures, len(sources), size, prepare):
            batch = [picture for picture in group if not picture.finished]
            if batch:
                yield batch
            for picture in batch:
                if listed:
                    picture.finish()
                picture.let_go()

    def groups(
        self,
        pictures: Iterator[Picture],
        count: int,
        size: int,
        prepare: Callable[[np.ndarray], Any] | None = None,
    ) -> Iterator[list[Picture]]:
        """Pictures in lists of `size`, read ahead; those that cannot be read are among them, refused.

        Args:
            pictures: so many.
            count: how many.
            size: of a list; the last may be shorter.
            prepare: as `batches`.
        """
        self.begin()
        ahead = collections.deque()
        with self.progress(count, self.app) as progress, _readers(self.threads) as pool:
            while True:
                for picture in itertools.islice(pictures, max(2 * size, self.threads) - len(ahead)):
                    ahead.append((picture, pool.submit(picture.load, prepare)))
                group = [ahead.popleft() for _ in range(min(size, len(ahead)))]
                if not group:
                    return
                for picture, loaded in group:
                    with picture:
                        loaded.result()
                        for note in picture.entry.get("notes", ()):
                            self.say(f"{picture.name}: {note}")
                yield [picture for picture, _ in group]
                progress.advance(len(group))
                self.rate = round(progress.rate, 2)

    def over_pictures(self, begin: Callable[[Run], scale.Work]) -> dict[str, Any]:
        """Work on the input pictures, however many they are: their entries go to the disk as they are finished.

        Here or by Ray (--engine), all of them or those of --shard, after a shard was killed those that are left, and
        none where shards are merged.

        Args:
            begin: opens the net and says what the work is; not called where shards are merged.

        Returns:
            The work's facts.
        """
        return scale.over_pictures(self, begin)

    def finished_pictures(self) -> Iterator[tuple[dict[str, Any], Any]]:
        """(entry, kept) of each picture that `over_pictures` has done, in order, read from the disk."""
        for item in scale.all_items(self):
            if "entry" in item:
                yield item["entry"], item.get("kept")

    def item(self, name: str, stem: str | None = None, **fields: Any) -> Item:
        """An entry that is no picture's, e.g. a class's; use it as a context, then it is in the results."""
        self.begin()
        return Single(self, len(self.entries) + len(self.refused), name, stem or name, fields)

    def begin(self) -> None:
        """Say that the command is right and work begins: from here on a failure is status 1, not 2."""
        if self.begun:
            return
        super().begin()
        if (
            self.trainer and self.writes
        ):  # a killed run's flags say whose it is, and no older result speaks for it
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

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[object]], count: int | None = None
    ) -> None:
        """What to print at the end; of more than TABLE_ROWS rows the first ones.

        Args:
            columns: their titles.
            rows: all, or the first TABLE_ROWS.
            count: how many there are.
        """
        self._table = (columns, rows[:TABLE_ROWS], len(rows) if count is None else count)

    def write_flags(self) -> None:
        """Write the flagfile that repeats the run; a trainer's is there from the first step on."""
        lines = [f"# tfcnn {self.app} {__version__}", *usage.as_lines(self.flags, self.flag_names)]
        self.save_bytes(("\n".join(lines) + "\n").encode(errors="surrogateescape"), FLAGS_FILE)

    def finish(self, finished: bool = True) -> None:
        """Write flags.txt, results.json and index.html, print the table and where the files lie."""
        self.write_flags()
        items = [self.entries[index] for index in sorted(self.entries)]
        results = {
            "app": self.app,
            "version": __version__,
            "flags": usage.as_values(self.flags, self.flag_names),
            "net": self.net,
            "device": self.device,
            "seconds": round(time.monotonic() - self._began_at, 3),
            "finished": finished,
            "images": itertools.chain((item.entry for item in items), self._journaled()),
            "refused": self._refused(),
            "metrics": self.metrics,
            **self.results,
        }
        if not self.trainer:
            entries = itertools.chain((i.entry for i in items), (e for e, _ in self.finished_pictures()))
            self.say_what_stays(itertools.chain((self.results,), entries))
        self.save_json(results, RESULTS)
        cards = [dataclasses.replace(i.card, pictures=i.shown, lines=i.lines) for i in items if i.card]
        journaled = filter(None, map(scale.card, (i for i in scale.all_items(self) if "entry" in i)))
        cards += itertools.islice(journaled, MOST_CARDS)
        parts = [report.Entry("", lines=self._table_lines(), sheet=True)] if self._table and not cards else []
        refused = list(itertools.islice(self._refused(), MOST_CARDS + 1))
        lines = [_refusal(**file) for file in refused[:MOST_CARDS]]
        if len(refused) > MOST_CARDS:
            lines.append(f"{self.refused_count} were refused in all; {RESULTS} lists them")
        page = report.gallery(
            f"tfcnn {self.app}",
            [*parts, *self._sheets, *cards],
            lines=lines,
            more=self.shown - sum(len(card.pictures) for card in cards) if self.flags.save_images else 0,
        )
        self.save_bytes(page, PAGE)
        if not self.writes:
            return
        for line in self._table_lines():
            print(line)
        count = len(items) + sum(journal.entries for journal in self.journals)
        done = f"{count} done, {self.refused_count} refused; " if count or self.refused_count else ""
        print(f"{done}see {self.output_dir / PAGE}", flush=True)

    def _journaled(self) -> Iterator[dict[str, Any]]:
        more = itertools.chain(self.more_fields, itertools.repeat({}))
        for (entry, _), fields in zip(self.finished_pictures(), more, strict=False):
            yield entry | fields

    def _refused(self) -> Iterator[dict[str, str]]:
        """What results.json lists as refused, in the order of the inputs."""
        journaled = (item["refused"] for item in scale.all_items(self) if "refused" in item)
        return itertools.chain((self.refused[index] for index in sorted(self.refused)), journaled)

    def _table_lines(self) -> list[str]:
        if not self._table:
            return []
        columns, rows, count = self._table
        cells = [[one_line(str(cell)) for cell in row] for row in [columns, *rows]]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in cells
        ]
        more = (
            [f"... and {count - TABLE_ROWS} more in {self.output_dir / RESULTS}"]
            if count > TABLE_ROWS
            else []
        )
        return [line.rstrip() for line in lines] + more


def _refusal(file, why):
    """A line of index.html; a reason that begins with the file's name says it once."""
    return f"{file} was refused: {why.removeprefix(file).removeprefix(': ')}"


@contextlib.contextmanager
def _readers(threads):
    pool = concurrent.futures.ThreadPoolExecutor(threads, "reader")
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
