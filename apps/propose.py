"""Propose boxes that may hold an object, and measure how many objects they reach."""

from __future__ import annotations

import collections
import concurrent.futures
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.cli import data_flags, lists, training_record
from tfcnn.errors import InputError

if TYPE_CHECKING:
    from tfcnn.datasets import Dataset, Record
    from tfcnn.detection.proposals import Proposer

GROUP, SUMMARY = "detection", "propose boxes that may hold an object, by nine methods"

METHOD = flags.DEFINE_enum(
    "method",
    "selective_search",
    [
        "selective_search",
        "selective_search_quality",
        "edge_boxes",
        "bing",
        "uniform",
        "gaussian",
        "sliding_window",
        "superpixels",
        "rpn",
    ],
    "How they are found; rpn: by the first network of --model, a Faster R-CNN, e.g. --method=edge_boxes",
)
PROPOSALS = flags.DEFINE_integer(
    "proposals",
    2000,
    "Proposals of a picture, at most; of a data set where it is not given: the greatest of --counts",
    lower_bound=1,
)
SPLIT = data_flags.define_split("Part of --dataset whose pictures are taken, and their boxes as the truth")
COUNTS = flags.DEFINE_string(
    "counts",
    "100,1000,10000",
    "Numbers of proposals at which recall is measured; where it is not given, those up to a --proposals that is given, "
    "e.g. --counts=300,1000",
)
REPEATABILITY = flags.DEFINE_integer(
    "repeatability",
    0,
    "Pictures, evenly spread, that are scaled, turned, compressed and given noise, to see whether the same boxes come "
    "back, e.g. --repeatability=10",
    lower_bound=0,
)
BING = flags.DEFINE_string(
    "bing_weights",
    None,
    "Of bing: bing.json of --train_bing; none: the packaged one, trained on VOC, e.g. "
    "--bing_weights=out/propose/bing.json",
)
SEARCH = flags.DEFINE_enum(
    "search",
    None,
    ["own", "contrib"],
    "Of edge_boxes: our own search or opencv-contrib's; none: opencv-contrib's where it is installed, else our own",
)
TRAIN_BING = flags.DEFINE_bool(
    "train_bing", False, "Train BING on --dataset and --split and write bing.json, instead of proposing"
)
DRAWN = flags.DEFINE_integer(
    "draw_best", 15, "Best proposals that are drawn, e.g. --draw_best=30", lower_bound=1
)

SEARCHES = {"own": "our own", "contrib": "opencv-contrib's"}
SHOWN = 20  # pictures of a data set that are drawn


def main(run: cli.Run) -> None:
    dataset = _dataset(run)
    counts = _counts(run)
    if run.flags.image_size is not None or not run.flags["resize"].using_default_value:
        raise InputError("propose looks at a picture in its own size: --longest alone reduces a larger one")
    if TRAIN_BING.value:
        return train_bing(run, dataset)
    if dataset and run.flags["proposals"].using_default_value:
        run.flags.proposals = max(counts)
    propose = proposer(run)
    seconds: list[float] = []
    if dataset:
        rows, pictures = of_records(run, dataset, propose, counts, seconds)
    else:
        rows, pictures = of_pictures(run, propose, seconds)
    if seconds:
        run.metrics["seconds_per_image"] = float(np.median(seconds))
        run.metrics["proposals_per_image"] = float(np.mean([len(e["proposals"]) for e in run_entries(run)]))
    if REPEATABILITY.value and pictures:
        from tfcnn.datasets.example import evenly
        from tfcnn.evaluation.repeatability import repeatability

        chosen = (load() for load in evenly(pictures, REPEATABILITY.value))
        run.metrics["repeatability"] = found = repeatability(chosen, propose, seed=run.flags.seed)
        rows += [
            [f"repeatability, {kind}", "", f"{np.mean(list(v.values())):.3f}"] for kind, v in found.items()
        ]
    run.table(
        ["picture" if not dataset else "measured", "proposals", "seconds" if not dataset else "share"], rows
    )


