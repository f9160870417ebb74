"""A detector's suppression in operations that LiteRT has, too.

TensorFlow's kernel for many classes at once has no counterpart in LiteRT. There is one for a single class; boxes of
different classes are therefore moved apart, so far that they cannot overlap, and one suppression serves all classes.

P boxes of a picture, K classes, L detections.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from tfcnn.backbones.graph import made_by

BEST = 8  # candidates a detection that are looked at


def program(model: keras.Model) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Gives a model as a function of pictures, a detector of one shot with a suppression that LiteRT can run.

    Args:
        model: pictures [N, H, W, 3] -> a tensor or a dict of tensors. A detector is known by its last layer, which has
            `decode`, to boxes [N, P, 4] and scores [N, P, K], and the thresholds; it takes one picture at a time.

    Returns:
        A function to {output: tensor}; a model of one output without a name has "output".
    """
    last = made_by(keras.tree.flatten(model.output)[0])
    layer = last.operation
    if not (hasattr(layer, "decode") and hasattr(layer, "nms_threshold") and len(last.inputs) > 1):

        def whole(image):
            outputs = model(image, training=False)
            return outputs if isinstance(outputs, dict) else {"output": outputs}

        return whole
    before = keras.Model(model.inputs, list(last.inputs))

    def detections(image):
        *raw, picture = before(image, training=False)
        boxes, scores = layer.decode(raw, tf.shape(picture)[1], tf.shape(picture)[2])
        return best_of(boxes[0], scores[0], layer.nms_threshold, layer.max_detections, layer.score_threshold)

    return detections


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
    most = BEST * max_outputs
    if scores.shape[0] is None:
        most = tf.minimum(most, tf.size(scores))
    else:
        most = min(most, scores.shape[0] * classes)
    value, order = tf.math.top_k(tf.reshape(scores, [-1]), most)
    label = order % classes
    of_classes = boxes.shape.rank == 3 and boxes.shape[1] > 1
    box = tf.gather(tf.reshape(boxes, [-1, 4]), order if of_classes else order // classes)
    far = 1.0 + tf.reduce_max(boxes) - tf.reduce_min(boxes)
    apart = box + tf.cast(label, tf.float32)[:, None] * far
    kept, valid = tf.raw_ops.NonMaxSuppressionV4(
        boxes=apart,
        scores=value,
        max_output_size=max_outputs,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        pad_to_max_output_size=True,
    )
    there = tf.range(max_outputs) < valid
    return {
        "boxes": tf.where(there[:, None], tf.gather(box, kept), 0.0)[None],
        "scores": tf.where(there, tf.gather(value, kept), 0.0)[None],
        "labels": tf.where(there, tf.gather(label, kept), -1)[None],
        "count": tf.reshape(valid, [1]),
    }
