"""Measure detections, guesses or poses by the official rules."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import flags

from tfcnn import cli
from tfcnn.cli import box_files, data_flags, lists, models, testing_flags
from tfcnn.cli.data_flags import DATA, DATASET
from tfcnn.cli.figures import some, table
from tfcnn.datasets.classes import distinct, match
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from tfcnn.datasets.example import Dataset
    from tfcnn.detections import Detections
    from tfcnn.evaluation.curves import Panel
    from tfcnn.evaluation.tables import ResultTable, TruthTable

    Boxes = ResultTable | dict[int | str, Detections]  # of a file, or of a model by image_id

GROUP, SUMMARY = "start", "measure a results file or a model by the rules of VOC, COCO, ImageNet or LSP"

SPLITS = {"voc": "val", "coco": None, "imagenet_loc": "val", "imagenet_det": "val", "tiny_imagenet": "val"}
SPLITS |= {"yolo": "val", "lsp": "val"}  # where none is named

SPLIT = data_flags.define_split("Part of the data set", none="val", example="test")
ANNOTATIONS = flags.DEFINE_string(
    "annotations",
    None,
    "COCO's annotation file; alone it is enough, no picture is opened, e.g. --annotations=instances.json",
)
RESULTS = flags.DEFINE_string(
    "results",
    None,
    "What is measured: a COCO results list [{image_id, category_id, bbox, score}], image_id being the "
    "annotation's id or the file's stem, bbox in continuous pixels from 0, with masks also segmentation (keypoints "
    "for lsp); or the VOC "
    "devkit's files by a folder, a glob or a name, 1-based and inclusive. A second one after a comma is "
    "compared, e.g. --results=detections.json or --results='comp3_det_test_*.txt'",
)
RESCORE = flags.DEFINE_string(
    "rescore",
    None,
    "Of detectors: another one, which raises the scores of --model's boxes where it finds the same, "
    "e.g. --model=faster_rcnn_voc --rescore=out/train_detector/release",
)
STRICT = flags.DEFINE_bool(
    "voc_strict", False, "py-faster-rcnn's reading of VOC: IoU > 0.5 instead of >=, floating recall points"
)


def main(run: cli.Run) -> None:
    data_flags.kind(SPLITS)
    if bool(RESULTS.value) == bool(run.flags.model):
        raise InputError("name either --results=FILE or --model=MODEL")
    if RESCORE.value and not run.flags.model:
        raise InputError("--rescore raises the scores of a --model, not of --results")
    if RESULTS.value:
        testing_flags.refuse("not given")
    specs = lists.paths(RESULTS.value or run.flags.model)
    read, measure = RULES[DATASET.value]
    find = of_models(specs) if run.flags.model else None
    data = read_truth(pictures=find is not None)
    if find is of_localizers and measure is not localization:
        from tfcnn.localization.targets import largest_objects

        data, measure = largest_objects(data, 1, run.say), localization
    if find is not None:
        measured, names = [find(run, data, specs)], [run.flags.model]
    else:
        if len(specs) > 2:
            raise InputError(f"--results takes one file, or two to compare, not {len(specs)}")
        measured, names = [read(run, data, spec) for spec in specs], specs
    run.begin()
    for finding in data.broken:
        if finding["rule"] == "picture skipped":
            run.refuse(finding["file"], finding["why"])
    data_flags.say_broken(run, data, pictures=find is not None)
    names_apart = distinct(data.classes, data.category_ids)
    shared = [name for name, plain in zip(names_apart, data.classes, strict=True) if name != plain]
    if shared:
        run.say(f"several categories share a name and are told apart by id: {some(shared)}")
    data = dataclasses.replace(data, classes=names_apart)
    answers = [measure(run, data, results, f"_{n + 1}" if n else "") for n, results in enumerate(measured)]
    for answer, results in zip(answers, measured, strict=True):
        answer |= segm(run, data, results)
    run.metrics |= answers[0]
    if len(answers) > 1:
        run.results["other"] = answers[1]
    errors = [run.results[name] for name in ("errors", "errors_2") if name in run.results]
    run.table(*table(answers, names, errors))


# ---------------------------------------------------------------------------------------- in


def read_truth(pictures: bool) -> Dataset:
    """The data set that the flags name; annotations alone where its pictures are not looked at."""
    name, split, annotations = DATASET.value, SPLIT.value or SPLITS[DATASET.value], ANNOTATIONS.value
    if annotations is not None and name in ("voc", "imagenet_det"):
        name, split = "coco", SPLIT.value
    data = data_flags.open_split(split, annotations, pictures, name)
    if not data.examples:
        raise InputError(f"{annotations or DATA.value} has no picture in split {split}")
    return data


def read_boxes(run: cli.Run, data: Dataset, spec: str) -> ResultTable:
    """A results file of boxes, for the pictures of --limit: a ResultTable."""
    from tfcnn.evaluation import results

    images = results.image_index(data.examples)
    table, notes = results.read(spec, images, data.classes, data.category_ids, _present(data))
    for note in notes:
        run.say(note)
    if run.flags.limit is not None:
        table = table.take(table.image < run.flags.limit)
    return table


def read_poses(run: cli.Run, data: Dataset, spec: str) -> np.ndarray:
    """A results file of poses, for the pictures of --limit: float64 [N, J, 2]."""
    from tfcnn.evaluation import results

    path, images = pathlib.Path(spec), results.image_index(data.examples)
    return results.poses(results.load(path), images, len(data.joints), spec)[: run.flags.limit]


def _present(data: Dataset) -> set[int]:
    """The classes 0..K-1 that have an object."""
    return {int(label) for record in data.examples for label in record.labels}


def of_models(sources: list[str]) -> Callable:
    """What finds, with models of this kind, all that results files of the data set hold; several are an ensemble."""
    kind = models.card_of(sources[0]).get("kind", "faster_rcnn")
    if kind not in MODELS:
        raise InputError(f"--model={sources[0]} is a {kind}; evaluate measures {', '.join(MODELS)}")
    find, measured_on = MODELS[kind]
    if DATASET.value not in measured_on:
        raise InputError(
            f"--model={sources[0]} is a {kind}, measured on {', '.join(measured_on)}, not on {DATASET.value}"
        )
    if RESCORE.value and find is not of_detectors:
        raise InputError(f"--rescore raises the scores of detectors, and --model={sources[0]} is a {kind}")
    return find


def of_detectors(run: cli.Run, data: Dataset, sources: list[str]) -> dict[int | str, Detections]:
    """What detectors find: {image_id: Detections} in the data set's classes."""
    other = RESCORE.value and testing_flags.open_detector(run, lists.paths(RESCORE.value), plain=True)
    own = testing_flags.open_detector(run, sources)
    if not other:
        found = _found(run, data, *own, "detect", _index(run, data, own[0]))
        return _recorded(run, data, found, "detections")
    from tfcnn.detection.rescoring import rescored

    indices = _index(run, data, own[0]), _index(run, data, other[0], f"--rescore={RESCORE.value}")
    confirmed = _found(run, data, *other, "rescore", indices[1])
    found = _found(run, data, *own, "detect", indices[0])
    found = {image: rescored(detections, confirmed[image]) for image, detections in found.items()}
    return _recorded(run, data, found, "detections")


