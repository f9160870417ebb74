"""What each value of a picture adds to a score, by more than one gradient: SmoothGrad, integrated gradients,
gradient x input.

Each takes the function of `gradients.class_gradients` or `channel_gradients` and gives one of the same kind, so that
`saliency.saliency_maps` and `saliency.attribution_maps` make maps of any of them.

N pictures of H x W, S samples or steps of each. At most `at_once` pictures are computed together, however many samples
there are: memory is bounded by that, not by N x S.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from tfcnn.visualization.gradients import Gradients


def smoothgrad(
    gradients: Gradients, samples: int = 16, noise: float = 0.15, seed: int = 0, at_once: int = 16
) -> Gradients:
    """Gives the mean gradient of noisy copies of each picture.

    Args:
        gradients: of one picture at a time, as `class_gradients` gives it.
        samples: S, copies a picture.
        noise: standard deviation, as a share of the picture's range (largest minus smallest value).
        seed: of the noise, which is the same for all pictures of a batch.
        at_once: pictures computed together.

    Returns:
        A function like `gradients`; class, logits and scores are those of the picture without noise.

    Source: Smilkov et al. 2017, SmoothGrad, section 3.
    """

    @tf.function(reduce_retracing=True)
    def smooth(images, indices):
        _, indices, logits, scores = gradients(images, indices)
        shape = tf.shape(images)
        draws = tf.random.stateless_normal(
            tf.concat([[samples], shape[1:]], 0), [seed, 0], dtype=images.dtype
        )
        spread = tf.reduce_max(images, axis=[1, 2, 3], keepdims=True) - tf.reduce_min(
            images, axis=[1, 2, 3], keepdims=True
        )

        def copies(first, last):
            return images[None] + noise * spread[None] * draws[first:last, None]  # [s, N, H, W, 3]

        total = _sum_of_gradients(gradients, copies, images, indices, samples, at_once)
        return total / samples, indices, logits, scores

    return smooth


def integrated_gradients(
    gradients: Gradients, zero_rgb: Sequence[float], steps: int = 32, at_once: int = 16
) -> Gradients:
    """Gives (x - x') times the mean gradient on the line from the zero picture x' to the picture x.

    Args:
        gradients: of one picture at a time, as `class_gradients` gives it.
        zero_rgb: the colour of the zero picture (the paper's is black; a net's own zero is its mean colour).
        steps: S, points on the line, at the middles of S equal parts.
        at_once: pictures computed together.

    Returns:
        A function like `gradients`: attributions whose sum over a picture is nearly S_c(x) - S_c(x'); class, logits
        and scores are those of the picture.

    Source: Sundararajan, Taly, Yan 2017, Axiomatic Attribution for Deep Networks, section 3.
    """

    @tf.function(reduce_retracing=True)
    def integrated(images, indices):
        _, indices, logits, scores = gradients(images, indices)
        zero = tf.constant(zero_rgb, images.dtype)
        parts = (tf.range(steps, dtype=images.dtype) + 0.5) / steps

        def points(first, last):
            return zero + parts[first:last, None, None, None, None] * (images - zero)[None]

        total = _sum_of_gradients(gradients, points, images, indices, steps, at_once)
        return (images - zero) * total / steps, indices, logits, scores

    return integrated


def gradient_x_input(gradients: Gradients, zero_rgb: Sequence[float]) -> Gradients:
    """Gives the gradient times the picture, counted from the zero picture.

    Args:
        gradients: as `class_gradients` gives it.
        zero_rgb: the colour that counts as zero.

    Source: Shrikumar, Greenside, Kundaje 2016, Not Just a Black Box, section 1.
    """

    @tf.function(reduce_retracing=True)
    def product(images, indices):
        gradient, *answers = gradients(images, indices)
        return gradient * (images - tf.constant(zero_rgb, images.dtype)), *answers

    return product


def _sum_of_gradients(
    gradients: Gradients,
    variants: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    images: tf.Tensor,
    indices: tf.Tensor,
    count: int,
    at_once: int,
) -> tf.Tensor:
    """The sum over `count` variants of each picture; `variants(first, last)` makes some of them, [s, N, H, W, 3]."""
    chunk = tf.maximum(1, at_once // tf.maximum(1, tf.shape(images)[0]))

    def step(first, total):
        last = tf.minimum(first + chunk, count)
        some = variants(first, last)
        shape = tf.shape(some)
        together = tf.reshape(some, tf.concat([[-1], shape[2:]], 0))
        together = tf.ensure_shape(together, [None, *images.shape[1:]])
        found, *_ = gradients(together, tf.tile(indices, [shape[0]]))
        return last, tf.ensure_shape(total + tf.reduce_sum(tf.reshape(found, shape), axis=0), images.shape)

    start = tf.constant(0), tf.zeros_like(images)
    return tf.while_loop(lambda first, _: first < count, step, start, parallel_iterations=1)[1]
