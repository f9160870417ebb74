"""The gradient of a score to the picture: compiled once a model, all pictures of a batch at once.

N pictures of H x W, K classes or channels.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tfcnn.backbones import tap
from tfcnn.backbones.graph import require_gradient
from tfcnn.backbones.heads import with_logits

BEST = -1  # stands for the class or channel that answers most

Images = tf.Tensor | np.ndarray  # [N, H, W, 3] float32, 0..255
Indices = tf.Tensor | np.ndarray  # [N] int32; BEST for the best
Gradients = Callable[[Images, Indices], tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]]


def class_gradients(model: keras.Model) -> Gradients:
    """Gives a function from pictures to the gradients of one class' score, before softmax or sigmoid.

    Args:
        model: a classifier; what `with_logits` takes.

    Returns:
        f(images [N, H, W, 3] float32 0..255, classes [N] int32, BEST for the best) -> gradients [N, H, W, 3],
        classes [N] int32, logits [N, K], scores [N, K]. The model is used as in inference.

    Raises:
        InputError: the model hides its logits, or no gradient reaches its picture.

    Source: Simonyan, Vedaldi, Zisserman, Deep Inside Convolutional Networks, section 3.
    """
    model = with_logits(model)

    def values(images):
        outputs = model(images, training=False)
        return outputs["logits"], outputs["scores"]

    return _gradients(model, values)


def channel_gradients(model: keras.Model, layer: str) -> Gradients:
    """Gives a function from pictures to the gradients of one channel of a layer, its mean over locations.

    Args:
        model: a flat functional model.
        layer: one of its layers or endpoints, with an output [N, ..., C].

    Returns:
        As `class_gradients`, channels for classes, means [N, C] for logits and for scores.

    Raises:
        InputError: no such layer, or no gradient reaches the picture.
    """
    model = tap(model, [layer])

    def values(images):
        answer = model(images, training=False)[layer]
        means = tf.reduce_mean(answer, axis=list(range(1, len(answer.shape) - 1)))
        return means, means

    return _gradients(model, values)


def _gradients(model, values):
    require_gradient(model)

    @tf.function(reduce_retracing=True)
    def gradients(images, indices):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            answers, scores = values(images)  # [N, K] each
            indices = tf.where(indices < 0, tf.argmax(answers, axis=-1, output_type=tf.int32), indices)
            chosen = tf.gather(answers, indices, batch_dims=1)  # [N]; a picture moves only its own
        return tape.gradient(chosen, images), indices, answers, scores

    return gradients
