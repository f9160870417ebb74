"""Name what is in pictures, and measure it where the truth is known."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

GROUP, SUMMARY = "start", "classify pictures"

TOP = flags.DEFINE_integer("top", 5, "Classes to name for a picture, best first, e.g. --top=3", lower_bound=1)
DENSE = flags.DEFINE_bool(
    "dense",
    False,
    "Slide the net over the whole picture, its shorter side --image_size pixels (none: the net's / 0.875); "
    "shows where the best class answers",
)
TRUTH = flags.DEFINE_string(
    "truth", None, "CSV with the columns file and class_index: measure accuracy, e.g. --truth=labels.csv"
)
RUNTIME = flags.DEFINE_enum(
    "runtime", "tf", ["tf", "litert"], "TensorFlow, or LiteRT (fast on a CPU; pip install 'tfcnn[litert]')"
)


def main(run: cli.Run) -> None:
    if DENSE.value and RUNTIME.value == "litert":
        raise InputError("--dense needs --runtime=tf")
    for name in ("resize", "batch_size") if DENSE.value else ():
        if run.flags[name].present:
            raise InputError(f"--{name}: with --dense each picture keeps its shape, and is a batch by itself")
    classes = run.over_pictures(work)["classes"]
    rows, ranks = [], []
    for entry, rank in run.finished_pictures():
        best = entry["predictions"][0]
        if len(rows) < cli.TABLE_ROWS:
            rows.append([entry["file"], best["label"], f"{best['score']:.1%}"])
        if rank:
            ranks.append(tuple(rank))
    run.results["images_per_second"] = run.rate
    run.table(["file", "class", "score"], rows, sum(journal.entries for journal in run.journals))
    if TRUTH.value:
        run.metrics |= accuracy(ranks, classes)
        run.table(*accuracy_table(run.metrics))


def work(run: cli.Run) -> cli.Work:
    """The net, and what it does with a batch of pictures."""
    net = run.load_net(at_own_size=DENSE.value)
    truth = cli.read_truth(TRUTH.value, run.sources(), net.classes) if TRUTH.value else {}
    scores_of, prepare = dense(run, net) if DENSE.value else whole(run, net)

    def answer(batch: Sequence[cli.Picture]) -> None:
        scores, maps = scores_of(np.stack([picture.prepared for picture in batch]).astype(np.float32))
        for i, picture in enumerate(batch):
            with picture:
                if not np.isfinite(scores[i]).all():
                    raise InputError("non-finite")
                order = np.argsort(-scores[i], kind="stable")
                picture.entry["predictions"] = [named(net, k, scores[i]) for k in order[: TOP.value]]
                best = picture.entry["predictions"][0]
                picture.show(picture.prepared, f"{best['label']} {best['score']:.1%}")
                if DENSE.value:
                    overlay = over_windows(maps[i, ..., order[0]], picture.prepared, net.size)
                    picture.save(overlay, "map", f"where {best['label']} answers", main=True)
                if picture.source in truth:
                    true = truth[picture.source]
                    picture.kept = [true, int(order[0]), int(np.flatnonzero(order == true)[0])]

    return cli.Work(answer, 1 if DENSE.value else run.flags.batch_size, prepare, {"classes": net.classes})


def named(net: cli.Net, index: int, scores: np.ndarray) -> dict:
    """A class and its score for results.json."""
    synset, label = net.classes[index]
    return {"index": int(index), "synset": synset, "label": label, "score": float(scores[index])}


def whole(run: cli.Run, net: cli.Net) -> tuple[Callable, Callable]:
    """(answer, prepare) of the net at its own size: a batch -> scores [N, K]."""

    def prepare(image: np.ndarray) -> np.ndarray:
        return images.resize(image, net.size, run.flags.resize)[0]

    if RUNTIME.value == "litert":
        from tfcnn.export import litert

        program = litert.Program(net.model, [1, net.size, net.size, 3], run.threads)
        return (lambda batch: (program(batch)["scores"], None)), prepare

    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, net.size, net.size, 3])])
    def scores(batch: tf.Tensor) -> tf.Tensor:
        return net.model(batch, training=False)["scores"]

    return (lambda batch: (scores(batch).numpy(), None)), prepare


def dense(run: cli.Run, net: cli.Net) -> tuple[Callable, Callable]:
    """(answer, prepare) of the net slid over the picture: a picture -> scores [1, K], their map [1, h, w, K].

    Source: Simonyan and Zisserman (1409.1556) section 3.2: the map of class scores, averaged over its locations.
    """
    import tensorflow as tf

    from tfcnn.backbones import fully_convolutional

    model = fully_convolutional(net.model)
    side = run.flags.image_size or round(net.size / 0.875)
    if side < net.size:
        raise InputError(
            f"--image_size={side} is below the {net.size} pixels that {net.name} sees at each place"
        )

    def prepare(image: np.ndarray) -> np.ndarray:
        scale = side / min(image.shape[:2])
        size = [max(side, round(length * scale)) for length in image.shape[:2]]
        if math.prod(size) > run.flags.max_pixels:
            raise InputError(
                f"too long: with its shorter side {side} pixels it is {size[1]}x{size[0]}, above "
                f"--max_pixels={run.flags.max_pixels}"
            )
        return images.resize(image, size)[0]

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
    def answer(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        scores = model(batch, training=False)["scores"]
        return tf.reduce_mean(scores, axis=(1, 2)), scores

    return (lambda batch: [tensor.numpy() for tensor in answer(batch)]), prepare


def over_windows(values: np.ndarray, picture: np.ndarray, window: int) -> np.ndarray:
    """A map of scores [h, w] over its picture: at each pixel the mean score of the windows that see it."""
    height, width = picture.shape[:2]
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for row, y in zip(values, np.linspace(0, height - window, len(values)).round().astype(int), strict=True):
        for value, x in zip(row, np.linspace(0, width - window, len(row)).round().astype(int), strict=True):
            total[y : y + window, x : x + window] += value
            count[y : y + window, x : x + window] += 1
    mean = total / np.maximum(count, 1)
    return draw.heat_map(
        mean, picture, (0.0, float(mean.max()))
    )  # a picture of one window is light, not dark


def accuracy(ranks: Sequence[tuple[int, int, int]], classes: Sequence[tuple[str, str]]) -> dict:
    """The metrics of (true class, predicted class, rank of the true class) triples."""
    ranks = np.array(ranks, np.int64).reshape(-1, 3)
    labels = [label for _, label in classes]
    twice = {label for label, count in collections.Counter(labels).items() if count > 1}
    keys = [f"{label} ({synset})" if label in twice else label for synset, label in classes]
    per_class = {}
    for true in sorted(set(ranks[:, 0].tolist())):
        its = ranks[ranks[:, 0] == true, 2]
        per_class[keys[true]] = {
            "index": true,
            "images": len(its),
            "top1": float((its < 1).mean()),
            "top5": float((its < 5).mean()),
        }
    wrong = collections.Counter((keys[t], keys[p]) for t, p, rank in ranks.tolist() if rank > 0)
    pairs = sorted(wrong.items(), key=lambda pair: (-pair[1], pair[0]))
    return {
        "top1": float((ranks[:, 2] < 1).mean()) if len(ranks) else None,
        "top5": float((ranks[:, 2] < 5).mean()) if len(ranks) else None,
        "images": len(ranks),
        "per_class": per_class,
        "confusions": [{"truth": t, "predicted": p, "count": count} for (t, p), count in pairs[:50]],
    }


def accuracy_table(metrics: dict) -> tuple[list[str], list[list[str]]]:
    """What a person reads of `accuracy`."""
    if not metrics["images"]:
        return ["measure", "value"], [["images", "0"]]
    rows = [["top-1", f"{metrics['top1']:.1%}"], ["top-5", f"{metrics['top5']:.1%}"]]
    rows.append(["images", str(metrics["images"])])
    for pair in metrics["confusions"][:10]:
        rows.append([f"{pair['truth']} taken for {pair['predicted']}", f"{pair['count']} times"])
    return ["measure", "value"], rows


if __name__ == "__main__":
    cli.start(main, batch_size=32, resize="crop", at_scale=True)