def of_localizers(run: cli.Run, data: Dataset, sources: list[str]) -> dict[int | str, Detections]:
    """The five guesses of localizers, likewise."""
    testing_flags.refuse("a localizer", but=("image_size", "resize"))
    own = box_files.open_localizer(run, sources)
    found = _found(run, data, *own, "localize", _index(run, data, own[0]))
    return _recorded(run, data, found, "guesses")


def of_pose_nets(run: cli.Run, data: Dataset, sources: list[str]) -> np.ndarray:
    """The joints that pose nets find in whole pictures: float64 [N, J, 2], NaN where one cannot be read."""
    import numpy as np

    testing_flags.refuse("a pose net", but=("flip",))
    run.runtime  # noqa: B018  (starts TensorFlow, silently)
    from tfcnn import pose_estimator

    estimator = pose_estimator(
        sources, flip=testing_flags.FLIP.value, batch_size=run.flags.batch_size, threads=run.threads
    )
    if estimator.names != data.joints:
        raise InputError(
            f"--model={run.flags.model} has other joints than {DATASET.value}: {some(estimator.names)}"
        )
    run.net = run.flags.model
    records = data.examples[: run.flags.limit]
    with run.progress(len(records), "pose") as progress:
        found, refused = estimator.over_records(records, progress=progress.advance)
        run.results["images_per_second"] = round(progress.rate, 2)
    for file, why in refused.items():
        run.refuse(file, why)
    joints = np.full((len(records), len(data.joints), 2), np.nan)
    rows = []
    for row, record in zip(joints, records, strict=True):
        if record.image_id in found:
            pose = found[record.image_id]
            row[:] = pose.joints
            entry = {"file": record.file, "width": record.width, "height": record.height}
            run.add(entry | {"persons": [pose.fields()]})
            rows += pose.to_coco(record.image_id)
    run.save_json(rows, "poses.json")
    return joints


