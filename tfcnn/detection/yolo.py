"""YOLO: detection as one regression from the whole picture to a grid of boxes and classes.

The picture is divided into S x S cells. Each cell gives K class probabilities, and B boxes with a confidence each; a
cell answers for the object whose centre lies in it. One network gives all of it at once, S S (5 B + K) numbers.

Letters: N images, S cells on a side, B boxes a cell, K classes, M padded ground-truth boxes.

Source: Redmon, Divvala, Girshick, Farhadi, "You Only Look Once", 2016 (arXiv 1506.02640), section 2; where the paper is
silent, darknet's region_layer.c and detection_layer.c.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tfcnn.backbones.nets.yolo import dense_head
from tfcnn.detection import endpoints
from tfcnn.detection.outputs import DetectionLayer
from tfcnn.detection.rpn import inside_ignored
from tfcnn.errors import InputError, unknown
from tfcnn.ops import boxes as box_ops
from tfcnn.ops import coders

YOLO_HIDDEN = ((4096, "leaky"),)  # the paper's fully connected layers before the output
FAST_YOLO_HIDDEN = ((256, "linear"), (4096, "leaky"))
# How the names of layers begin that are the detector's and not the backbone's.
OWN_LAYERS = ("neck_", "fc", "output")


def yolo(
    backbone: keras.Model,
    classes: int,
    *,
    size: int = 448,
    grid: int = 7,
    boxes: int = 2,
    endpoint: str | None = None,
    passthrough: int = 0,
    convolutions: Sequence[int] = (),
    channels: int | None = None,
    resample: bool = False,
    hidden: Sequence[tuple[int, str]] = YOLO_HIDDEN,
    dropout: float = 0.5,
    score_threshold: float = 0.005,
    nms_threshold: float = 0.5,
    max_detections: int = 100,
) -> keras.Model:
    """One functional inference model: picture in, detections out.

    The defaults on the backbone "yolo" are the paper's network of 24 convolutions, 271.7 M weights; on "fast_yolo"
    with `FAST_YOLO_HIDDEN` its Fast YOLO.

    Args:
        backbone: keras.Model from image to a dict of endpoints (tfcnn.backbones.backbone).
        classes: K.
        size: side of the square picture in pixels; the dense layers fix it.
        grid: S. boxes: B.
        endpoint: the map of the backbone that is read; None: its last.
        passthrough: channels of the backbone's last map of half the stride, brought by a convolution of stride 2 beside
            the last map; 0, as the paper: none. (Redmon and
            Farhadi, YOLO9000, 2017, section 2, Fine-Grained Features, put its 2x2 locations behind one another.)
        convolutions: channels of separable 3x3 convolutions with leaky rectifiers between a small backbone and the
            dense layers, as the paper puts four convolutions on its pretrained twenty.
        channels: of a linear 1x1 convolution before the dense layers, which keeps them small (as Fast YOLO has a linear
            layer before its widest one); None: no such layer.
        resample: bring the last map to S x S locations, by bilinear interpolation.
        hidden: (width, "leaky" or "linear") of the fully connected layers before the output, which is one itself.
        dropout: rate before the output.
        score_threshold, nms_threshold, max_detections: of the detections. A box's score of a class is the class'
            probability times the box's confidence, which is small throughout.

    Returns:
        keras.Model from image [N, size, size, 3], float32 0..255, to a dict: boxes [N, D, 4] in pixels of that image,
        scores [N, D], labels int32 [N, D] (-1 is padding), count int32 [N].

    Raises:
        InputError: the picture is too small for the backbone, or for so many cells; an unknown endpoint;
            `passthrough` of a backbone that has no endpoint of half the stride.

    Source: section 2.2, figure 3.
    """
    if grid > size:
        raise InputError(f"A picture of {size} pixels cannot be divided into {grid} x {grid} cells.")
    image = backbone.inputs[0]
    name = list(backbone.output)[-1] if endpoint is None else endpoint
    if name not in backbone.output:
        raise unknown("endpoint", name, backbone.output)
    x = backbone.output[name]
    _, height, width, depth = backbone.compute_output_shape((1, size, size, 3))[name]
    if not height or not width:
        raise InputError(f"A picture of {size} pixels is too small for the backbone {backbone.name}.")
    if passthrough:
        (finer,) = endpoints.endpoints_at(backbone, [endpoints.strides(backbone)[name] // 2])
        finer = layers.Conv2D(
            passthrough, 3, strides=2, padding="same", kernel_initializer="he_normal", name="neck_passthrough"
        )(backbone.output[finer])
        finer = layers.LeakyReLU(negative_slope=0.1, name="neck_passthrough_leaky")(finer)
        x = layers.Concatenate(name="neck_joined")([x, finer])
        depth += passthrough
    for number, count in enumerate(convolutions):
        x = layers.SeparableConv2D(
            count,
            3,
            padding="same",
            depthwise_initializer=keras.initializers.RandomNormal(stddev=9**-0.5),  # of 9 inputs, not 9 C
            pointwise_initializer="he_normal",
            name=f"neck_conv{number}",
        )(x)
        x = layers.LeakyReLU(negative_slope=0.1, name=f"neck_leaky{number}")(x)
        depth = count
    if channels is not None:
        x = layers.Conv2D(channels, 1, kernel_initializer="he_normal", name="neck_narrow")(x)
        depth = channels
    if resample:
        x = layers.Resizing(grid, grid, name="neck_resample")(x)
        height = width = grid
    x = layers.Reshape((height * width * depth,), name="flatten")(x)
    output = dense_head(x, grid * grid * (5 * boxes + classes), hidden, dropout)
    detections = GridDetections(
        grid, boxes, classes, size, score_threshold, nms_threshold, max_detections, name="detections"
    )
    model = keras.Model(image, detections([output, image]), name="yolo")
    return endpoints.remember(model, backbone)


def split(output: tf.Tensor, grid: int, boxes: int, classes: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The parts of the network's output, in darknet's order: all classes, all confidences, all boxes.

    Args:
        output: float32 [N, S S (5 B + K)].
        grid: S. boxes: B. classes: K.

    Returns:
        class probabilities [N, S, S, K], confidences [N, S, S, B], and boxes [N, S, S, B, 4]: the centre within its
        cell (0..1), and the square roots of width and height as shares of the picture.
    """
    cells = grid * grid
    parts = tf.split(output, [cells * classes, cells * boxes, cells * boxes * 4], axis=-1)
    return (
        tf.reshape(parts[0], [-1, grid, grid, classes]),
        tf.reshape(parts[1], [-1, grid, grid, boxes]),
        tf.reshape(parts[2], [-1, grid, grid, boxes, 4]),
    )


