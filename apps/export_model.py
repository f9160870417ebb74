"""Write a model as SavedModel, LiteRT, ONNX or a graph of TensorFlow 1, and compare it with the Keras model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, images
from tfcnn.cli import data_flags
from tfcnn.cli.exported_figures import measuring, prepared, top1
from tfcnn.cli.lists import paths
from tfcnn.cli.models import class_pairs
from tfcnn.errors import InputError, unknown

if TYPE_CHECKING:
    import keras

    from tfcnn.datasets import Dataset

GROUP, SUMMARY = "models", "write a model as SavedModel, LiteRT, ONNX or a TensorFlow 1 graph"

FORMATS = ("saved_model", "litert", "litert_float16", "litert_int8", "onnx", "tf1_graph")
FORMAT = flags.DEFINE_list(
    "format",
    ["litert"],
    "What to write: saved_model, with signatures; litert, with float32; litert_float16, whose kernels are halves; "
    "litert_int8; onnx (pip install 'tfcnn[onnx]'); tf1_graph, a frozen graph for TensorFlow 1.15; or all, "
    "e.g. --format=litert_int8,tf1_graph",
)
CALIBRATION = flags.DEFINE_string(
    "calibration",
    None,
    "Pictures on which int8 finds its ranges, 100 or more, without those of --dataset's --split; none takes "
    "those of --images, e.g. --calibration=photos",
)
MOST = flags.DEFINE_integer(
    "calibration_images", 100, "How many of them to take, e.g. --calibration_images=300", lower_bound=1
)
TRUTH = flags.DEFINE_string(
    "truth",
    None,
    "CSV with the columns file and class_index: measure each format's accuracy, e.g. --truth=labels.csv",
)
SPLIT = data_flags.define_split("Part of --dataset, whose pictures say each format's mAP or accuracy")
MEASURED = {  # of metrics, what the table shows
    "top1": "top-1",
    "map_11": "mAP",
    "AP": "AP",
    "segm_AP": "mask AP",
    "top1_loc": "top-1 loc. error",
    "pcp_strict": "PCP",
}


def main(run: cli.Run) -> None:
    kinds = list(dict.fromkeys(FORMATS if FORMAT.value == ["all"] else FORMAT.value))
    for kind in kinds:
        if kind not in FORMATS:
            raise unknown("format", kind, FORMATS)
    if CALIBRATION.value and "litert_int8" not in kinds:
        raise InputError("--calibration is of --format=litert_int8")
    if TRUTH.value and data_flags.DATASET.value:
        raise InputError("--truth and --dataset both say what is true; give one of them")
    if not data_flags.DATASET.value and (SPLIT.value or data_flags.DATA.value):
        raise InputError("--data and --split belong to --dataset")
    sources = run.sources()
    data = data_flags.open_split(SPLIT.value) if data_flags.DATASET.value else None
    calibration = images.find(paths(CALIBRATION.value)) if CALIBRATION.value else []
    calibration = others(calibration, data) if calibration and data else calibration
    model, size, classes = opened(run)
    truth = cli.read_truth(TRUTH.value, sources, classes) if TRUTH.value else {}
    from tfcnn.export import exported

    measure = measuring(run, data, model, size, classes) if data else None
    seen = {}
    for picture in run.pictures():
        with picture:
            seen[picture.source] = prepared(run, picture.image, size)
    if not seen:
        return
    pictures = list(seen.values())
    keras_model = exported.keras_answer(model)
    wanted = [keras_model(picture[None]) for picture in pictures]
    labels = [truth.get(source) for source in seen]
    figures: dict[str, dict[str, float | None]] = {}
    if truth:
        figures["keras"] = {"top1": top1(wanted, labels)}
    elif measure:
        figures["keras"] = measure("keras", keras_model)
    rows, results = [], {"files": [], "difference": {}, "agreement": {}, "bytes": {}, "milliseconds": {}}
    run.results |= results
    for kind in kinds:
        with run.item(kind, kind, format=kind) as item:
            folder = run.place(f"{kind}/model").parent
            made = exported.export(
                model,
                folder,
                kind,
                size=size[0],
                calibration=ranges(run, calibration, pictures, size) if kind == "litert_int8" else None,
                threads=run.threads,
            )
            answers = [made.answer(picture[None]) for picture in pictures]
            compared = exported.compare(wanted, answers)
            taken = exported.paired_milliseconds({"keras": keras_model, kind: made.answer}, pictures[0][None])
            files = [f"{kind}/{name}" for name in made.files]
            item.entry |= {"files": files, "bytes": made.bytes, **compared}
            item.entry |= {"milliseconds": taken[kind], "keras_milliseconds": taken["keras"]}
            if truth:
                figures[kind] = {"top1": top1(answers, labels)}
            elif measure:
                figures[kind] = measure(kind, made.answer)
            item.entry |= figures.get(kind, {})
            results["files"] += files
            for name in ("difference", "agreement", "bytes", "milliseconds"):
                results[name][kind] = item.entry[name]
            item.lines = [", ".join(files)]
            if compared["difference"] is None:
                item.lines.append(
                    f"nothing to compare: no detection has a score of {exported.CONFIDENT} or more"
                )
            rows.append(row(kind, item.entry))
    for name in figures.get("keras", {}):
        run.metrics[name] = {kind: each[name] for kind, each in figures.items()}
    shown = [name for name in MEASURED if name in run.metrics]
    titles = ["format", "MB", "difference", "same", "ms", "ms of Keras", *(MEASURED[name] for name in shown)]
    if shown:
        rows.append(["Keras", *[""] * 5, *(percent(figures["keras"][name]) for name in shown)])
    run.table(titles, rows)


def opened(run: cli.Run) -> tuple[keras.Model, tuple[int, int], list]:
    """The model, the height and width that it sees, and its classes where it is a classifier."""
    if not run.flags.model:
        net = run.load_net()
        return net.model, (net.size, net.size), net.classes
    run.runtime  # noqa: B018  (starts TensorFlow in silence)
    from tfcnn import load_model
    from tfcnn.backbones.heads import with_logits
    from tfcnn.cards import card_of

    flags = run.flags
    model = load_model(
        flags.model, preprocessing=flags.preprocessing, allow_custom_objects=flags.allow_custom_objects
    )
    run.net, card = flags.model, card_of(flags.model)
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[-1] != 3:
        raise InputError(f"--model={flags.model} takes {shape}, not pictures [N, height, width, 3]")
    if isinstance(model.output, list):
        raise InputError(
            f"--model={flags.model} is a {card.get('kind', 'net')}, whose maps of one size are not exported"
        )
    side = flags.image_size or card.get("image_size") or 224
    height, width = (own or side for own in shape[1:3])
    if flags.image_size and (height, width) != (side, side):
        raise InputError(f"--model={flags.model} takes pictures of {width} x {height} pixels, not of {side}")
    if not is_classifier(model):
        return model, (height, width), []
    model = with_logits(model, may_hide=True)
    return model, (height, width), class_pairs(flags, model.output["scores"].shape[-1])


def is_classifier(model: keras.Model) -> bool:
    """Whether a model gives one vector of scores a picture."""
    if isinstance(model.output, dict):
        return {"logits", "scores"} <= set(model.output)
    return len(model.outputs) == 1 and len(model.outputs[0].shape) == 2


def others(sources: list[images.Source], data: Dataset) -> list[images.Source]:
    """Pictures to calibrate on without those of the split that is measured: int8 would look better on pictures that
    its ranges were found on.

    Raises:
        InputError: none is left.
    """
    own = {record.file for record in data.examples}
    left = [
        source
        for source in sources
        if not own & {source.name, *(source.name.split("/", n)[-1] for n in range(1, 9))}
    ]
    if not left:
        raise InputError(
            f"--calibration={CALIBRATION.value} has no picture beside those that are measured: name others"
        )
    return left


def ranges(
    run: cli.Run, sources: list, pictures: list[np.ndarray], size: tuple[int, int]
) -> list[np.ndarray]:
    """The pictures to calibrate on."""
    if not sources:
        run.say(f"int8 is calibrated on the {min(len(pictures), MOST.value)} pictures of --images")
        return pictures[: MOST.value]
    chosen = np.random.default_rng(run.flags.seed).permutation(len(sources))[: MOST.value]
    return [
        prepared(run, images.read(sources[index], run.flags.max_pixels), size) for index in sorted(chosen)
    ]


def row(kind: str, entry: dict) -> list[str]:
    """An entry as a row for people."""
    same = "" if entry["agreement"] is None else f"{entry['agreement']:.1%}"
    difference = "" if entry["difference"] is None else f"{entry['difference']:.2g}"
    cells = [kind, f"{entry['bytes'] / 1e6:.2f}", difference, same]
    cells += [f"{entry['milliseconds']:.1f}", f"{entry['keras_milliseconds']:.1f}"]
    return cells + [percent(entry[name]) for name in MEASURED if name in entry]


def percent(share: float | None) -> str:
    """A share for people."""
    return "" if share is None or np.isnan(share) else f"{share:.1%}"


if __name__ == "__main__":
    cli.start(main, resize="crop")