def _dataset(run) -> Dataset | None:
    """The part of the data set that the flags name, or None."""
    only = (data_flags.DATA, SPLIT, TRAIN_BING, COUNTS)
    dataset = data_flags.instead_of_pictures(run, SPLIT.value, only, "boxes")
    if dataset is None:
        return None
    if not any(len(record.boxes) for record in dataset.examples):
        raise InputError(f"--dataset={data_flags.DATASET.value} has no boxes to compare proposals with")
    data_flags.say_broken(run, dataset)
    return dataset


def _counts(run) -> list[int]:
    """The numbers of --counts, none of which is above a --proposals that is given."""
    counts = lists.numbers(COUNTS.value, "counts", int)
    if not counts or min(counts) < 1:
        raise InputError(f"--counts={COUNTS.value}: name at least one number from 1 on")
    if run.flags["proposals"].using_default_value:
        return counts
    within = [count for count in counts if count <= PROPOSALS.value]
    if run.flags["counts"].using_default_value:
        return within or [PROPOSALS.value]
    if within != counts:
        raise InputError(f"--counts={COUNTS.value} asks for more than --proposals={PROPOSALS.value}")
    return counts


def proposer(run: cli.Run) -> Proposer:
    """The method that the flags describe."""
    from tfcnn.detection import proposals

    if BING.value and METHOD.value != "bing":
        raise InputError("--bing_weights belongs to --method=bing")
    if SEARCH.value and METHOD.value != "edge_boxes":
        raise InputError("--search belongs to --method=edge_boxes")
    if run.flags.model and METHOD.value != "rpn":
        raise InputError("--model belongs to --method=rpn: a Faster R-CNN's release, folder or .keras file")
    predictor = None
    if METHOD.value == "rpn":  # the only one that needs TensorFlow
        run.runtime  # noqa: B018  (starts it, silently)
        from tfcnn import detector

        run.net = run.flags.model or "faster_rcnn_voc"
        predictor = detector(
            run.net,
            batch_size=1,
            proposals=PROPOSALS.value,
            allow_custom_objects=run.flags.allow_custom_objects,
        )
    if METHOD.value == "edge_boxes":
        from tfcnn.detection.proposals import edge_boxes

        run.results["search"] = search = edge_boxes.search_of(SEARCH.value)
        run.say(f"edge_boxes with {SEARCHES[search]} search")
    return proposals.proposer(
        METHOD.value,
        PROPOSALS.value,
        run.flags.seed,
        bing_weights=BING.value,
        predictor=predictor,
        longest=run.flags.longest,
        search=SEARCH.value,
    )


def timed(propose: Proposer, image: np.ndarray) -> tuple[np.ndarray, float]:
    """(proposals [n, 5], seconds)."""
    began = time.perf_counter()
    found = propose(image)
    return found, time.perf_counter() - began


def of_pictures(run: cli.Run, propose: Proposer, seconds: list[float]) -> tuple[list, list]:
    """Propose in every input picture: (a table's rows, calls that give each picture)."""
    rows, loads = [], []
    for (picture,) in run.batches(1, lambda image: (image, *timed(propose, image))):
        image, found, took = picture.prepared
        seconds.append(took)
        picture.entry |= {"method": METHOD.value, "seconds": round(took, 4), "proposals": as_rows(found)}
        if run.flags.save_images:
            picture.save(
                drawn(image, found), "proposals", f"the best {DRAWN.value} of {len(found)}", main=True
            )
        rows.append([picture.name, len(found), f"{took:.2f}"])
        loads.append(lambda source=picture.source: images.read(source, run.flags.max_pixels))
    return rows, loads


