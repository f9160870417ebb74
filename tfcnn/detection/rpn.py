"""The region proposal network: boxes that may hold an object, from one convolutional map.

Letters: N images, h w height and width of a map, k anchors at a location, A anchors of an image (the sum of h w k over
the maps), M padded ground-truth boxes of an image, R proposals of an image.

Source: Ren, He, Girshick, Sun, "Faster R-CNN", 2015, section 3.1; constants of the authors' program py-faster-rcnn.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from tfcnn.export import suppression
from tfcnn.ops import anchors as anchor_ops
from tfcnn.ops import boxes as box_ops
from tfcnn.ops import coders, matching, nms


@dataclasses.dataclass(frozen=True)
class AnchorGrid:
    """The anchors at every location of one map or of several.

    Args:
        sizes: a tuple of sizes a map; a size is the square root of an anchor's area, in pixels.
        ratios: height over width; every map has each ratio at each of its sizes.
        strides: pixels from one location of a map to the next, a number a map.
        rounded: sides rounded as the authors' generate_anchors does: sizes 128, 256, 512 at stride 16 are the paper's.
    """

    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[float, ...]
    strides: tuple[int, ...]
    rounded: bool = False

    @property
    def per_location(self) -> int:
        """k, the same for every map."""
        return len(self.sizes[0]) * len(self.ratios)

    def boxes(self, shapes: Sequence[tuple]) -> tf.Tensor:
        """All anchors of an image.

        Args:
            shapes: a pair (h, w) a map, numbers or scalar tensors.

        Returns:
            float32 [A, 4], pixels: maps in order, locations row by row, anchors of a location together.
        """
        grids = []
        for (height, width), stride, sizes in zip(shapes, self.strides, self.sizes, strict=True):
            if self.rounded:
                base = anchor_ops.py_faster_rcnn_anchors(sizes, self.ratios, stride)
            else:
                base = anchor_ops.base_anchors(sizes, self.ratios)
            grids.append(anchor_ops.grid(height, width, stride, base))
        return tf.concat(grids, axis=0)


def rpn_head(
    maps: Sequence[keras.KerasTensor], anchors_per_location: int, channels: int = 256, separable: bool = False
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """A small net slid over each map: one objectness and four offsets an anchor. Its weights are shared by all maps.

    Args:
        maps: list of KerasTensors [N, h, w, C], all of the same C.
        anchors_per_location: k.
        channels: of the hidden layer (the paper: 256 for ZF, 512 for VGG-16).
        separable: a 5x5 depthwise and a 1x1 convolution (ThunderNet) in place of the paper's 3x3, whose weights start
            from N(0, 0.01) like those of the outputs.

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
            channels, 3, padding="same", activation="relu", kernel_initializer=small, name="rpn_conv"
        )
    score = layers.Conv2D(anchors_per_location, 1, kernel_initializer=small, name="rpn_score")
    offset = layers.Conv2D(4 * anchors_per_location, 1, kernel_initializer=small, name="rpn_offset")
    hiddens = [hidden(x) for x in maps]  # [N, h, w, channels] a map
    scores = [layers.Reshape((-1,))(score(x)) for x in hiddens]  # [N, h w k]
    offsets = [layers.Reshape((-1, 4))(offset(x)) for x in hiddens]  # [N, h w k, 4]
    objectness = layers.Concatenate(axis=1, name="rpn_objectness")(scores)
    deltas = layers.Concatenate(axis=1, name="rpn_deltas")(offsets)
    return objectness, deltas


