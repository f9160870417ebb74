"""A detector or a pose net in operations that LiteRT has, suppression too.

Layers whose `call` needs operations that LiteRT lacks have a second one, `call_in_litert`, for one picture of known
size; here the model is rebuilt with it. TensorFlow's kernel for the suppression of many classes at once has no
counterpart in LiteRT. There is one for a single class; boxes of different classes are therefore moved apart, so far
that they cannot overlap, and one suppression serves all classes.

P boxes of a picture, K classes, L detections or proposals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcnn.backbones.convert import rebuilt

BEST = 8  # candidates a detection that are looked at
METHOD, IN_ONNX = "call_in_litert", "call_in_onnx"
FLOAT = "in_float"  # scope of operations that int8 leaves in float32


class Instead(keras.layers.Layer):
    """Stands for a layer that has another method beside `call`, and calls that.

    Args:
        layer: it has no weights.
        method: the other one's name.
    """

    def __init__(self, layer: keras.layers.Layer, method: str, **kwargs: Any):
        super().__init__(autocast=False, name=layer.name, **kwargs)
        self.layer, self.method = layer, method

    def call(self, inputs: Any) -> Any:
        with tf.name_scope(FLOAT):
            return getattr(self.layer, self.method)(inputs)

    def compute_output_spec(self, inputs: Any) -> Any:
        return self.layer.compute_output_spec(inputs)


def is_detector(model: keras.Model, method: str = METHOD) -> bool:
    """Whether a model has layers that are computed otherwise elsewhere: those of detectors, and of pose nets."""
    return any(hasattr(layer, method) for layer in model.layers)


def instead(model: keras.Model, *methods: str, shape: Sequence[int] | None = None) -> keras.Model:
    """The detector with another method in place of `call`, of the layers that have one.

    Args:
        model: pictures [N, H, W, 3] -> a dict of tensors.
        *methods: their names, the first that a layer has counts; with `call_in_litert` the model is for one picture of
            known size at a time.
        shape: what the new model takes, [1, H, W, 3]; None: what the old one does.
    """
    image = None if shape is None else keras.Input(batch_shape=shape, name=model.inputs[0].name)

    def replace(layer):
        method = next((each for each in methods if hasattr(layer, each)), None)
        return Instead(layer, method) if method else layer

    return rebuilt(model, replace, inputs=image, values=None)


def program(model: keras.Model) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Gives a model as a function of pictures that LiteRT can run.

    Args:
        model: pictures [N, H, W, 3] -> a tensor or a dict of tensors; with a layer that has `call_in_litert`, as
            detectors have, it takes one picture of known size at a time.

    Returns:
        A function to {output: tensor}; a model of one output without a name has "output".
    """
    model = instead(model, METHOD) if is_detector(model) else model

    def whole(image):
        outputs = model(image, training=False)
        return outputs if isinstance(outputs, dict) else {"output": outputs}

    return whole


def best_of(
    boxes: tf.Tensor, scores: tf.Tensor, iou_threshold: float, max_outputs: int, score_threshold: float
) -> dict[str, tf.Tensor]:
    """Suppresses boxes class by class, in one call of the kernel for one class.

    Args:
        boxes: float32 [P, 4], or [P, 1 or K, 4], (x1, y1, x2, y2) in pixels.
        scores: float32 [P, K].
        iou_threshold: above it the lower of two boxes of a class goes.
        max_outputs: L.
        score_threshold: boxes of this score or below are left out. Of the candidates that remain the best 8 L are
            looked at.

    Returns:
        As the detector's: boxes [1, L, 4], scores [1, L], labels int32 [1, L] (-1 is padding), count int32 [1].
    """
    classes = scores.shape[1]
    value, order = tf.math.top_k(tf.reshape(scores, [-1]), _at_most(BEST * max_outputs, scores))
    label = order % classes
    of_classes = boxes.shape.rank == 3 and boxes.shape[1] > 1
    box = tf.gather(tf.reshape(boxes, [-1, 4]), order if of_classes else order // classes)
    far = 1.0 + tf.reduce_max(boxes) - tf.reduce_min(boxes)
    apart = box + tf.cast(label, tf.float32)[:, None] * far
    kept, there, count = _kept(apart, value, iou_threshold, max_outputs, score_threshold)
    return {
        "boxes": tf.where(there[:, None], tf.gather(box, kept), 0.0)[None],
        "scores": tf.where(there, tf.gather(value, kept), 0.0)[None],
        "labels": tf.where(there, tf.gather(label, kept), -1)[None],
        "count": tf.reshape(count, [1]),
    }


def best_boxes(boxes: tf.Tensor, scores: tf.Tensor, iou_threshold: float, max_outputs: int) -> tf.Tensor:
    """Suppresses boxes of one class.

    Args:
        boxes: float32 [P, 4], (x1, y1, x2, y2) in pixels, best first.
        scores: float32 [P], falling; boxes of -inf take no part.
        iou_threshold: above it the lower of two boxes goes.
        max_outputs: L.

    Returns:
        float32 [1, L, 4], best first, then zeros.
    """
    kept, there, _ = _kept(boxes, scores, iou_threshold, max_outputs, -float("inf"))
    return tf.where(there[:, None], tf.gather(boxes, kept), 0.0)[None]


def _kept(boxes, scores, iou_threshold, max_outputs, score_threshold):
    """(indices [L], which of them are real [L], their number) of boxes [P, 4] by falling score [P].

    The kernel breaks ties as it likes, and drops boxes at the threshold where TensorFlow drops those above it. So it
    gets a box's place from the end for its score, and the next larger threshold.
    """
    most = _at_most(None, scores)
    place = tf.cast(most - tf.range(most), tf.float32)
    kept, count = tf.raw_ops.NonMaxSuppressionV4(
        boxes=boxes,
        scores=tf.where(scores > score_threshold, place, 0.0),
        max_output_size=max_outputs,
        iou_threshold=np.nextafter(np.float32(iou_threshold), np.float32(np.inf)),
        score_threshold=0.5,
        pad_to_max_output_size=True,
    )
    return kept, tf.range(max_outputs) < count, count


def _at_most(most, values):
    """`most`, or as many as there are values where that is less; a number where it is known."""
    if None in values.shape:
        return tf.size(values) if most is None else tf.minimum(most, tf.size(values))
    count = int(np.prod(values.shape))
    return count if most is None else min(most, count)
