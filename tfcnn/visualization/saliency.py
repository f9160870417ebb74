"""Where a picture would have to change least to change a class' score most.

N pictures of H x W.
"""

import numpy as np
import tensorflow as tf

from tfcnn.visualization.gradients import Gradients


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
