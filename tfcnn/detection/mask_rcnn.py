"""Mask R-CNN: a third branch on Faster R-CNN, which gives each detection a mask.

The branch pools every region once more, 14 x 14 from the neck's maps, and predicts K masks of 28 x 28 without a softmax
between the classes; in training only the one of the true class counts, at test the one of the class detected.

Letters: N images, R regions of an image, D detections of an image at most, M padded ground-truth boxes, K classes,
C channels, S the side of a mask (28), P sampled foreground regions of an image.

Source: He, Gkioxari, Dollar, Girshick, "Mask R-CNN", 2017, section 3 and figure 4 (right, the head of FPN).
"""

from typing import Any

import keras
import tensorflow as tf
from keras import layers

from tfcnn.detection import endpoints
from tfcnn.detection.fast_rcnn import RegionPool
from tfcnn.detection.faster_rcnn import faster_rcnn
from tfcnn.errors import InputError
from tfcnn.ops import roi

POOLED = 14  # side of a pooled region; its mask has twice that
CONVOLUTIONS = 4


def mask_rcnn(
    backbone: keras.Model, classes: int, *, mask_channels: int = 256, **options: Any
) -> keras.Model:
    """One functional inference model: picture in, detections with masks out.

    Args:
        backbone: keras.Model from image to a dict of endpoints (tfcnn.backbones.backbone).
        classes: K.
        mask_channels: C, of the branch's convolutions (the paper's 256).
        **options: of `faster_rcnn`, with proposals of its own. The branch pools the maps that the regions' head does,
            with neck="pyramid" each region from the map that fits its size.

    Returns:
        keras.Model from image [N, H, W, 3], float32 0..255, any H and W, to the dict of `faster_rcnn` with masks
        float32 [N, D, 28, 28]: the probability of the detection's class in each cell of its box, zeros for padding.

    Raises:
        InputError: as of `faster_rcnn`, or it is to take precomputed proposals.
    """
    if not options.get("proposals", 1):
        raise InputError("Mask R-CNN makes its own proposals: it takes no precomputed ones.")
    detector = faster_rcnn(backbone, classes, **options)
    pool, found = detector.get_layer("region_pool"), detector.output
    boxes = FoundBoxes(name="mask_boxes")([found["boxes"], found["count"]])
    maps = [_before_positions(detector, x) for x in pool.input[1:]]
    pooled = RegionPool(pool.strides, size=POOLED, levels=pool.levels, name="mask_pool")([boxes, *maps])
    logits = mask_head(pooled, classes, mask_channels)
    masks = MaskOutput(name="masks")([logits, found["labels"], boxes])
    model = keras.Model(detector.inputs[0], {**found, "masks": masks}, name="mask_rcnn")
    return endpoints.remember(model, backbone)


def _before_positions(detector: keras.Model, x: keras.KerasTensor) -> keras.KerasTensor:
    """The neck's map under a map of position-sensitive scores; another map is the neck's itself."""
    convolutions = [layer for layer in detector.layers if layer.name.startswith("position_map")]
    return next((layer.input for layer in convolutions if layer.output is x), x)


def mask_head(pooled: keras.KerasTensor, classes: int, channels: int = 256) -> keras.KerasTensor:
    """Four convolutions, a transposed one that doubles the side, and a mask for each class.

    Args:
        pooled: [., 14, 14, C].
        classes: K.
        channels: of the convolutions.

    Returns:
        Logits [., 28, 28, K].

    Source: figure 4 (right).
    """
    x = pooled
    for i in range(1, CONVOLUTIONS + 1):
        x = layers.Conv2D(
            channels,
            3,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            name=f"mask_conv{i}",
        )(x)
    x = layers.Conv2DTranspose(
        channels, 2, strides=2, activation="relu", kernel_initializer="he_normal", name="mask_up"
    )(x)
    normal = keras.initializers.RandomNormal(stddev=0.01)
    return layers.Conv2D(classes, 1, kernel_initializer=normal, name="mask_logits")(x)


