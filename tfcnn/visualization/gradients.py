"""The gradient of a score to the picture: compiled once a model, all pictures of a batch at once.

N pictures of H x W, K classes.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from tfcnn.backbones.heads import with_logits
from tfcnn.imageopt.taps import tapped

BEST = -1  # stands for the class or channel that answers most


def class_gradients(model: keras.Model) -> Callable:
    """Gives a function from pictures to the gradients of one class' score, before softmax.

    Args:
        model: a classifier; what `with_logits` takes.

    Returns:
        f(images [N, H, W, 3] float32 0..255, classes [N] int32, BEST for the best) -> gradients [N, H, W, 3],
        classes [N] int32, logits [N, K]. The model is used as in inference.

    Source: Simonyan, Vedaldi, Zisserman, Deep Inside Convolutional Networks, section 3.
    """
    model = with_logits(model)

    def values(images):
        return model(images, training=False)["logits"]

    return _gradients(values)


def channel_gradients(model: keras.Model, layer: str) -> Callable:
    """Gives a function from pictures to the gradients of one channel of a layer, its mean over places.

    Args:
        model: a flat functional model.
        layer: one of its layers or endpoints, with an output [N, ..., C].

    Returns:
        As `class_gradients`, channels for classes, means [N, C] for logits.

    Raises:
        InputError: no such layer.
    """
    model = tapped(model, [layer])

    def values(images):
        answer = model(images, training=False)[layer]
        return tf.reduce_mean(answer, axis=list(range(1, len(answer.shape) - 1)))

    return _gradients(values)


def _gradients(values):
    @tf.function(reduce_retracing=True)
    def gradients(images, indices):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            answers = values(images)  # [N, K]
            indices = tf.where(indices < 0, tf.argmax(answers, axis=-1, output_type=tf.int32), indices)
            chosen = tf.gather(answers, indices, batch_dims=1)  # [N]; a picture moves only its own
        return tape.gradient(chosen, images), indices, answers

    return gradients
