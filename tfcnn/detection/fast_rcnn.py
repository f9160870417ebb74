"""Fast R-CNN's half of the detector: pool each region, classify it, regress its box.

Letters: N images, R regions of an image, K classes, C channels, D units of a region's code, P the pooled side (7).
Column 0 of a softmax is background: `background_first` alone makes that shift.

Source: Girshick, "Fast R-CNN", 2015, sections 2.1 to 2.3; constants of fast-rcnn and py-faster-rcnn.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from tfcnn.detection.outputs import DetectionLayer
from tfcnn.errors import InputError
from tfcnn.export import pooling
from tfcnn.ops import boxes as box_ops
from tfcnn.ops import coders, roi
from tfcnn.ops.position_sensitive import ps_roi_align

BOX_MEANS = (0.0, 0.0, 0.0, 0.0)  # of the box targets: py-faster-rcnn's for joint training
BOX_STDS = (0.1, 0.1, 0.2, 0.2)


def background_first(labels: tf.Tensor) -> tf.Tensor:
    """Classes 0..K-1 with -1 for none, to columns of the softmax: 0 background, 1..K; int32, any shape."""
    return labels + 1


@keras.saving.register_keras_serializable(package="tfcnn")
class RegionPool(keras.layers.Layer):
    """Every region of every image, cut from the maps and brought to one size.

    Call it on [regions [N, R, 4] in pixels, *maps [N, h, w, C]]; it gives [N R, P, P, C] with the channels of all maps
    side by side, or, with `levels`, each region from the one map that fits its size (feature pyramid networks, Lin et
    al. 2017, equation 1: 224 pixels belong to the map of stride 16).

    Args:
        strides: pixels from one location of a map to the next, a number a map.
        size: P.
        method: "align" (bilinear samples, RoIAlign), "max" (Fast R-CNN's exact RoI max pooling) or "position"
            (position-sensitive RoIAlign: maps of P P c channels give c).
        context: add the whole picture as one more region, the last of each image (He et al. 2015, appendix B).
        levels: one map a region, by its size.
    """

    def __init__(
        self,
        strides: Sequence[int],
        size: int = 7,
        method: str = "align",
        context: bool = False,
        levels: bool = False,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # boxes stay float32, maps as they come
        self.strides, self.size, self.method = tuple(strides), size, method
        self.context, self.levels = context, levels

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        kernels = {"max": _max_pool, "position": ps_roi_align, "align": roi.roi_align}
        return self._pooled(inputs, kernels[self.method])

    def call_in_litert(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """`call` in operations that LiteRT has.

        Raises:
            InputError: regions are max-pooled.
        """
        kernels = {"position": pooling.ps_roi_align, "align": pooling.roi_align}
        if self.method not in kernels:
            raise InputError(
                f"LiteRT lacks RoI max pooling, which the layer {self.name} does: a detector with pooling='align' or "
                "head='position' goes there"
            )
        return self._pooled(inputs, kernels[self.method])

    def call_in_onnx(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """`call` without the loops that ONNX has for it; max pooling keeps its own."""
        return self.call(inputs) if self.method == "max" else self.call_in_litert(inputs)

    def _pooled(self, inputs, kernel):
        regions, *maps = inputs
        regions = tf.stop_gradient(regions)
        if self.context:
            height = tf.cast(tf.shape(maps[0])[1] * self.strides[0], tf.float32)
            width = tf.cast(tf.shape(maps[0])[2] * self.strides[0], tf.float32)
            whole = tf.zeros_like(regions[:, :1]) + tf.stack([0.0, 0.0, width, height])
            regions = tf.concat([regions, whole], axis=1)
        pooled = [kernel(x, regions, s, self.size) for x, s in zip(maps, self.strides, strict=True)]
        if self.levels:
            side = tf.sqrt(tf.maximum(box_ops.area(regions), 1.0))
            level = tf.math.log(side / 224.0 * 16.0 / self.strides[0]) / tf.math.log(2.0)
            level = tf.clip_by_value(tf.cast(tf.floor(level + 1e-6), tf.int32), 0, len(maps) - 1)
            own = [
                tf.cast(level == number, pooled[0].dtype)[..., None, None, None]
                for number in range(len(maps))
            ]
            pooled = [tf.add_n([each * chosen for each, chosen in zip(pooled, own, strict=True)])]
        pooled = tf.concat(pooled, axis=-1)  # [N, R, P, P, C]
        return tf.reshape(pooled, tf.concat([[-1], tf.shape(pooled)[2:]], axis=0))

    def compute_output_spec(self, inputs: list[keras.KerasTensor]) -> keras.KerasTensor:
        regions, *maps = inputs
        channels = maps[0].shape[-1] if self.levels else sum(x.shape[-1] for x in maps)
        if self.method == "position":
            channels //= self.size**2
        return keras.KerasTensor((None, self.size, self.size, channels), maps[0].dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "strides": self.strides,
            "size": self.size,
            "method": self.method,
            "context": self.context,
            "levels": self.levels,
        }


def _max_pool(features, regions, stride, size):
    return roi.roi_max_pool(features, regions, 1.0 / stride, size)


@keras.saving.register_keras_serializable(package="tfcnn")
class JoinContext(keras.layers.Layer):
    """The code of the whole picture beside the code of each of its regions.

    Call it on [codes [N (R + 1), D], regions [N, R, 4]], an image's last code being that of the whole picture; it gives
    [N R, 2 D].
    """

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        codes, regions = inputs
        depth = codes.shape[-1]
        codes = tf.reshape(codes, [-1, tf.shape(regions)[1] + 1, depth])  # [N, R + 1, D]
        own = codes[:, :-1]
        whole = tf.broadcast_to(codes[:, -1:], tf.shape(own))
        return tf.reshape(tf.concat([own, whole], axis=-1), [-1, 2 * depth])

    def compute_output_spec(self, inputs: list[keras.KerasTensor]) -> keras.KerasTensor:
        return keras.KerasTensor((None, 2 * inputs[0].shape[-1]), inputs[0].dtype)


def light_head(pooled: keras.KerasTensor, channels: int = 128, units: int = 512) -> keras.KerasTensor:
    """Two separable convolutions and one dense layer on regions [., P, P, C]: codes [., units], for small nets."""
    x = pooled  # [., P, P, C]
    for i in (1, 2):
        x = layers.SeparableConv2D(
            channels,
            3,
            padding="same",
            activation="relu",
            pointwise_initializer="he_normal",
            name=f"region_conv{i}",
        )(x)
    x = layers.Flatten(name="region_flat")(x)
    return layers.Dense(units, activation="relu", kernel_initializer="he_normal", name="region_fc")(x)


def position_head(pooled: keras.KerasTensor, units: int = 1024) -> keras.KerasTensor:
    """One dense layer on position-sensitive regions [., P, P, C] (ThunderNet): codes [., units]."""
    x = layers.Flatten(name="region_flat")(pooled)
    return layers.Dense(units, activation="relu", kernel_initializer="he_normal", name="region_fc")(x)


def dense_head(pooled: keras.KerasTensor, units: int = 4096, dropout: float = 0.5) -> keras.KerasTensor:
    """Two dense layers on the pooled regions [., P, P, C]: codes [., units]; the paper's are VGG's, with dropout, those
    of feature pyramid networks have 1024 units and none."""
    x = layers.Flatten(name="region_flat")(pooled)
    for i in (6, 7):
        x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"region_fc{i}")(x)
        x = layers.Dropout(dropout, name=f"region_drop{i}")(x) if dropout else x
    return x


def copy_dense(classifier: keras.Model, detector: keras.Model) -> list[str]:
    """Copies the first two dense layers of a classifier (VGG's fc6 and fc7) to those of `dense_head`.

    Args:
        classifier: of tfcnn.backbones, with its weights.
        detector: of `faster_rcnn` with the dense head.

    Returns:
        Names of the detector's layers that were set; [] where their shapes differ.

    Source: Fast R-CNN, section 2.3, initializing from pre-trained networks.
    """
    dense = [layer for layer in classifier.layers if isinstance(layer, keras.layers.Dense)][:2]
    own = [layer for layer in detector.layers if layer.name in ("region_fc6", "region_fc7")]
    if len(dense) != len(own) or any(
        a.kernel.shape != b.kernel.shape for a, b in zip(dense, own, strict=True)
    ):
        return []
    for source, layer in zip(dense, own, strict=True):
        layer.set_weights(source.get_weights())
    return [layer.name for layer in own]


def predictors(
    code: keras.KerasTensor, classes: int, class_agnostic: bool = False
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Softmax logits and box deltas of each region's code.

    Args:
        code: [., D].
        classes: K.
        class_agnostic: four deltas in all instead of four a class.

    Returns:
        (logits [., K + 1], deltas [., 4 K] or [., 4]); initial weights are the paper's: N(0, 0.01) for classes,
        N(0, 0.001) for boxes.
    """
    normal = keras.initializers.RandomNormal
    logits = layers.Dense(classes + 1, kernel_initializer=normal(stddev=0.01), name="class_logits")(code)
    width = 4 if class_agnostic else 4 * classes
    deltas = layers.Dense(width, kernel_initializer=normal(stddev=0.001), name="box_deltas")(code)
    return logits, deltas


def per_image(rows: tf.Tensor, regions: tf.Tensor) -> tf.Tensor:
    """The head's rows of all regions, by image: [N R, C] and regions [N, R, 4] to float32 [N, R, C]."""
    return tf.reshape(tf.cast(rows, tf.float32), [-1, tf.shape(regions)[1], rows.shape[-1]])


def decode_regions(
    logits: tf.Tensor,
    deltas: tf.Tensor,
    regions: tf.Tensor,
    height: int | tf.Tensor,
    width: int | tf.Tensor,
    means: Sequence = BOX_MEANS,
    stds: Sequence = BOX_STDS,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Scores and boxes of every region.

    Args:
        logits: float32 [N, R, K + 1].
        deltas: float32 [N, R, 4 or 4 K].
        regions: float32 [N, R, 4], pixels; rows of zeros are padding.
        height, width: of the pictures, pixels: of all, or [N].
        means, stds: of the box targets, 4 numbers or [K, 4].

    Returns:
        (softmax without background [N, R, K], 0 for padding; boxes [N, R, K or 1, 4], clipped to the picture).
    """
    scores = tf.nn.softmax(logits)[..., 1:]
    shape = tf.concat([tf.shape(deltas)[:-1], [deltas.shape[-1] // 4, 4]], axis=0)
    boxes = coders.decode(tf.reshape(deltas, shape), regions[:, :, None, :], means, stds)
    boxes = box_ops.clip(boxes, *(tf.reshape(side, [-1, 1, 1]) for side in (height, width)))
    real = box_ops.area(regions) > 0
    return tf.where(real[..., None], scores, 0.0), boxes


@keras.saving.register_keras_serializable(package="tfcnn")
class DetectionOutput(DetectionLayer):
    """From the head's numbers to detections: softmax, boxes, a threshold, suppression a class, the best of all.

    Call it on [logits [N R, K + 1], deltas [N R, 4 or 4 K], regions [N, R, 4], image [N, H, W, 3]]; it gives
    `outputs.best_of_each_class`, boxes in pixels of the image. The defaults are py-faster-rcnn's.

    Args:
        score_threshold, nms_threshold, max_detections: as `outputs.DetectionLayer`.
        means, stds: of the box targets, 4 numbers or [K, 4].
    """

    def __init__(
        self,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.3,
        max_detections: int = 100,
        means: Sequence = BOX_MEANS,
        stds: Sequence = BOX_STDS,
        **kwargs: Any,
    ):
        super().__init__(score_threshold, nms_threshold, max_detections, **kwargs)
        self.means, self.stds = means, stds

    def decode(
        self, raw: list[tf.Tensor], height: tf.Tensor, width: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Boxes float32 [N, R, K or 1, 4] and scores [N, R, K] before suppression."""
        logits, deltas, regions = raw
        logits, deltas = per_image(logits, regions), per_image(deltas, regions)
        scores, boxes = decode_regions(logits, deltas, regions, height, width, self.means, self.stds)
        return boxes, scores

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"means": self.means, "stds": self.stds}
