"""An app's work over any number of pictures: here or by Ray, whole or in shards, and the end of what shards began."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfcnn import images, report
from tfcnn.cli import usage
from tfcnn.cli.items import Picture, unique_stems
from tfcnn.cli.journal import JOURNAL, Journal
from tfcnn.cli.output import RESULTS, guarded
from tfcnn.errors import InputError
from tfcnn.version import __version__

if TYPE_CHECKING:
    from tfcnn.cli.run import Run

SHARDS = "shards.json"  # in the output_dir of merged results: where the shards are
MERGED = "merged"  # --shard=merged: what `merge` calls


@dataclasses.dataclass
class Work:
    """An app's work on pictures, ready to begin.

    Attributes:
        answer: fills the entries of a batch of pictures, and their `kept`.
        size: pictures of a batch.
        prepare: done to each image in the reading thread, as `Run.batches` takes it.
        facts: what the app's end needs to know of the net: plain JSON.
    """

    answer: Callable[[Sequence[Picture]], None]
    size: int
    prepare: Callable[[np.ndarray], Any] | None = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


def over_pictures(run: Run, begin: Callable[[Run], Work]) -> dict[str, Any]:
    """Do an app's work on the input pictures, or on the shard's; see `Run.over_pictures`."""
    if run.merging:
        return merged(run)
    if run.flags.engine == "ray":
        from tfcnn.cli import ray_engine

        ray_engine.check()
    work = begin(run)
    sources = run.sources()
    count = -(-len(sources) // work.size)
    mine = run.shard.part(count) if run.shard else range(count)
    header = {
        "app": run.app,
        "version": __version__,
        "flags": usage.as_lines(run.flags, run.flag_names),
        "shard": [run.shard.number, run.shard.of] if run.shard else [1, 1],
        **pictures_of(sources),
        "batch_size": work.size,
        "batches": [mine.start, mine.stop],
        "net": run.net,
        "device": run.device,
        "facts": work.facts,
    }
    if run.shard:
        with guarded(run.output_dir):
            run.output_dir.mkdir(parents=True, exist_ok=True)
            journal = Journal.opened(run.output_dir)  # before the work begins: another process may be at it
    run.begin()
    with guarded(run.output_dir):
        if not run.shard:
            journal = Journal.temporary(run.place(JOURNAL).parent)
        run.journals = [journal]
        if journal.header and run.shard and same_work(journal.header, header):
            header = journal.header  # written with flags of another machine, it may be
        journal.begin(header)
    run.shown, run.refused_count = journal.shown, journal.refused
    begun = range(mine.start + journal.batches, mine.stop)
    if journal.batches:
        run.say(f"going on after {journal.batches} of {len(mine)} batches")
    if run.shard and not mine:
        run.say(f"{count} batches of {work.size} are too few for {run.shard.of} shards: nothing for this one")
    stems = unique_stems(sources)
    first, last = begun.start * work.size, min(begun.stop * work.size, len(sources))
    starts = range(first, last, work.size)
    if run.flags.engine == "ray":
        _by_ray(
            run,
            begin,
            work,
            [(k, sources[k : k + work.size], stems[k : k + work.size]) for k in starts],
            journal,
        )
        return work.facts
    pictures = (Picture(run, i, sources[i], stems[i], journaled=True) for i in range(first, last))
    for number, group in zip(
        begun, run.groups(pictures, max(0, last - first), work.size, work.prepare), strict=True
    ):
        _add(run, journal, {"batch": number, **answered(run, work, group)})
    return work.facts


def _by_ray(run, begin, work, parts, journal):
    from tfcnn.cli import ray_engine

    first = journal.header["batches"][0] + journal.batches
    with run.progress(sum(len(sources) for _, sources, _ in parts), run.app) as progress:
        for number, line in enumerate(ray_engine.lines(run, begin.__name__, parts), first):
            _add(run, journal, {"batch": number, **ray_engine.counted(run, line)})
            progress.advance(len(line["items"]))
            run.rate = round(progress.rate, 2)


def answered(run: Run, work: Work, group: Sequence[Picture]) -> dict[str, Any]:
    """Work on one batch, those that were read of it, and give what a journal says of it."""
    batch = [picture for picture in group if not picture.finished]
    if batch:
        work.answer(batch)
    for picture in batch:
        picture.finish()
        picture.let_go()
    return {"shown": run.shown, "items": [_item(picture) for picture in group]}


def _add(run, journal, line):
    with guarded(run.output_dir):
        journal.add(line)
    if not run.output_dir.is_dir():
        run.place(JOURNAL)  # says that it is gone


def _item(picture):
    if picture.why:
        return {"refused": {"file": picture.name, "why": picture.why}}
    shown = [[s.caption, base64.b64encode(s.data).decode(), s.file] for s in picture.shown]
    more = {"lines": picture.lines, "shown": shown, "card": picture.card is not None}
    kept = {} if picture.kept is None else {"kept": picture.kept}
    return {"entry": picture.entry, **kept, **{name: value for name, value in more.items() if value}}


def card(item: dict[str, Any]) -> report.Entry | None:
    """A journaled picture's card on the page."""
    if not item.get("card"):
        return None
    shown = [report.Shown(words, base64.b64decode(data), file) for words, data, file in item.get("shown", [])]
    return report.Entry(item["entry"]["file"], shown, item.get("lines", []))


