"""YOLO and Fast YOLO from darknet's .weights files.

A .weights file holds numbers and nothing else. Which of the two networks it belongs to, and how many classes it has, is
told by how many numbers there are.

Source: Redmon et al. 2016, figure 3; pjreddie/darknet cfg/yolo.cfg at 8fd18add, cfg/yolo-tiny.cfg at eaf033c0.
"""

import os

import keras
import numpy as np

from tfcnn import backbones
from tfcnn.backbones.importers import darknet
from tfcnn.backbones.nets import yolo as nets
from tfcnn.detection.yolo import FAST_YOLO_HIDDEN, YOLO_HIDDEN, yolo
from tfcnn.errors import InputError

SIZE, GRID, BOXES = 448, 7, 2  # the papers' picture in pixels, S and B
CONVOLUTIONS = {"yolo": nets.YOLO + nets.DETECTION, "fast_yolo": nets.FAST}
HIDDEN = {"yolo": YOLO_HIDDEN, "fast_yolo": FAST_YOLO_HIDDEN}

Layers = list[tuple[str, tuple[int, ...]]]  # (name, shape of its kernel) of each layer that has weights


def load(path: str | os.PathLike) -> keras.Model:
    """The detector of a .weights file, with its weights.

    Args:
        path: of YOLO or Fast YOLO, of any number of classes, with 7 x 7 cells of two boxes.

    Returns:
        As `tfcnn.detection.yolo.yolo`.

    Raises:
        InputError: the file is no .weights file, or of another network; the first layers of ours are named.
    """
    options = architecture(path)
    net, (_, classes) = options.pop("net"), recognised(path)
    model = yolo(backbones.backbone(net, None), classes, **options)
    darknet.load(path, model)
    return model


def architecture(path: str | os.PathLike) -> dict:
    """What rebuilds the detector of a .weights file: {"net": of the factory} and the arguments of `yolo`.

    Raises:
        InputError: as `load`.
    """
    net, _ = recognised(path)
    return {"net": net, "size": SIZE, "grid": GRID, "boxes": BOXES, "hidden": [list(h) for h in HIDDEN[net]]}


def recognised(path: str | os.PathLike) -> tuple[str, int]:
    """The network and the number of classes that a .weights file's count of numbers fits.

    Raises:
        InputError: it fits none.
    """
    count = darknet.count(path)
    for net in HIDDEN:
        before = layers_of(net, 1)[:-1]  # what does not depend on the classes
        maps = sum(shape[-1] for name, shape in before if name.startswith("conv"))
        units = HIDDEN[net][-1][0]
        for norms in (0, 3 * maps):  # scale, mean and variance of batch norm
            outputs, rest = divmod(count - parameters(before) - norms, units + 1)
            classes = outputs // GRID**2 - 5 * BOXES
            if rest == 0 and outputs % GRID**2 == 0 and 1 <= classes <= 10_000:
                return net, classes
    ours = "; ".join(
        f"{net} has {parameters(layers):,} with 20 classes ({_words(layers[:3])} ...)"
        for net, layers in ((net, layers_of(net, 20)) for net in HIDDEN)
    )
    raise InputError(
        f"{path} is of another network than YOLO's first version: it holds {count:,} numbers; {ours}"
    )


def layers_of(net: str, classes: int) -> Layers:
    """The layers of a detector that have weights, in darknet's order.

    Args:
        net: "yolo" or "fast_yolo".
        classes: K.
    """
    layers, depth, side, number = [], 3, SIZE, 0
    for item in CONVOLUTIONS[net]:
        if item == "max":
            side //= 2
            continue
        number += 1
        channels, kernel, *stride = item
        side //= stride[0] if stride else 1
        layers.append((f"conv{number}", (kernel, kernel, depth, channels)))
        depth = channels
    width = side * side * depth
    for number, (units, _) in enumerate(HIDDEN[net], start=1):
        layers.append((f"fc{number}", (width, units)))
        width = units
    return [*layers, ("output", (width, GRID**2 * (5 * BOXES + classes)))]


def parameters(layers: Layers) -> int:
    """Numbers of weights and biases."""
    return sum(int(np.prod(shape)) + shape[-1] for _, shape in layers)


def check_net(path: str | os.PathLike, net: str) -> None:
    """Sees that a .weights file is of the network that was asked for.

    Raises:
        InputError: it is of the other one; the first three layers that differ are named with both shapes.
    """
    own, classes = recognised(path)
    if own == net:
        return
    pairs = zip(layers_of(own, classes), layers_of(net, classes), strict=False)
    differ = [
        f"{a} is {_shape(s)} in the file and {_shape(t)} in {net}" for (a, s), (_, t) in pairs if s != t
    ]
    raise InputError(f"{path} is of {own}, not of {net}: {'; '.join(differ[:3])}")


def _words(layers):
    return ", ".join(f"{name} {_shape(shape)}" for name, shape in layers)


def _shape(shape):
    return "x".join(map(str, shape))
