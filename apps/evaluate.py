"""Measure detections, guesses or poses by the official rules."""

from __future__ import annotations

import dataclasses
import math
import pathlib

from absl import flags

from tfcnn import cli
from tfcnn.cli import lists, testing_flags
from tfcnn.errors import InputError

GROUP, SUMMARY = "start", "measure a results file or a model by the rules of VOC, COCO, ImageNet or LSP"

DATASETS = {"voc": "val", "coco": None, "imagenet_loc": "val", "imagenet_det": "val", "tiny_imagenet": "val"}
DATASETS["lsp"] = "val"  # the split where none is named

DATASET = flags.DEFINE_enum(
    "dataset", None, list(DATASETS), "Layout of the truth, and the rule that belongs to it"
)
DATA = flags.DEFINE_string("data", None, "Folder or .zip that holds the truth, e.g. --data=VOCdevkit/VOC2007")
SPLIT = flags.DEFINE_string("split", None, "Part of the data set; none takes val, e.g. --split=test")
ANNOTATIONS = flags.DEFINE_string(
    "annotations",
    None,
    "COCO's annotation file; alone it is enough, no picture is opened, e.g. --annotations=instances.json",
)
RESULTS = flags.DEFINE_string(
    "results",
    None,
    "What is measured: a COCO results list [{image_id, category_id, bbox, score}], image_id being the "
    "annotation's id or the file's stem, bbox in continuous pixels from 0 (keypoints for lsp); or the VOC "
    "devkit's files by a folder, a glob or a name, 1-based and inclusive. A second one after a comma is "
    "compared, e.g. --results=detections.json or --results='comp3_det_test_*.txt'",
)
STRICT = flags.DEFINE_bool(
    "voc_strict", False, "py-faster-rcnn's reading of VOC: IoU > 0.5 instead of >=, floating recall points"
)


def main(run: cli.Run) -> None:
    if not DATASET.value:
        raise InputError(f"name the data set: --dataset={','.join(DATASETS)}")
    if bool(RESULTS.value) == bool(run.flags.model):
        raise InputError("name either --results=FILE or --model=MODEL")
    specs = lists.paths(RESULTS.value or run.flags.model)
    data = read_truth(pictures=bool(run.flags.model))
    if run.flags.model:
        measured, names = [of_models(run, data, specs)], [run.flags.model]
    else:
        if len(specs) > 2:
            raise InputError(f"--results takes one file, or two to compare, not {len(specs)}")
        measured, names = [read_results(run, data, spec) for spec in specs], specs
    run.begin()
    for finding in data.broken:
        if finding["rule"] == "picture skipped":
            run.refuse(finding["file"], finding["why"])
    rule = RULES[DATASET.value]
    answers = [rule(run, data, results, f"_{n + 1}" if n else "") for n, results in enumerate(measured)]
    run.metrics |= answers[0]
    if len(answers) > 1:
        run.results["other"] = answers[1]
    run.table(*_table(run, answers, names))


# ---------------------------------------------------------------------------------------- in


def read_truth(pictures: bool):
    """The data set that the flags name; annotations alone where its pictures are not looked at."""
    from tfcnn import datasets

    name, split, annotations = DATASET.value, SPLIT.value or DATASETS[DATASET.value], ANNOTATIONS.value
    if annotations is not None and pathlib.Path(annotations).is_dir():
        raise InputError(f"--annotations={annotations} is a folder: name the data set's own folder by --data")
    if annotations is not None and name in ("voc", "imagenet_det"):
        data = datasets.open("coco", DATA.value, SPLIT.value, annotations, pictures=pictures)
    else:
        data = datasets.open(name, DATA.value, split, annotations, pictures=pictures)
    if not data.examples:
        raise InputError(f"{annotations or DATA.value} has no picture in split {split}")
    return data


def read_results(run, data, spec: str):
    """What a results file holds, for the pictures of --limit: a ResultTable, or poses [N, J, 2]."""
    from tfcnn.evaluation import results

    images = results.image_index(data.examples)
    if DATASET.value == "lsp":
        path = pathlib.Path(spec)
        return results.poses(results.load(path), images, len(data.joints), spec)[: run.flags.limit]
    table, notes = results.read(spec, images, data.classes, data.category_ids)
    for note in notes:
        run.say(note)
    if run.flags.limit is not None:
        table = table.take(table.image < run.flags.limit)
    return table


def of_models(run, data, models: list[str]):
    """What detectors find in a data set's pictures, in the form of `read_results`; several are an ensemble."""
    if DATASET.value not in ("voc", "coco", "imagenet_det"):
        raise InputError(
            f"--model: a detector is measured on voc, coco or imagenet_det, not on {DATASET.value}"
        )
    detector, names, _, given = testing_flags.open_detector(run, models)
    index = [data.classes.index(name) if name in data.classes else -1 for name in names]
    if max(index) < 0:
        raise InputError(
            f"--model={run.flags.model} knows none of the classes of {DATASET.value}, such as {data.classes[0]}"
        )
    absent = [name for name in data.classes if name not in names]
    if absent:
        run.say(f"the model does not know {', '.join(absent[:5])}{' ...' if absent[5:] else ''}")
    records = data.examples[: run.flags.limit]
    with run.progress(len(records), "detect") as progress:
        found, refused = detector.over_records(
            records, run.flags.batch_size, run.threads, progress.advance, given
        )
        run.results["images_per_second"] = round(progress.rate, 2)
    for file, why in refused.items():
        run.refuse(file, why)
    found = {image: renamed(detections, index) for image, detections in found.items()}
    rows = []
    for record in records:
        if record.image_id in found:
            detections = found[record.image_id]
            entry = {"file": record.file, "width": record.width, "height": record.height}
            run.add(entry | {"detections": testing_flags.entries(detections, data.classes)})
            rows += detections.to_coco(record.image_id, data.category_ids)
    testing_flags.save(run, rows, data.classes, data.category_ids)
    return found


