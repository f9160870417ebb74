"""Layers that the nets need and Keras lacks."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfcnn.backbones.rows import Preprocessing
from tfcnn.errors import InputError

LUMA = (0.299, 0.587, 0.114)


@keras.saving.register_keras_serializable(package="tfcnn")
class Preprocess(keras.layers.Layer):
    """Turns RGB values of 0..255 into what a net was trained on: (value - mean) / scale, in its order.

    It computes in float32 whatever the precision of the net: half floats hold no tenth of a level at 200.

    Args:
        order: "rgb", "bgr", or "grey" for a net of one channel, the luma of ITU-R BT.601.
        mean: three values in the order red, green, blue.
        scale: three values in the same order.
    """

    def __init__(
        self,
        order: str = "rgb",
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        scale: Sequence[float] = (1.0, 1.0, 1.0),
        **kwargs,
    ):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.order, self.mean, self.scale = order, tuple(mean), tuple(scale)

    @property
    def zero_rgb(self) -> np.ndarray:
        """The colour (float32 [3], RGB, 0..255) that the net sees as zero."""
        return np.asarray(self.mean, np.float32)

    def call(self, image: tf.Tensor) -> tf.Tensor:
        mean, scale = (_one_if_equal(values) for values in (self.mean, self.scale))
        x = (image - mean) / scale
        if self.order == "grey":
            return tf.reduce_sum(x * LUMA, axis=-1, keepdims=True)
        return x[..., ::-1] if self.order == "bgr" else x

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], 1) if self.order == "grey" else input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "order": self.order, "mean": self.mean, "scale": self.scale}


def _one_if_equal(values):
    """Float32 [3], or one number where all are equal: LiteRT is slow with constants of three."""
    return np.float32(values[0]) if len(set(values)) == 1 else np.asarray(values, np.float32)


def preprocess(how: Preprocessing) -> Preprocess:
    """Makes the first layer of a net from the table's description."""
    return Preprocess(how.order, how.mean, how.scale, name="preprocess")


