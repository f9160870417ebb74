"""What train_detector asks of the detectors of regions, Faster, Fast and Mask R-CNN: their flags."""

from __future__ import annotations

from absl import flags

from tfcnn.errors import InputError

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
    lower_bound=0.0,
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
    "background_low",
    0.0,
    "Least IoU of a background region, below 0.5 (Fast R-CNN: 0.1)",
    lower_bound=0.0,
    upper_bound=0.49,
)
HARDEST = flags.DEFINE_integer(
    "hardest", 0, "Learn from so many regions of the greatest loss (OHEM); 0: from all", lower_bound=0
)
MASK_WEIGHT = flags.DEFINE_float(
    "mask_weight", 1.0, "Of mask_rcnn: factor of the masks' loss (the paper: 1)", lower_bound=0.0
)
# The flags that change the net, by the names of its architecture.
OF_NET = {
    "neck": NECK,
    "head": HEAD,
    "pooling": POOLING,
    "context": CONTEXT,
    "class_agnostic": CLASS_AGNOSTIC,
    "sizes": SIZES,
    "rounded_anchors": ROUNDED_ANCHORS,
    "rpn_channels": RPN_CHANNELS,
    "proposals": PROPOSALS,
    "before_nms": BEFORE_NMS,
    "min_file_size": MIN_FILE_SIZE,
    "mask_channels": MASK_CHANNELS,
}
# Of detectors that classify regions at all; with proposals of their own; with a file's; with masks.
OF_ALL = (TRAINING, NECK, HEAD, POOLING, CONTEXT, CLASS_AGNOSTIC, REGIONS, BACKGROUND_LOW, HARDEST)
OF_PROPOSALS = (
    SIZES,
    ROUNDED_ANCHORS,
    RPN_CHANNELS,
    PROPOSALS,
    BEFORE_NMS,
    MIN_FILE_SIZE,
    INSIDE_ANCHORS,
    TRAIN_PROPOSALS,
    TRAIN_BEFORE_NMS,
)
OF_FILE = (BOX_TARGETS,)
OF_MASKS = (MASK_CHANNELS, MASK_WEIGHT)


def architecture(detector: str, nms_threshold: float) -> dict:
    """The keyword arguments of `faster_rcnn` or `mask_rcnn` that the flags give.

    Args:
        detector: "faster_rcnn", "fast_rcnn" or "mask_rcnn".
        nms_threshold: of the detections.

    Raises:
        InputError: sizes of anchors that are no numbers above 0, or too few for a pyramid.
    """
    try:
        sizes = [float(size) for size in SIZES.value]
    except ValueError as error:
        raise InputError(f"--anchor_sizes={','.join(SIZES.value)}: sizes are numbers of pixels") from error
    if not all(0 < size < float("inf") for size in sizes):
        raise InputError(f"--anchor_sizes={','.join(SIZES.value)}: sizes are numbers above 0")
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
        "proposals": 0 if detector == "fast_rcnn" else PROPOSALS.value,
        "before_nms": BEFORE_NMS.value,
        "min_file_size": MIN_FILE_SIZE.value,
        "nms_threshold": nms_threshold,
    } | ({"mask_channels": MASK_CHANNELS.value} if detector == "mask_rcnn" else {})
