"""Train a detector: from a backbone that knows ImageNet, or from a released detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import flags

from tfcnn import cli
from tfcnn.cards import card_of, is_darknet
from tfcnn.cli import grid_flags, models, training_flags, training_record
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
TRAINING = flags.DEFINE_enum(
    "training", "joint", ["joint", "alternating"], "All four losses at once, or the paper's four steps"
)
NECK = flags.DEFINE_enum(
    "neck",
    "top_down",
    ["none", "top_down", "pyramid", "fpn"],
    "Maps: stride 16 alone (the paper), strides 8 to 32 summed from the top, a pyramid of these, or Lin et al.'s "
    "feature pyramid of strides 4 to 64",
)
HEAD = flags.DEFINE_enum(
    "head",
    "position",
    ["position", "light", "dense", "mlp", "backbone"],
    "Head of the regions: position-sensitive, light convolutions, VGG's two dense layers of 4096, Lin et al.'s two of "
    "1024, or the backbone's later layers",
)
POOLING = flags.DEFINE_enum("pooling", "align", ["align", "max"], "RoIAlign, or the paper's RoI max pooling")
CONTEXT = flags.DEFINE_bool("context", False, "Let each region see the whole picture's code, too (He et al.)")
CLASS_AGNOSTIC = flags.DEFINE_bool("class_agnostic", True, "One box a region; false: one a class (the paper)")
SIZES = flags.DEFINE_list(
    "anchor_sizes",
    [],
    "Anchors' sizes in pixels of the net's picture, e.g. --anchor_sizes=128,256,512 (the paper); none: six, 18 to 280, "
    "of fpn 32 to 512",
)
ROUNDED_ANCHORS = flags.DEFINE_bool(
    "rounded_anchors", False, "Round the anchors' sides as the authors' program does"
)
MASK_CHANNELS = flags.DEFINE_integer(
    "mask_channels",
    256,
    "Of mask_rcnn: channels of its four convolutions, e.g. --mask_channels=128",
    lower_bound=1,
)
RPN_CHANNELS = flags.DEFINE_integer(
    "rpn_channels",
    None,
    "Channels of the region proposal network; none: 256; VGG-16's are 512",
    lower_bound=1,
)
PROPOSALS = flags.DEFINE_integer("proposals", 300, "Proposals of a picture at test", lower_bound=1)
BEFORE_NMS = flags.DEFINE_integer(
    "before_nms",
    2000,
    "Best boxes that enter their suppression at test (the authors: 6000)",
    lower_bound=1,
)
MIN_FILE_SIZE = flags.DEFINE_float(
    "min_file_size",
    0.0,
    "Least side of a proposal in pixels of the file (the authors: 16); else 2 of the net's",
)
NMS_THRESHOLD = flags.DEFINE_float(
    "nms_threshold", 0.5, "IoU above which the lower of two detections of a class is dropped (the paper: 0.3)"
)
BOX_TARGETS = flags.DEFINE_enum(
    "box_targets",
    "fixed",
    ["fixed", "measured"],
    "Scale of box targets: fixed, or each class's measured mean and deviation (Fast R-CNN)",
)
INSIDE_ANCHORS = flags.DEFINE_bool("inside_anchors", False, "Train on anchors inside the picture (the paper)")
TRAIN_PROPOSALS = flags.DEFINE_integer(
    "train_proposals", 200, "Proposals of a picture in training (the paper: 2000)", lower_bound=1
)
TRAIN_BEFORE_NMS = flags.DEFINE_integer(
    "train_before_nms", 1000, "Best boxes that enter their suppression (the authors: 12000)", lower_bound=1
)
REGIONS = flags.DEFINE_integer(
    "regions", 64, "Regions of a picture in a step (the paper: 128, or 64 of each of two)", lower_bound=2
)
BACKGROUND_LOW = flags.DEFINE_float(
    "background_low", 0.0, "Least IoU of a background region (Fast R-CNN: 0.1)", lower_bound=0.0
)
HARDEST = flags.DEFINE_integer(
    "hardest", 0, "Learn from so many regions of the greatest loss (OHEM); 0: from all", lower_bound=0
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
MASK_WEIGHT = flags.DEFINE_float(
    "mask_weight", 1.0, "Of mask_rcnn: factor of the masks' loss (the paper: 1)", lower_bound=0.0
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


def main(run: cli.Run) -> None:
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
    if TRAINING.value == "alternating":
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
        elif of_regions():
            architecture = {"mask_channels": MASK_CHANNELS.value} | architecture
            if DETECTOR.value != "mask_rcnn":  # also from a detector that has masks
                architecture.pop("mask_channels")
    run.net = architecture["net"]
    options = {name: value for name, value in architecture.items() if name != "net"}
    model = builder()(backbones.backbone(run.net, weights), len(training.classes), **options)
    architecture |= sizes_of(model) if of_regions() else {}
    if init is not None:
        fresh = backbones.copy_weights(loading.load_model(init), model)
        if all(layer.name in fresh for layer in model.layers if layer.weights):
            raise InputError(f"--init={training_flags.INIT.value} has no layer of {run.net} in its form")
        run.say(f"starts from {training_flags.INIT.value}" + (f"; new: {', '.join(fresh)}" if fresh else ""))
    elif of_regions() and HEAD.value == "dense" and weights:
        copied = copy_dense(backbones.classifier(run.net, weights), model)
        run.say(f"{' and '.join(copied) or 'no dense layer'} from {run.net}'s classifier")
    return model, architecture


def of_flags(net: str, training: Dataset, proposals: Proposals | None, config: DetectorConfig) -> dict:
    """The architecture that the flags ask for, on the backbone `net`."""
    if of_regions():
        return {"net": net, **architecture_of_flags(), **box_targets(training, proposals)}
    return {"net": net, **grid_flags.architecture(DETECTOR.value, config.train_size, NMS_THRESHOLD.value)}


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


def architecture_of_flags() -> dict:
    """The keyword arguments of `faster_rcnn` or `mask_rcnn` that the flags give."""
    try:
        sizes = [float(size) for size in SIZES.value]
    except ValueError as error:
        raise InputError(f"--anchor_sizes={','.join(SIZES.value)}: sizes are numbers of pixels") from error
    maps = {"pyramid": 3, "fpn": 5}.get(NECK.value)
    if sizes and maps:
        if len(sizes) % maps:
            raise InputError(
                f"--anchor_sizes: this pyramid has {maps} maps, so name {maps} sizes or a multiple"
            )
        each = len(sizes) // maps
        sizes = [sizes[i * each : (i + 1) * each] for i in range(maps)]
    return {
        "neck": NECK.value,
        "head": HEAD.value,
        "pooling": POOLING.value,
        "context": CONTEXT.value,
        "class_agnostic": CLASS_AGNOSTIC.value,
        "sizes": sizes or None,
        "rounded_anchors": ROUNDED_ANCHORS.value,
        "rpn_channels": RPN_CHANNELS.value,
        "proposals": 0 if DETECTOR.value == "fast_rcnn" else PROPOSALS.value,
        "before_nms": BEFORE_NMS.value,
        "min_file_size": MIN_FILE_SIZE.value,
        "nms_threshold": NMS_THRESHOLD.value,
    } | ({"mask_channels": MASK_CHANNELS.value} if DETECTOR.value == "mask_rcnn" else {})


def box_targets(training: Dataset, proposals: Proposals | None) -> dict:
    """Means and deviations of the box targets, where --box_targets has them measured."""
    if BOX_TARGETS.value == "fixed":
        return {}
    if proposals is None:
        raise InputError("--box_targets=measured needs --detector=fast_rcnn: the proposals are measured")
    if CLASS_AGNOSTIC.value:
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
