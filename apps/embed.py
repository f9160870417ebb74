"""Lay pictures out in the plane so that those with like codes lie together."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, files, images
from tfcnn.cli import data_flags, layers, scale
from tfcnn.cli.flags import refuse
from tfcnn.cli.output import guarded
from tfcnn.errors import InputError
from tfcnn.visualization import code_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tfcnn.datasets import Record

GROUP, SUMMARY = "looking inside", "lay pictures out in the plane, like ones together (t-SNE)"

METHOD = flags.DEFINE_enum(
    "method", "tsne", ["pca", "tsne"], "The first two principal components, or t-SNE of the first fifty"
)
LAYER = flags.DEFINE_string(
    "layer",
    None,
    "Layer whose answers are the codes (of a map the mean), or pixels; none takes what the classes are linear in, of "
    "digits the pixels, e.g. --layer=stage5",
)
CHANNEL = flags.DEFINE_list("channel", [], "Only these channels of --layer, e.g. --channel=3,4,5")
SPLIT = data_flags.define_split(none="the layout's first, of digits all")
CLASS = flags.DEFINE_string(
    "class", None, "Classes of --dataset, by index or name; none takes all, e.g. --class=3,8"
)
PERPLEXITY = flags.DEFINE_float(
    "perplexity",
    30.0,
    "t-SNE: about how many neighbours each picture keeps, e.g. --perplexity=50",
    lower_bound=1.0,
)
THUMBNAIL = flags.DEFINE_integer(
    "thumbnail", 40, "Side in pixels of a picture on the sheets, e.g. --thumbnail=64", lower_bound=4
)
MOST = flags.DEFINE_integer(
    "most",
    5000,
    "Of more pictures than this, so many drawn at random (by --seed) are laid out by t-SNE, shown on the sheets and "
    "written for the projector; --method=pca gives the others their positions, too, e.g. --most=10000",
    lower_bound=5,
)
GRID = flags.DEFINE_integer("grid", 40, "Cells in a row of the grid, at most, e.g. --grid=20", lower_bound=1)

PIXELS = "pixels"
DIGITS = "digits"
GREY = (DIGITS, "mnist")  # data sets of one number a pixel
NEIGHBOURS = 10
CODES = "codes.npy"


@dataclasses.dataclass
class Seen:
    """What is kept of the pictures in memory: that of those that are shown.

    Attributes:
        chosen: the numbers of those among all that were read, rising.
        files, thumbnails, labels: of each of them; label -1: no class.
    """

    chosen: list[int] = dataclasses.field(default_factory=list)
    files: list[str] = dataclasses.field(default_factory=list)
    thumbnails: list[np.ndarray] = dataclasses.field(default_factory=list)
    labels: list[int] = dataclasses.field(default_factory=list)

    def add(self, number: int, file: str, thumbnail: np.ndarray, label: int = -1) -> None:
        """Keeps a picture."""
        self.chosen.append(number)
        self.files.append(file)
        self.thumbnails.append(thumbnail)
        self.labels.append(label)


class Positions:
    """The field `position` of each picture, made as it is asked for.

    Args:
        points: float32 [N, 2], or of the chosen ones alone.
        chosen: their numbers among N, rising.
        count: N.
    """

    def __init__(self, points: np.ndarray, chosen: Sequence[int], count: int):
        self._points, self._chosen, self._count = points, chosen, count

    def __iter__(self) -> Iterator[dict[str, list[float] | None]]:
        row = 0
        for number in range(self._count):
            if len(self._points) == self._count:
                yield {"position": self._points[number].tolist()}
            elif row < len(self._chosen) and self._chosen[row] == number:
                yield {"position": self._points[row].tolist()}
                row += 1
            else:
                yield {"position": None}


def main(run: cli.Run) -> None:
    if run.flags.images and data_flags.DATASET.value:
        raise InputError("--images and --dataset are two inputs; give one of them")
    if not run.flags.images and not data_flags.DATASET.value:
        flags.FLAGS["dataset"].value = DIGITS
    if run.flags.images and (SPLIT.value or CLASS.value or data_flags.DATA.present):
        raise InputError("--split, --class and --data belong to --dataset")
    if not run.flags.images and (run.shard or run.merging or run.flags.engine != "local"):
        raise InputError("--shard and --engine belong to --images")
    if METHOD.value != "tsne":
        refuse(["perplexity"], f"belongs to --method=tsne, and this is {METHOD.value}")
    names: list[str] = []
    records: list[Record] = []
    code = None
    if run.flags.images:
        run.over_pictures(work)
        if run.shard:
            run.say("the codes are kept; tfcnn merge lays the pictures of all shards out")
            return
    else:
        names, records = chosen(run)
    run.runtime  # noqa: B018  (starts TensorFlow, silently; where shards are merged nothing has yet)
    if records:
        code = coder(run)
    items: list[cli.Item] | None = None
    with guarded(run.output_dir), files.written(run.place(CODES)) as path:
        with code_file.CodeFile(path) as rows:
            if code is None:
                seen = of_pictures(run, rows)
            else:
                seen, items = of_dataset(run, names, records, *code, rows)
        if not rows.count:
            raise InputError("no picture could be read")
    run.results.setdefault("files", []).append(CODES)
    from tfcnn.visualization import embedding

    every = code_file.read(run.output_dir / CODES)
    codes, labels = np.array(every[seen.chosen]), np.array(seen.labels)
    if len(codes) < len(every):
        run.say(f"{len(codes)} of {len(every)} pictures, drawn at random, are shown (--most)")
    if METHOD.value == "tsne":
        run.say(f"t-SNE of {len(codes)} codes")
        points = embedding.positions(codes, "tsne", perplexity=PERPLEXITY.value, seed=run.flags.seed)
        positions = Positions(points, seen.chosen, len(every))
    else:
        points = embedding.positions(every, METHOD.value)
        positions = Positions(points, seen.chosen, len(every))
        points = points[seen.chosen]
    if items is None:
        run.more_fields = positions
    else:
        for item, position in zip(items, positions, strict=True):
            item.entry |= position

    known = labels if len(names) and (labels >= 0).all() else None
    thumbnails = np.stack(seen.thumbnails)
    title = f"{len(points)} pictures by {METHOD.value}"
    run.sheet(embedding.scatter(points, known, names), "scatter.png", title)
    sheet = max(800, min(2400, round(1.2 * THUMBNAIL.value * math.sqrt(len(points)))))
    run.sheet(
        embedding.pictures_at(points, thumbnails, sheet), "pictures.png", "The pictures at their places"
    )
    side = min(GRID.value, math.isqrt(len(points)))
    laid = embedding.in_cells(embedding.cells(points, side), thumbnails)
    run.sheet(laid, "grid.png", f"{side} x {side} cells, each with a picture near it")
    words = [names[label] if known is not None else "" for label in labels]
    for name, data in embedding.projector(codes, points, seen.files, words, thumbnails).items():
        run.results.setdefault("files", []).append(run.save_bytes(data, f"projector/{name}"))

    lines = [["pictures", len(every)], ["numbers of a code", codes.shape[1]]]
    run.metrics |= {"images": len(every), "code": codes.shape[1]}
    if len(codes) < len(every):
        run.metrics["shown"] = len(codes)
        lines.append(["shown of them", len(codes)])
    if known is not None and len(set(labels.tolist())) > 1:
        agree = {
            "neighbours": min(NEIGHBOURS, len(points) - 1),
            "codes": embedding.agreement(codes, labels, NEIGHBOURS),
            "positions": embedding.agreement(points, labels, NEIGHBOURS),
        }
        run.metrics["agreement"] = agree
        lines += [
            [
                f"of a picture's {agree['neighbours']} nearest neighbours by code have its class",
                f"{agree['codes']:.1%}",
            ],
            ["the same in the plane", f"{agree['positions']:.1%}"],
        ]
    run.table(["what", "value"], lines)


def coder(run: cli.Run) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """(a function from pictures [N, H, W, 3] to codes, the side that pictures get)."""
    own_net = run.flags.model or not run.flags["net"].using_default_value
    layer = LAYER.value or (PIXELS if data_flags.DATASET.value == DIGITS and not own_net else None)
    if layer == PIXELS:
        if CHANNEL.value:
            raise InputError(f"--channel belongs to a layer of a net, not to --layer={PIXELS}")
        refuse(cli.NO_NET, f"belongs to a net, and the codes are --layer={PIXELS}")
        code = functools.partial(pixels, grey=data_flags.DATASET.value in GREY)
        return code, run.flags.image_size or (8 if data_flags.DATASET.value == DIGITS else 32)
    net = run.load_net("any")
    from tfcnn.visualization import embedding

    if layer is None:
        layer = embedding.last_code(net.model) if net.classes else layers.deep(net.model)
    wanted = layers.channels(net.model, layer, CHANNEL.value, 0) if CHANNEL.value or LAYER.value else []
    code = embedding.codes(net.model, layer, wanted or None)
    return (lambda batch: code(batch).numpy()), net.size


def pixels(batch: np.ndarray, grey: bool) -> np.ndarray:
    """Pictures as their own codes, those of a grey data set by one number a pixel."""
    return batch[..., 0].reshape(len(batch), -1) if grey else batch.reshape(len(batch), -1)


def work(run: cli.Run) -> cli.Work:
    """The codes and thumbnails of a batch of pictures, which `of_pictures` reads again."""
    run.runtime  # noqa: B018  (starts TensorFlow, silently)
    code, size = coder(run)

    def prepare(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        resized = images.resize(image, size, run.flags.resize)[0]
        return resized, images.resize(image, THUMBNAIL.value, run.flags.resize)[0]

    def answer(batch: Sequence[cli.Picture]) -> None:
        found = code(np.stack([picture.prepared[0] for picture in batch]).astype(np.float32))
        for picture, values in zip(batch, found, strict=True):
            with picture:
                check(values)
                picture.card = None  # it would be one of thousands
                picture.kept = [scale.encoded(np.float32(values)), scale.encoded(picture.prepared[1])]

    return cli.Work(answer, run.flags.batch_size, prepare)


def drawn(run: cli.Run, count: int) -> set[int]:
    """The numbers of the pictures that are shown of so many, all where --most allows it."""
    if count <= MOST.value:
        return set(range(count))
    return set(np.random.default_rng(run.flags.seed).permutation(count)[: MOST.value].tolist())


def of_pictures(run: cli.Run, rows: code_file.CodeFile) -> Seen:
    """What `work` kept: all codes go to a file, what is shown into memory."""
    shown, seen = drawn(run, sum(journal.entries for journal in run.journals)), Seen()
    for number, (entry, (code, thumbnail)) in enumerate(run.finished_pictures()):
        rows.add(scale.decoded(code, np.float32))
        if number in shown:
            small = scale.decoded(thumbnail, np.uint8, [THUMBNAIL.value, THUMBNAIL.value, 3])
            seen.add(number, entry["file"], small)
    return seen


def chosen(run: cli.Run) -> tuple[list[str], list[Record]]:
    """The names of a data set's classes, and the pictures of those that --class names."""
    splits = [SPLIT.value]
    if data_flags.DATASET.value == DIGITS and SPLIT.value is None:
        splits = ["train", "test"]
    parts = [data_flags.open_split(split) for split in splits]
    names = [name.split(",")[0] for name in parts[0].classes]
    wanted = cli.resolve_class(CLASS.value or "", [("", name) for name in names], run.say)
    records = [each for part in parts for each in part.examples if not wanted or each.label in wanted]
    if not records:
        raise InputError(f"{parts[0].name} has no pictures of these classes")
    return names, records[: run.flags.limit]


