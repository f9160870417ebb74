"""The region proposal network: boxes that may hold an object, from one convolutional map.

Letters: N images, h w height and width of a map, k anchors at a place, A anchors of an image (the sum of h w k over the
maps), M padded true boxes of an image, R proposals of an image.

Source: Ren, He, Girshick, Sun, "Faster R-CNN", 2015, section 3.1; constants of the authors' program py-faster-rcnn.
"""

import dataclasses

import keras
import tensorflow as tf
from keras import layers

from tfcnn.ops import anchors as anchor_ops
from tfcnn.ops import boxes as box_ops
from tfcnn.ops import coders, matching, nms


@dataclasses.dataclass(frozen=True)
class AnchorGrid:
    """The anchors at every place of one map or of several.

    Args:
        sizes: a tuple of sizes a map; a size is the square root of an anchor's area, in pixels.
        ratios: height over width; every map has each ratio at each of its sizes.
        strides: pixels from one place of a map to the next, a number a map.
    """

    sizes: tuple
    ratios: tuple
    strides: tuple

    @property
    def per_place(self):
        """k, the same for every map."""
        return len(self.sizes[0]) * len(self.ratios)

    def boxes(self, shapes):
        """All anchors of an image.

        Args:
            shapes: a pair (h, w) a map, numbers or scalar tensors.

        Returns:
            float32 [A, 4], pixels: maps in order, places row by row, anchors of a place together.
        """
        return tf.concat(
            [
                anchor_ops.grid(height, width, stride, anchor_ops.base_anchors(sizes, self.ratios))
                for (height, width), stride, sizes in zip(shapes, self.strides, self.sizes, strict=True)
            ],
            axis=0,
        )


def rpn_head(maps, anchors_per_place, channels=256, separable=False):
    """A small net slid over each map: one objectness and four offsets an anchor. Its weights are shared by all maps.

    Args:
        maps: list of KerasTensors [N, h, w, C], all of the same C.
        anchors_per_place: k.
        channels: of the hidden layer (the paper: 256 for ZF, 512 for VGG-16).
        separable: a 5x5 depthwise and a 1x1 convolution (ThunderNet) in place of the paper's 3x3.

    Returns:
        (objectness logits [N, A], deltas [N, A, 4]); layers `rpn_objectness` and `rpn_deltas`.
    """
    small = keras.initializers.RandomNormal(stddev=0.01)
    if separable:
        hidden = layers.SeparableConv2D(
            channels, 5, padding="same", activation="relu", pointwise_initializer="he_normal", name="rpn_conv"
        )
    else:
        hidden = layers.Conv2D(
            channels, 3, padding="same", activation="relu", kernel_initializer="he_normal", name="rpn_conv"
        )
    score = layers.Conv2D(anchors_per_place, 1, kernel_initializer=small, name="rpn_score")
    offset = layers.Conv2D(4 * anchors_per_place, 1, kernel_initializer=small, name="rpn_offset")
    hiddens = [hidden(x) for x in maps]  # [N, h, w, channels] a map
    scores = [layers.Reshape((-1,))(score(x)) for x in hiddens]  # [N, h w k]
    offsets = [layers.Reshape((-1, 4))(offset(x)) for x in hiddens]  # [N, h w k, 4]
    objectness = layers.Concatenate(axis=1, name="rpn_objectness")(scores)
    deltas = layers.Concatenate(axis=1, name="rpn_deltas")(offsets)
    return objectness, deltas


def propose(
    objectness, deltas, anchors, height, width, *, count, before_nms, nms_threshold=0.7, min_size=2.0
):
    """The best boxes of every image: by score, clipped, not too small, non-maximum suppressed.

    Args:
        objectness: float32 [N, A], logits.
        deltas: float32 [N, A, 4].
        anchors: float32 [A, 4], pixels.
        height, width: of the pictures, pixels.
        count: R, the proposals that are kept of an image (the paper: 300 at test, 2000 in training).
        before_nms: the number of best anchors that enter suppression (py-faster-rcnn: 6000 and 12000).
        nms_threshold: IoU above which the lower of two boxes goes.
        min_size: pixels; boxes with a shorter side go.

    Returns:
        (boxes float32 [N, R, 4], objectness logits [N, R]), best first; padding is zeros and -inf.
    """
    before_nms = tf.minimum(before_nms, tf.shape(objectness)[1])
    scores, index = tf.math.top_k(objectness, before_nms)
    boxes = coders.decode(tf.gather(deltas, index, batch_dims=1), tf.gather(anchors, index))
    boxes = box_ops.clip(boxes, height, width)
    sides = boxes[..., 2:] - boxes[..., :2]
    scores = tf.where(tf.reduce_min(sides, axis=-1) >= min_size, scores, -float("inf"))
    boxes, scores, _, _ = nms.batched_nms(boxes, scores, nms_threshold, count)
    return boxes, scores


