"""Fast R-CNN's half of the detector: pool each region, name it, move its box.

Letters: N images, R regions of an image, S sampled regions of an image, M padded true boxes, K classes, C channels,
P the pooled side (7). Column 0 of a softmax is background: `background_first` alone makes that shift.

Source: Girshick, "Fast R-CNN", 2015, sections 2.1 to 2.3; constants of fast-rcnn and py-faster-rcnn.
"""

import keras
import tensorflow as tf
from keras import layers

from tfcnn.detection.rpn import smooth_l1
from tfcnn.ops import boxes as box_ops
from tfcnn.ops import coders, matching, nms, roi
from tfcnn.ops.position_sensitive import ps_roi_align

BOX_STDS = (0.1, 0.1, 0.2, 0.2)  # the targets' scale, py-faster-rcnn's for joint training


def background_first(labels):
    """Classes 0..K-1 with -1 for none, to columns of the softmax: 0 background, 1..K."""
    return labels + 1


@keras.saving.register_keras_serializable(package="tfcnn")
class RegionPool(keras.layers.Layer):
    """Every region of every image, cut from the maps and brought to one size.

    Call it on [regions [N, R, 4] in pixels, *maps [N, h, w, C]]; it gives [N R, P, P, C] with the channels of all maps
    side by side, or, with `levels`, each region from the one map that fits its size (feature pyramid networks, Lin et
    al. 2017, equation 1: 224 pixels belong to the map of stride 16).

    Args:
        strides: pixels from one place to the next, a number a map.
        size: P.
        method: "align" (bilinear samples, RoIAlign), "max" (Fast R-CNN's exact RoI max pooling) or "position"
            (position-sensitive RoIAlign: maps of P P c channels give c).
        context: add the whole picture as one more region, the last of each image (He et al. 2015, appendix B).
        levels: one map a region, by its size.
    """

    def __init__(self, strides, size=7, method="align", context=False, levels=False, **kwargs):
        super().__init__(autocast=False, **kwargs)  # boxes stay float32, maps as they come
        self.strides, self.size, self.method = tuple(strides), size, method
        self.context, self.levels = context, levels

    def call(self, inputs):
        regions, *maps = inputs
        regions = tf.stop_gradient(regions)
        if self.context:
            height = tf.cast(tf.shape(maps[0])[1] * self.strides[0], tf.float32)
            width = tf.cast(tf.shape(maps[0])[2] * self.strides[0], tf.float32)
            whole = tf.zeros_like(regions[:, :1]) + tf.stack([0.0, 0.0, width, height])
            regions = tf.concat([regions, whole], axis=1)
        pooled = [self._pool(x, regions, s) for x, s in zip(maps, self.strides, strict=True)]
        if self.levels:
            side = tf.sqrt(tf.maximum(box_ops.area(regions), 1.0))
            level = tf.math.log(side / 224.0 * 16.0 / self.strides[0]) / tf.math.log(2.0)
            level = tf.clip_by_value(tf.cast(tf.floor(level + 1e-6), tf.int32), 0, len(maps) - 1)
            chosen = tf.one_hot(level, len(maps), dtype=pooled[0].dtype)[..., None, None, None, :]
            pooled = [tf.reduce_sum(tf.stack(pooled, axis=-1) * chosen, axis=-1)]
        pooled = tf.concat(pooled, axis=-1)  # [N, R, P, P, C]
        return tf.reshape(pooled, tf.concat([[-1], tf.shape(pooled)[2:]], axis=0))

    def _pool(self, features, regions, stride):
        if self.method == "max":
            return roi.roi_max_pool(features, regions, 1.0 / stride, self.size)
        if self.method == "position":
            return ps_roi_align(features, regions, stride, self.size)
        return roi.roi_align(features, regions, stride, self.size)

    def compute_output_spec(self, inputs):
        regions, *maps = inputs
        channels = maps[0].shape[-1] if self.levels else sum(x.shape[-1] for x in maps)
        if self.method == "position":
            channels //= self.size**2
        return keras.KerasTensor((None, self.size, self.size, channels), maps[0].dtype)

    def get_config(self):
        return super().get_config() | {
            "strides": self.strides,
            "size": self.size,
            "method": self.method,
            "context": self.context,
            "levels": self.levels,
        }


