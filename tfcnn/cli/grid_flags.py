"""What train_detector asks of the detectors of one network, YOLO and the one-stage detector: their flags."""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from tfcnn.errors import InputError

if TYPE_CHECKING:
    from tfcnn.detection.one_stage import OneStageLoss

GRID = flags.DEFINE_integer("grid", 7, "Of YOLO: S, cells on a side of the picture", lower_bound=1)
CELL_BOXES = flags.DEFINE_integer("cell_boxes", 2, "Of YOLO: B, boxes a cell", lower_bound=1)
ENDPOINT = flags.DEFINE_string(
    "endpoint",
    None,
    "Of YOLO: the backbone's map that is read (the app nets lists them); none: its last, e.g. --endpoint=stage7",
)
PASSTHROUGH = flags.DEFINE_integer(
    "passthrough",
    0,
    "Of YOLO: channels of the backbone's map of half the stride that join the last one, e.g. --passthrough=64",
    lower_bound=0,
)
CONVOLUTIONS = flags.DEFINE_list(
    "convolutions",
    [],
    "Of YOLO: channels of 3x3 convolutions between a small backbone and the dense layers, e.g. --convolutions=256,256",
)
DENSE_CHANNELS = flags.DEFINE_integer(
    "dense_channels",
    None,
    "Of YOLO: channels that enter the dense layers; none: all, e.g. --dense_channels=48",
    lower_bound=1,
)
DENSE_UNITS = flags.DEFINE_integer(
    "dense_units", 4096, "Of YOLO: units of the dense layer before the output; 0: none", lower_bound=0
)
DROPOUT = flags.DEFINE_float(
    "dropout", 0.5, "Of YOLO: dropout before the output", lower_bound=0.0, upper_bound=0.95
)
RESAMPLE = flags.DEFINE_bool(
    "resample", False, "Of YOLO: bring the last map to S x S places before the dense layers"
)
CELL_EPOCHS = flags.DEFINE_float(
    "cell_epochs",
    0.0,
    "Of YOLO: epochs before, in which the dense layers are convolutions that all cells share",
    lower_bound=0.0,
)
CELL_RATE = flags.DEFINE_float(
    "cell_rate", 1e-3, "Of YOLO: highest learning rate in these epochs", lower_bound=0.0
)
LAMBDA_COORD = flags.DEFINE_float(
    "lambda_coord", 5.0, "Of YOLO: weight of the box terms of the loss", lower_bound=0.0
)
LAMBDA_NOOBJ = flags.DEFINE_float(
    "lambda_noobj", 0.5, "Of YOLO: weight of the confidence of cells without an object", lower_bound=0.0
)
STRIDES = flags.DEFINE_list(
    "strides",
    ["8", "16", "32"],
    "Of one_stage: of the maps whose cells answer, each twice the one before; one is a single scale, e.g. --strides=16",
)
CHANNELS = flags.DEFINE_integer("channels", 128, "Of one_stage: channels of neck and head", lower_bound=1)
TOWER = flags.DEFINE_integer("tower", 2, "Of one_stage: convolutions before each output", lower_bound=1)
ASSIGNMENT = flags.DEFINE_enum(
    "assignment",
    "dynamic",
    ["center", "dynamic"],
    "Of one_stage: the cells nearest an object's centre answer for it, or those that find it best (SimOTA)",
)
BOX_LOSS = flags.DEFINE_enum(
    "box_loss",
    "giou",
    ["giou", "ciou", "l1"],
    "Of one_stage: what is learned of a box, its overlap with the object's or smooth L1 of its sides",
)
FOCAL = flags.DEFINE_float(
    "focal", 0.0, "Of one_stage: gamma of focal objectness, e.g. --focal=2; 0: cross-entropy", lower_bound=0.0
)

# The flags of a detector alone; under a name of the architecture, those that change the net.
OF_YOLO_NET = {
    "grid": GRID,
    "boxes": CELL_BOXES,
    "endpoint": ENDPOINT,
    "passthrough": PASSTHROUGH,
    "convolutions": CONVOLUTIONS,
    "channels": DENSE_CHANNELS,
    "resample": RESAMPLE,
    "hidden": DENSE_UNITS,
    "dropout": DROPOUT,
}
OF_YOLO = (*OF_YOLO_NET.values(), CELL_EPOCHS, CELL_RATE, LAMBDA_COORD, LAMBDA_NOOBJ)
OF_ONE_STAGE_NET = {"strides": STRIDES, "channels": CHANNELS, "tower": TOWER}
OF_ONE_STAGE = (*OF_ONE_STAGE_NET.values(), ASSIGNMENT, BOX_LOSS, FOCAL)


def loss() -> OneStageLoss:
    """What the one-stage detector's loss is made of."""
    from tfcnn.detection.one_stage import OneStageLoss

    return OneStageLoss(assignment=ASSIGNMENT.value, box=BOX_LOSS.value, focal=FOCAL.value)


def architecture(detector: str, size: int, nms_threshold: float) -> dict:
    """The keyword arguments of `tfcnn.detection.yolo.yolo` or `one_stage.one_stage` that the flags give.

    Args:
        detector: "yolo", "fast_yolo" or "one_stage".
        size: side of the picture, pixels.
        nms_threshold: of the detections.

    Raises:
        InputError: channels or strides that are no numbers.
    """
    if detector == "one_stage":
        strides = numbers(STRIDES, "strides")
        if not strides:
            raise InputError("--strides is empty: one_stage needs a map, e.g. --strides=8,16,32")
        own = {"strides": strides, "channels": CHANNELS.value, "tower": TOWER.value}
        return own | {"nms_threshold": nms_threshold}
    hidden = [[DENSE_UNITS.value, "leaky"]] if DENSE_UNITS.value else []
    return {
        "size": size,
        "grid": GRID.value,
        "boxes": CELL_BOXES.value,
        "endpoint": ENDPOINT.value,
        "passthrough": PASSTHROUGH.value,
        "convolutions": numbers(CONVOLUTIONS, "channels"),
        "channels": DENSE_CHANNELS.value,
        "resample": RESAMPLE.value,
        "hidden": [[256, "linear"], *hidden] if detector == "fast_yolo" else hidden,
        "dropout": DROPOUT.value,
        "nms_threshold": nms_threshold,
    }


def numbers(flag: flags.FlagHolder[list[str]], what: str) -> list[int]:
    """A list of whole numbers from 1, in the flag's own words where it is none."""
    if not all(text.strip().isdecimal() and int(text) for text in flag.value):
        raise InputError(f"--{flag.name}={','.join(flag.value)}: {what} are whole numbers from 1")
    return [int(text) for text in flag.value]