def propose(
    objectness: tf.Tensor,
    deltas: tf.Tensor,
    anchors: tf.Tensor,
    height: tf.Tensor | float,
    width: tf.Tensor | float,
    *,
    count: int,
    before_nms: int,
    nms_threshold: float = 0.7,
    min_size: tf.Tensor | float = 2.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The best boxes of every image: by score, clipped, not too small, non-maximum suppressed.

    Args:
        objectness: float32 [N, A], logits.
        deltas: float32 [N, A, 4].
        anchors: float32 [A, 4], pixels.
        height, width: of the pictures, pixels: of all, or [N].
        count: R, the proposals kept of an image (the paper: 300 at test, 2000 in training).
        before_nms: the number of best boxes that enter suppression (py-faster-rcnn: 6000 and 12000).
        nms_threshold: IoU above which the lower of two boxes is dropped (the paper: 0.7).
        min_size: pixels, of all or [N]; boxes with a shorter side are dropped (py-faster-rcnn: 16 pixels of the file,
            times the scale of the picture).

    Returns:
        (boxes float32 [N, R, 4], objectness logits [N, R]), best first; padding is zeros and -inf.
    """
    boxes, scores = candidates(objectness, deltas, anchors, height, width, before_nms, min_size)
    boxes, scores, _, found = nms.batched_nms(boxes, scores, nms_threshold, count)
    return boxes, tf.where(tf.sequence_mask(found, count), scores, -float("inf"))


def candidates(
    objectness: tf.Tensor,
    deltas: tf.Tensor,
    anchors: tf.Tensor,
    height: tf.Tensor | float,
    width: tf.Tensor | float,
    before_nms: int,
    min_size: tf.Tensor | float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The best boxes of every image before suppression; arguments as of `propose`.

    Returns:
        (boxes float32 [N, B, 4], clipped, objectness logits [N, B], falling, -inf where a box is too small), B the
        lesser of before_nms and A.
    """
    total = objectness.shape[1]
    most = tf.minimum(before_nms, tf.shape(objectness)[1]) if total is None else min(before_nms, total)
    scores, index = tf.math.top_k(objectness, most)
    boxes = coders.decode(tf.gather(deltas, index, batch_dims=1), tf.gather(anchors, index))
    boxes = box_ops.clip(boxes, *(tf.reshape(side, [-1, 1]) for side in (height, width)))
    sides = boxes[..., 2:] - boxes[..., :2]
    large = tf.reduce_min(sides, axis=-1) >= tf.reshape(min_size, [-1, 1])
    return boxes, tf.where(large, scores, -float("inf"))


@keras.saving.register_keras_serializable(package="tfcnn")
class Proposals(keras.layers.Layer):
    """`propose` as a layer of the inference model, its anchors made from the maps' own sizes.

    Call it on [objectness [N, A], deltas [N, A, 4], image [N, H, W, 3], *maps]; it gives boxes [N, R, 4], pixels, best
    first, padded with zeros. No gradient passes through it (the paper's approximate joint training).

    Args:
        sizes, ratios, strides, rounded: of `AnchorGrid`.
        count, before_nms, nms_threshold: of `propose`, at test.
        min_size: shortest side of a proposal, in pixels of the picture that the net sees.
        min_file_size: the same in pixels of the file (py-faster-rcnn's 16); the layer itself takes its picture for the
            file, who resizes pictures says how (`least_side`).
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[float],
        strides: Sequence[int],
        count: int = 300,
        before_nms: int = 2000,
        nms_threshold: float = 0.7,
        rounded: bool = False,
        min_size: float = 2.0,
        min_file_size: float = 0.0,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.grid = AnchorGrid(tuple(map(tuple, sizes)), tuple(ratios), tuple(strides), rounded)
        self.count, self.before_nms, self.nms_threshold = count, before_nms, nms_threshold
        self.min_size, self.min_file_size = min_size, min_file_size
        self.supports_jit = False  # suppression is a kernel of its own

    def anchors(self, maps: Sequence[tf.Tensor]) -> tf.Tensor:
        """The anchors of these maps, float32 [A, 4]."""
        return self.grid.boxes([(tf.shape(x)[1], tf.shape(x)[2]) for x in maps])

    def least_side(self, scale: tf.Tensor | float = 1.0) -> tf.Tensor | float:
        """Shortest side of a proposal in pixels of the net's picture.

        Args:
            scale: pixels of that picture for one of the file, of all or [N].
        """
        return tf.maximum(self.min_size, self.min_file_size * scale) if self.min_file_size else self.min_size

    def propose(
        self,
        objectness: tf.Tensor,
        deltas: tf.Tensor,
        maps: Sequence[tf.Tensor],
        height: tf.Tensor | int,
        width: tf.Tensor | int,
        count: int | None = None,
        before_nms: int | None = None,
        scale: tf.Tensor | float = 1.0,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """`propose` on these maps; the layer's own numbers where none are given; `scale` as of `least_side`."""
        return propose(
            tf.stop_gradient(tf.cast(objectness, tf.float32)),
            tf.stop_gradient(tf.cast(deltas, tf.float32)),
            self.anchors(maps),
            height,
            width,
            count=count or self.count,
            before_nms=before_nms or self.before_nms,
            nms_threshold=self.nms_threshold,
            min_size=self.least_side(scale),
        )

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        objectness, deltas, image, *maps = inputs
        return self.propose(objectness, deltas, maps, tf.shape(image)[1], tf.shape(image)[2])[0]

    def call_in_litert(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """`call` for one picture of known size, in operations that LiteRT has."""
        objectness, deltas, image, *maps = inputs
        anchors = self.grid.boxes([x.shape[1:3] for x in maps])
        sides = image.shape[1:3]
        boxes, scores = candidates(objectness, deltas, anchors, *sides, self.before_nms, self.least_side())
        return suppression.best_boxes(boxes[0], scores[0], self.nms_threshold, self.count)

    def compute_output_spec(self, inputs: list[keras.KerasTensor]) -> keras.KerasTensor:
        return keras.KerasTensor(
            (inputs[0].shape[0], None, 4), "float32"
        )  # other numbers enter the head in training

    def get_config(self) -> dict[str, Any]:
        config = {
            "sizes": self.grid.sizes,
            "ratios": self.grid.ratios,
            "strides": self.grid.strides,
            "count": self.count,
            "before_nms": self.before_nms,
            "nms_threshold": self.nms_threshold,
            "rounded": self.grid.rounded,
            "min_size": self.min_size,
            "min_file_size": self.min_file_size,
        }
        return super().get_config() | config


def rpn_targets(
    anchors: tf.Tensor,
    boxes: tf.Tensor,
    labels: tf.Tensor,
    height: tf.Tensor | float,
    width: tf.Tensor | float,
    seed: tf.Tensor,
    *,
    ignore: tf.Tensor | None = None,
    positive: float = 0.7,
    negative: float = 0.3,
    count: int = 256,
    border: float | None = 0.0,
    ignore_overlap: float = 0.7,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The anchors that the region proposal network is trained on in one step, and their targets.

    An anchor is positive if its IoU with a box is at least `positive` or is the best that this box has; negative if its
    IoU with every box is below `negative`. Anchors that cross the picture's edge by more than `border` are left out,
    and so are negatives inside an ignored object. `count` anchors are drawn, half of them positive where there are so
    many.

    Args:
        anchors: float32 [A, 4], pixels.
        boxes: float32 [N, M, 4], pixels; M may be 0.
        labels: int32 [N, M], the boxes' classes; -1 is padding.
        height, width: of the pictures, pixels: of all, or [N].
        seed: int32 [2], of the draw, or int64 [N, 2], of each picture's.
        ignore: bool [N, M], boxes of crowds and difficult objects: neither found nor background; None: none.
        positive, negative, count: the paper's 0.7, 0.3 and 256.
        border: pixels (py-faster-rcnn's 0); None keeps every anchor.
        ignore_overlap: of `inside_ignored`.

    Returns:
        (index int32 [N, count] of the drawn anchors; their labels int32 [N, count]: 1 positive, 0 negative, -1 an entry
        that could not be filled; deltas float32 [N, count, 4] to the box of each positive, else 0).

    Source: section 3.1.2 and 3.1.3.
    """
    iou = box_ops.iou(anchors, boxes)  # [N, A, M]
    if border is not None:
        sides = [tf.reshape(side, [-1, 1]) for side in (height, width)]
        within = anchor_ops.inside(anchors, *sides, border)  # [N or 1, A]
        iou = tf.where(within[..., None], iou, 0.0)
    real = labels >= 0 if ignore is None else (labels >= 0) & ~ignore
    matched, label = matching.match(iou, real, positive=positive, negative=negative)
    if border is not None:
        label = tf.where(within, label, -1)
    if ignore is not None:
        label = tf.where((label == 0) & inside_ignored(anchors, boxes, ignore, ignore_overlap), -1, label)
    index, label = matching.sample(label, count, 0.5, seed)
    box = rows(boxes, tf.gather(matched, index, batch_dims=1))
    deltas = coders.encode(box, tf.gather(anchors, index))
    return index, label, tf.where((label == 1)[..., None], deltas, 0.0)


def inside_ignored(
    regions: tf.Tensor, boxes: tf.Tensor, ignore: tf.Tensor, overlap: float = 0.7
) -> tf.Tensor:
    """The regions that lie inside a crowd or a difficult object, and are therefore no background.

    py-faster-rcnn and Detectron leave out every proposal inside a crowd; here one that matches an object of its own
    stays positive, since the callers ask about background alone.

    Args:
        regions: float32 [R, 4] or [N, R, 4], pixels.
        boxes: float32 [N, M, 4], pixels.
        ignore: bool [N, M], which of the boxes are meant.
        overlap: share of a region's own area that must lie in one of them, above this; 1 finds none.

    Returns:
        bool [N, R].

    Source: py-faster-rcnn, lib/datasets/coco.py, _filter_crowd_proposals with crowd_thresh 0.7; COCO's IoU with crowds.
    """
    shared = box_ops.intersection(regions, boxes)  # [N, R, M]
    share = tf.math.divide_no_nan(shared, box_ops.area(regions)[..., None])
    return tf.reduce_any((share > overlap) & ignore[:, None, :], axis=-1)


def rows(values: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """The rows of each image by their index: values [N, M, ...], int32 [N, S] -> [N, S, ...]; zeros where M is 0."""
    padded = tf.pad(values, [[0, 0], [0, 1]] + [[0, 0]] * (values.shape.rank - 2))
    return tf.gather(padded, index, batch_dims=1)


def smooth_l1(difference: tf.Tensor, sigma: float = 1.0) -> tf.Tensor:
    """Smooth L1: half the square, times sigma squared, near zero, beyond that the absolute value less a constant.

    Args:
        difference: float, any shape.
        sigma: the square ends at 1 / sigma^2.

    Returns:
        float, the same shape.

    Source: Girshick, "Fast R-CNN", 2015, equation 3; sigma from py-faster-rcnn (3 in the region proposal network).
    """
    size = tf.abs(difference)
    corner = 1.0 / sigma**2
    return tf.where(size < corner, 0.5 * sigma**2 * size**2, size - 0.5 * corner)


def rpn_losses(
    objectness: tf.Tensor, deltas: tf.Tensor, index: tf.Tensor, label: tf.Tensor, target_deltas: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
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