def pictures_of(sources: Sequence[images.Source]) -> dict[str, Any]:
    """What tells the list of pictures from another one: their number, and a checksum of their names."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.file.encode(errors="surrogateescape") + b"\0")
    return {"pictures": len(sources), "sha256": digest.hexdigest()}


def same_work(header: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two journals' headers say the same work, whatever machine it is done on."""
    same = all(header[key] == other[key] for key in header.keys() & other.keys() - {"flags", "net", "device"})
    return same and not differences(header, other)


def differences(header: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The flags in which two journals differ, but for those of the machine and the shard."""
    lines = [[line for line in each["flags"] if isinstance(line, str)] for each in (header, other)]
    return usage.differences(*lines, passed_over=usage.OF_THE_MACHINE - {"save_images"})


def merged(run: Run) -> dict[str, Any]:
    """Take up the journals of all shards in the place of work; the facts that they agree on."""
    try:
        folders = json.loads((run.output_dir / SHARDS).read_bytes())["shards"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{run.output_dir} holds no shards to be merged: `tfcnn merge` finds them, and calls this"
        ) from error
    run.journals = [Journal.read(run.output_dir / folder) for folder in folders]
    for journal in run.journals:
        run.shown += journal.shown
        run.refused_count += journal.refused
    headers = [journal.header for journal in run.journals]
    run.net = headers[0].get("net")
    run.device = ", ".join(dict.fromkeys(h["device"] for h in headers if h.get("device"))) or None
    run.begin()
    return headers[0]["facts"]


def look_for_a_shard(run: Run) -> int | None:
    """Find out whether output_dir holds this very shard, which sets `run.resume`.

    Returns:
        Its status where it is finished, else None.
    """
    try:
        journal = Journal.read(run.output_dir)
    except InputError:  # none, or of another kind: begin anew
        return None
    with journal:
        wanted = {
            "app": run.app,
            "version": __version__,
            "flags": usage.as_lines(run.flags, run.flag_names),
            "shard": [run.shard.number, run.shard.of],
            **pictures_of(run.sources()),
        }
        run.resume = same_work(wanted, journal.header)
        finished = run.resume and journal.complete and (run.output_dir / RESULTS).exists()
        return int(journal.refused > 0) if finished else None


def encoded(array: np.ndarray) -> str:
    """An array's bytes as text, for a picture's `kept`."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def decoded(text: str, dtype: type, shape: Sequence[int] = (-1,)) -> np.ndarray:
    """The array that `encoded` made a text."""
    return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)


def all_items(run: Run) -> Iterator[dict[str, Any]]:
    """The items of all journals of a run, in the order of the pictures."""
    for journal in run.journals:
        yield from journal.items()
