"""Train a detector: from a backbone that knows ImageNet, or from a released detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import flags

from tfcnn import cli
from tfcnn.cards import card_of, is_darknet
from tfcnn.cli import grid_flags, models, region_flags, training_flags, training_record
from tfcnn.cli.flags import refuse_longest
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import keras

    from tfcnn.datasets.example import Dataset
    from tfcnn.datasets.proposals import Proposals
    from tfcnn.detection.detector_training import DetectorConfig

GROUP, SUMMARY = "detection", "train a detector on VOC, COCO or your own boxes"

OF_REGIONS = ("faster_rcnn", "fast_rcnn", "mask_rcnn")

DETECTOR = flags.DEFINE_enum(
    "detector",
    "faster_rcnn",
    ["faster_rcnn", "fast_rcnn", "mask_rcnn", "yolo", "fast_yolo", "one_stage"],
    "Regions with proposals of its own, or those of a file; the first with a mask for each object; YOLO's grid, with "
    "the dense layers of its slow or its fast net; or anchor-free cells on three maps",
)
PROPOSALS_FILE = flags.DEFINE_string(
    "proposals_file",
    None,
    "For --detector=fast_rcnn: results.json of the app propose over all pictures, e.g. "
    "--proposals_file=out/propose/results.json",
)
NMS_THRESHOLD = flags.DEFINE_float(
    "nms_threshold",
    0.5,
    "IoU above which the lower of two detections of a class is dropped (the paper: 0.3)",
    lower_bound=0.0,
    upper_bound=1.0,
)
IGNORE_OVERLAP = flags.DEFINE_float(
    "ignore_overlap",
    0.7,
    "Share of a region, or of a cell, inside a crowd or a difficult object above which it is no background; 1: all are",
    lower_bound=0.0,
    upper_bound=1.0,
)
FREEZE_STRIDE = flags.DEFINE_integer(
    "freeze_stride", 4, "Trained backbone layers up to this stride stay; 0 trains all", lower_bound=0
)
BIAS_RATE = flags.DEFINE_float(
    "bias_rate", 1.0, "Factor of the biases' learning rate (the authors: 2)", lower_bound=0.0
)
VALIDATE_IMAGES = flags.DEFINE_integer(
    "validate_images", 0, "Pictures of each validation, evenly spread; 0 takes all", lower_bound=0
)
TEST_SIZE = flags.DEFINE_integer(
    "test_image_size",
    None,
    "--image_size of the released net; none: that of training, e.g. --test_image_size=384",
    lower_bound=32,
)

# The flags that only some detectors have.
ONLY = (
    (OF_REGIONS, region_flags.OF_ALL),
    (("faster_rcnn", "mask_rcnn"), region_flags.OF_PROPOSALS),
    (("fast_rcnn",), region_flags.OF_FILE),
    (("mask_rcnn",), region_flags.OF_MASKS),
    (("yolo", "fast_yolo"), grid_flags.OF_YOLO),
    (("one_stage",), grid_flags.OF_ONE_STAGE),
)


def main(run: cli.Run) -> None:
    check_flags()
    training, validation = training_flags.read_data(run)
    if not any(len(record.boxes) for record in training.examples):
        raise InputError(
            f"--dataset={training_flags.DATASET.value} has no boxes; train_classifier reads classes"
        )
    proposals = read_proposals()
    strategy = run.runtime.strategy  # starts TensorFlow, silently
    from tfcnn import detection

    kind = detection.FasterRCNNConfig if of_regions() else detection.SingleShotConfig
    config = training_flags.config(
        kind, resume=run.resume, **({} if of_regions() else {"loss": grid_flags.loss()})
    )
    with strategy.scope():
        model, architecture = make_model(run, training, proposals, config)
    size = f"at {config.train_size} px; {model.count_params():,} weights"
    training_flags.say_data(run, training, validation, size)
    card = {
        "data": f"{training.name}, {training_flags.TRAIN_SPLIT.value}: {len(training)} pictures; validated on "
        f"{training_flags.VAL_SPLIT.value}: {VALIDATE_IMAGES.value or len(validation)} pictures",
        "architecture": architecture,
    }
    with training_flags.told(run) as told:
        told["card"] |= card
        parts = (model, training, validation, config, run.output_dir)
        if of_regions():
            trained = detection.train_faster_rcnn(*parts, proposals=proposals, **told)
            run.results |= trained.reach
        else:
            trained = detection.train_single_shot(*parts, **told)
    training_flags.record(run, trained)
    run.table(*table(trained.metrics, trained.card))


def check_flags() -> None:
    """Refuse flags that would do nothing: those of another detector."""
    for detectors, own in ONLY:
        for flag in () if DETECTOR.value in detectors else own:
            if flag.present:
                raise InputError(
                    f"--{flag.name} is for --detector={' or '.join(detectors)}, not for {DETECTOR.value}"
                )
    refuse_longest(flags.FLAGS.resize)


def of_regions() -> bool:
    """Whether the detector classifies regions: Faster R-CNN, Fast R-CNN and Mask R-CNN."""
    return DETECTOR.value in OF_REGIONS


def read_proposals() -> Proposals | None:
    """The proposals of --proposals_file, or None."""
    from tfcnn.datasets.proposals import Proposals

    if DETECTOR.value != "fast_rcnn":
        if PROPOSALS_FILE.value:
            raise InputError("--proposals_file is for --detector=fast_rcnn: Faster R-CNN makes its own")
        return None
    if region_flags.TRAINING.value == "alternating":
        raise InputError("--training=alternating trains proposals too: --detector=fast_rcnn takes a file's")
    if not PROPOSALS_FILE.value:
        raise InputError("--detector=fast_rcnn needs --proposals_file: results.json of the app propose")
    return Proposals(PROPOSALS_FILE.value)


def make_model(
    run: cli.Run, training: Dataset, proposals: Proposals | None, config: DetectorConfig
) -> tuple[keras.Model, dict]:
    """The network, and what rebuilds it: (model, architecture for the card)."""
    from tfcnn import backbones, loading
    from tfcnn.detection.fast_rcnn import copy_dense

    init = training_flags.init_file(darknet=True)
    if init is not None and run.flags["weights"].present:
        raise InputError(
            f"--weights: those of --init={training_flags.INIT.value} are taken; give one of them"
        )
    if init is not None and is_darknet(init):
        from tfcnn.detection import yolo_weights

        if DETECTOR.value not in yolo_weights.HIDDEN:
            raise InputError(f"--init={init} is a YOLO: --detector={' or '.join(yolo_weights.HIDDEN)}")
        yolo_weights.check_net(init, DETECTOR.value)
        weights, architecture = None, yolo_weights.architecture(init) | {"dropout": grid_flags.DROPOUT.value}
    elif init is None:
        weights, architecture = models.weights_of(run), of_flags(run.flags.net, training, proposals, config)
    else:
        weights, card = None, card_of(training_flags.INIT.value)
        architecture = card.get("architecture") or {}
        net = architecture.get("net") or card.get("net")
        if not net:
            raise InputError(
                f"--init={training_flags.INIT.value} has no card.json that names its net beside it"
            )
        if family(card.get("kind", "faster_rcnn")) != family(DETECTOR.value) or "net" not in architecture:
            architecture = of_flags(net, training, proposals, config)  # its backbone serves this one, too
        else:
            same = list(card.get("classes") or []) == list(training.classes)
            architecture = changed(architecture, of_flags(net, training, proposals, config), same)
    if init is not None and run.flags["net"].present and run.flags.net != architecture["net"]:
        raise InputError(
            f"--net={run.flags.net}: --init={training_flags.INIT.value} has a {architecture['net']}"
        )
    if (
        architecture.get("head") == "position"
        and region_flags.POOLING.present
        and region_flags.POOLING.value == "max"
    ):
        raise InputError("--pooling=max is for another --head: position has a pooling of its own")
    run.net = architecture["net"]
    options = {name: value for name, value in architecture.items() if name != "net"}
    model = builder()(backbones.backbone(run.net, weights), len(training.classes), **options)
    architecture |= sizes_of(model) if of_regions() else {}
    if init is not None:
        fresh = backbones.copy_weights(loading.load_model(init), model)
        if all(layer.name in fresh for layer in model.layers if layer.weights):
            raise InputError(f"--init={training_flags.INIT.value} has no layer of {run.net} in its form")
        run.say(f"starts from {training_flags.INIT.value}" + (f"; new: {', '.join(fresh)}" if fresh else ""))
    elif of_regions() and region_flags.HEAD.value == "dense" and weights:
        copied = copy_dense(backbones.classifier(run.net, weights), model)
        run.say(f"{' and '.join(copied) or 'no dense layer'} from {run.net}'s classifier")
    return model, architecture


def of_flags(net: str, training: Dataset, proposals: Proposals | None, config: DetectorConfig) -> dict:
    """The architecture that the flags ask for, on the backbone `net`."""
    if of_regions():
        return {
            "net": net,
            **region_flags.architecture(DETECTOR.value, NMS_THRESHOLD.value),
            **box_targets(training, proposals),
        }
    return {"net": net, **grid_flags.architecture(DETECTOR.value, config.train_size, NMS_THRESHOLD.value)}


def changed(own: dict, asked: dict, same_classes: bool) -> dict:
    """The architecture of --init's detector with what the flags say otherwise, and what --detector needs.

    Args:
        own: of the detector's card.
        asked: of the flags, `of_flags`.
        same_classes: whether it has the classes of the data set.
    """
    if of_regions():
        if region_flags.NECK.present and region_flags.NECK.value != own.get("neck"):
            own = {
                name: value for name, value in own.items() if name != "sizes"
            }  # anchors of another pyramid
        if region_flags.BOX_TARGETS.present or not same_classes:
            own = {name: value for name, value in own.items() if name not in ("box_means", "box_stds")}
            own |= {name: asked[name] for name in ("box_means", "box_stds") if name in asked}
        if "mask_channels" not in asked:  # also from a detector that has masks
            own = {name: value for name, value in own.items() if name != "mask_channels"}
        own = {"mask_channels": asked["mask_channels"]} | own if "mask_channels" in asked else own
        if bool(own.get("proposals", 1)) != bool(asked["proposals"]):
            own = own | {"proposals": asked["proposals"]}
        flags_of = region_flags.OF_NET
    else:
        flags_of = grid_flags.OF_ONE_STAGE_NET if DETECTOR.value == "one_stage" else grid_flags.OF_YOLO_NET
        flags_of = flags_of | {"size": flags.FLAGS["image_size"]}
    flags_of = flags_of | {"nms_threshold": NMS_THRESHOLD}
    return own | {name: asked[name] for name, flag in flags_of.items() if flag.present and name in asked}


def family(detector: str) -> str:
    """Detectors of one family start whole from one another, others only from the backbone."""
    if detector in OF_REGIONS:
        return "regions"
    return "yolo" if detector == "fast_yolo" else detector


def builder() -> Callable[..., keras.Model]:
    """The function that builds the detector on a backbone."""
    if of_regions():
        from tfcnn.detection.faster_rcnn import faster_rcnn
        from tfcnn.detection.mask_rcnn import mask_rcnn

        return mask_rcnn if DETECTOR.value == "mask_rcnn" else faster_rcnn
    from tfcnn.detection.one_stage import one_stage
    from tfcnn.detection.yolo import yolo

    return one_stage if DETECTOR.value == "one_stage" else yolo


def sizes_of(model: keras.Model) -> dict:
    """The anchors' sizes that a model was built with: a later default builds another."""
    from tfcnn.detection.stages import Stages

    proposals = Stages(model).proposals
    if proposals is None:
        return {}
    sizes = [list(map(float, sizes)) for sizes in proposals.grid.sizes]
    return {"sizes": sizes[0] if len(sizes) == 1 else sizes}