@keras.saving.register_keras_serializable(package="tfcnn")
class JoinContext(keras.layers.Layer):
    """The whole picture's code beside the code of each of its regions.

    Call it on [codes [N (R + 1), D], regions [N, R, 4]], an image's last code being the whole picture's; it gives
    [N R, 2 D].
    """

    def call(self, inputs):
        codes, regions = inputs
        depth = codes.shape[-1]
        codes = tf.reshape(codes, [-1, tf.shape(regions)[1] + 1, depth])  # [N, R + 1, D]
        own = codes[:, :-1]
        whole = tf.broadcast_to(codes[:, -1:], tf.shape(own))
        return tf.reshape(tf.concat([own, whole], axis=-1), [-1, 2 * depth])

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((None, 2 * inputs[0].shape[-1]), inputs[0].dtype)


def light_head(pooled, channels=128, units=512):
    """Two separable convolutions and one dense layer: a region's code [., units], for small nets."""
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


def position_head(pooled, units=1024):
    """One dense layer on the short code of position-sensitive pooling (ThunderNet): a region's code [., units]."""
    x = layers.Flatten(name="region_flat")(pooled)
    return layers.Dense(units, activation="relu", kernel_initializer="he_normal", name="region_fc")(x)


def dense_head(pooled, units=4096, dropout=0.5):
    """VGG's two dense layers on the pooled region, as in the paper: a region's code [., units]."""
    x = layers.Flatten(name="region_flat")(pooled)
    for i in (6, 7):
        x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"region_fc{i}")(x)
        x = layers.Dropout(dropout, name=f"region_drop{i}")(x)
    return x


def predictors(code, classes, class_agnostic=False):
    """Softmax logits over K + 1 and four box deltas a class (or four in all): [., K + 1] and [., 4 K] or [., 4].

    Initial weights are the paper's: N(0, 0.01) for classes, N(0, 0.001) for boxes.
    """
    normal = keras.initializers.RandomNormal
    logits = layers.Dense(classes + 1, kernel_initializer=normal(stddev=0.01), name="class_logits")(code)
    width = 4 if class_agnostic else 4 * classes
    deltas = layers.Dense(width, kernel_initializer=normal(stddev=0.001), name="box_deltas")(code)
    return logits, deltas


def sample_regions(
    proposals,
    boxes,
    labels,
    seed,
    *,
    count=128,
    positive_share=0.25,
    positive=0.5,
    negative=(0.1, 0.5),
    add_truth=True,
):
    """Draw the regions that one training step looks at, and what should be said of them.

    A region is foreground, of its best box's class, at IoU `positive` or more; background inside `negative`.

    Args:
        proposals: float32 [N, R, 4], pixels; rows of zeros are padding and are never drawn.
        boxes: float32 [N, M, 4]; labels: int32 [N, M], -1 is padding.
        seed: int32 [2].
        count: S; positive_share: at most this share is foreground (the paper: 128 and a quarter).
        negative: (low, high), low included; 0.1 mines hard examples in the paper's words, py-faster-rcnn's joint
            training takes 0.
        add_truth: the true boxes join the proposals.

    Returns:
        (regions [N, S, 4], columns int32 [N, S] of the softmax with -1 for a place that could not be filled,
        matched boxes [N, S, 4]).

    Source: section 2.3, mini-batch sampling.
    """
    real = box_ops.area(proposals) > 0
    if add_truth:
        proposals = tf.concat([proposals, boxes], axis=1)
        real = tf.concat([real, labels >= 0], axis=1)
    low, high = negative
    iou = box_ops.iou(proposals, boxes)  # [N, R, M]
    matched, label = matching.match(iou, labels >= 0, positive, high, best_for_each=False, lowest=low)
    index, label = matching.sample(tf.where(real, label, -1), count, positive_share, seed)
    take = tf.gather(matched, index, batch_dims=1)
    columns = background_first(tf.gather(labels, take, batch_dims=1))
    columns = tf.where(label == 1, columns, label)  # 0 is background, -1 is not drawn
    return tf.gather(proposals, index, batch_dims=1), columns, tf.gather(boxes, take, batch_dims=1)