def of_dataset(
    run: cli.Run,
    names: list[str],
    records: list[Record],
    code: Callable[[np.ndarray], np.ndarray],
    size: int,
    rows: code_file.CodeFile,
) -> tuple[Seen, list[cli.Item]]:
    """(what is shown of a data set's pictures, the entries of all); all codes go to a file."""
    shown, seen, items = drawn(run, len(records)), Seen(), []
    with run.progress(len(records), "embed") as progress:
        for first in range(0, len(records), run.flags.batch_size):
            batch = records[first : first + run.flags.batch_size]
            read = []
            for record in batch:
                try:
                    read.append((record, record.image()))
                except InputError as error:
                    run.refuse(record.file, str(error))
            resized = [images.resize(image, size, run.flags.resize)[0] for _, image in read]
            found = code(np.stack(resized).astype(np.float32)) if read else []
            for (record, image), values in zip(read, found, strict=True):
                height, width = image.shape[:2]
                with run.item(record.file, file=record.file, width=width, height=height) as item:
                    if record.label >= 0:
                        item.entry["label"] = names[record.label]
                    check(values)
                    item.card = None  # it would be one of thousands
                    items.append(item)
                    if rows.count in shown:
                        small = images.resize(image, THUMBNAIL.value, run.flags.resize)[0]
                        seen.add(rows.count, record.file, small, record.label)
                    rows.add(values)
            progress.advance(len(batch))
    return seen, items


def check(code: np.ndarray) -> None:
    """See that a code is made of numbers.

    Raises:
        InputError: it is not.
    """
    if not np.isfinite(code).all():
        raise InputError("non-finite")


if __name__ == "__main__":
    cli.start(main, batch_size=32, at_scale=True)
