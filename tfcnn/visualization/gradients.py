"""The gradient of a score, a channel or a neuron to the picture: compiled once a model, a batch at once.

N pictures of H x W, K classes or channels, h w the size of a map.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tfcnn.backbones import separate_activations, tap
from tfcnn.backbones.graph import INPUT, made_by, require_gradient
from tfcnn.backbones.heads import with_logits
from tfcnn.errors import InputError
from tfcnn.visualization import BEST
from tfcnn.visualization.relu_rules import has_relu, with_rule

Images = tf.Tensor | np.ndarray  # [N, H, W, 3] float32, 0..255
Indices = tf.Tensor | np.ndarray  # [N] int32; BEST for the best
Gradients = Callable[[Images, Indices], tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]]
Places = tf.Tensor | np.ndarray  # [N, 2] int32, row and column; (BEST, BEST) for the best
Neurons = Callable[[Images, Indices, Places], tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]]


def class_gradients(model: keras.Model, rule: str = "gradient") -> Gradients:
    """Gives a function from pictures to the gradients of one class' score, before softmax or sigmoid.

    Args:
        model: a classifier; what `with_logits` takes.
        rule: how signals go back through a ReLU; see `relu_rules.with_rule`.

    Returns:
        f(images [N, H, W, 3] float32 0..255, classes [N] int32, BEST for the best) -> gradients [N, H, W, 3],
        classes [N] int32, logits [N, K], scores [N, K]. The model is used as in inference.

    Raises:
        InputError: the model hides its logits, or no gradient reaches its picture, or the rule has no meaning in it.

    Source: Simonyan, Vedaldi, Zisserman, Deep Inside Convolutional Networks, section 3.
    """
    model = with_rule(with_logits(model), rule)
    require_gradient(model)
    return _gradients(class_answers(model))


def channel_gradients(model: keras.Model, layer: str, rule: str = "gradient") -> Gradients:
    """Gives a function from pictures to the gradients of one channel of a layer, its mean over locations.

    Args:
        model: a flat functional model.
        layer: one of its layers or endpoints, with an output [N, ..., C].
        rule: how signals go back through a ReLU; see `relu_rules.with_rule`.

    Returns:
        As `class_gradients`, channels for classes, means [N, C] for logits and for scores.

    Raises:
        InputError: no such layer, or it has no channels, or no gradient reaches the picture, or the rule has no
            meaning in the model.
    """
    model = with_rule(tap(model, [layer]), rule)
    require_gradient(model)
    return _gradients(channel_answers(model, layer))


def class_answers(model: keras.Model) -> Callable[[Images], tuple[tf.Tensor, tf.Tensor]]:
    """Gives a function from pictures to logits and scores, [N, K] each, of a model of `with_logits`."""

    def answers(images):
        outputs = model(images, training=False)
        return outputs["logits"], outputs["scores"]

    return answers


def channel_answers(model: keras.Model, layer: str) -> Callable[[Images], tuple[tf.Tensor, tf.Tensor]]:
    """Gives a function from pictures to each channel's mean over locations, [N, C], twice: no softmax follows.

    Args:
        model: tapped at the layer.
        layer: its name.

    Raises:
        InputError: the layer has no channels.
    """
    _require_channels(model, layer)

    def answers(images):
        answer = model(images, training=False)[layer]
        means = tf.reduce_mean(answer, axis=list(range(1, len(answer.shape) - 1)))
        return means, means

    return answers


def neuron_gradients(model: keras.Model, layer: str, rule: str = "gradient") -> Neurons:
    """Gives a function from pictures to the gradients of single neurons of a layer.

    A neuron with a ReLU of its own is asked for what goes into that ReLU: the same while it is active, and a neuron
    that is silent, or at the ceiling of a ReLU6, still says what it answers to.

    Args:
        model: a flat functional model.
        layer: one of its layers or endpoints, with an output [N, h, w, C], [N, length, C] (one column), or [N, C]
            (one location).
        rule: how signals go back through a ReLU; see `relu_rules.with_rule`.

    Returns:
        f(images [N, H, W, 3] float32 0..255, channels [N] int32 (BEST: the one whose maximum is highest), places
        [N, 2] int32 row and column (BEST: where that channel answers most)) -> gradients [N, H, W, 3], channels [N],
        places [N, 2], values [N] of these neurons, before a ReLU of their own. What is given must lie inside the map;
        see `map_shape`.

    Raises:
        InputError: no such layer, or it has no channels, or no gradient reaches the picture, or the rule has no
            meaning in the model.

    Source: Zeiler and Fergus 2014, section 2.1: one activation, all others of its layer set to zero.
    """
    tapped = tap(model, [layer])
    asked = _before_its_relu(tapped, layer)
    is_first = asked is not tapped and not has_relu(asked)  # then every rule is the gradient
    model = asked if is_first else with_rule(asked, rule)
    (layer,) = model.output
    require_gradient(model)
    _require_channels(model, layer)

    @tf.function(reduce_retracing=True)
    def gradients(images, channels, places):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            answer = model(images, training=False)[layer]
            count, width = tf.shape(answer)[0], _width(answer)
            rows = tf.reshape(answer, [count, -1, answer.shape[-1]])  # [N, h w, C]
            best = tf.argmax(tf.reduce_max(rows, axis=1), axis=-1, output_type=tf.int32)
            channels = tf.where(channels == BEST, best, channels)
            maps = tf.gather(rows, channels, axis=2, batch_dims=1)  # [N, h w]
            spots = tf.where(
                tf.reduce_min(places, axis=1) == BEST,
                tf.argmax(maps, axis=-1, output_type=tf.int32),
                places[:, 0] * width + places[:, 1],
            )
            values = tf.gather(maps, spots, axis=1, batch_dims=1)  # [N]
        places = tf.stack([spots // width, spots % width], axis=1)
        return tape.gradient(values, images), channels, places, values

    return gradients


def _before_its_relu(model, layer):
    """A model tapped at a layer, tapped at what goes into the layer where that is a ReLU."""
    apart = separate_activations(model)
    operation = made_by(apart.output[layer]).operation
    return tap(apart, [operation.name + INPUT]) if isinstance(operation, keras.layers.ReLU) else model


def map_shape(model: keras.Model, layer: str, size: tuple[int, int]) -> tuple[int, int, int]:
    """Gives height, width and channels of a layer's map of pictures of a size; 1 x 1 where it has no locations.

    Args:
        model: a flat functional model.
        layer: one of its layers or endpoints.
        size: height and width of the picture, in pixels.

    Raises:
        InputError: no such layer, or it has no channels.
    """
    tapped = tap(model, [layer])
    _require_channels(tapped, layer)
    answer = tapped(np.zeros([1, *size, 3], np.float32), training=False)[layer]
    shape = tuple(int(side) for side in answer.shape[1:])
    return {1: (1, 1, *shape), 2: (shape[0], 1, shape[-1])}.get(len(shape), shape)


def _width(answer):
    return tf.shape(answer)[2] if len(answer.shape) == 4 else tf.constant(1)


def _require_channels(model, layer):
    shape = model.output[layer].shape
    if len(shape) not in (2, 3, 4) or shape[-1] is None:
        raise InputError(f"The layer {layer} of {model.name} gives {tuple(shape)}, which has no channels")


def _gradients(values) -> Gradients:
    @tf.function(reduce_retracing=True)
    def gradients(images, indices):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            answers, scores = values(images)  # [N, K] each
            indices = best_of(answers, indices)
            chosen = tf.gather(answers, indices, batch_dims=1)  # [N]; a picture moves only its own
        return tape.gradient(chosen, images), indices, answers, scores

    return gradients


def best_of(answers: tf.Tensor, indices: Indices) -> tf.Tensor:
    """Gives indices [N] int32 with each BEST replaced by the one that answers most, of answers [N, K]."""
    return tf.where(indices == BEST, tf.argmax(answers, axis=-1, output_type=tf.int32), indices)