@keras.saving.register_keras_serializable(package="tfcnn")
class Proposals(keras.layers.Layer):
    """`propose` as a layer of the inference model, its anchors made from the maps' own sizes.

    Call it on [objectness [N, A], deltas [N, A, 4], image [N, H, W, 3], *maps]; it gives boxes [N, R, 4], pixels, best
    first, padded with zeros. No gradient passes through it (the paper's approximate joint training).
    """

    def __init__(self, sizes, ratios, strides, count=300, before_nms=2000, nms_threshold=0.7, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.grid = AnchorGrid(tuple(map(tuple, sizes)), tuple(ratios), tuple(strides))
        self.count, self.before_nms, self.nms_threshold = count, before_nms, nms_threshold
        self.supports_jit = False  # suppression is a kernel of its own

    def anchors(self, maps):
        """The anchors of these maps, float32 [A, 4]."""
        return self.grid.boxes([(tf.shape(x)[1], tf.shape(x)[2]) for x in maps])

    def call(self, inputs):
        objectness, deltas, image, *maps = inputs
        boxes, _ = propose(
            tf.stop_gradient(tf.cast(objectness, tf.float32)),
            tf.stop_gradient(tf.cast(deltas, tf.float32)),
            self.anchors(maps),
            tf.shape(image)[1],
            tf.shape(image)[2],
            count=self.count,
            before_nms=self.before_nms,
            nms_threshold=self.nms_threshold,
        )
        return boxes

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(
            (inputs[0].shape[0], None, 4), "float32"
        )  # other numbers enter the head in training

    def get_config(self):
        return super().get_config() | {
            "sizes": self.grid.sizes,
            "ratios": self.grid.ratios,
            "strides": self.grid.strides,
            "count": self.count,
            "before_nms": self.before_nms,
            "nms_threshold": self.nms_threshold,
        }


def rpn_targets(
    anchors, boxes, labels, height, width, seed, *, positive=0.7, negative=0.3, count=256, border=0.0
):
    """Which anchors the region proposal network is asked about, and what it should say of them.

    An anchor is positive if its IoU with a box is at least `positive` or is the best that this box has; negative if its
    IoU with every box is below `negative`. Anchors that cross the picture's edge by more than `border` are left out.
    `count` anchors are drawn, half of them positive if there are so many.

    Args:
        anchors: float32 [A, 4], pixels.
        boxes: float32 [N, M, 4], pixels.
        labels: int32 [N, M], the boxes' classes; -1 is padding.
        height, width: of the pictures, pixels.
        seed: int32 [2], of the draw.
        positive, negative, count: the paper's 0.7, 0.3 and 256.
        border: pixels (py-faster-rcnn's 0); None keeps every anchor.

    Returns:
        (index int32 [N, count] of the drawn anchors; their labels int32 [N, count]: 1 positive, 0 negative, -1 a place
        that could not be filled; deltas float32 [N, count, 4] to the box of each positive, else 0).

    Source: section 3.1.2 and 3.1.3.
    """
    if border is not None:
        within = anchor_ops.inside(anchors, height, width, border)
        iou = tf.where(within[:, None], box_ops.iou(anchors, boxes), 0.0)
    else:
        iou = box_ops.iou(anchors, boxes)  # [N, A, M]
    matched, label = matching.match(iou, labels >= 0, positive=positive, negative=negative)
    if border is not None:
        label = tf.where(within, label, -1)
    index, label = matching.sample(label, count, 0.5, seed)
    box = tf.gather(boxes, tf.gather(matched, index, batch_dims=1), batch_dims=1)
    deltas = coders.encode(box, tf.gather(anchors, index))
    return index, label, tf.where((label == 1)[..., None], deltas, 0.0)


def smooth_l1(difference, sigma=1.0):
    """Smooth L1: half the square, times sigma squared, near zero, beyond that the absolute value less a constant.

    Source: Girshick, "Fast R-CNN", 2015, equation 3; sigma from py-faster-rcnn (3 in the region proposal network).
    """
    size = tf.abs(difference)
    corner = 1.0 / sigma**2
    return tf.where(size < corner, 0.5 * sigma**2 * size**2, size - 0.5 * corner)


def rpn_losses(objectness, deltas, index, label, target_deltas):
    """The two losses of the region proposal network, for each image.

    Objectness is one logit an anchor, which equals the paper's softmax over two; it is averaged over the drawn anchors.
    The boxes' smooth L1 is summed over positives and divided by the number drawn.

    Args:
        objectness: float32 [N, A], logits.
        deltas: float32 [N, A, 4].
        index, label, target_deltas: of `rpn_targets`.

    Returns:
        (objectness loss [N], box loss [N]); the box loss of a picture without objects is exactly 0.
    """
    objectness = tf.gather(objectness, index, batch_dims=1)
    deltas = tf.gather(deltas, index, batch_dims=1)
    drawn = tf.cast(label >= 0, tf.float32)
    truth = tf.cast(label == 1, tf.float32)
    count = tf.maximum(tf.reduce_sum(drawn, axis=-1), 1.0)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=truth, logits=objectness)
    distance = tf.reduce_sum(smooth_l1(deltas - target_deltas, sigma=3.0), axis=-1)
    return tf.reduce_sum(entropy * drawn, axis=-1) / count, tf.reduce_sum(distance * truth, axis=-1) / count
