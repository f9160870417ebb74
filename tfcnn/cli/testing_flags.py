"""What detect and evaluate share: the flags of testing, and the detector that --model names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from absl import flags

from tfcnn import images
from tfcnn.cards import card_of, model_path
from tfcnn.cli import classes, lists
from tfcnn.cli.flags import refuse as refuse_flags
from tfcnn.cli.flags import refuse_longest
from tfcnn.datasets.proposals import Proposals
from tfcnn.errors import InputError

if TYPE_CHECKING:
    from tfcnn.cli.run import Run
    from tfcnn.predictor import Predictor

SCORE = flags.DEFINE_float(
    "score_threshold",
    0.05,
    "Least score of a detection, 0..1; not given, the model's own: 0.05, and 0.005 of YOLO and of HOG windows, whose "
    "scores are small throughout",
    lower_bound=0.0,
    upper_bound=1.0,
)
MOST = flags.DEFINE_integer("max_detections", 100, "Detections of a picture, at most", lower_bound=1)
NMS = flags.DEFINE_float(
    "nms_threshold",
    None,
    "IoU above which the lower of two detections of a class goes; none takes the model's own, e.g. 0.5",
    lower_bound=0.0,
    upper_bound=1.0,
)
RUNTIME = flags.DEFINE_enum(
    "runtime",
    "tf",
    ["tf", "litert", "litert_int8", "auto"],
    "What computes the net: TensorFlow, LiteRT, LiteRT in int8 (faster, a little less exact), or auto: whichever of "
    "the first two is faster on three pictures",
)
CALIBRATION = flags.DEFINE_string(
    "calibration",
    None,
    "Of --runtime=litert_int8: pictures, folders or .zip by which int8's ranges are found, the first 100 of them; "
    "none: the packaged photographs, e.g. --calibration=photos",
)
PROPOSALS = flags.DEFINE_integer(
    "proposals",
    None,
    "Of Faster R-CNN: regions of a picture that are classified; none: the model's own, e.g. --proposals=100",
    lower_bound=1,
)
REFINE = flags.DEFINE_integer(
    "refine", 0, "Take the regions anew from the boxes found, so many times", lower_bound=0, upper_bound=10
)
VOTING = flags.DEFINE_bool("box_voting", False, "Average each box with those of its class around it")
SCALES = flags.DEFINE_list(
    "scales", [], "Look at each picture at several sizes, in pixels, e.g. --scales=224,320,416"
)
PROPOSALS_FILE = flags.DEFINE_string(
    "proposals_file",
    None,
    "Of a Fast R-CNN: results.json of the app propose over the same pictures, e.g. "
    "--proposals_file=out/propose/results.json",
)
FLIP = flags.DEFINE_bool("flip", False, "Look at each picture mirrored, too")


OF_DETECTORS = (
    SCORE,
    MOST,
    NMS,
    RUNTIME,
    CALIBRATION,
    PROPOSALS,
    REFINE,
    VOTING,
    SCALES,
    PROPOSALS_FILE,
    FLIP,
)
OF_VIEWS = ("image_size", "resize", "longest")  # common flags, by which a detector looks at a picture


def refuse(what: str, but: Collection[str] = ()) -> None:
    """Refuses the flags of detectors where --model is something else.

    Args:
        what: it is, e.g. "a localizer".
        but: names of those that mean something to it.

    Raises:
        InputError: one of the others is given.
    """
    names = [*(flag.name for flag in OF_DETECTORS), *OF_VIEWS]
    refuse_flags((name for name in names if name not in but), f"is for detectors, and --model is {what}")


def open_detector(
    run: Run, sources: Sequence[str], plain: bool = False
) -> tuple[Predictor, Proposals | None]:
    """The detector that the flags describe, and the proposals of --proposals_file.

    Args:
        run: the app's run; its TensorFlow is started.
        sources: --model's parts: releases, folders or files; several are an ensemble.
        plain: open it at its own size and with a single view, whatever the flags say of --model's.

    Raises:
        InputError: no such model, no detector, other classes in a second model, labels or proposals that cannot be
            read, or a size that is none. What needs no model is said before one is opened.
    """
    values = run.flags
    scales = [_size(text) for text in SCALES.value]
    labels = classes.labels_for(values.labels, sources[0])
    precomputed = Proposals(PROPOSALS_FILE.value) if PROPOSALS_FILE.value and not plain else None
    if CALIBRATION.value and RUNTIME.value != "litert_int8":
        raise InputError("--calibration belongs to --runtime=litert_int8")
    calibration = images.find(lists.paths(CALIBRATION.value)) if CALIBRATION.value else None
    if values.resize == "crop":
        raise InputError("--resize=crop would cut objects off; take stretch, letterbox or fit")
    for source in sources:
        model_path(source)  # a name that is wrong is said before TensorFlow starts
    if not plain:
        own = card_of(sources[0]).get("resize", "stretch")
        refuse_longest(own if values["resize"].using_default_value else values.resize)
    run.runtime  # noqa: B018  (starts TensorFlow, silently)
    from tfcnn import detector

    views = (
        {}
        if plain
        else {
            "image_size": values.image_size,
            "longest": None if values["longest"].using_default_value else values.longest,
            "resize": None if values["resize"].using_default_value else values.resize,
            "scales": scales,
            "flip": FLIP.value,
            "proposals": PROPOSALS.value,
            "refine": REFINE.value,
            "box_voting": VOTING.value,
            "nms_threshold": NMS.value,
            "labels": labels,
        }
    )
    predictor = detector(
        list(sources),
        **views,
        runtime=RUNTIME.value,
        calibration=calibration,
        threads=run.threads,
        batch_size=values.batch_size,
        score_threshold=None if values["score_threshold"].using_default_value else SCORE.value,
        max_detections=MOST.value,
        allow_custom_objects=values.allow_custom_objects,
        say=run.say,
    )
    if (precomputed is not None) != predictor.method.needs_proposals:
        need = (
            "makes its own proposals" if precomputed else "needs those of a file: name it by --proposals_file"
        )
        raise InputError(f"{','.join(sources)} {need}")
    run.net = ",".join(sources)
    if RUNTIME.value == "auto" and not plain:
        run.results["runtime"] = predictor.runtime
    return predictor, precomputed


def _size(text: str) -> int:
    if not text.strip().isdigit() or not 32 <= int(text) <= 4096:
        raise InputError(f"--scales={text}: a size is a whole number of pixels from 32 to 4096")
    return int(text)
