"""What became of YOLO's idea: cells of several maps, no dense layers, no anchors, each part an option.

As in YOLO every cell gives boxes and class scores at once. What is new: the cells of several maps (strides 8, 16, 32)
answer for objects of all sizes; a cell's box is the distances from its middle to the four sides; the loss of a box is
on its overlap (GIoU or CIoU), or on its sides (smooth L1); objectness is a cross-entropy, focal if asked; and the cells
that answer for an object are the nearest to its centre on the map of its size, or those that find it best (dynamic
assignment).

Letters: N images, P cells of all maps, M padded ground-truth boxes, K classes.

Source: Redmon et al. 2016 (YOLO); Tian et al. 2019 (FCOS), sections 3.1, 3.2 and center sampling; Lin et al. 2017
(focal loss); Ge et al. 2021 (YOLOX), section 2.1, decoupled head, anchor-free cells and SimOTA.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from tfcnn.detection import endpoints
from tfcnn.detection.faster_rcnn import top_down
from tfcnn.detection.outputs import DetectionLayer
from tfcnn.detection.rpn import inside_ignored, smooth_l1
from tfcnn.errors import InputError
from tfcnn.ops import box_losses
from tfcnn.ops import boxes as box_ops

STRIDES = (8, 16, 32)
OWN_LAYERS = ("neck_", "head_")  # how the names of layers begin that are the detector's


@dataclasses.dataclass(frozen=True)
class OneStageLoss:
    """What the loss is made of.

    Attributes:
        assignment: "center": the cells within 1.5 strides of an object's centre, on the map of its size; "dynamic":
            SimOTA.
        box: "giou" or "ciou": 1 less the overlap; "l1": smooth L1, the mean over the four sides, in
            strides of the cell.
        focal: gamma of focal objectness (with alpha 0.25 for objects); 0: cross-entropy.
        box_weight, object_weight: factors of the terms.
        size: a map answers for objects whose longer side is up to so many of its strides, the coarsest for all above
            (assignment "center").
    """

    assignment: str = "dynamic"
    box: str = "giou"
    focal: float = 0.0
    box_weight: float = 5.0
    object_weight: float = 1.0
    size: float = 8.0


def one_stage(
    backbone: keras.Model,
    classes: int,
    *,
    strides: Sequence[int] = STRIDES,
    channels: int = 128,
    tower: int = 2,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    max_detections: int = 100,
) -> keras.Model:
    """One functional inference model: picture of any size in, detections out.

    Args:
        backbone: keras.Model from image to a dict of endpoints (tfcnn.backbones.backbone).
        classes: K.
        strides: of the maps whose cells answer, rising, each twice the one before; one map is a single scale.
        channels: of the neck and the head.
        tower: separable convolutions before each output.
        score_threshold, nms_threshold, max_detections: of the detections. A cell's score of a class is the geometric
            mean of the class' probability and the objectness: it ranks as their product, which is small throughout.

    Returns:
        keras.Model from image [N, H, W, 3], float32 0..255, to a dict: boxes [N, D, 4] in pixels of that image, scores
        [N, D], labels int32 [N, D] (-1 is padding), count int32 [N].

    Raises:
        InputError: strides that do not double, or the backbone has no endpoint of one.
    """
    strides = tuple(strides)
    if not strides or any(2 * one != other for one, other in itertools.pairwise(strides)):
        given = ", ".join(map(str, strides)) or "none"
        raise InputError(
            f"A one-stage detector needs strides each twice the one before, such as 8, 16, 32: {given}."
        )
    image = backbone.inputs[0]
    maps = top_down([backbone.output[name] for name in endpoints.endpoints_at(backbone, strides)], channels)
    raw = [x for level in head(maps, classes, channels, tower) for x in level]
    detections = CellDetections(
        classes, score_threshold, nms_threshold, max_detections, strides, name="detections"
    )
    found = detections([*raw, image])
    return endpoints.remember(keras.Model(image, found, name="one_stage"), backbone)


def head(maps: Sequence[keras.KerasTensor], classes: int, channels: int, tower: int) -> list[tuple]:
    """Two towers of separable convolutions, one for classes, one for boxes and objectness, the same on every map.

    Args:
        maps: [N, h, w, channels] each. classes: K. channels, tower: as `one_stage`.

    Returns:
        for each map (class logits [N, h, w, K], objectness logits [N, h, w, 1], distances [N, h, w, 4], natural
        logarithms of strides).
    """

    def convolutions(kind):
        return [
            layers.SeparableConv2D(
                channels,
                3,
                padding="same",
                activation="relu",
                depthwise_initializer="he_normal",
                pointwise_initializer="he_normal",
                name=f"head_{kind}{number}",
            )
            for number in range(tower)
        ]

    rare = keras.initializers.Constant(
        -4.6
    )  # few cells hold an object: 0.01 at first (focal loss, section 3.3)
    names, places = convolutions("class"), convolutions("box")
    ends = [
        layers.Conv2D(classes, 1, name="head_class", dtype="float32"),
        layers.Conv2D(1, 1, bias_initializer=rare, name="head_object", dtype="float32"),
        layers.Conv2D(4, 1, name="head_box", dtype="float32"),
    ]
    found = []
    for x in maps:
        a = b = x
        for one, other in zip(names, places, strict=True):
            a, b = one(a), other(b)
        found.append((ends[0](a), ends[1](b), ends[2](b)))
    return found


def cells(shapes: Sequence[tf.Tensor], strides: Sequence[int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Middle and stride of every cell of all maps.

    Args:
        shapes: (height, width) of each map. strides: of each map, pixels.

    Returns:
        middles float32 [P, 2] (x, y), pixels; strides float32 [P].
    """
    middles, sides = [], []
    for (height, width), stride in zip(shapes, strides, strict=True):
        x, y = tf.meshgrid(tf.range(width), tf.range(height))
        middle = (tf.cast(tf.stack([x, y], axis=-1), tf.float32) + 0.5) * stride
        middles.append(tf.reshape(middle, [-1, 2]))
        sides.append(tf.fill([height * width], float(stride)))
    return tf.concat(middles, axis=0), tf.concat(sides, axis=0)


