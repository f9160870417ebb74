"""What the layers of Keras 1, and of Keras 2 on Theano, are in Keras 3: names, arguments, and the order of weights.

Maps have their channels last: shapes are [N, h, w, C] here, and [N, C, h, w] in a file whose channels are first.
Regularizers, constraints and initializers, which act in training alone, are left out.

Source: Keras 1.2.2, keras/layers and keras/backend/theano_backend.py; Keras 2's keras/legacy/interfaces.py.
"""

from collections.abc import Callable

import keras
import numpy as np

from tfcnn.backbones.importers.keras1_names import Made, Old, Shape

SIDES_OF_PADDING = (("top_pad", "bottom_pad"), ("left_pad", "right_pad"))
ACTIVATIONS = {
    "linear",
    "relu",
    "elu",
    "selu",
    "softplus",
    "softsign",
    "tanh",
    "sigmoid",
    "softmax",
    "hard_sigmoid",
}


def unread(kind: str, config: dict) -> str | None:
    """What is not read of a layer: its class, or one way in which it works; None where it is read."""
    if kind == "Merge":
        mode = config.get("mode")
        if config.get("layers"):
            return "Merge of whole models"
        known = config.get("mode_type", "raw") == "raw" and mode in MODES
        return None if known else f"Merge of mode {mode if config.get('mode_type') == 'raw' else 'function'}"
    if kind == "BatchNormalization" and config.get("mode", 0) != 0:
        return f"BatchNormalization of mode {config['mode']}"
    activation = config.get("activation") or "linear"
    if kind in KINDS and str(activation) not in ACTIVATIONS:
        return f"{kind} of the activation {activation}"
    return None if kind in KINDS or kind in JOINS or kind in ("InputLayer", "Flatten") else kind


# ------------------------------------------------------------------------------- layers with weights


def _activation(old: Old, shape: Shape) -> tuple[str, list[keras.layers.Layer]]:
    """The activation as Keras 3 has it, and layers after it for one that Keras 3 has no more."""
    name = old.config.get("activation") or "linear"
    if name == "hard_sigmoid":  # 0.2 x + 0.5 in Keras 1 and 2, x / 6 + 0.5 in Keras 3
        scaled = keras.layers.Rescaling(0.2, 0.5, name=f"{old.name}_rescaling")
        return "linear", [scaled, keras.layers.ReLU(max_value=1.0, name=f"{old.name}_relu")]
    if name == "softmax" and old.first and len(shape) > 3:
        raise old.refused("is a softmax over the columns of a map")
    return name, []


def _flipped(old: Old, kernel: np.ndarray, count: int) -> np.ndarray:
    """Theano convolves where TensorFlow correlates: its kernels are turned by 180 degrees."""
    return np.flip(kernel, tuple(range(count))) if old.theano else kernel


def _bias(old: Old, size: int) -> list[list[Shape]]:
    return [[(size,)]] if old.config.get("use_bias", True) is not False else []


def _padding(old: Old) -> str:
    padding = old.config.get("padding", "valid")
    if padding not in ("valid", "same"):
        raise old.refused(f"has the border mode {padding!r}, which is not read")
    return padding


