"""Caffe's layers as Keras layers: what each makes of its inputs, what weights it has, and how it is built.

Caffe's maps are [N, C, H, W] and Keras' [N, H, W, C]; axes of a prototxt are Caffe's. A shape here is that of one
picture in Caffe's order: (C, H, W) of a map, (K,) of a vector.

Source: BVLC/caffe src/caffe/proto/caffe.proto and src/caffe/layers/.
"""

from collections.abc import Callable, Sequence

import numpy as np
from keras import layers

from tfcnn.backbones.importers.caffe_message import (
    Layer,
    Part,
    Shape,
    Surroundings,
    decimal,
    flag,
    number,
    pair,
)
from tfcnn.backbones.layers import (
    CaffePooling2D,
    CeilMaxPooling2D,
    GroupedConv2D,
    LocalResponseNormalization,
    SpatialResponseNormalization,
)


def convolution(layer: Layer, shapes: Sequence[Shape], around: Surroundings) -> Part:
    """Convolution, in groups and dilated where it says so."""
    depth, *sides = _map(layer, shapes)
    options = layer.options("convolution_param")
    count, groups = number(layer, options, "num_output", None, 1), number(layer, options, "group", 1, 1)
    kernel, strides = (
        pair(layer, options, "kernel", "kernel_size"),
        pair(layer, options, "stride", "stride", 1),
    )
    pads, dilation = pair(layer, options, "pad", "pad", 0), pair(layer, options, "dilation", "dilation", 1)
    if depth % groups or count % groups:
        raise layer.wrong(f"{depth} channels to {count} cannot be split into {groups} groups")
    extent = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    out = [(i + 2 * p - e) // s + 1 for i, p, e, s in zip(sides, pads, extent, strides, strict=True)]
    bias = flag(options, "bias_term", True)
    same = strides == (1, 1) and all(2 * p == e - 1 for p, e in zip(pads, extent, strict=True))
    dilated_steps = max(dilation) > 1 and max(strides) > 1  # TensorFlow has no such convolution
    common = {
        "strides": (1, 1) if dilated_steps else strides,
        "padding": "same" if same else "valid",
        "dilation_rate": dilation,
        "use_bias": bias,
        "name": layer.keras_name,
    }

    def build(tensors, blobs):
        (x,), kernels = tensors, blobs[0].reshape(count, depth // groups, *kernel)
        if not same and any(pads):
            x = layers.ZeroPadding2D(pads, name=f"{layer.keras_name}_pad")(x)
        if groups == depth > 1 and strides[0] == strides[1]:
            made = layers.DepthwiseConv2D(
                kernel, depth_multiplier=count // depth, depthwise_initializer="zeros", **common
            )
            kernels = kernels.reshape(depth, count // depth, *kernel).transpose(2, 3, 0, 1)
        else:
            kind = GroupedConv2D if groups > 1 else layers.Conv2D
            made = kind(count, kernel, groups=groups, kernel_initializer="zeros", **common)
            kernels = kernels.transpose(2, 3, 1, 0)
        y = made(x)
        made.set_weights([kernels, *(blob.reshape(-1) for blob in blobs[1:])])
        return layers.MaxPooling2D(1, strides, name=f"{layer.keras_name}_steps")(y) if dilated_steps else y

    weights = ((count, depth // groups, *kernel), *(((count,),) if bias else ()))
    return Part(_some(layer, (count, *out)), weights, build, layer.keras_name)


def pooling(layer: Layer, shapes: Sequence[Shape], around: Surroundings) -> Part:
    """Pooling, with Caffe's rounding: its last window may hang over the edge."""
    depth, *sides = _map(layer, shapes)
    options, name = layer.options("pooling_param"), layer.keras_name
    kind = {"MAX": "max", "0": "max", "AVE": "mean", "1": "mean"}.get(str(options.get("pool", ["MAX"])[-1]))
    if kind is None:
        raise layer.wrong(f"pool {options['pool'][-1]} is none of MAX, AVE")
    if flag(options, "global_pooling", False):
        keras_kind = layers.GlobalMaxPooling2D if kind == "max" else layers.GlobalAveragePooling2D
        as_map = around.maps_follow
        shape = (depth, 1, 1) if as_map else (depth,)
        return Part(shape, (), lambda tensors, _: keras_kind(keepdims=as_map, name=name)(tensors[0]))
    window, strides = (
        pair(layer, options, "kernel", "kernel_size"),
        pair(layer, options, "stride", "stride", 1),
    )
    pads = pair(layer, options, "pad", "pad", 0)
    if any(pad >= side for pad, side in zip(pads, window, strict=True)):
        raise layer.wrong("its padding is not smaller than its window")
    ceil = str(options.get("round_mode", ["CEIL"])[-1]) in ("CEIL", "0")
    general = CaffePooling2D(window, strides, pads, kind, ceil, name=name)
    out = general.compute_output_shape((None, *sides, depth))[1:3]
    exact = all((n - 1) * s + w <= i for n, s, w, i in zip(out, strides, window, sides, strict=True))
    made = general
    if not any(pads) and (around.one_size and exact or not ceil or strides == (1, 1)):
        keras_kind = layers.MaxPooling2D if kind == "max" else layers.AveragePooling2D
        made = keras_kind(window, strides, name=name)
    elif kind == "max" and ceil and not any(pads) and len({*window}) == len({*strides}) == 1:
        made = CeilMaxPooling2D(window[0], strides[0], name=name)
    return Part(_some(layer, (depth, *out)), (), lambda tensors, _: made(tensors[0]))


def inner_product(layer: Layer, shapes: Sequence[Shape], around: Surroundings) -> Part:
    """InnerProduct: a dense layer on all of its input."""
    (shape,) = _inputs(layer, shapes, 1)
    options, name = layer.options("inner_product_param"), layer.keras_name
    count, bias = number(layer, options, "num_output", None, 1), flag(options, "bias_term", True)
    transposed = flag(options, "transpose", False)
    if number(layer, options, "axis", 1) != 1:
        raise layer.wrong("its axis is not 1")
    size = int(np.prod(shape))

    def build(tensors, blobs):
        (x,) = tensors
        kernel = blobs[0].reshape(size, count).T if transposed else blobs[0].reshape(count, size)
        if len(shape) == 3:
            x = layers.Flatten(name=f"{name}_flatten")(x)
            kernel = kernel.reshape(count, *shape).transpose(0, 2, 3, 1).reshape(count, size)
        made = layers.Dense(count, use_bias=bias, kernel_initializer="zeros", name=name)
        y = made(x)
        made.set_weights([kernel.T, *(blob.reshape(-1) for blob in blobs[1:])])
        return y

    matrix = (size, count) if transposed else (count, size)
    return Part((count,), (matrix, *(((count,),) if bias else ())), build, name)


def prelu(layer: Layer, shapes: Sequence[Shape], around: Surroundings) -> Part:
    """PReLU: a slope a channel, or one for all."""
    (shape,) = _inputs(layer, shapes, 1)
    shared = flag(layer.options("prelu_param"), "channel_shared", False)

    def build(tensors, blobs):
        axes = [1, 2] if len(shape) == 3 else None
        made = layers.PReLU(shared_axes=axes, name=layer.keras_name)
        y = made(tensors[0])
        slopes = np.broadcast_to(blobs[0].reshape(-1), shape[:1])
        made.set_weights([slopes.reshape(1, 1, -1) if axes else slopes])
        return y

    return Part(shape, ((1,) if shared else shape[:1],), build, layer.keras_name)


def batch_norm(layer: Layer, shapes: Sequence[Shape], around: Surroundings) -> Part:
    """BatchNorm, together with the Scale layer that belongs to it."""
    (shape,) = _inputs(layer, shapes, 1)
    epsilon = decimal(layer, layer.options("batch_norm_param"), "eps", 1e-5)
    bias = layer.scale is not None and flag(layer.scale.options("scale_param"), "bias_term", False)
    scaled = layer.scale is not None

    def build(tensors, blobs):
        mean, variance, factor = (blob.reshape(-1) for blob in blobs[:3])
        factor = 1.0 / factor[0] if factor[0] else 0.0
        made = layers.BatchNormalization(epsilon=epsilon, scale=scaled, center=bias, name=layer.keras_name)
        y = made(tensors[0])
        own = [blob.reshape(-1) for blob in blobs[3:]]
        made.set_weights([*own, mean * factor, variance * factor])
        return y

    channels = shape[:1]
    blobs = (channels, channels, (1,), *((channels,) if scaled else ()), *((channels,) if bias else ()))
    return Part(shape, blobs, build, layer.keras_name)


def scale(layer: Layer, shapes: Sequence[Shape], around: Surroundings) -> Part:
    """Scale without a BatchNorm before it: a factor, and perhaps a shift, a channel."""
    shape = _map(layer, shapes)
    options = layer.options("scale_param")
    bias = flag(options, "bias_term", False)
    if number(layer, options, "axis", 1) != 1 or number(layer, options, "num_axes", 1) != 1:
        raise layer.wrong("only a factor a channel is known")

    def build(tensors, blobs):
        made = layers.DepthwiseConv2D(1, use_bias=bias, depthwise_initializer="ones", name=layer.keras_name)
        y = made(tensors[0])
        made.set_weights([blobs[0].reshape(1, 1, -1, 1), *(blob.reshape(-1) for blob in blobs[1:])])
        return y

    return Part(shape, (shape[:1], *((shape[:1],) if bias else ())), build, layer.keras_name)


def lrn(layer: Layer, shapes: Sequence[Shape], around: Surroundings) -> Part:
    """LRN, across channels or within each."""
    shape = _map(layer, shapes)
    options = layer.options("lrn_param")
    size = number(layer, options, "local_size", 5, 1)
    alpha, beta = decimal(layer, options, "alpha", 1.0), decimal(layer, options, "beta", 0.75)
    if size % 2 == 0:
        raise layer.wrong(f"local_size {size} is even")
    if str(options.get("norm_region", ["ACROSS_CHANNELS"])[-1]) in ("WITHIN_CHANNEL", "1"):
        made = SpatialResponseNormalization(size, alpha, beta, name=layer.keras_name)
    else:
        bias = decimal(layer, options, "k", 1.0)
        made = LocalResponseNormalization(size // 2, bias, alpha / size, beta, name=layer.keras_name)
    return Part(shape, (), lambda tensors, _: made(tensors[0]))


def concat(layer: Layer, shapes: Sequence[Shape], around: Surroundings) -> Part:
    """Concat, by default of channels."""
    options, first = layer.options("concat_param"), shapes[0]
    axis = number(layer, options, "axis", number(layer, options, "concat_dim", 1), 1) - 1
    if axis >= len(first) or any(_without(s, axis) != _without(first, axis) for s in shapes):
        raise layer.wrong(f"{_listed(shapes)} cannot be put together")
    shape = (*first[:axis], sum(s[axis] for s in shapes), *first[axis + 1 :])
    keras_axis = {0: -1, 1: 1, 2: 2}[axis]
    made = layers.Concatenate(keras_axis, name=layer.keras_name)
    return Part(shape, (), lambda tensors, _: made(tensors) if len(tensors) > 1 else tensors[0])


def eltwise(layer: Layer, shapes: Sequence[Shape], around: Surroundings) -> Part:
    """Eltwise: sum, with coefficients, product or maximum of equal shapes."""
    options = layer.options("eltwise_param")
    if len(shapes) < 2 or len(set(shapes)) > 1:
        raise layer.wrong(f"{_listed(shapes)} are not two or more of one shape")
    kinds = {"SUM": layers.Add, "1": layers.Add, "PROD": layers.Multiply, "0": layers.Multiply}
    kinds |= {"MAX": layers.Maximum, "2": layers.Maximum}
    kind = kinds.get(str(options.get("operation", ["SUM"])[-1]))
    coefficients = options.get("coeff", [])
    if kind is None or coefficients and (kind is not layers.Add or len(coefficients) != len(shapes)):
        raise layer.wrong("it is no sum, product or maximum with a coefficient each")

    def build(tensors, _):
        name = layer.keras_name
        factors = coefficients or [1] * len(tensors)
        for index, factor in enumerate(factors):
            if factor != 1:
                tensors[index] = layers.Rescaling(float(factor), name=f"{name}_factor{index}")(tensors[index])
        return kind(name=name)(tensors)

    return Part(shapes[0], (), build)


def flatten(layer: Layer, shapes: Sequence[Shape], around: Surroundings) -> Part:
    """Flatten, in Caffe's order."""
    (shape,) = _inputs(layer, shapes, 1)

    def build(tensors, _):
        (x,) = tensors
        if len(shape) == 3 and max(shape[1:]) > 1:
            x = layers.Permute((3, 1, 2), name=f"{layer.keras_name}_order")(x)
        return layers.Flatten(name=layer.keras_name)(x)

    return Part((int(np.prod(shape)),), (), build)


def softmax(layer: Layer, shapes: Sequence[Shape], around: Surroundings) -> Part:
    """Softmax over channels."""
    (shape,) = _inputs(layer, shapes, 1)
    if number(layer, layer.options("softmax_param"), "axis", 1) != 1:
        raise layer.wrong("it is not over channels")
    return Part(
        shape, (), lambda tensors, _: layers.Softmax(name=layer.keras_name, dtype="float32")(tensors[0])
    )


def relu(layer: Layer, shapes: Sequence[Shape], around: Surroundings) -> Part:
    """ReLU, leaky where it has a slope."""
    slope = decimal(layer, layer.options("relu_param"), "negative_slope", 0.0)
    return _simple(layer, shapes, lambda: layers.ReLU(negative_slope=slope, name=layer.keras_name))


def dropout(layer: Layer, shapes: Sequence[Shape], around: Surroundings) -> Part:
    """Dropout, which does nothing but in training."""
    rate = decimal(layer, layer.options("dropout_param"), "dropout_ratio", 0.5)
    if not 0 <= rate < 1:
        raise layer.wrong(f"dropout_ratio {rate} is not in 0..1")
    return _simple(layer, shapes, lambda: layers.Dropout(rate, name=layer.keras_name))


def squashing(layer: Layer, shapes: Sequence[Shape], around: Surroundings) -> Part:
    """Sigmoid and TanH."""
    return _simple(layer, shapes, lambda: layers.Activation(layer.kind.lower(), name=layer.keras_name))


def split(layer: Layer, shapes: Sequence[Shape], around: Surroundings) -> Part:
    """Split: several names for one blob."""
    return Part(_inputs(layer, shapes, 1)[0], (), lambda tensors, _: tensors[0])


KINDS: dict[str, Callable[[Layer, Sequence[Shape], Surroundings], Part]] = {
    "Convolution": convolution,
    "Pooling": pooling,
    "InnerProduct": inner_product,
    "ReLU": relu,
    "PReLU": prelu,
    "LRN": lrn,
    "Dropout": dropout,
    "Concat": concat,
    "Eltwise": eltwise,
    "BatchNorm": batch_norm,
    "Scale": scale,
    "Softmax": softmax,
    "Flatten": flatten,
    "Sigmoid": squashing,
    "TanH": squashing,
    "Split": split,
}


def _simple(layer, shapes, make):
    (shape,) = _inputs(layer, shapes, 1)
    return Part(shape, (), lambda tensors, _: make()(tensors[0]))


def _inputs(layer, shapes, count):
    if len(shapes) != count:
        raise layer.wrong(f"it has {len(shapes)} inputs, and not {count}")
    return shapes


def _map(layer, shapes):
    (shape,) = _inputs(layer, shapes, 1)
    if len(shape) != 3:
        raise layer.wrong(f"it needs a map and gets a vector of {shape[0]}")
    return shape


def _some(layer, shape):
    if min(shape) < 1:
        raise layer.wrong(f"nothing is left of its map: {'x'.join(map(str, shape))}")
    return shape


def _without(shape, axis):
    return (*shape[:axis], *shape[axis + 1 :])


def _listed(shapes):
    return ", ".join("x".join(map(str, shape)) for shape in shapes)