def _index(run, data, predictor, flag=None):
    """The data set's class of each of the model's, as `classes.match` gives them; what is not known is said."""
    index = match(predictor.names, predictor.category_ids, data.classes, data.category_ids, _present(data))
    if max(index) < 0:
        raise InputError(
            f"{flag or f'--model={run.flags.model}'} knows none of the classes of {DATASET.value}, such as "
            f"{data.classes[0]}"
        )
    absent = [name for name in data.classes if name not in predictor.names]
    if absent:
        run.say(f"the model does not know {some(absent)}")
    return index


def _found(run, data, predictor, given, what, index):
    """What a predictor finds in the pictures, in the data set's classes: {image_id: Detections}."""
    first = what != "rescore"  # of two detectors on the same pictures
    records = data.examples[: run.flags.limit]
    with run.progress(len(records), what) as progress:
        found, refused = predictor.over_records(records, given, progress.advance)
        run.results["images_per_second"] = round(progress.rate, 2)
    for file, why in refused.items() if first else ():
        run.refuse(file, why)
    return {image: own.relabelled(index, data.classes) for image, own in found.items()}


def _recorded(run, data, found, field):
    """Writes what was found into the run's results and detections.json, and gives it back."""
    rows = []
    for record in data.examples[: run.flags.limit]:
        if record.image_id in found:
            detections = found[record.image_id]
            entry = {"file": record.file, "width": record.width, "height": record.height}
            run.add(entry | {field: box_files.entries(detections)})
            rows += detections.to_coco(record.image_id, data.category_ids)
    box_files.save(run, rows, data.classes, data.category_ids)
    return found


# -------------------------------------------------------------------------------------- rules


def _truth(run: cli.Run, data: Dataset) -> TruthTable:
    from tfcnn.evaluation import tables

    return tables.truth_table(data.examples[: run.flags.limit])


def voc(run: cli.Run, data: Dataset, results: Boxes, suffix: str) -> dict:
    from tfcnn.evaluation import curves
    from tfcnn.evaluation import voc as rule

    truth = _truth(run, data)
    outcomes = rule.match(truth, results, len(data.classes), strict=STRICT.value)
    figures = rule.summarize(outcomes, data.classes, strict=STRICT.value)
    if figures["absent"] and not suffix:
        run.say(f"nothing to find of {some(figures['absent'])}: no AP, and not in the means")
    _errors(run, data, truth, results, suffix)
    title = "Precision over recall at IoU 0.5; the number is the area AP in percent"
    _draw(run, curves.voc_panels(outcomes, data.classes), title, suffix)
    return {"voc": figures}


def coco(run: cli.Run, data: Dataset, results: Boxes, suffix: str) -> dict:
    from tfcnn.evaluation import coco as rule
    from tfcnn.evaluation import curves

    truth = _truth(run, data)
    if not suffix:
        run.say("boxes are scored, and masks where the results have them; keypoints are read, not scored")
    evaluation = rule.accumulate(truth, results, len(data.classes))
    _errors(run, data, truth, results, suffix)
    title = "Precision over recall; the number is AP in percent"
    _draw(run, curves.coco_panels(evaluation, data.classes), title, suffix)
    return {"coco": rule.summarize(evaluation, data.classes)}