def _convolution(old: Old, shape: Shape) -> Made:
    n = int(old.kind[-2])
    (filters,) = old.numbers("filters", 1)
    kernel, strides = old.numbers("kernel_size", n), old.numbers("strides", n, 1)
    dilation = old.numbers("dilation_rate", n, 1)
    padding, before = _padding(old), []
    sizes = [(side - 1) * rate + 1 for side, rate in zip(kernel, dilation, strict=True)]
    if (
        padding == "same"
        and old.theano
        and any(s > 1 or size % 2 == 0 for s, size in zip(strides, sizes, strict=True))
    ):
        # Theano pads both sides by half a kernel, TensorFlow by what the strides need, the smaller part first
        pads = [(size // 2, (size - 1) // 2) for size in sizes]
        kind = getattr(keras.layers, f"ZeroPadding{n}D")
        before, padding = [kind(pads[0] if n == 1 else pads, name=f"{old.name}_theano_padding")], "valid"
    activation, after = _activation(old, shape)
    bias = _bias(old, filters)
    layer = getattr(keras.layers, old.kind)(
        filters,
        kernel,
        strides=strides,
        padding=padding,
        dilation_rate=dilation,
        activation=activation,
        use_bias=bool(bias),
        name=old.name,
    )
    channels = shape[-1]
    forms = [(*kernel, channels, filters)]
    if old.keras_1 and n == 1:
        forms = [(*kernel, 1, channels, filters), (filters, channels, *kernel, 1)]  # the second before 1.2
    elif old.keras_1 and old.first:
        forms = [(filters, channels, *kernel)]

    def convert(arrays):
        values, *rest = arrays
        if old.keras_1 and n == 1:
            values = values if values.shape == forms[0] else values.transpose(2, 3, 1, 0)
            values = values[:, 0]
        elif old.keras_1 and old.first:
            values = np.moveaxis(values, (0, 1), (-1, -2))
        return [_flipped(old, values, n), *rest]

    return Made([*before, layer, *after], layer, [forms, *bias], convert)


def _deconvolution(old: Old, shape: Shape) -> Made:
    (filters,) = old.numbers("filters", 1)
    kernel, strides = old.numbers("kernel_size", 2), old.numbers("strides", 2, 1)
    padding = _padding(old)
    if old.theano and padding == "same" and (max(strides) > 1 or any(side % 2 == 0 for side in kernel)):
        raise old.refused("pads as only Theano does")
    activation, after = _activation(old, shape)
    bias = _bias(old, filters)
    layer = keras.layers.Conv2DTranspose(
        filters,
        kernel,
        strides=strides,
        padding=padding,
        output_padding=_output_padding(old, shape, kernel, strides, padding),
        activation=activation,
        use_bias=bool(bias),
        name=old.name,
    )
    channels = shape[-1]
    forms = [(*kernel, filters, channels)]
    if old.keras_1:
        forms = [(filters, channels, *kernel) if old.first else (*kernel, channels, filters)]

    def convert(arrays):
        values, *rest = arrays
        if old.keras_1:
            values = values.transpose((2, 3, 0, 1) if old.first else (0, 1, 3, 2))
        return [_flipped(old, values, 2), *rest]

    return Made([layer, *after], layer, [forms, *bias], convert)


def _output_padding(old: Old, shape, kernel, strides, padding) -> list[int] | None:
    """What Keras 1's output_shape adds to the smallest map; None where it is Keras 3's own size."""
    wanted = old.config.get("output_shape")
    if not old.keras_1 or wanted is None or None in shape[1:3]:
        return None
    wanted = list(wanted)[2:4] if old.first else list(wanted)[1:3]
    usual, added = [], []
    for size, side, stride, total in zip(shape[1:3], kernel, strides, wanted, strict=True):
        usual.append(size * stride + (max(side - stride, 0) if padding == "valid" else 0))
        added.append(total - (size - 1) * stride - side + (2 * (side // 2) if padding == "same" else 0))
    if wanted == usual:
        return None
    if not all(0 <= add < stride for add, stride in zip(added, strides, strict=True)):
        raise old.refused(f"has the output shape {old.config['output_shape']}, which is not read")
    return added


def _separable(old: Old, shape: Shape) -> Made:
    if old.theano:
        raise old.refused("is a separable convolution of Theano, which is not read")
    (filters,), (depth,) = old.numbers("filters", 1), old.numbers("depth_multiplier", 1, 1)
    kernel, strides = old.numbers("kernel_size", 2), old.numbers("strides", 2, 1)
    activation, after = _activation(old, shape)
    bias = _bias(old, filters)
    layer = keras.layers.SeparableConv2D(
        filters,
        kernel,
        strides=strides,
        padding=_padding(old),
        depth_multiplier=depth,
        activation=activation,
        use_bias=bool(bias),
        name=old.name,
    )
    channels = shape[-1]
    forms = [[(*kernel, channels, depth)], [(1, 1, depth * channels, filters)]]
    if old.first:
        forms = [[(depth, channels, *kernel)], [(filters, depth * channels, 1, 1)]]

    def convert(arrays):
        if not old.first:
            return arrays
        return [values.transpose(2, 3, 1, 0) for values in arrays[:2]] + arrays[2:]

    return Made([layer, *after], layer, [*forms, *bias], convert)


def _dense(old: Old, shape: Shape) -> Made:
    (units,) = old.numbers("units", 1)
    if len(shape) > 3 and old.first:
        raise old.refused("is dense over the columns of a map")
    activation, after = _activation(old, shape)
    bias = _bias(old, units)
    layer = keras.layers.Dense(units, activation=activation, use_bias=bool(bias), name=old.name)
    return Made([layer, *after], layer, [[(shape[-1], units)], *bias])


def _batch_norm(old: Old, shape: Shape) -> Made:
    axis = old.config.get("axis", -1)
    axis = old.axis(axis[0] if isinstance(axis, list) else axis, len(shape))
    scale, center = (old.config.get(name, True) is not False for name in ("scale", "center"))
    epsilon = float(old.config.get("epsilon", 1e-3))
    layer = keras.layers.BatchNormalization(
        axis, epsilon=epsilon, scale=scale, center=center, name=old.name
    )  # what Keras 1 calls running_std is a variance
    return Made([layer], layer, [[(shape[axis],)]] * (2 + scale + center))


def _prelu(old: Old, shape: Shape) -> Made:
    shared = [old.axis(axis, len(shape)) for axis in old.config.get("shared_axes") or ()]
    layer = keras.layers.PReLU(shared_axes=shared or None, name=old.name)
    size = [1 if axis in shared else side for axis, side in enumerate(shape)][1:]
    if old.first and len(shape) > 3:
        return Made([layer], layer, [[(size[-1], *size[:-1])]], lambda a: [np.moveaxis(a[0], 0, -1)])
    return Made([layer], layer, [[tuple(size)]])


# ---------------------------------------------------------------------------- layers without weights


def _pooling(old: Old, shape: Shape) -> Made:
    n = int(old.kind[-2])
    size = old.numbers("pool_size", n, 2)
    strides = size if old.config.get("strides") is None else old.numbers("strides", n)
    padding = _padding(old)
    same = all(side == 1 or side == 3 and stride == 1 for side, stride in zip(size, strides, strict=True))
    if old.theano and padding == "same" and not same:
        raise old.refused("pads as only Theano does")
    return Made([getattr(keras.layers, old.kind)(size, strides=strides, padding=padding, name=old.name)])


def _global_pooling(old: Old, _: Shape) -> Made:
    return Made([getattr(keras.layers, old.kind)(name=old.name)])


def _zero_padding(old: Old, _: Shape) -> Made:
    n = int(old.kind[-2])
    pads = old.config.get("padding", 1)
    if isinstance(pads, dict):
        sides = (("left_pad", "right_pad"),) if n == 1 else SIDES_OF_PADDING
        pads = [[pads.get(side, 0) for side in pair] for pair in sides]
        pads = pads[0] if n == 1 else pads
    elif n == 2 and isinstance(pads, list) and len(pads) == 4:
        pads = [pads[:2], pads[2:]]
    return Made([getattr(keras.layers, old.kind)(pads, name=old.name)])


def _cropping(old: Old, _: Shape) -> Made:
    return Made([getattr(keras.layers, old.kind)(old.config["cropping"], name=old.name)])


def _up_sampling(old: Old, _: Shape) -> Made:
    n = int(old.kind[-2])
    if old.config.get("interpolation", "nearest") != "nearest":
        raise old.refused(f"interpolates by {old.config['interpolation']!r}, which is not read")
    size = old.numbers("size", n, 2)
    return Made([getattr(keras.layers, old.kind)(size[0] if n == 1 else size, name=old.name)])


def _activation_layer(old: Old, shape: Shape) -> Made:
    activation, after = _activation(old, shape)
    return Made([keras.layers.Activation(activation, name=old.name), *after])


def _rectifier(old: Old, _: Shape) -> Made:
    """A layer of one number; Keras 1's ThresholdedReLU is one of Keras 3's ReLU."""
    alpha = float(old.config.get("alpha", 0.3 if old.kind == "LeakyReLU" else 1.0))
    if old.kind == "LeakyReLU":
        return Made([keras.layers.LeakyReLU(negative_slope=alpha, name=old.name)])
    if old.kind == "ELU":
        return Made([keras.layers.ELU(alpha, name=old.name)])
    if old.kind == "ThresholdedReLU":
        return Made([keras.layers.ReLU(threshold=float(old.config.get("theta", 1.0)), name=old.name)])
    taken = {key: old.config.get(key) for key in ("max_value", "negative_slope", "threshold")}
    return Made([keras.layers.ReLU(**{k: v for k, v in taken.items() if v is not None}, name=old.name)])


def _noise(old: Old, _: Shape) -> Made:
    rate = float(old.config["stddev" if old.kind == "GaussianNoise" else "rate"])
    return Made([getattr(keras.layers, old.kind)(rate, name=old.name)])


def _identity(old: Old, _: Shape) -> Made:
    return Made([keras.layers.Identity(name=old.name)])


def _reshaped(old: Old, _: Shape) -> Made:
    field = {"Reshape": "target_shape", "Permute": "dims", "RepeatVector": "n"}[old.kind]
    return Made([getattr(keras.layers, old.kind)(old.config[field], name=old.name)])


ELEMENTWISE = {  # keep the order of a flattened map, whatever it is
    "Activation": _activation_layer,
    "LeakyReLU": _rectifier,
    "ELU": _rectifier,
    "ThresholdedReLU": _rectifier,
    "ReLU": _rectifier,
    "ActivityRegularization": _identity,
    **dict.fromkeys(("Dropout", "GaussianDropout", "GaussianNoise"), _noise),
}
IN_FILE_ORDER = dict.fromkeys(("Reshape", "Permute", "RepeatVector"), _reshaped)
KINDS: dict[str, Callable[[Old, Shape], Made]] = {
    **ELEMENTWISE,
    **IN_FILE_ORDER,
    "Conv2DTranspose": _deconvolution,
    "SeparableConv2D": _separable,
    "Dense": _dense,
    "BatchNormalization": _batch_norm,
    "PReLU": _prelu,
}
for _n in (1, 2, 3):
    KINDS |= {f"Conv{_n}D": _convolution, f"SpatialDropout{_n}D": _noise, f"UpSampling{_n}D": _up_sampling}
    KINDS |= {f"ZeroPadding{_n}D": _zero_padding, f"Cropping{_n}D": _cropping}
    for _how in ("Max", "Average"):
        KINDS |= {f"{_how}Pooling{_n}D": _pooling, f"Global{_how}Pooling{_n}D": _global_pooling}

MODES = {"sum": "Add", "mul": "Multiply", "ave": "Average", "max": "Maximum", "concat": "Concatenate"}
JOINS = {*MODES.values()}  # Keras 2's classes for the modes of Keras 1's Merge


def joined(old: Old, rank: int) -> keras.layers.Layer:
    """A Merge of Keras 1, or the layer of Keras 2 in its place, for tensors of `rank` dimensions."""
    kind = MODES[old.config["mode"]] if old.kind == "Merge" else old.kind
    if kind != "Concatenate":
        return getattr(keras.layers, kind)(name=old.name)
    axis = old.config.get("concat_axis" if old.kind == "Merge" else "axis", -1)
    return keras.layers.Concatenate(old.axis(axis, rank), name=old.name)