def preprocessed(
    how: Preprocessing, wanted: keras.KerasTensor
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Makes the picture that a net shall take in the place of its own input.

    Args:
        how: what is done to the picture first.
        wanted: the net's own input, [N, height, width, C].

    Returns:
        (the picture [N, height, width, 3], what becomes of it [N, height, width, C]).

    Raises:
        InputError: the net's input is no picture, or has another number of channels.
    """
    if len(wanted.shape) != 4:
        raise InputError(f"the net reads {wanted.shape}, and no picture that could be preprocessed")
    image = keras.Input(batch_shape=(*wanted.shape[:-1], 3), dtype=wanted.dtype, name=wanted.name)
    x, depth = preprocess(how)(image), wanted.shape[-1]
    if depth not in (x.shape[-1], None):
        orders = {1: "grey", 3: "rgb or bgr"}.get(depth, "none")
        raise InputError(
            f"the net reads {depth} channels, and pictures in the order {how.order} have {x.shape[-1]}: the "
            f"channels are {orders}"
        )
    return image, x


@keras.saving.register_keras_serializable(package="tfcnn")
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each value by (bias + alpha * sum of squares of its neighbouring channels) ^ beta.

    The defaults are Caffe's (n 5, alpha 1e-4, k 1), whose alpha is divided by n.

    Source: BVLC/caffe src/caffe/layers/lrn_layer.cpp; Krizhevsky et al. (2012) section 3.3.
    """

    def __init__(
        self,
        depth_radius: int = 2,
        bias: float = 1.0,
        alpha: float = 2e-5,
        beta: float = 0.75,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.depth_radius, self.bias, self.alpha, self.beta = depth_radius, bias, alpha, beta

    def call(self, x: tf.Tensor) -> tf.Tensor:
        exact = tf.cast(x, tf.float32)  # there is no kernel for bfloat16, and squares leave float16
        y = tf.nn.local_response_normalization(exact, self.depth_radius, self.bias, self.alpha, self.beta)
        return tf.cast(y, x.dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "depth_radius": self.depth_radius,
            "bias": self.bias,
            "alpha": self.alpha,
            "beta": self.beta,
        }


@keras.saving.register_keras_serializable(package="tfcnn")
class CeilMaxPooling2D(keras.layers.Layer):
    """Max pooling as Caffe does it: the last window may hang over the right and the lower edge.

    Source: BVLC/caffe src/caffe/layers/pooling_layer.cpp.
    """

    def __init__(self, pool_size: int, strides: int, **kwargs):
        super().__init__(**kwargs)
        self.pool_size, self.strides = pool_size, strides

    def call(self, x: tf.Tensor) -> tf.Tensor:
        overhang = [self._overhang(size) for size in ops.shape(x)[1:3]]
        x = tf.pad(x, [(0, 0), (0, overhang[0]), (0, overhang[1]), (0, 0)], constant_values=x.dtype.min)
        return tf.nn.max_pool2d(x, self.pool_size, self.strides, "VALID")

    def _overhang(self, size):
        return (self.pool_size - size) % self.strides

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        def pooled(size):
            return (
                None if size is None else (size + self._overhang(size) - self.pool_size) // self.strides + 1
            )

        batch, height, width, channels = input_shape
        return batch, pooled(height), pooled(width), channels

    def get_config(self) -> dict:
        return {**super().get_config(), "pool_size": self.pool_size, "strides": self.strides}


@keras.saving.register_keras_serializable(package="tfcnn")
class GroupedConv2D(keras.layers.Conv2D):
    """A convolution in groups that share no channels, computed group by group.

    Keras' own compiles for each size of picture anew (XLA), and not at all where XLA is missing.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        parts = zip(ops.split(inputs, self.groups, -1), ops.split(kernel, self.groups, -1), strict=True)
        return ops.concatenate(
            [
                ops.conv(
                    part, weights, list(self.strides), self.padding, self.data_format, self.dilation_rate
                )
                for part, weights in parts
            ],
            -1,
        )


@keras.saving.register_keras_serializable(package="tfcnn")
class CaffePooling2D(keras.layers.Layer):
    """Caffe's pooling in full: padding, windows that hang over the edge, and means that count the padding they cover.

    A window may hang over the right and the lower edge, and one that would lie in the padding alone is left out. The
    mean of a window is its sum divided by its area inside the padded picture.

    Args:
        pool_size, strides, pads: (height, width) in pixels; pads are on both sides.
        mode: "max" or "mean".
        ceil: let windows hang over the edge.

    Source: BVLC/caffe src/caffe/layers/pooling_layer.cpp.
    """

    def __init__(
        self,
        pool_size: Sequence[int],
        strides: Sequence[int] = (1, 1),
        pads: Sequence[int] = (0, 0),
        mode: str = "max",
        ceil: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.pool_size, self.strides, self.pads = tuple(pool_size), tuple(strides), tuple(pads)
        self.mode, self.ceil = mode, ceil

    def call(self, x: tf.Tensor) -> tf.Tensor:
        sizes = ops.shape(x)[1:3]
        counts = [self._count(size, axis) for axis, size in enumerate(sizes)]
        before = [(0, 0), *((pad, 0) for pad in self.pads), (0, 0)]
        for axis, size in enumerate(sizes):
            reach = (counts[axis] - 1) * self.strides[axis] + self.pool_size[axis]
            after = reach - size - self.pads[axis]
            after = max(after, 0) if isinstance(after, int) else tf.maximum(after, 0)
            before[axis + 1] = (self.pads[axis], after)
        if self.mode == "max":
            x = tf.pad(x, before, constant_values=x.dtype.min)
            return tf.nn.max_pool2d(x, self.pool_size, self.strides, "VALID")
        means = tf.nn.avg_pool2d(tf.pad(x, before), self.pool_size, self.strides, "VALID")
        rows = self._inside(sizes[0], counts[0], 0)
        columns = self._inside(sizes[1], counts[1], 1)
        area = tf.cast(self.pool_size[0] * self.pool_size[1], x.dtype)
        return means * (area / tf.cast(rows[:, None] * columns[None, :], x.dtype))[None, :, :, None]

    def _count(self, size, axis):
        """Windows along an axis."""
        window, stride, pad = self.pool_size[axis], self.strides[axis], self.pads[axis]
        steps = size + 2 * pad - window
        count = (-(-steps // stride) if self.ceil else steps // stride) + 1
        beyond = (count - 1) * stride >= size + pad if pad else False
        return count - (int(beyond) if isinstance(beyond, bool) else tf.cast(beyond, tf.int32))

    def _inside(self, size, count, axis):
        """How much of each window along an axis lies in the padded picture, int32 [count]."""
        begin = tf.range(count) * self.strides[axis] - self.pads[axis]
        return tf.minimum(begin + self.pool_size[axis], size + self.pads[axis]) - begin

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        sides = [
            None if size is None else self._count(size, axis) for axis, size in enumerate(input_shape[1:3])
        ]
        return (input_shape[0], *sides, input_shape[3])

    def get_config(self) -> dict:
        own = {name: getattr(self, name) for name in ("pool_size", "strides", "pads", "mode", "ceil")}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="tfcnn")
class SpatialResponseNormalization(keras.layers.Layer):
    """Divides each value by (1 + alpha * mean of squares of its channel's window x window around it) ^ beta.

    Beyond the edge there are zeros, which count.

    Source: BVLC/caffe src/caffe/layers/lrn_layer.cpp, WITHIN_CHANNEL.
    """

    def __init__(self, window: int = 5, alpha: float = 1.0, beta: float = 0.75, **kwargs):
        super().__init__(**kwargs)
        self.window, self.alpha, self.beta = window, alpha, beta

    def call(self, x: tf.Tensor) -> tf.Tensor:
        exact, side = tf.cast(x, tf.float32), self.window // 2
        squares = tf.pad(tf.square(exact), [(0, 0), (side, side), (side, side), (0, 0)])
        means = tf.nn.avg_pool2d(squares, self.window, 1, "VALID")
        return tf.cast(exact * (1.0 + self.alpha * means) ** -self.beta, x.dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "window": self.window, "alpha": self.alpha, "beta": self.beta}