def box_targets(training: Dataset, proposals: Proposals | None) -> dict:
    """Means and deviations of the box targets, where --box_targets has them measured."""
    if region_flags.BOX_TARGETS.value == "fixed":
        return {}
    if proposals is None:
        raise InputError("--box_targets=measured needs --detector=fast_rcnn: the proposals are measured")
    if region_flags.CLASS_AGNOSTIC.value:
        raise InputError("--box_targets=measured goes with --class_agnostic=false: each class has its own")
    from tfcnn.detection.fast_rcnn_training import box_statistics
    from tfcnn.detection.faster_rcnn_training import with_proposals

    pictures = (found[1:] for found in with_proposals(training, proposals))
    means, stds = box_statistics(pictures, len(training.classes))
    return {"box_means": means, "box_stds": stds}


def table(metrics: dict, card: dict) -> tuple[list[str], list[list]]:
    """Columns and rows for the end."""
    rows, shown = [], {"map_11": "mAP 11-point", "map_area": "mAP area"}
    if "segm_AP50" in metrics["last"]:
        shown |= {"segm_AP50": "AP50 of masks", "segm_AP": "AP of masks"}
    for name in ("best", "last"):
        if figures := metrics[name]:
            rows.append([name, figures["step"], *(training_record.percent(figures[rule]) for rule in shown)])
    size = [f"{card['bytes'] / 1e6:.2f} MB", f"{card['parameters']} weights"]
    rows.append(["release", *size, *[""] * (len(shown) - 1)])
    return ["validation", "step", *shown.values()], rows


if __name__ == "__main__":
    cli.start(main, pictures=False, trainer=True, batch_size=16, longest=1000)