def flatten(
    raw: Sequence[tf.Tensor], of_maps: Sequence[int] = STRIDES
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The head's maps as lists of cells.

    Args:
        raw: of the maps one after the other class logits, objectness logits, distances, as `head`.
        of_maps: their strides, pixels.

    Returns:
        class logits [N, P, K], objectness logits [N, P], boxes [N, P, 4] in pixels, middles [P, 2], strides [P].
    """
    levels = [raw[i : i + 3] for i in range(0, len(raw), 3)]
    shapes = [(tf.shape(level[0])[1], tf.shape(level[0])[2]) for level in levels]
    middles, strides = cells(shapes, of_maps)
    rows = [
        tf.concat([tf.reshape(x, [tf.shape(x)[0], -1, x.shape[-1]]) for x in kind], axis=1)
        for kind in zip(*levels, strict=True)
    ]
    reach = tf.exp(tf.minimum(rows[2], 6.0)) * strides[:, None]  # left, top, right, bottom
    boxes = tf.concat([middles - reach[..., :2], middles + reach[..., 2:]], axis=-1)
    return rows[0], rows[1][..., 0], boxes, middles, strides


def one_stage_losses(
    raw: Sequence[tf.Tensor],
    truth: tf.Tensor,
    labels: tf.Tensor,
    how: OneStageLoss,
    ignore: tf.Tensor | None = None,
    ignore_overlap: float = 0.7,
    of_maps: Sequence[int] = STRIDES,
) -> dict[str, tf.Tensor]:
    """Objectness of every cell; class and box of the cells that answer for an object.

    Args:
        raw: outputs of `head`, one after the other.
        truth: float32 [N, M, 4], pixels. labels: int32 [N, M], -1 for padding.
        how: what the loss is made of.
        ignore: bool [N, M], boxes of crowds and difficult objects, whose label is -1: a cell without an object that
            lies in one by more than `ignore_overlap` of its area has no term; None: none.
        of_maps: the maps' strides, pixels.

    Returns:
        {"object", "class", "box"}: [N] each, weighted, divided by the number of cells that answer.
    """
    logits, objectness, boxes, middles, strides = flatten(raw, of_maps)
    owner = tf.stop_gradient(
        tf.map_fn(
            lambda one: assign(*one, middles, strides, how),
            (logits, objectness, boxes, truth, labels),
            fn_output_signature=tf.TensorSpec([None], tf.int32),
        )
    )
    positive = owner >= 0
    weight = tf.cast(positive, tf.float32)
    number = tf.maximum(tf.reduce_sum(weight, axis=1), 1.0)  # [N]
    held = tf.ones_like(weight)  # cells whose objectness is learned
    if ignore is not None:
        squares = tf.concat([middles - strides[:, None] / 2, middles + strides[:, None] / 2], axis=-1)
        held = tf.cast(positive | ~inside_ignored(squares, truth, ignore, ignore_overlap), tf.float32)
    truth = tf.pad(truth, [[0, 0], [0, 1], [0, 0]])  # so that a row can be gathered where M = 0
    labels = tf.pad(labels, [[0, 0], [0, 1]])
    target = tf.gather(truth, tf.maximum(owner, 0), batch_dims=1)  # [N, P, 4]
    target = tf.where(positive[..., None], target, tf.stop_gradient(boxes))
    label = tf.gather(labels, tf.maximum(owner, 0), batch_dims=1)
    quality = tf.stop_gradient(box_ops.aligned_iou(boxes, target))[..., None]
    wanted = tf.one_hot(label, logits.shape[-1]) * quality  # a class' score is to say how well the box fits
    of_class = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(wanted, logits), axis=-1)
    terms = {
        "object": how.object_weight
        * tf.reduce_sum(held * _objectness(objectness, weight, how.focal), axis=1),
        "class": tf.reduce_sum(of_class * weight, axis=1),
        "box": how.box_weight * tf.reduce_sum(_box_loss(boxes, target, strides, how.box) * weight, axis=1),
    }
    return {name: term / number for name, term in terms.items()}


def _box_loss(boxes, target, strides, kind):
    """Of boxes [N, P, 4] and targets, with the strides [P] of their cells: [N, P]."""
    if kind == "l1":
        return tf.reduce_mean(smooth_l1((boxes - target) / strides[:, None]), axis=-1)
    return 1 - {"giou": box_losses.giou, "ciou": box_losses.ciou}[kind](boxes, target)


def _objectness(logits, target, gamma):
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(target, logits)
    if not gamma:
        return entropy
    wrong = tf.abs(target - tf.sigmoid(logits))
    return tf.where(target > 0, 0.25, 0.75) * wrong**gamma * entropy


def assign(
    logits: tf.Tensor,
    objectness: tf.Tensor,
    boxes: tf.Tensor,
    truth: tf.Tensor,
    labels: tf.Tensor,
    middles: tf.Tensor,
    strides: tf.Tensor,
    how: OneStageLoss,
) -> tf.Tensor:
    """Which object each cell of one picture answers for: int32 [P], -1 for none.

    Args:
        logits [P, K], objectness [P], boxes [P, 4]: what the net says now.
        truth: float32 [M, 4]. labels: int32 [M], -1 for padding.
        middles, strides: of `cells`.
        how: `assignment` and `size` are read.

    Source: FCOS, section 3.2 and center sampling ("center"); YOLOX, section 2.1, SimOTA ("dynamic").
    """
    center = (truth[:, :2] + truth[:, 2:]) / 2  # [M, 2]
    away = tf.reduce_max(tf.abs(middles[None] - center[:, None]), axis=-1) / strides  # [M, P], in strides
    near = away < (2.5 if how.assignment == "dynamic" else 1.5)
    inside = tf.reduce_all(
        (middles[None] > truth[:, None, :2]) & (middles[None] < truth[:, None, 2:]), axis=-1
    )
    real = (labels >= 0)[:, None]
    if how.assignment == "center":
        longer = tf.reduce_max(truth[:, 2:] - truth[:, :2], axis=-1)[:, None]  # [M, 1]
        finest, coarsest = tf.reduce_min(strides), tf.reduce_max(strides)
        low = tf.where(strides > finest, how.size * strides / 2, 0.0)  # up to what the finer map answers for
        high = tf.where(strides < coarsest, how.size * strides, float("inf"))
        able = real & near & (longer > low) & (longer <= high)
        area = box_ops.area(truth)[:, None]
        cost = tf.where(able, area + 0 * away, float("inf"))  # of several the smallest object
        return _cheapest(cost)
    iou = box_ops.iou(truth, boxes)  # [M, P]
    able = real & (near | inside)
    score = tf.sigmoid(logits)[None] * tf.sigmoid(objectness)[None, :, None]  # [1, P, K]
    own = tf.gather(tf.sqrt(score)[0], tf.maximum(labels, 0), axis=1)  # [P, M]
    entropy = -tf.math.log(tf.clip_by_value(tf.transpose(own), 1e-6, 1.0))
    cost = entropy - 3 * tf.math.log(iou + 1e-6) + 1e5 * tf.cast(~(near & inside), tf.float32)
    cost = tf.where(able, cost, float("inf"))
    most = tf.minimum(10, tf.shape(cost)[1])
    best = tf.math.top_k(tf.where(able, iou, 0.0), most).values
    count = tf.maximum(tf.cast(tf.reduce_sum(best, axis=-1), tf.int32), 1)  # dynamic k, [M]
    limits = -tf.math.top_k(-cost, most).values  # [M, 10], rising
    limit = tf.gather(limits, count - 1, batch_dims=1)[:, None]
    return _cheapest(tf.where(cost <= limit, cost, float("inf")))


def _cheapest(cost):
    """The object of least cost for each cell, -1 where none is finite: [M, P] to int32 [P]."""
    cost = tf.pad(cost, [[0, 1], [0, 0]], constant_values=float("inf"))
    owner = tf.argmin(cost, axis=0, output_type=tf.int32)
    return tf.where(tf.math.is_finite(tf.reduce_min(cost, axis=0)), owner, -1)


@keras.saving.register_keras_serializable(package="tfcnn")
class CellDetections(DetectionLayer):
    """From the head's maps to detections: scores, boxes, a threshold, suppression a class, the best of all.

    Call it on [the outputs of `head` one after the other, image [N, H, W, 3]]; it gives `outputs.best_of_each_class`.
    """

    def __init__(
        self,
        classes: int,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
        strides: Sequence[int] = STRIDES,
        **kwargs: Any,
    ):
        super().__init__(score_threshold, nms_threshold, max_detections, **kwargs)
        self.classes, self.strides = classes, tuple(strides)

    def decode(
        self, raw: list[tf.Tensor], height: tf.Tensor, width: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Boxes float32 [N, P, 4] and scores [N, P, K] before suppression, of `head` and the picture's sides."""
        logits, objectness, boxes, _, _ = flatten([tf.cast(x, tf.float32) for x in raw], self.strides)
        product = tf.sigmoid(logits) * tf.sigmoid(objectness)[..., None]
        return box_ops.clip(boxes, height, width), tf.sqrt(product)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"classes": self.classes, "strides": list(self.strides)}
