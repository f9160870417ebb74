"""What detect and evaluate share: the flags of testing, and the detector that --model names."""

from __future__ import annotations

import pathlib

from absl import flags

from tfcnn.cli import models
from tfcnn.errors import InputError

SCORE = flags.DEFINE_float(
    "score_threshold", 0.05, "Least score of a detection, 0..1", lower_bound=0.0, upper_bound=1.0
)
MOST = flags.DEFINE_integer("max_detections", 100, "Detections of a picture, at most", lower_bound=1)
NMS = flags.DEFINE_float(
    "nms_threshold",
    None,
    "IoU above which the lower of two detections of a class goes; none takes the model's own, e.g. 0.5",
    lower_bound=0.0,
    upper_bound=1.0,
)
RUNTIME = flags.DEFINE_enum("runtime", "tf", ["tf", "litert"], "What computes the net: TensorFlow or LiteRT")
REFINE = flags.DEFINE_integer(
    "refine", 0, "Take the regions anew from the boxes found, so many times", lower_bound=0, upper_bound=10
)
VOTING = flags.DEFINE_bool("box_voting", False, "Average each box with those of its class around it")
SCALES = flags.DEFINE_list(
    "scales", [], "Look at each picture at several sizes, in pixels, e.g. --scales=224,320,416"
)
PROPOSALS = flags.DEFINE_string(
    "proposals",
    None,
    "Of a Fast R-CNN: results.json of the app propose over the same pictures, e.g. "
    "--proposals=out/propose/results.json",
)
FLIP = flags.DEFINE_bool("flip", False, "Look at each picture mirrored, too")


def open_detector(run, sources: list[str]):
    """The detector that the flags describe.

    Args:
        run: the app's run; its TensorFlow is started.
        sources: --model's parts: releases, folders or files; several are an ensemble.

    Returns:
        (detector.Detector, names of its classes, the category id of each, the proposals of --proposals or None).

    Raises:
        InputError: no such model, no Faster R-CNN, other classes in a second model, or a size that is none.
    """
    run.runtime  # noqa: B018  (starts TensorFlow, silently)
    cards = [models.card_of(source) for source in sources]
    sizes = [_size(text) for text in SCALES.value]
    resizable = getattr(run.flags, "image_size", None)
    sizes = sizes or [resizable or cards[0].get("image_size") or 320]
    resize = cards[0].get("resize", "stretch")
    if "resize" in run.flags and not run.flags["resize"].using_default_value:
        resize = run.flags.resize
    if resize == "crop":
        raise InputError("--resize=crop would cut objects off; take stretch or letterbox")
    from tfcnn import backbones, load_model
    from tfcnn.detection.detector import Detector

    nets = [load_model(source, allow_custom_objects=run.flags.allow_custom_objects) for source in sources]
    nets = [backbones.folded(net) for net in nets]
    detector = Detector(
        nets,
        sizes,
        resize,
        flip=FLIP.value,
        refine=REFINE.value,
        box_voting=VOTING.value,
        score_threshold=SCORE.value,
        nms_threshold=NMS.value,
        max_detections=MOST.value,
        runtime=RUNTIME.value,
        threads=run.threads,
    )
    given = None
    if PROPOSALS.value:
        from tfcnn.datasets.proposals import Proposals

        given = Proposals(PROPOSALS.value)
    if (given is None) == (detector.proposal_count == 0):
        need = (
            "looks at proposals of a file: name it by --proposals"
            if given is None
            else "makes its own proposals"
        )
        raise InputError(f"--model={','.join(sources)} {need}")
    names = [_names(run, card, detector.classes) for card in cards]
    for source, other in zip(sources[1:], names[1:], strict=True):
        if other != names[0]:
            raise InputError(
                f"--model: {source} has other classes than {sources[0]}: {', '.join(other[:3])} ..."
            )
    ids = cards[0].get("category_ids") or list(range(1, detector.classes + 1))
    run.net = ",".join(sources)
    return detector, names[0], ids, given


def entries(detections, names) -> list[dict]:
    """A picture's detections for results.json."""
    return [
        {"label": names[label], "index": int(label), "score": float(score), "box": box.tolist()}
        for box, score, label in zip(detections.boxes, detections.scores, detections.labels, strict=True)
    ]


def save(run, found: list[dict], names: list[str], ids: list[int]) -> None:
    """Writes detections.json, a COCO results list, and categories.json."""
    run.save_json(found, "detections.json")
    run.save_json([{"id": i, "name": name} for i, name in zip(ids, names, strict=True)], "categories.json")


def _size(text: str) -> int:
    if not text.strip().isdigit() or not 32 <= int(text) <= 4096:
        raise InputError(f"--scales={text}: a size is a whole number of pixels from 32 to 4096")
    return int(text)


def _names(run, card, count):
    if run.flags.labels:
        names = [
            line.strip() for line in pathlib.Path(run.flags.labels).read_text(encoding="utf-8").splitlines()
        ]
        if len(names) != count:
            raise InputError(
                f"--labels={run.flags.labels} has {len(names)} lines, and the model {count} classes"
            )
        return names
    names = card.get("classes", [])
    return names if len(names) == count else [str(index) for index in range(count)]