def segm(run: cli.Run, data: Dataset, results: Boxes | np.ndarray) -> dict:
    """COCO's figures of masks beside another rule's, where truth and results have masks."""
    from tfcnn.evaluation import segm as rule

    if DATASET.value == "lsp":
        return {}
    measured = rule.evaluate(data.examples[: run.flags.limit], results, data.classes)
    if measured is None:
        return {}
    for line in rule.in_words(measured[1]):
        run.say(line)
    return {"segm": measured[0]}


def voc_and_coco(run: cli.Run, data: Dataset, results: Boxes, suffix: str) -> dict:
    """Both rules, for a layout that has none of its own; the curves are VOC's."""
    from tfcnn.evaluation import coco as rule

    evaluation = rule.accumulate(_truth(run, data), results, len(data.classes))
    return voc(run, data, results, suffix) | {"coco": rule.summarize(evaluation, data.classes)}


def imagenet_det(run: cli.Run, data: Dataset, results: Boxes, suffix: str) -> dict:
    from tfcnn.evaluation import imagenet

    truth = _truth(run, data)
    _errors(run, data, truth, results, suffix)
    return {"imagenet_det": imagenet.detection(truth, results, data.classes)}


def localization(run: cli.Run, data: Dataset, results: Boxes, suffix: str) -> dict:
    from tfcnn.evaluation import imagenet

    name = DATASET.value if DATASET.value == "tiny_imagenet" else "imagenet_loc"  # the rule's, of other data
    return {name: imagenet.localization(_truth(run, data), results, len(data.classes))}


def lsp(run: cli.Run, data: Dataset, results: np.ndarray, suffix: str) -> dict:
    import numpy as np

    from tfcnn.evaluation import pose

    joints = np.stack([record.truth.joints for record in data.examples[: run.flags.limit]])
    return {"lsp": pose.evaluate(joints[..., :2], joints[..., 2] > 0, results)}


# What reads a data set's results files, and what measures results: (run, data, results, suffix) -> {name: figures}.
RULES: dict[str, tuple[Callable, Callable]] = {
    "voc": (read_boxes, voc),
    "coco": (read_boxes, coco),
    "yolo": (read_boxes, voc_and_coco),
    "imagenet_det": (read_boxes, imagenet_det),
    "imagenet_loc": (read_boxes, localization),
    "tiny_imagenet": (read_boxes, localization),
    "lsp": (read_poses, lsp),
}

# The kind on a model's card -> what gives its results, and the data sets whose rules measure them.
DETECTOR = (of_detectors, ("voc", "coco", "yolo", "imagenet_det"))
MODELS: dict[str, tuple[Callable, tuple[str, ...]]] = {
    **dict.fromkeys(
        ("faster_rcnn", "fast_rcnn", "mask_rcnn", "yolo", "one_stage", "rcnn", "hog_svm", "dpm"), DETECTOR
    ),
    "localizer": (of_localizers, ("imagenet_loc", "tiny_imagenet", "voc", "coco", "yolo")),
    "pose": (of_pose_nets, ("lsp",)),
}


def _errors(run: cli.Run, data: Dataset, truth: TruthTable, results: Boxes, suffix: str) -> None:
    from tfcnn.evaluation import errors

    mean, per_class = errors.breakdown(truth, results, data.classes)
    run.results[f"errors{suffix}"], run.results[f"errors_per_class{suffix}"] = mean, per_class


def _draw(run: cli.Run, panels: list[Panel], title: str, suffix: str) -> None:
    from tfcnn.evaluation import curves

    if run.flags.save_images and panels:
        for page, image in enumerate(curves.draw(panels, title)):
            run.sheet(image, f"curves{suffix}{f'_page{page + 1}' if page else ''}.png", title)


if __name__ == "__main__":
    cli.start(
        main,
        without=cli.NO_FACTORY,
        pictures=False,
        batch_size=8,
        image_size=None,
        resize="stretch",
        longest=1000,
    )
