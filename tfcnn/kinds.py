"""Opens what was trained, each kind of model by the method that its card names: `tfcnn.detector`, `tfcnn.localizer`,
`tfcnn.pose_estimator`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from tfcnn import backbones, files, images
from tfcnn.cards import card_of, is_darknet
from tfcnn.datasets import voc
from tfcnn.datasets.sample import mirrored_joints
from tfcnn.detection.options import DetectorOptions
from tfcnn.errors import InputError
from tfcnn.loading import load_model
from tfcnn.predictor import Predictor, fastest
from tfcnn.runtime import cores

# The method of each kind of detector, which is also the name of its keras.Model; of another name, and without a card,
# it is taken for the first.
DETECTORS = {
    "faster_rcnn": ("tfcnn.detection.detector", "FasterRCNN"),
    "fast_rcnn": ("tfcnn.detection.detector", "FasterRCNN"),
    "mask_rcnn": ("tfcnn.detection.detector", "FasterRCNN"),
    "yolo": ("tfcnn.detection.single_shot", "SingleShot"),
    "one_stage": ("tfcnn.detection.single_shot", "SingleShot"),
    "rcnn": ("tfcnn.detection.rcnn", "Rcnn"),
    "hog_svm": ("tfcnn.detection.hog_svm", "HogSvm"),
    "dpm": ("tfcnn.detection.dpm_net", "Dpm"),
}
LOCALIZERS = {"localizer": ("tfcnn.localization.localizer", "Localizer")}
POSES = {"pose": ("tfcnn.localization.pose_estimator", "PoseEstimator")}
SIZE = 320  # pixels, where no card says what a model was trained for
CALIBRATION = 100  # pictures, at most, by which int8's ranges are found


def detector(
    model: str | os.PathLike | keras.Model | Sequence[str | os.PathLike | keras.Model],
    *,
    image_size: int | None = None,
    longest: int | None = None,
    resize: str | None = None,
    runtime: str = "tf",
    calibration: Sequence[np.ndarray | str | os.PathLike | images.Source] | None = None,
    threads: int | None = None,
    batch_size: int = 8,
    scales: Sequence[int] = (),
    flip: bool = False,
    proposals: int | None = None,
    refine: int = 0,
    box_voting: bool = False,
    score_threshold: float | None = None,
    nms_threshold: float | None = None,
    max_detections: int | None = None,
    labels: Sequence[str] | str | os.PathLike | None = None,
    allow_custom_objects: bool = False,
    say: Callable[[str], None] = lambda sentence: None,
) -> Predictor:
    """Opens a detector: called on a list of pictures, it gives Detections in the pixels of each.

    Args:
        model: a release's name, a folder, a .keras file, a .weights file of darknet's YOLO (the first version) or a
            keras.Model; a list of them is an ensemble, whose proposals are put together and whose scores and boxes are
            averaged.
        image_size: side in pixels of the square that each picture becomes, or its shorter side with resize="fit";
            None takes the card's.
        longest: most pixels of the longer side with resize="fit"; None takes the card's, else 5/3 of image_size (the
            papers' 600 and 1000).
        resize: "stretch", "letterbox" or "fit", as `tfcnn.images.resize`; None takes the card's.
        runtime: "tf"; "litert", the networks' convolutions by LiteRT; "litert_int8", the same in int8, faster and a
            little less exact; or "auto": whichever of the first two is faster on this machine, on three pictures.
        calibration: pictures by which litert_int8's ranges are found, uint8 [H, W, 3] or files, the first 100 of them:
            such as the detector will see. None: the photographs that scikit-image and scikit-learn carry.
        threads: for reading, and of LiteRT; None takes the machine's cores.
        batch_size: pictures computed at once.
        scales: look at each picture at several sizes, in pixels, instead of at image_size.
        flip: look at each picture mirrored, too.
        proposals: regions of a picture that are classified; None takes the model's own. Fewer are faster.
        refine: so many times the boxes found become regions that are classified and regressed again.
        box_voting: average each box with those of its class around it.
        score_threshold: least score of a detection, 0..1; None takes the model's own, like the two that follow.
        nms_threshold: IoU, 0..1, above which the lower of two detections of a class goes.
        max_detections: of a picture.
        labels: names of the classes, or the path of a text file with a name a line; None takes the card's, else
            "0", "1" and so on.
        allow_custom_objects: of `tfcnn.load_model`.
        say: is told in a sentence what "auto" took.

    Returns:
        The predictor; its class names are `.names`, what computes it `.runtime`.

    Raises:
        InputError: there is no such model, it is no detector, the models of an ensemble have other classes, or an
            argument is none of those above.
    """
    labels = _read(labels)  # before any model is opened
    method, sources, cards, models = _opened(model, DETECTORS, "detector", allow_custom_objects)
    card = cards[0]
    if runtime != "litert_int8" and calibration is not None:
        raise InputError("calibration belongs to runtime='litert_int8'.")
    seen = _calibration(calibration) if runtime == "litert_int8" else ()

    def made(runtime: str) -> Predictor:
        options = DetectorOptions(
            scales=max(1, len(scales)),
            flip=flip,
            refine=refine,
            box_voting=box_voting,
            proposals=proposals,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_detections=max_detections,
            runtime=runtime,
            threads=threads or cores(),
            calibration=seen,
        )
        found = method(models, options)
        size = image_size
        fixed = getattr(found, "size", None)  # of a net that takes one size alone
        if size is None:
            size = scales[0] if scales else card.get("image_size") or fixed or SIZE
        how = resize or card.get("resize", "stretch")
        if fixed and ({size, *scales} != {fixed} or how == "fit"):
            raise InputError(
                f"{sources[0]} takes pictures of {fixed} x {fixed} pixels alone, stretched or in bars: its dense "
                "layers fix the size."
            )
        return Predictor(
            found,
            names=_names_of_all(sources, cards, labels, found.classes),
            image_size=size,
            longest=longest or round(size * _ratio_of_sides(card)),
            resize=how,
            scales=scales,
            batch_size=batch_size,
            threads=threads,
            category_ids=card.get("category_ids"),
            card=card,
            runtime=runtime,
        )

    if runtime != "auto":
        return made(runtime)
    return fastest(("tf", "litert"), made, [images.read(source) for source in images.packaged()[:3]], say)


def _ratio_of_sides(card: Mapping) -> float:
    """How much longer than image_size a fitted picture may be: the card's `longest` was chosen for its own size."""
    if card.get("longest") and card.get("image_size"):
        return card["longest"] / card["image_size"]
    return 5 / 3


