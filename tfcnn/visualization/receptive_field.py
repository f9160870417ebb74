"""The part of the picture that a location of a layer's map depends on: exact, from the net's graph.

Along each axis the field of location i is [start + i * stride, start + i * stride + size), in continuous pixels of the
picture that the net sees. A window of k locations, s apart, that begins p before the first makes of it
start - p * stride, stride * s and size + (k - 1) * stride; where branches meet, the field is the smallest interval
that holds those of all. What a net pads with zeros lies outside the picture, so that a field may hang over its edge.
"""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from tfcnn.backbones import rebuilt, tap
from tfcnn.backbones.graph import Call, calls
from tfcnn.backbones.layers import CeilMaxPooling2D, LocalResponseNormalization, Preprocess
from tfcnn.errors import InputError

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
_POOLS = (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)
_GLOBAL_POOLS = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
# Each location of their outputs depends on the same location of their inputs.
_POINTWISE = (
    *(
        keras.layers.Activation,
        keras.layers.ReLU,
        keras.layers.LeakyReLU,
        keras.layers.PReLU,
        keras.layers.ELU,
    ),
    *(
        keras.layers.Softmax,
        keras.layers.BatchNormalization,
        keras.layers.Dropout,
        keras.layers.SpatialDropout2D,
    ),
    *(keras.layers.GaussianNoise, keras.layers.GaussianDropout, keras.layers.ActivityRegularization),
    *(keras.layers.Identity, keras.layers.Rescaling, keras.layers.Normalization, keras.layers.Dense),
    *(keras.layers.Add, keras.layers.Subtract, keras.layers.Multiply, keras.layers.Average),
    *(keras.layers.Maximum, keras.layers.Minimum, Preprocess, LocalResponseNormalization),
)
_POINTWISE_OPS = frozenset(  # of keras.ops and keras.activations
    "Relu Relu6 ReLU LeakyRelu Elu Selu Silu Gelu Sigmoid Tanh Softplus HardSigmoid HardSilu LogSigmoid Add Subtract "
    "Multiply Divide TrueDivide Maximum Minimum Negative Absolute Square Sqrt Rsqrt Exp Log Power Clip Cast "
    "ConvertToTensor".split()
)


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """What the locations of a map depend on; each pair is (along y, along x), in pixels of the net's picture.

    Attributes:
        size: height and width of a location's field.
        stride: from one location's field to the next; 0 where every location sees the whole picture.
        offset: the centre of the field of the first location (.5 is the centre of pixel 0).
        picture: height and width of the picture.
    """

    size: tuple[float, float]
    stride: tuple[float, float]
    offset: tuple[float, float]
    picture: tuple[int, int]

    def boxes(self, rows: np.ndarray, columns: np.ndarray, clip: bool = False) -> np.ndarray:
        """The fields of locations as boxes.

        Args:
            rows, columns: [n], whole numbers.
            clip: cut off what lies outside the picture.

        Returns:
            float32 [n, 4] (x1, y1, x2, y2).
        """
        y = self.offset[0] + np.asarray(rows) * self.stride[0] - self.size[0] / 2
        x = self.offset[1] + np.asarray(columns) * self.stride[1] - self.size[1] / 2
        boxes = np.stack([x, y, x + self.size[1], y + self.size[0]], axis=-1)
        boxes = np.clip(boxes, 0, [*self.picture[::-1], *self.picture[::-1]]) if clip else boxes
        return boxes.astype(np.float32)


def receptive_field(
    model: keras.Model, layer: str, size: int | Sequence[int] | None = None
) -> ReceptiveField:
    """Gives the receptive field of a layer's locations.

    After layers that enlarge a map, locations have fields of several sizes; the one given holds each of them.

    Args:
        model: a flat functional model of pictures.
        layer: one of its layers or endpoints.
        size: side, or height and width, of the picture in pixels, on which "same" padding and so the offset depend;
            None takes the model's own.

    Returns:
        The field. A layer without locations (dense, pooled over the picture) sees the whole picture.

    Raises:
        InputError: there is no such layer, the model is open to any size and none is given, or what a layer below
            does to locations is not known; it is named.

    Source: Araujo, Norris, Sim, Computing Receptive Fields of Convolutional Neural Networks, Distill 2019.
    """
    model = tap(model, [layer])
    height, width = (size, size) if isinstance(size, int) else size or model.input_shape[1:3]
    if height is None or width is None:
        raise InputError(
            f"{model.name} takes pictures of any size: say for which the field of {layer} is wanted"
        )
    if model.input_shape[1:3] != (height, width):
        picture = keras.Input((height, width, model.input_shape[-1]), name="image")
        model = rebuilt(model, lambda same: same, inputs=picture)
    known: dict[
        int, tuple[tuple, tuple]
    ] = {}  # of each tensor, an axis each: (start, stride, size), or whole
    whole = tuple((0.0, 0.0, float(side)) for side in (height, width))
    for call in calls(model):
        fields = [known[id(tensor)] for tensor in call.inputs]
        for tensor in call.outputs:
            known[id(tensor)] = _after(call, tensor, fields, whole)
    axes = known[id(model.output[layer])]
    centres = tuple(start + extent / 2 for start, _, extent in axes)
    strides, sizes = (tuple(axis[part] for axis in axes) for part in (1, 2))
    return ReceptiveField(sizes, strides, centres, (height, width))


