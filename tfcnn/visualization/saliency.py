"""Which pixels of a picture a class' score depends on: maps by seven methods.

N pictures of H x W.
"""

import keras
import numpy as np
import tensorflow as tf

from tfcnn.backbones import folded, tap, zero_rgb
from tfcnn.backbones.heads import with_logits
from tfcnn.errors import InputError
from tfcnn.visualization import SALIENCY_METHODS
from tfcnn.visualization.attributions import gradient_x_input, integrated_gradients, smoothgrad
from tfcnn.visualization.grad_cam import grad_cam, guided_grad_cam, last_map
from tfcnn.visualization.gradients import Gradients, channel_gradients, class_gradients
from tfcnn.visualization.relu_rules import with_rule


def saliency(gradients: tf.Tensor) -> tf.Tensor:
    """Gives the saliency maps of gradients: at each pixel the largest size over the three channels.

    Args:
        gradients: [N, H, W, 3], of a score to the pictures.

    Returns:
        [N, H, W], at least 0.

    Source: Simonyan, Vedaldi, Zisserman, Deep Inside Convolutional Networks, section 3.1: max_c |w_c|.
    """
    return tf.reduce_max(tf.abs(gradients), axis=-1)


def saliency_maps(gradients: Gradients) -> Gradients:
    """Gives a compiled function from pictures to saliency maps.

    Args:
        gradients: what `gradients.class_gradients` or `channel_gradients` gives.

    Returns:
        f(images [N, H, W, 3] float32 0..255, indices [N] int32) -> maps [N, H, W], indices [N], logits [N, K],
        scores [N, K].
    """

    @tf.function(reduce_retracing=True)
    def maps(images, indices):
        gradient, indices, logits, scores = gradients(images, indices)
        return saliency(gradient), indices, logits, scores

    return maps


def attribution_maps(attributions: Gradients) -> Gradients:
    """Gives a compiled function from pictures to the size of what each pixel adds: |sum over the three channels|.

    Args:
        attributions: what `attributions.integrated_gradients` or `gradient_x_input` gives.

    Returns:
        As `saliency_maps`.
    """

    @tf.function(reduce_retracing=True)
    def maps(images, indices):
        attribution, *answers = attributions(images, indices)
        return tf.abs(tf.reduce_sum(attribution, axis=-1)), *answers

    return maps


def explained(
    model: keras.Model,
    method: str,
    *,
    channel_of: str | None = None,
    layer: str | None = None,
    samples: int | None = None,
    noise: float = 0.15,
    seed: int = 0,
    at_once: int = 16,
) -> Gradients:
    """Gives a compiled function from pictures to maps by a method's name.

    Args:
        model: a classifier; what `with_logits` takes. With `channel_of`, any flat functional model. Its weights are
            those of this moment.
        method: one of SALIENCY_METHODS.
        channel_of: ask channels of this layer, their mean over locations, instead of classes.
        layer: Grad-CAM's, whose map is weighed; None takes the last.
        samples: copies of SmoothGrad, steps of integrated gradients; None takes 16 and 32.
        noise: SmoothGrad's, as a share of the picture's range.
        seed: of SmoothGrad's noise.
        at_once: pictures computed together, samples counted.

    Returns:
        f(images [N, H, W, 3] float32 0..255, indices [N] int32) -> maps [N, H, W], at least 0, indices [N], logits
        [N, K], scores [N, K]; see `saliency_maps`.

    Raises:
        InputError: an unknown method; else what the method raises.
    """
    if method not in SALIENCY_METHODS:
        raise InputError(f"The method {method!r} is none of {', '.join(SALIENCY_METHODS)}")
    if method == "grad_cam":
        return grad_cam(model, layer, channel_of)
    if method == "guided_grad_cam":
        return saliency_maps(guided_grad_cam(model, layer, channel_of))
    zero = zero_rgb(model)
    many = method in ("smoothgrad", "integrated_gradients")
    net = folded(model) if many else model  # pays where a picture is computed many times

    def gradients(rule="gradient"):
        return class_gradients(net, rule) if channel_of is None else channel_gradients(net, channel_of, rule)

    if method == "smoothgrad":
        return saliency_maps(smoothgrad(gradients(), samples or 16, noise, seed, at_once))
    if method == "integrated_gradients":
        return attribution_maps(integrated_gradients(gradients(), zero, samples or 32, at_once))
    if method == "gradient_x_input":
        return attribution_maps(gradient_x_input(gradients(), zero))
    return saliency_maps(gradients("guided" if method == "guided" else "gradient"))


def usual_method(model: keras.Model, channel_of: str | None = None) -> str:
    """Gives the method that is best for a model: the pointing game's figures are in docs/looking_inside.md.

    Args:
        model, channel_of: of `explained`.

    Returns:
        "guided_grad_cam" where the model's rectifiers are ReLU and it has a map, else "smoothgrad".
    """
    asked = with_logits(model) if channel_of is None else tap(model, [channel_of])
    try:
        with_rule(asked, "guided")
        last_map(asked)
    except InputError:
        return "smoothgrad"
    return "guided_grad_cam"


def ten_views(image: np.ndarray, size: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Gives the corners and the middle of a picture, then the mirror images of these five.

    Args:
        image: [H, W, 3], neither side below `size`.
        size: side of a view.

    Returns:
        [10, size, size, 3], and the (y, x) of each of the five.
    """
    down, right = image.shape[0] - size, image.shape[1] - size
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    views = np.stack([image[y : y + size, x : x + size] for y, x in corners])
    return np.concatenate([views, views[:, :, ::-1]]), corners


def mean_of_views(
    maps: Gradients, image: np.ndarray, size: int, index: int
) -> tuple[np.ndarray, int, np.ndarray, np.ndarray]:
    """Gives the mean of the saliency maps of ten views, each laid where it was cut out and mirrored back.

    Args:
        maps: what `saliency_maps` gives.
        image: [H, W, 3], 0..255, neither side below `size`; what no view sees (of long pictures) stays 0.
        size: side of a view.
        index: the class; BEST takes the best of the views' mean logits.

    Returns:
        map [H, W], index, mean logits [K], mean scores [K].

    Source: Simonyan, Vedaldi, Zisserman, section 3.1: averaged over 10 cropped and mirrored sub-images.
    """
    views, corners = ten_views(image.astype(np.float32), size)
    found, chosen, logits, scores = maps(views, np.full(10, index, np.int32))
    logits, scores = np.mean(logits, axis=0), np.mean(scores, axis=0)
    if index < 0:
        index = int(np.argmax(logits))
        if (np.array(chosen) != index).any():
            found = maps(views, np.full(10, index, np.int32))[0]
    total, count = np.zeros(image.shape[:2]), np.zeros(image.shape[:2])
    found = np.array(found)
    for straight, mirrored, (y, x) in zip(found[:5], found[5:], corners, strict=True):
        total[y : y + size, x : x + size] += straight + mirrored[:, ::-1]
        count[y : y + size, x : x + size] += 2
    return total / np.maximum(count, 1), index, logits, scores


def picture(saliency_map: np.ndarray, percentile: float = 99.5) -> np.ndarray:
    """Gives a map as a grey picture: 0 is black, the percentile and all above it white.

    Args:
        saliency_map: [H, W], at least 0.
        percentile: a few pixels are far brighter than the rest, and would leave it black.

    Returns:
        float32 [H, W], 0..255; values that are not finite stay so.
    """
    white = np.percentile(saliency_map, percentile) or 1.0
    return 255 * np.minimum(np.asarray(saliency_map, np.float32) / np.float32(white), 1)