def localizer(
    model: str | os.PathLike | keras.Model | Sequence[str | os.PathLike | keras.Model],
    *,
    top: int = 5,
    resize: str | None = None,
    batch_size: int = 32,
    threads: int | None = None,
    labels: Sequence[str] | str | os.PathLike | None = None,
    allow_custom_objects: bool = False,
) -> Predictor:
    """Opens a localizer: called on a list of pictures, it gives guesses, Detections in the pixels of each.

    Args:
        model: a release's name, a folder, a .keras file or a keras.Model; a list of them is an ensemble, whose scores
            and boxes are averaged.
        top: guesses of a picture, one a class, best first; a model of K objects gives K, of the best class.
        resize: "stretch" or "letterbox", as `tfcnn.images.resize`; None takes the card's.
        batch_size: pictures computed at once.
        threads: for reading; None takes the machine's cores.
        labels: names of the classes, or the path of a text file with a name a line; None takes the card's, else
            "0", "1" and so on.
        allow_custom_objects: of `tfcnn.load_model`.

    Returns:
        The predictor; its class names are `.names`.

    Raises:
        InputError: there is no such model, it is no localizer, the models of an ensemble do not fit, or an argument
            is none of those above.
    """
    labels = _read(labels)  # before any model is opened
    method, sources, cards, models = _opened(model, LOCALIZERS, "localizer", allow_custom_objects)
    resize = resize or cards[0].get("resize", "stretch")
    if resize not in ("stretch", "letterbox"):
        raise InputError(f"resize={resize!r} is none of stretch, letterbox: a localizer sees one size.")
    if top < 1:
        raise InputError(f"top={top}: there is at least one guess.")
    found = method(models, top)
    return Predictor(
        found,
        names=_names_of_all(sources, cards, labels, found.classes),
        image_size=found.size,
        resize=resize,
        batch_size=batch_size,
        threads=threads,
        category_ids=cards[0].get("category_ids"),
        card=cards[0],
    )