def _after(call: Call, output: keras.KerasTensor, fields: list, whole: tuple) -> tuple:
    """The field of a call's output from those of its inputs."""
    operation, kind = call.operation, type(call.operation).__name__
    if not fields:
        return ((0.0, 1.0, 1.0),) * 2
    if whole in fields or len(output.shape) != 4 or isinstance(operation, _GLOBAL_POOLS):
        return whole
    along_channels = isinstance(operation, keras.layers.Concatenate | keras.layers.LayerNormalization) or (
        kind == "Concatenate"
    )
    if along_channels and operation.axis in (-1, 3, [-1], [3], (3,)):
        return _merged(operation, fields)
    if isinstance(operation, _POINTWISE) or kind in _POINTWISE_OPS:
        return _merged(operation, fields)
    windows = _windows(operation, call.inputs[0].shape[1:3])
    if windows is None:
        raise InputError(
            f"the receptive field above {operation.name} is not known: what a {kind} does to locations is not"
        )
    return tuple(
        (start + first * stride, step * stride, extent + (count - 1) * stride)
        for (start, stride, extent), (first, step, count) in zip(fields[0], windows, strict=True)
    )


def _merged(operation: keras.Operation, fields: list) -> tuple:
    """The smallest field that holds those of all branches."""
    merged = []
    for axis in zip(*fields, strict=True):
        strides = {stride for _, stride, _ in axis}
        if len(strides) > 1:
            raise InputError(
                f"{operation.name} joins maps whose locations are {sorted(strides)} pixels apart"
            )
        start = min(start for start, _, _ in axis)
        merged.append((start, strides.pop(), max(begin + extent for begin, _, extent in axis) - start))
    return tuple(merged)


def _windows(operation: keras.Operation, sides: Sequence[int]) -> list[tuple[float, float, float]] | None:
    """Along each axis: the input location where the first window begins, the step to the next, locations a window."""
    if getattr(operation, "data_format", None) == "channels_first":
        return None
    if isinstance(operation, keras.layers.Conv2DTranspose):
        return [
            (
                (_same_before(side * step, reach, step, operation.padding) - reach + 1) / step,
                1 / step,
                1 + (reach - 1) / step,
            )
            for side, reach, step in zip(sides, _reach(operation), operation.strides, strict=True)
        ]
    if isinstance(operation, (*_CONVOLUTIONS, *_POOLS)):
        return [
            (-_same_before(side, reach, step, operation.padding), step, reach)
            for side, reach, step in zip(sides, _reach(operation), operation.strides, strict=True)
        ]
    if isinstance(operation, CeilMaxPooling2D):  # what hangs over hangs over the end
        return [(0, operation.strides, operation.pool_size)] * 2
    if isinstance(operation, keras.layers.ZeroPadding2D):
        return [(-before, 1, 1) for before, _ in operation.padding]
    if isinstance(operation, keras.layers.Cropping2D):
        return [(before, 1, 1) for before, _ in operation.cropping]
    if isinstance(operation, keras.layers.UpSampling2D) and operation.interpolation == "nearest":
        return [(-(step - 1) / step, 1 / step, 1 + (step - 1) / step) for step in operation.size]
    return None


def _reach(operation):
    """Locations from a window's first to its last, both counted, holes of a dilated one included."""
    sizes = operation.pool_size if isinstance(operation, _POOLS) else operation.kernel_size
    dilations = getattr(operation, "dilation_rate", (1, 1))
    return [(size - 1) * dilation + 1 for size, dilation in zip(sizes, dilations, strict=True)]


def _same_before(side, reach, step, padding):
    """Zeros that TensorFlow's "same" puts before the first location."""
    return max(0, (-(-side // step) - 1) * step + reach - side) // 2 if padding == "same" else 0