def of_records(
    run: cli.Run, dataset: Dataset, propose: Proposer, counts: list[int], seconds: list[float]
) -> tuple[list, list]:
    """Propose in a data set's pictures and measure recall: (a table's rows, calls that give each picture)."""
    from tfcnn.evaluation import proposal_recall

    records = training_record.limited(dataset, run.flags.limit).examples
    recall = proposal_recall.Recall(counts)
    with run.progress(len(records), "propose") as progress:
        for number, (record, image, found, took) in enumerate(ahead(run, records, propose)):
            progress.advance()
            with run.item(record.file, str(record.image_id), file=record.file) as item:
                item.card = item.card if number < SHOWN else None
                if isinstance(image, InputError):
                    raise image
                boxes = proposal_recall.ground_truth(record, record.placement(image.shape))
                recall.add(found[:, :4], boxes)
                seconds.append(took)
                item.entry |= {
                    "width": image.shape[1],
                    "height": image.shape[0],
                    "method": METHOD.value,
                    "seconds": round(took, 4),
                    "proposals": as_rows(found),
                }
                if number < SHOWN and run.flags.save_images:
                    item.save(
                        reached(image, found, boxes), "proposals", "the best one of each object", main=True
                    )
    run.metrics |= recall.figures()
    rows = []
    for count, row in recall.figures().items():
        if row:
            rows += [[f"recall at IoU {t}", count, f"{share:.1%}"] for t, share in row["recall"].items()]
            rows.append(["average recall", count, f"{row['average_recall']:.1%}"])
    return rows, [record.image for record in records]


def ahead(
    run: cli.Run, records: list[Record], propose: Proposer
) -> Iterator[tuple[Record, np.ndarray | InputError, np.ndarray, float]]:
    """(record, its picture or why it cannot be read, proposals [n, 5], seconds), computed in --threads threads."""

    def work(record):
        try:
            image = record.image()
        except InputError as error:
            return record, error, np.zeros((0, 5), np.float32), 0.0
        return record, image, *timed(propose, image)

    waiting: collections.deque = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(run.threads, "proposer") as pool:
        for record in records:
            waiting.append(pool.submit(work, record))
            if len(waiting) > 2 * run.threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def as_rows(found: np.ndarray) -> list[list[float]]:
    """Proposals [n, 5] for results.json: coordinates to a tenth of a pixel."""
    rows = np.round(found.astype(np.float64), 1)
    rows[:, 4] = np.round(found[:, 4].astype(np.float64), 6)
    return rows.tolist()


def drawn(image: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The picture with its best proposals, each in a colour of its own."""
    best = found[: DRAWN.value]
    return draw.boxes(image, best[:, :4], np.arange(len(best)))


def reached(image: np.ndarray, found: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The picture with each object's best proposal and their IoU."""
    from tfcnn.evaluation.proposal_recall import pairwise_iou

    if not len(boxes) or not len(found):
        return image
    overlap = pairwise_iou(found[:, :4], boxes)
    return draw.boxes(image, found[overlap.argmax(axis=0), :4], np.arange(len(boxes)), overlap.max(axis=0))


def run_entries(run: cli.Run) -> list[dict]:
    """The entries that results.json will have."""
    return [item.entry for item in run.entries.values()]


def train_bing(run: cli.Run, dataset: Dataset) -> None:
    """Train BING's two stages and write bing.json."""
    from tfcnn.detection.proposals import bing
    from tfcnn.evaluation import proposal_recall

    records = training_record.limited(dataset, run.flags.limit).examples

    def pictures():
        with run.progress(len(records), "train bing") as progress:
            for record in records:
                image = record.image()
                progress.advance()
                yield image, proposal_recall.ground_truth(record, record.placement(image.shape))

    weights = bing.train_bing(pictures, run.flags.seed)
    run.results["bing"] = run.save_json(weights.to_json(), "bing.json")
    run.sheet(_filter(weights), "filter", "the filter on 8 x 8 gradient magnitudes")
    run.table(["trained on", "window sizes"], [[f"{len(records)} pictures", len(weights.sizes)]])


def _filter(weights) -> np.ndarray:
    values = np.kron(draw.unit_range(weights.filter), np.ones((24, 24)))
    return np.repeat(np.rint(255 * values).astype(np.uint8)[..., None], 3, axis=2)


if __name__ == "__main__":
    cli.start(main, without=(*cli.NO_FACTORY, "labels"), longest=500)