def pose_estimator(
    model: str | os.PathLike | keras.Model | Sequence[str | os.PathLike | keras.Model],
    *,
    joints: Sequence[str] | None = None,
    skeleton: Sequence[tuple[int, int]] | None = None,
    flip: bool = False,
    batch_size: int = 8,
    threads: int | None = None,
    allow_custom_objects: bool = False,
) -> Predictor:
    """Opens a pose net: called on a list of pictures of one person each, it gives a Pose in the pixels of each.

    Args:
        model: a release's name, a folder, a .keras file or a keras.Model; a list of them is an ensemble, whose joints
            are averaged.
        joints: names of the joints; None takes the card's, else "0", "1" and so on.
        skeleton: pairs of joints that are connected in a drawing; None takes the card's, else none.
        flip: look at each person mirrored, too, where joints named left_ and right_ change places, and average.
        batch_size: persons computed at once.
        threads: for reading; None takes the machine's cores.
        allow_custom_objects: of `tfcnn.load_model`.

    Returns:
        The predictor; the joints' names are `.names`. Of several persons of a picture
        `tfcnn.localization.pose_estimator.in_boxes` gives the poses.

    Raises:
        InputError: there is no such model, it is no pose net, or the models of an ensemble do not fit.
    """
    method, sources, cards, models = _opened(model, POSES, "pose net", allow_custom_objects)
    named = [card | {"classes": card.get("joints", [])} for card in cards]
    found = method(models)
    names = _names_of_all(sources, named, joints, found.classes)
    if flip:
        found = method(models, mirrored_joints(names))
    pairs = cards[0].get("skeleton", []) if skeleton is None else skeleton
    return Predictor(
        found,
        names=names,
        image_size=found.form.size,
        resize="letterbox",
        batch_size=batch_size,
        threads=threads,
        card=cards[0],
        result=importlib.import_module(POSES["pose"][0]).result([tuple(pair) for pair in pairs]),
    )


def _calibration(pictures) -> list[np.ndarray]:
    """The first pictures to find int8's ranges on, read."""
    chosen = list(images.packaged() if pictures is None else pictures)[:CALIBRATION]
    return [p if isinstance(p, np.ndarray) else images.read(p) for p in chosen]


def _read(labels):
    return files.read_labels(labels) if isinstance(labels, str | os.PathLike) else labels


def _opened(model, known, what, allow_custom_objects):
    """The class that reads models, the sources, their cards, and the models with batch norm fused."""
    sources = [model] if isinstance(model, str | os.PathLike | keras.Model) else list(model)
    if not sources:
        raise InputError(f"There is no model: a {what} is needed.")
    cards = [_card(source) for source in sources]
    for source, card in zip(sources, cards, strict=True):  # before any is opened
        if card.get("kind") and card["kind"] not in known:
            raise InputError(
                f"{source} is a {card['kind']}, no {what}: on its card.json the kind would be {' or '.join(known)}."
            )
    models = [
        source
        if isinstance(source, keras.Model)
        else load_model(source, allow_custom_objects=allow_custom_objects)
        for source in sources
    ]
    method = _method(cards, models, known)
    return method, sources, cards, [backbones.folded(net) for net in models]


def _card(source) -> dict:
    if isinstance(source, keras.Model):
        return {}
    card = card_of(source)
    return {"classes": list(voc.CLASSES)} | card if is_darknet(source) else card


def _method(cards, models, known):
    """The class that reads models of the kind that all cards name; without a card the model's own name says it."""
    own = [model.name if model.name in known else next(iter(known)) for model in models]
    kinds = [card.get("kind") or name for card, name in zip(cards, own, strict=True)]
    homes = {known[kind] for kind in kinds}
    if len(homes) > 1:
        raise InputError(f"An ensemble has models of one kind, not of {', '.join(dict.fromkeys(kinds))}.")
    module, name = homes.pop()
    return getattr(importlib.import_module(module), name)


def _names_of_all(sources, cards, labels, count):
    """Names of the classes of all models: those given, else the cards', else numbers."""
    if labels is not None:
        return list(labels)
    numbers = [str(index) for index in range(count)]
    names = [card["classes"] if len(card.get("classes", [])) == count else numbers for card in cards]
    for source, other in zip(sources[1:], names[1:], strict=True):
        if other != names[0]:
            raise InputError(f"{source} has other classes than {sources[0]}: {', '.join(other[:3])} ...")
    return names[0]
