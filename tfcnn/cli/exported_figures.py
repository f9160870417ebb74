"""What an exported model is worth: the figure of its kind, measured on a data set by the program at work."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tfcnn import cli, images
from tfcnn.cli.classes import labels_for
from tfcnn.cli.figures import some
from tfcnn.cli.training_record import refuse
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import keras

    from tfcnn.datasets import Dataset, Record
    from tfcnn.export.exported import Answer
    from tfcnn.predictor import Predictor

    Measure = Callable[[str, Answer], dict[str, float | None]]


def measuring(
    run: cli.Run, data: Dataset, model: keras.Model, size: tuple[int, int], classes: list
) -> Measure:
    """What says the figures on a data set of a model at work, by the model's kind.

    Args:
        run: of the app; its `net` names the model.
        data: the set; the first --limit pictures are measured.
        model: what was exported.
        size: height and width of its pictures.
        classes: pairs (id, name) of a classifier, else [].

    Returns:
        (name of the program, its answer) -> {figure: share in 0..1}: top1 of a classifier; map_11 and map_area, or
        COCO's AP and AP50, of a detector, with segm_AP and segm_AP50 where it has masks; top1_cls and top1_loc of a
        localizer, errors; pcp_strict and pdj_02 of a pose net.

    Raises:
        InputError: such a model is not measured on such data.
    """
    from tfcnn.export import exported

    records = data.examples[: run.flags.limit]
    outputs = set(model.output) if isinstance(model.output, dict) else set()
    if outputs >= exported.DETECTIONS:
        return detecting(run, data, model, size)
    if outputs >= {"scores", "boxes"}:
        return localizing(run, data)
    if "stages" in outputs:
        return posing(run, data)
    if not classes:
        raise InputError(
            f"--dataset measures classifiers, detectors, localizers and pose nets, and {run.net} is none"
        )
    labels = data_labels(data, [name for _, name in classes])
    known = [record for record in records if labels.get(record.label) is not None]
    if not known:
        raise InputError(
            f"{data.name} has no picture of a class that the model knows, such as {classes[0][1]}"
        )
    return lambda kind, answer: accuracy_on(run, kind, known, answer, labels, size)


def data_labels(data: Dataset, names: list[str]) -> dict[int, int]:
    """The model's class of each class of a classification set that it knows by name, by the first of several."""
    wanted = {name.split(",")[0].strip().lower(): index for index, name in reversed(list(enumerate(names)))}
    own = [name.split(",")[0].strip().lower() for name in data.classes]
    return {label: wanted[name] for label, name in enumerate(own) if name in wanted}


def accuracy_on(
    run: cli.Run,
    kind: str,
    records: list[Record],
    answer: Answer,
    labels: dict[int, int],
    size: tuple[int, int],
) -> dict[str, float | None]:
    """{"top1": the share of a classification set's pictures whose best class is theirs}."""
    answers, known = [], []
    with run.progress(len(records), kind) as progress:
        for record in records:
            try:
                answers.append(answer(prepared(run, record.image(), size)[None]))
                known.append(labels[record.label])
            except InputError as error:
                refuse(run, {record.file: str(error)})
            progress.advance(1)
    return {"top1": top1(answers, known)}


def detecting(run: cli.Run, data: Dataset, model: keras.Model, size: tuple[int, int]) -> Measure:
    """What says a detector's figures by the rule of the data set, its pictures as the app evaluate sees them; those
    that it fits come in bars, since an exported program takes one size."""
    from tfcnn import backbones
    from tfcnn.cards import card_of
    from tfcnn.datasets.classes import match
    from tfcnn.evaluation import coco, segm, voc
    from tfcnn.export import exported
    from tfcnn.predictor import Predictor

    if size[0] != size[1]:
        raise InputError(f"--dataset is for detectors of square pictures, not of {size[1]} x {size[0]}")
    card, source = card_of(run.net), run.net
    names = labels_for(run.flags.labels, source) or card.get("classes")
    if not names:
        raise InputError(f"--model={source} does not say its classes: name them by --labels")
    records = data.examples[: run.flags.limit]
    present = {int(label) for record in data.examples for label in record.labels}
    ids = card.get("category_ids") or range(1, len(names) + 1)
    index = match(names, ids, data.classes, data.category_ids, present)
    if max(index) < 0:
        raise InputError(f"--model={source} knows none of the classes of {data.name}: {some(data.classes)}")

    resize = card.get("resize", "stretch")
    if resize == "fit":
        resize = "letterbox"
        run.say(f"{source} fits pictures, and a program takes one size: measured in bars at {size[0]} px")

    def figures(kind, answer):
        predictor = Predictor(
            exported.Detecting(answer, len(names), backbones.zero_rgb(model)),
            names=names,
            image_size=size[0],
            resize=resize,
            threads=run.threads,
        )
        found = over_records(run, kind, predictor, records)
        found = {image: own.relabelled(index, data.classes) for image, own in found.items()}
        if data.name == "coco":
            measured, wanted = coco.evaluate(records, found, data.classes), ("AP", "AP50")
        else:
            measured, wanted = voc.evaluate(records, found, data.classes), ("map_11", "map_area")
        shown = {name: measured[name] for name in wanted}
        masks = segm.evaluate(records, found, data.classes)
        return shown | ({f"segm_{name}": masks[0][name] for name in ("AP", "AP50")} if masks else {})

    return figures


