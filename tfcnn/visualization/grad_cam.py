"""Which locations of a layer's map speak for a class: Grad-CAM, and with the detail of guided backpropagation.

N pictures of H x W, K classes, A the map [N, h, w, C] of a layer.
"""

import keras
import tensorflow as tf

from tfcnn.backbones import tap
from tfcnn.backbones.graph import calls, require_gradient
from tfcnn.backbones.heads import with_logits
from tfcnn.errors import InputError
from tfcnn.visualization.gradients import (
    Gradients,
    best_of,
    channel_gradients,
    class_gradients,
)

# Layers that change a map's size or nothing: the map before them shows more.
AFTER_A_MAP = ("Pooling", "Dropout", "Identity", "Flatten", "Reshape", "ZeroPadding", "Cropping")


def grad_cam(model: keras.Model, layer: str | None = None, channel_of: str | None = None) -> Gradients:
    """Gives a function from pictures to Grad-CAM's maps, at the pictures' size.

    The weight a_k of channel k is the mean over locations of dS/dA_k; the map is ReLU(sum over k of a_k A_k), resized
    bilinearly.

    Args:
        model: a classifier; what `with_logits` takes. With `channel_of`, any flat functional model.
        layer: whose map A is weighed; None takes `last_map`.
        channel_of: ask the mean of a channel of this layer instead of a class; A lies before it.

    Returns:
        f(images [N, H, W, 3] float32 0..255, indices [N] int32, BEST for the best) -> maps [N, H, W], at least 0,
        indices [N], logits [N, K], scores [N, K] (with `channel_of` means [N, C], twice).

    Raises:
        InputError: no such layer, or it gives no map, or the score does not depend on it.

    Source: Selvaraju et al. 2017, Grad-CAM, section 3.
    """
    whole = model
    model = with_logits(model) if channel_of is None else tap(model, [channel_of])
    asked = ["logits", "scores"] if channel_of is None else [channel_of]
    layer = layer or last_map(model)
    tap(whole, [layer])  # a name that is nowhere
    try:
        tapped = tap(model, [*asked, layer])
    except InputError as error:
        raise InputError(
            f"What is asked of {model.name} does not depend on its layer {layer}: take one before it"
        ) from error
    shape = tapped.output[layer].shape
    if len(shape) != 4:
        raise InputError(
            f"The layer {layer} of {model.name} gives {tuple(shape)}, which is no map [N, h, w, C]"
        )
    require_gradient(tapped)

    @tf.function(reduce_retracing=True)
    def maps(images, indices):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            outputs = tapped(images, training=False)
            features = outputs[layer]  # A
            if channel_of is None:
                answers, scores = outputs["logits"], outputs["scores"]
            else:
                answer = outputs[channel_of]
                answers = scores = tf.reduce_mean(answer, axis=list(range(1, len(answer.shape) - 1)))
            indices = best_of(answers, indices)
            chosen = tf.gather(answers, indices, batch_dims=1)
        gradient = tape.gradient(chosen, features)
        weights = tf.reduce_mean(gradient, axis=[1, 2], keepdims=True)  # a_k
        coarse = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1, keepdims=True))
        fine = tf.image.resize(tf.cast(coarse, tf.float32), tf.shape(images)[1:3])  # bilinear
        return fine[..., 0], indices, answers, scores

    return maps


def guided_grad_cam(model: keras.Model, layer: str | None = None, channel_of: str | None = None) -> Gradients:
    """Gives a function from pictures to guided gradients weighed by Grad-CAM's map: detail where the class is.

    Args:
        model, layer, channel_of: of `grad_cam`; the model's rectifiers are ReLU.

    Returns:
        f(images, indices) -> guided gradients times map [N, H, W, 3], indices, logits, scores, as `class_gradients`.

    Raises:
        InputError: that of `grad_cam`, or the model has no ReLU, or rectifiers of another form.

    Source: Selvaraju et al. 2017, section 3.2.
    """
    coarse = grad_cam(model, layer, channel_of)
    if channel_of is None:
        guided = class_gradients(model, "guided")
    else:
        guided = channel_gradients(model, channel_of, "guided")

    @tf.function(reduce_retracing=True)
    def product(images, indices):
        maps, indices, answers, scores = coarse(images, indices)
        gradient, *_ = guided(images, indices)
        return gradient * tf.cast(maps, gradient.dtype)[..., None], indices, answers, scores

    return product


def last_map(model: keras.Model) -> str:
    """Gives the name of the last layer with a map of several locations, before pooling: where Grad-CAM is usual.

    Args:
        model: a flat functional model, cut at what is asked.

    Raises:
        InputError: none of its layers gives a map; or, in a model of several outputs, none that all depend on.
    """
    names = [
        call.operation.name
        for call in calls(model)
        if len(call.outputs) == 1
        and len(call.outputs[0].shape) == 4
        and call.inputs
        and call.outputs[0].shape[1:3] != (1, 1)
        and not any(word in type(call.operation).__name__ for word in AFTER_A_MAP)
    ]
    if not names:
        raise InputError(f"{model.name} has no layer with a map of locations: Grad-CAM needs one")
    return names[-1]
