"""Layers that the nets need and Keras lacks."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfcnn.backbones.rows import Preprocessing


@keras.saving.register_keras_serializable(package="tfcnn")
class Preprocess(keras.layers.Layer):
    """Turns RGB values of 0..255 into what a net was trained on: (value - mean) / scale, in its order.

    It computes in float32 whatever the precision of the net: half floats hold no tenth of a level at 200.

    Args:
        order: "rgb" or "bgr".
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
        x = (image - np.asarray(self.mean, np.float32)) / np.asarray(self.scale, np.float32)
        return x[..., ::-1] if self.order == "bgr" else x

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "order": self.order, "mean": self.mean, "scale": self.scale}


def preprocess(how: Preprocessing) -> Preprocess:
    """Makes the first layer of a net from the table's description."""
    return Preprocess(how.order, how.mean, how.scale, name="preprocess")


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
