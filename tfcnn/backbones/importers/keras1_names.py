"""How Keras 1 names layers, arguments and the order of axes; Keras 2's names and Keras 3's beside them.

Source: Keras 1.2.2, keras/layers; Keras 2's keras/legacy/interfaces.py.
"""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np

from tfcnn.errors import InputError

Shape = tuple[int | None, ...]

CLASSES = {  # Keras 1's name: Keras 3's
    **{f"Convolution{n}D": f"Conv{n}D" for n in (1, 2, 3)},
    **{f"AtrousConv{end}": f"Conv{end[-2:]}" for end in ("olution1D", "olution2D", "1D", "2D")},
    "Deconvolution2D": "Conv2DTranspose",
    "Deconv2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
}
FIELDS = {  # Keras 1's name: Keras 2's
    "nb_filter": "filters",
    "output_dim": "units",
    "border_mode": "padding",
    "subsample": "strides",
    "subsample_length": "strides",
    "stride": "strides",
    "filter_length": "kernel_size",
    "pool_length": "pool_size",
    "length": "size",
    "atrous_rate": "dilation_rate",
    "bias": "use_bias",
    "p": "rate",
    "sigma": "stddev",
    "dim_ordering": "data_format",
}
SIDES = (("nb_row", "nb_col"), ("kernel_dim1", "kernel_dim2", "kernel_dim3"))
ORDERS = {"th": True, "channels_first": True, "tf": False, "channels_last": False}  # are the channels first?


@dataclasses.dataclass(frozen=True)
class Old:
    """A layer as the file describes it.

    Attributes:
        kind: Keras 3's name of its class.
        label: its name in the file; `name` is the one in the model.
        config: with Keras 2's names of the arguments.
        keras_1: whether Keras 1 wrote it; else Keras 2.
        first: whether the file's maps are [N, C, h, w].
        theano: whether Theano computed it, which flips kernels and pads in its own way.
    """

    kind: str
    label: str
    name: str
    config: dict
    keras_1: bool
    first: bool
    theano: bool

    def refused(self, why: str) -> InputError:
        return InputError(f"the layer {self.label} {why}")

    def numbers(self, field: str, count: int, default: int | None = None) -> tuple[int, ...]:
        """A size, one number or one for each of `count` dimensions."""
        value = self.config.get(field)
        value = default if value is None else value
        values = tuple(value) if isinstance(value, list | tuple) else (value,) * count
        if len(values) != count or not all(isinstance(each, int) and each > 0 for each in values):
            raise self.refused(f"has the {field} {value!r}")
        return values

    def axis(self, axis: int, rank: int) -> int:
        """An axis of the file's order in the model's."""
        axis += rank if axis < 0 else 0
        if not self.first or rank < 4 or axis == 0:
            return axis
        return rank - 1 if axis == 1 else axis - 1


@dataclasses.dataclass
class Made:
    """What a layer becomes.

    Attributes:
        steps: layers of Keras 3, one after the other.
        holder: the one of them that has the weights.
        shapes: of each array in the file, the shapes that it may have.
        convert: turns the file's arrays into the holder's weights.
    """

    steps: list[keras.layers.Layer]
    holder: keras.layers.Layer | None = None
    shapes: Sequence[Sequence[Shape]] = ()
    convert: Callable[[list[np.ndarray]], list[np.ndarray]] = list


def class_of(name: str) -> str:
    """Gives the name that Keras 2 and 3 have for a class of Keras 1."""
    return CLASSES.get(name, name)


def renamed(config: dict) -> dict:
    """A layer's arguments with Keras 2's names."""
    new = {FIELDS.get(name, name): value for name, value in config.items()}
    for sides in SIDES:
        if all(side in config for side in sides):
            new["kernel_size"] = [config[side] for side in sides]
    return new


def slots(kind: str, config: dict) -> tuple[int, int]:
    """How many arrays a layer has that are trained, and that are not.

    Args:
        kind: Keras 3's name of its class.
        config: with Keras 2's names.
    """
    bias = int(config.get("use_bias", True) is not False)
    if kind == "BatchNormalization":
        return sum(config.get(name, True) is not False for name in ("scale", "center")), 2
    if kind == "SeparableConv2D":
        return 2 + bias, 0
    if kind in ("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "Dense"):
        return 1 + bias, 0
    return int(kind == "PReLU"), 0
