"""Layers that the nets need and Keras lacks."""

import keras
import numpy as np


@keras.saving.register_keras_serializable(package="tfcnn")
class Preprocess(keras.layers.Layer):
    """Turns RGB values of 0..255 into what a net was trained on: (value - mean) / scale, in the net's channel order.

    It computes in float32 whatever the precision of the net: half floats hold no tenth of a grey level at 200.

    Args:
        order: "rgb" or "bgr".
        mean: three values in the order red, green, blue.
        scale: three values in the same order.
    """

    def __init__(self, order="rgb", mean=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0), **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.order, self.mean, self.scale = order, tuple(mean), tuple(scale)

    @property
    def zero_rgb(self):
        """The colour (float32 [3], RGB, 0..255) that the net sees as zero."""
        return np.asarray(self.mean, np.float32)

    def call(self, image):
        x = (image - np.asarray(self.mean, np.float32)) / np.asarray(self.scale, np.float32)
        return x[..., ::-1] if self.order == "bgr" else x

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "order": self.order, "mean": self.mean, "scale": self.scale}
