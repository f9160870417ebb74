"""A layer of a prototxt, what it is in a net, and its options read from its message."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from tfcnn.backbones.importers.protobuf import Message
from tfcnn.errors import InputError

Shape = tuple[int, ...]  # of one picture or of weights, in Caffe's order


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of a prototxt; `scale` is the Scale layer that belongs to a BatchNorm, `keras_name` is unique."""

    name: str
    kind: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    message: Message
    scale: "Layer | None" = None
    keras_name: str = ""

    def options(self, field: str) -> Message:
        """The message of its parameters."""
        found = self.message.get(field, [{}])[-1]
        if not isinstance(found, dict):
            raise self.wrong(f"{field} is no message")
        return found

    def wrong(self, what: str) -> InputError:
        """The error that names this layer."""
        return InputError(f"the layer {self.name} ({self.kind}): {what}")


@dataclasses.dataclass(frozen=True)
class Part:
    """What a layer is in a net.

    Attributes:
        shape: of its output.
        blobs: shapes of the weights that it takes from the file.
        build: makes its output from its input tensors and its weights.
        kernel: name of the Keras layer that holds the weights.
    """

    shape: Shape
    blobs: tuple[Shape, ...]
    build: Callable[[list[keras.KerasTensor], list[np.ndarray]], keras.KerasTensor]
    kernel: str = ""


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What a layer may know of its net: whether its pictures have one size, and whether maps follow."""

    one_size: bool
    maps_follow: bool


def number(layer: Layer, options: Message, field: str, default: int | None, least: int = 0) -> int:
    """Gives a whole number of a layer's options.

    Args:
        layer: for the message.
        options: of the layer.
        field: its name.
        default: where it is not given; None where it must be.
        least: the smallest that makes sense.

    Raises:
        InputError: it is missing, no whole number, or too small.
    """
    value = options.get(field, [default])[-1]
    if not isinstance(value, int) or value < least:
        raise layer.wrong(f"{field} is {value}" if value is not None else f"it has no {field}")
    return value


def decimal(layer: Layer, options: Message, field: str, default: float) -> float:
    """Gives a number of a layer's options; arguments and errors as of `number`."""
    value = options.get(field, [default])[-1]
    if not isinstance(value, int | float):
        raise layer.wrong(f"{field} is {value}")
    return float(value)


def flag(options: Message, field: str, default: bool) -> bool:
    """Whether an option is true."""
    return str(options.get(field, [default])[-1]).lower() in ("true", "1")


def pair(
    layer: Layer, options: Message, stem: str, field: str, default: int | None = None
) -> tuple[int, int]:
    """Gives (height, width) from `stem_h` and `stem_w`, or from the field that is given once or twice; as `number`."""
    if f"{stem}_h" in options or f"{stem}_w" in options:
        values = [options.get(f"{stem}_{side}", [default])[-1] for side in "hw"]
    else:
        given = options.get(field) or [default]
        values = given if len(given) == 2 else [given[0]] * 2
    least = 0 if stem == "pad" else 1
    if any(not isinstance(value, int) or value < least for value in values):
        raise layer.wrong(f"{field} is {values[0]}" if values[0] is not None else f"it has no {field}")
    return tuple(values)