@keras.saving.register_keras_serializable(package="tfcnn")
class FoundBoxes(keras.layers.Layer):
    """The boxes of detections without the padding that all pictures share: the branch is dear.

    Call it on [boxes [N, D, 4], count int32 [N]]; it gives the first boxes, as many as the picture with the most
    detections has, at least one.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        boxes, count = inputs
        return boxes[:, : tf.maximum(tf.reduce_max(count), 1)]

    def call_in_litert(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """All boxes, padding too: a program of LiteRT computes one number of regions."""
        return inputs[0]

    def compute_output_spec(self, inputs: list[keras.KerasTensor]) -> keras.KerasTensor:
        return keras.KerasTensor((inputs[0].shape[0], None, 4), inputs[0].dtype)


@keras.saving.register_keras_serializable(package="tfcnn")
class MaskOutput(keras.layers.Layer):
    """The masks of the detected classes.

    Call it on [logits [N R, S, S, K], labels int32 [N, D], boxes [N, R, 4], R at most D]; it gives probabilities
    float32 [N, D, S, S], zeros where the label is -1.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        logits, labels, boxes = inputs
        count = tf.shape(boxes)[1]
        masks = tf.sigmoid(of_class(logits, labels[:, :count]))
        masks = tf.where(labels[:, :count, None, None] >= 0, masks, 0.0)
        padded = tf.pad(masks, [[0, 0], [0, tf.shape(labels)[1] - count], [0, 0], [0, 0]])
        return tf.ensure_shape(padded, [None, labels.shape[1], *logits.shape[1:3]])

    def compute_output_spec(self, inputs: list[keras.KerasTensor]) -> keras.KerasTensor:
        logits, labels, _ = inputs
        return keras.KerasTensor((*labels.shape, *logits.shape[1:3]), "float32")


def of_class(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The mask of each region's class.

    Args:
        logits: [N R, S, S, K].
        labels: int32 [N, R], 0..K-1; of a negative one the mask is zeros.

    Returns:
        float32 [N, R, S, S].
    """
    chosen = tf.one_hot(tf.reshape(labels, [-1]), logits.shape[-1])  # [N R, K]
    own = tf.einsum("rhwk,rk->rhw", tf.cast(logits, tf.float32), chosen)
    return tf.reshape(own, tf.concat([tf.shape(labels), tf.shape(logits)[1:3]], axis=0))


def mask_targets(
    masks: tf.Tensor, void: tf.Tensor, regions: tf.Tensor, index: tf.Tensor, size: int = 2 * POOLED
) -> tuple[tf.Tensor, tf.Tensor]:
    """What each foreground region's mask should be: its object's mask, cut out by RoIAlign as the features are.

    Args:
        masks: bool [N, M, H, W], of the objects, M at least 1.
        void: bool [N, H, W], pixels that count for nobody.
        regions: float32 [N, P, 4], pixels.
        index: int32 [N, P], the object of each.
        size: S.

    Returns:
        (targets float32 [N, P, S, S], 1 where at least half of a cell's samples are the object's; weights float32
        [N, P, S, S], 0 where as many are void, and in all of a region whose object has no mask, else 1).

    Source: section 3.1, L_mask: "the mask target is the intersection between an RoI and its associated ground-truth
    mask".
    """
    own = tf.gather(masks, index, batch_dims=1)  # [N, P, H, W]
    known = tf.cast(tf.reduce_any(own, axis=[2, 3], keepdims=True), tf.float32)
    each = tf.reshape(own, tf.concat([[-1], tf.shape(own)[2:], [1]], axis=0))
    cut = roi.roi_align(tf.cast(each, tf.float32), tf.reshape(regions, [-1, 1, 4]), 1.0, size)
    targets = tf.reshape(cut >= 0.5, tf.concat([tf.shape(index), [size, size]], axis=0))
    hidden = roi.roi_align(tf.cast(void[..., None], tf.float32), regions, 1.0, size)[..., 0]
    return tf.cast(targets, tf.float32), known * tf.cast(hidden < 0.5, tf.float32)


def mask_loss(logits: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """The mean binary cross-entropy of each region's cells, averaged over the regions of an image that have a mask.

    Args:
        logits: float32 [N, P, S, S], of the true class.
        targets: float32 [N, P, S, S], 0 or 1.
        weights: float32 [N, P, S, S], 0 for what does not count.

    Returns:
        float32 [N], exactly 0 where nothing counts.

    Source: section 3, L_mask.
    """
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits) * weights
    cells = tf.reduce_sum(weights, axis=[2, 3])  # [N, P]
    of_region = tf.math.divide_no_nan(tf.reduce_sum(entropy, axis=[2, 3]), cells)
    return tf.math.divide_no_nan(
        tf.reduce_sum(of_region, axis=1), tf.reduce_sum(tf.cast(cells > 0, tf.float32), axis=1)
    )