def region_losses(logits, deltas, regions, columns, matched, hardest=0):
    """The two losses of the region head, for each image.

    Args:
        logits: float32 [N, S, K + 1]; deltas: float32 [N, S, 4] or [N, S, 4 K].
        regions, columns, matched: of `sample_regions`.
        hardest: only so many regions of each image count, those of the greatest loss (online hard example mining,
            Shrivastava et al. 2016); 0: all.

    Returns:
        (class loss [N]: cross-entropy averaged over the regions that count; box loss [N]: smooth L1 of the foreground,
        summed, divided by the same number; exactly 0 without objects).

    Source: section 2.3, equations 1 to 3.
    """
    counts = tf.cast(columns >= 0, tf.float32)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.maximum(columns, 0), logits=logits)
    foreground = columns >= 1
    target = coders.encode(matched, regions, stds=BOX_STDS)
    target = tf.where(foreground[..., None], target, 0.0)
    own = of_class(deltas, tf.maximum(columns - 1, 0))
    distance = tf.reduce_sum(smooth_l1(own - target), axis=-1) * tf.cast(foreground, tf.float32)
    if hardest:
        loss = tf.stop_gradient((entropy + distance) * counts)
        counts *= tf.cast(loss >= tf.math.top_k(loss, hardest).values[:, -1:], tf.float32)
    number = tf.maximum(tf.reduce_sum(counts, axis=-1), 1.0)
    return (
        tf.reduce_sum(entropy * counts, axis=-1) / number,
        tf.reduce_sum(distance * counts, axis=-1) / number,
    )


def of_class(deltas, labels):
    """The four deltas of each region's class: [N, S, 4 K] and labels [N, S] to [N, S, 4]; [N, S, 4] stays."""
    if deltas.shape[-1] == 4:
        return deltas
    by_class = tf.reshape(deltas, tf.concat([tf.shape(deltas)[:-1], [deltas.shape[-1] // 4, 4]], axis=0))
    return tf.gather(by_class, labels, batch_dims=2)


def decode_regions(logits, deltas, regions, height, width):
    """Scores and boxes of every region: softmax without background [N, R, K], boxes [N, R, K or 1, 4] clipped."""
    scores = tf.nn.softmax(logits)[..., 1:]
    shape = tf.concat([tf.shape(deltas)[:-1], [deltas.shape[-1] // 4, 4]], axis=0)
    boxes = coders.decode(tf.reshape(deltas, shape), regions[:, :, None, :], stds=BOX_STDS)
    boxes = box_ops.clip(boxes, height, width)
    real = box_ops.area(regions) > 0
    return tf.where(real[..., None], scores, 0.0), boxes


@keras.saving.register_keras_serializable(package="tfcnn")
class DetectionOutput(keras.layers.Layer):
    """From the head's numbers to detections: softmax, boxes, a threshold, suppression a class, the best of all.

    Call it on [logits [N R, K + 1], deltas [N R, 4 or 4 K], regions [N, R, 4], image [N, H, W, 3]]; it gives
    boxes [N, D, 4] in pixels of the image, scores [N, D], labels int32 [N, D] with -1 for padding, count int32 [N].
    The defaults are py-faster-rcnn's.
    """

    def __init__(self, score_threshold=0.05, nms_threshold=0.3, max_detections=100, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.max_detections = max_detections
        self.supports_jit = False  # suppression is a kernel of its own

    def call(self, inputs):
        logits, deltas, regions, image = inputs
        rows = tf.shape(regions)[1]
        logits = tf.reshape(tf.cast(logits, tf.float32), [-1, rows, logits.shape[-1]])
        deltas = tf.reshape(tf.cast(deltas, tf.float32), [-1, rows, deltas.shape[-1]])
        scores, boxes = decode_regions(logits, deltas, regions, tf.shape(image)[1], tf.shape(image)[2])
        return dict(
            zip(
                ("boxes", "scores", "labels", "count"),
                nms.class_nms(boxes, scores, self.nms_threshold, self.max_detections, self.score_threshold),
                strict=True,
            )
        )

    def compute_output_spec(self, inputs):
        batch, most = inputs[2].shape[0], self.max_detections
        return {
            "boxes": keras.KerasTensor((batch, most, 4), "float32"),
            "scores": keras.KerasTensor((batch, most), "float32"),
            "labels": keras.KerasTensor((batch, most), "int32"),
            "count": keras.KerasTensor((batch,), "int32"),
        }

    def get_config(self):
        return super().get_config() | {
            "score_threshold": self.score_threshold,
            "nms_threshold": self.nms_threshold,
            "max_detections": self.max_detections,
        }