def localizing(run: cli.Run, data: Dataset) -> Measure:
    """What says a localizer's errors, of a picture's largest object where the set has several."""
    from tfcnn import localizer
    from tfcnn.datasets.classes import match
    from tfcnn.evaluation import imagenet
    from tfcnn.localization.targets import largest_objects

    if data.name not in ("imagenet_loc", "tiny_imagenet"):
        data = largest_objects(data, 1, run.say)
    records = data.examples[: run.flags.limit]
    predictor = localizer(run.net, labels=run.flags.labels, threads=run.threads)
    present = {int(label) for record in data.examples for label in record.labels}
    index = match(predictor.names, predictor.category_ids, data.classes, data.category_ids, present)
    if max(index) < 0:
        raise InputError(f"--model={run.net} knows none of the classes of {data.name}: {some(data.classes)}")

    def figures(kind, answer):
        found = over_records(run, kind, answering(predictor, answer), records)
        found = {image: own.relabelled(index, data.classes) for image, own in found.items()}
        measured = imagenet.localization(records, found, len(data.classes))
        return {name: measured[name] for name in ("top1_cls", "top1_loc")}

    return figures


def posing(run: cli.Run, data: Dataset) -> Measure:
    """What says the PCP and PDJ of a pose net."""
    from tfcnn import pose_estimator
    from tfcnn.evaluation import pose

    predictor = pose_estimator(run.net, threads=run.threads)
    if predictor.names != data.joints:
        raise InputError(f"--model={run.net} has other joints than {data.name}: {some(predictor.names)}")
    records = data.examples[: run.flags.limit]
    truth = np.stack([record.truth.joints for record in records])

    def figures(kind, answer):
        found = over_records(run, kind, answering(predictor, answer), records)
        nothing = np.full(truth.shape[1:2] + (2,), np.nan)
        joints = [found[each.image_id].joints if each.image_id in found else nothing for each in records]
        measured = pose.evaluate(truth[..., :2], truth[..., 2] > 0, np.stack(joints))
        return {name: measured[name] for name in ("pcp_strict", "pdj_02")}

    return figures


def answering(predictor: Predictor, answer: Answer) -> Predictor:
    """A predictor whose method's network is an answer."""
    from tfcnn.export import exported

    own, other = predictor.method, copy.copy(predictor)
    other.method = exported.Detecting(answer, own.classes, own.zero_rgb, own.decode)
    return other


def over_records(run: cli.Run, kind: str, predictor: Predictor, records: list[Record]) -> dict:
    """What a predictor finds, {image_id: result}; pictures that cannot be read are refused."""
    with run.progress(len(records), kind) as progress:
        found, refused = predictor.over_records(records, progress=progress.advance)
    refuse(run, refused)
    return found


def prepared(run: cli.Run, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture as the net sees it, float32 [H, W, 3]."""
    return images.resize(image, list(size) if size[0] != size[1] else size[0], run.flags.resize)[0].astype(
        np.float32
    )


def top1(answers: list[dict[str, np.ndarray]], labels: list[int | None]) -> float | None:
    """The share of pictures whose best class is the true one; of scores that are not finite none is."""
    found = [
        np.isfinite(answer["scores"]).all() and int(np.argmax(answer["scores"])) == label
        for answer, label in zip(answers, labels, strict=True)
        if label is not None and "scores" in answer
    ]
    return float(np.mean(found)) if found else None
