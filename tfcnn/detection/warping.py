"""Regions with what surrounds them: cut from the picture as one square, or only made larger.

Letters: N images, R regions of an image, S the side of a warped region.

Source: Girshick, Donahue, Darrell, Malik, "Rich feature hierarchies", 2014, appendix A; rcnn_im_crop.m of the authors'
program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def with_context(regions: tf.Tensor, side: int, context: float) -> tf.Tensor:
    """Regions [..., 4] about the same centres, so much larger that `context` of `side` pixels on each side surround
    what was the region; a row of zeros stays."""
    middle, half = (regions[..., 2:] + regions[..., :2]) / 2, (regions[..., 2:] - regions[..., :2]) / 2
    half *= side / (side - 2 * context)
    return tf.concat([middle - half, middle + half], axis=-1)


@keras.saving.register_keras_serializable(package="tfcnn")
class WithContext(keras.layers.Layer):
    """`with_context` of regions [N, R, 4].

    Args:
        side, context: as there.
    """

    def __init__(self, side: int, context: float, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.side, self.context = side, context

    def call(self, regions: tf.Tensor) -> tf.Tensor:
        return with_context(regions, self.side, self.context)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"side": self.side, "context": self.context}


@keras.saving.register_keras_serializable(package="tfcnn")
class WarpRegions(keras.layers.Layer):
    """Every region of every image with what surrounds it, stretched to one square.

    Call it on [regions [N, R, 4] in pixels, image [N, H, W, 3]]; it gives [N R, S, S, 3]. What lies beside the picture
    has the colour that the net sees as zero.

    Args:
        side: S.
        context: pixels of the square around the region (the paper's 16 of 227).
        fill: that colour, RGB.

    Source: appendix A and rcnn_im_crop.m; the region is not rounded to whole pixels.
    """

    def __init__(self, side: int, context: float, fill: Sequence[float] = (0, 0, 0), **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.side, self.context, self.fill = side, context, [float(value) for value in fill]

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        regions, image = inputs
        height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(image)[1:3]))
        count = tf.shape(regions)[1]
        boxes = tf.reshape(with_context(regions, self.side, self.context), [-1, 4])
        step = (boxes[:, 2:] - boxes[:, :2]) / self.side
        # The samples lie in the middles of the square's pixels.
        low, high = boxes[:, :2] + step / 2 - 0.5, boxes[:, 2:] - step / 2 - 0.5
        last = tf.maximum(tf.stack([width, height]) - 1, 1)
        low, high = low / last, high / last
        places = tf.concat([low[:, ::-1], high[:, ::-1]], axis=1)  # y, x
        owner = tf.repeat(tf.range(tf.shape(image)[0]), count)
        fill = tf.constant(self.fill)
        shown = tf.image.crop_and_resize(
            tf.cast(image, tf.float32) - fill, places, owner, [self.side, self.side], extrapolation_value=0.0
        )
        return shown + fill

    def compute_output_spec(self, inputs: list[keras.KerasTensor]) -> keras.KerasTensor:
        return keras.KerasTensor((None, self.side, self.side, 3), "float32")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"side": self.side, "context": self.context, "fill": self.fill}