def decode(
    output: tf.Tensor, height: tf.Tensor, width: tf.Tensor, grid: int, boxes: int, classes: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Every cell's boxes with their scores of the classes.

    Args:
        output: float32 [N, S S (5 B + K)].
        height, width: of the picture, pixels.
        grid: S. boxes: B. classes: K.

    Returns:
        boxes float32 [N, S S B, 4], pixels, cut to the picture; scores float32 [N, S S B, K].

    Source: section 2, equation 1.
    """
    probability, confidence, place = split(output, grid, boxes, classes)
    unit_boxes = tf.reshape(coders.decode_yolo(place), [-1, grid * grid * boxes, 4])
    found = box_ops.clip(box_ops.from_unit(unit_boxes, height, width), height, width)
    scores = confidence[..., None] * probability[..., None, :]  # [N, S, S, B, K]
    return found, tf.reshape(scores, [-1, grid * grid * boxes, classes])


def yolo_losses(
    output: tf.Tensor,
    unit_boxes: tf.Tensor,
    labels: tf.Tensor,
    *,
    grid: int,
    boxes: int,
    classes: int,
    lambda_coord: float = 5.0,
    lambda_noobj: float = 0.5,
    ignore: tf.Tensor | None = None,
    ignore_overlap: float = 0.7,
) -> dict[str, tf.Tensor]:
    """The five terms of the loss, all of them squared errors.

    In each cell with an object one box is responsible: that of the highest IoU with the object; where none overlaps,
    the one of the least squared distance. Its confidence is to be that IoU, taken as a constant; the confidence of
    every other box is to be 0. A cell that holds several objects answers for the first.

    Args:
        output: float32 [N, S S (5 B + K)].
        unit_boxes: float32 [N, M, 4], shares of the picture. labels: int32 [N, M], -1 for padding.
        grid: S. boxes: B. classes: K.
        lambda_coord, lambda_noobj: the paper's weights.
        ignore: bool [N, M], boxes of crowds and difficult objects, whose label is -1: a cell without an object that
            lies in one by more than `ignore_overlap` of its area has no term; None: none.

    Returns:
        {"xy", "wh", "object", "no_object", "class"}: [N] each, weighted; exactly 0 but for no_object without objects.

    Source: section 2.2, equation 3; darknet's region_layer.c (responsible box, rescore).
    """
    probability, confidence, place = split(output, grid, boxes, classes)
    held = tf.ones(
        tf.shape(confidence)[:-1], bool
    )  # [N, S, S]: cells without an object whose confidence is to be 0
    if ignore is not None:
        inside = inside_ignored(_unit_cells(grid), unit_boxes, ignore, ignore_overlap)
        held = ~tf.reshape(inside, [-1, grid, grid])
    unit_boxes = tf.pad(unit_boxes, [[0, 0], [0, 1], [0, 0]])  # so that a row can be gathered where M = 0
    labels = tf.pad(labels, [[0, 0], [0, 1]], constant_values=-1)
    owner, target = coders.encode_yolo(unit_boxes, labels >= 0, grid)  # [N, S, S], [N, S, S, 4]
    occupied = owner >= 0
    target = target[..., None, :]  # [N, S, S, 1, 4]

    found, truth = coders.decode_yolo(place), coders.decode_yolo(target)
    iou = tf.stop_gradient(box_ops.aligned_iou(found, truth))  # [N, S, S, B]
    distance = tf.reduce_sum(tf.square(box_ops.to_center(found) - box_ops.to_center(truth)), axis=-1)
    nearest = tf.where(tf.reduce_any(iou > 0, axis=-1), tf.argmax(iou, axis=-1), tf.argmin(distance, axis=-1))
    responsible = tf.one_hot(nearest, boxes) * tf.cast(occupied, tf.float32)[..., None]  # [N, S, S, B]

    free = (1 - responsible) * tf.cast(held | occupied, tf.float32)[..., None]

    error = tf.square(place - target) * responsible[..., None]  # [N, S, S, B, 4]
    label = tf.gather(labels, tf.maximum(owner, 0), batch_dims=1)  # [N, S, S]
    wrong = tf.square(probability - tf.one_hot(label, classes)) * tf.cast(occupied, tf.float32)[..., None]

    def total(values):
        return tf.reduce_sum(values, axis=list(range(1, values.shape.rank)))

    return {
        "xy": lambda_coord * total(error[..., :2]),
        "wh": lambda_coord * total(error[..., 2:]),
        "object": total(responsible * tf.square(confidence - iou)),
        "no_object": lambda_noobj * total(free * tf.square(confidence)),
        "class": total(wrong),
    }


def _unit_cells(grid):
    """The squares of all cells as shares of the picture, float32 [S S, 4], row by row."""
    x, y = np.meshgrid(np.arange(grid), np.arange(grid))
    corner = np.stack([x, y], axis=-1).reshape(-1, 2)
    return tf.constant(np.concatenate([corner, corner + 1], axis=1) / grid, tf.float32)


@keras.saving.register_keras_serializable(package="tfcnn")
class GridDetections(DetectionLayer):
    """From the grid's numbers to detections: boxes, scores, a threshold, suppression a class, the best of all.

    Call it on [output [N, S S (5 B + K)], image [N, H, W, 3]]; it gives `outputs.best_of_each_class`, boxes in pixels
    of the image.
    """

    def __init__(
        self,
        grid: int,
        boxes: int,
        classes: int,
        size: int,
        score_threshold: float = 0.005,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
        **kwargs: Any,
    ):
        super().__init__(score_threshold, nms_threshold, max_detections, **kwargs)
        self.grid, self.boxes, self.classes, self.size = grid, boxes, classes, size

    def decode(
        self, raw: list[tf.Tensor], height: tf.Tensor, width: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Boxes float32 [N, P, 4] and scores [N, P, K] before suppression, of [output] and the picture's sides."""
        output = tf.cast(raw[0], tf.float32)
        return decode(output, height, width, self.grid, self.boxes, self.classes)

    def get_config(self) -> dict[str, Any]:
        own = {"grid": self.grid, "boxes": self.boxes, "classes": self.classes, "size": self.size}
        return super().get_config() | own