def renamed(detections, index: list[int]):
    """Detections with the data set's numbers of the classes; those of classes it lacks go."""
    import numpy as np

    labels = np.asarray(index, np.int32)[detections.labels]
    kept = labels >= 0
    return dataclasses.replace(
        detections, boxes=detections.boxes[kept], scores=detections.scores[kept], labels=labels[kept]
    )


# -------------------------------------------------------------------------------------- rules


def _truth(run, data):
    from tfcnn.evaluation import tables

    return tables.truth_table(data.examples[: run.flags.limit])


def voc(run, data, results, suffix: str) -> dict:
    from tfcnn.evaluation import curves
    from tfcnn.evaluation import voc as rule

    truth = _truth(run, data)
    outcomes = rule.match(truth, results, len(data.classes), strict=STRICT.value)
    figures = rule.summarize(outcomes, data.classes, strict=STRICT.value)
    if figures["absent"] and not suffix:
        run.say(f"nothing to find of {', '.join(figures['absent'])}: no AP, and not in the means")
    _errors(run, data, truth, results, suffix)
    title = "Precision over recall at IoU 0.5; the number is the area AP in percent"
    _draw(run, curves.voc_panels(outcomes, data.classes), title, suffix)
    return {"voc": figures}


def coco(run, data, results, suffix: str) -> dict:
    from tfcnn.evaluation import coco as rule
    from tfcnn.evaluation import curves

    truth = _truth(run, data)
    if not suffix:
        run.say("boxes are evaluated; masks and keypoints are not")
    evaluation = rule.accumulate(truth, results, len(data.classes))
    _errors(run, data, truth, results, suffix)
    title = "Precision over recall; the number is AP in percent"
    _draw(run, curves.coco_panels(evaluation, data.classes), title, suffix)
    return {"coco": rule.summarize(evaluation, data.classes)}


def imagenet_det(run, data, results, suffix: str) -> dict:
    from tfcnn.evaluation import imagenet

    truth = _truth(run, data)
    _errors(run, data, truth, results, suffix)
    return {"imagenet_det": imagenet.detection(truth, results, data.classes)}


def localization(run, data, results, suffix: str) -> dict:
    from tfcnn.evaluation import imagenet

    return {DATASET.value: imagenet.localization(_truth(run, data), results, len(data.classes))}


def lsp(run, data, results, suffix: str) -> dict:
    import numpy as np

    from tfcnn.evaluation import pose

    joints = np.stack([record.truth.joints for record in data.examples[: run.flags.limit]])
    return {"lsp": pose.evaluate(joints[..., :2], joints[..., 2] > 0, results)}


RULES = {
    "voc": voc,
    "coco": coco,
    "imagenet_det": imagenet_det,
    "imagenet_loc": localization,
    "tiny_imagenet": localization,
    "lsp": lsp,
}


def _errors(run, data, truth, results, suffix: str) -> None:
    from tfcnn.evaluation import errors

    mean, per_class = errors.breakdown(truth, results, data.classes)
    run.results[f"errors{suffix}"], run.results[f"errors_per_class{suffix}"] = mean, per_class


def _draw(run, panels, title: str, suffix: str) -> None:
    from tfcnn.evaluation import curves

    if run.flags.save_images and panels:
        for page, image in enumerate(curves.draw(panels, title)):
            run.sheet(image, f"curves{suffix}{f'_page{page + 1}' if page else ''}.png", title)


# ---------------------------------------------------------------------------------------- out


def _table(run, answers: list[dict], names: list[str]) -> tuple[list[str], list[list[str]]]:
    """The means, the errors, and the classes that do worst, in percent: a column a results file."""
    rows = []
    sides = [next(iter(answer.values())) for answer in answers]
    shown = [name for name, value in sides[0].items() if isinstance(value, float) and name != "iou_threshold"]
    rows += [[name, *(_percent(side[name]) for side in sides)] for name in shown]
    if "errors" in run.results:
        broken_down = [run.results["errors"], run.results.get("errors_2")][: len(answers)]
        rows += [
            [f"top N: {kind}", *(_percent(side[kind]) for side in broken_down)] for kind in broken_down[0]
        ]
    per_class = [side.get("per_class") or side.get("per_joint") or {} for side in sides]
    key = next(
        (k for k in ("ap_area", "AP", "ap", "pdj_02") if any(k in v for v in per_class[0].values())), None
    )
    if key:
        known = [name for name, value in per_class[0].items() if not math.isnan(value[key])]
        worst = sorted(known, key=lambda name: per_class[0][name][key])[: 20 - len(rows)]
        rows += [[f"{key} {name}", *(_percent(side[name][key]) for side in per_class)] for name in worst]
    return ["percent", *names], rows


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


if __name__ == "__main__":
    cli.start(main, pictures=False, batch_size=8)
