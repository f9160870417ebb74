"""Pictures with the same HOG: a picture changed until its descriptor is another one's, and what a HOG stands for.

A descriptor that is computed by hand is as easy to fool as a network that has learned its own: very different pictures
share one histogram of oriented gradients. h x w are cells, H x W pixels.

Source: Tatu, Lauze, Nielsen, Kimia 2011, Exploring the Representation Capabilities of HOG Descriptors; here by
L-BFGS on the pixels, with the gradient of the descriptor itself.
"""

import functools

import keras
import numpy as np
import tensorflow as tf

from tfcnn.imageopt import IMAGE, Problem, Result, lbfgs, minimize, objectives, optimizers
from tfcnn.imageopt.objectives import Objective, squared_distance
from tfcnn.imageopt.optimize import Callback
from tfcnn.imageopt.parameters import Fourier
from tfcnn.ops import hog

OF_VALUES = 0.05  # weight of a difference's values beside its gradients: without any, colours would drift


def descriptor(image: np.ndarray, cell: int = 8) -> np.ndarray:
    """Gives the HOG of a picture, Dalal and Triggs's: float32 [h - 1, w - 1, 36].

    Args:
        image: [H, W, 3], 0..255.
        cell: side of a cell, pixels.
    """
    return hog.dalal_triggs(tf.cast(image, tf.float32)[None], cell)[0].numpy()


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Gives |one - other| / |other| of two descriptors: 0 for the same, about 1 for unrelated pictures."""
    return float(np.linalg.norm(one - other) / max(np.linalg.norm(other), 1e-12))


def lookalike(
    source: np.ndarray,
    start: np.ndarray,
    cell: int = 8,
    steps: int = 150,
    keep: float = 0.2,
    callback: Callback | None = None,
) -> Result:
    """Changes a picture until its HOG is another's, and stays as near to the picture as that allows.

    Minimises |HOG(x) - HOG(source)|^2 / |HOG(source)|^2 + keep D((x - start) / 255), x in 0..255. D is the mean square
    of a difference's gradients, as the paper, too, changes gradients, plus a little of its own mean square. By the
    mean square alone fine grain would be the nearest change: it has the largest gradients for its size.

    Args:
        source: whose HOG is to be matched, [H, W, 3], 0..255.
        start: what is changed, of the same size.
        cell: side of a cell, pixels.
        steps: evaluations of L-BFGS.
        keep: weight of the distance D from `start`.
        callback: called after each evaluation with a Moment; a true answer stops.

    Returns:
        The picture, float32 [1, H, W, 3], and its history with the terms hog and distance.
    """
    start = np.asarray(start, np.float32)[None]
    objective = _match(descriptor(source, cell), cell) + keep * _near(start)
    return lbfgs(Problem(_pixels(), objective), start, steps, bounds=(0.0, 255.0), callback=callback)


def inverse(
    blocks: np.ndarray,
    height: int,
    width: int,
    cell: int = 8,
    steps: int = 200,
    seed: int = 0,
    callback: Callback | None = None,
) -> Result:
    """Makes a grey picture from noise that has a given HOG: what the descriptor knows of a picture.

    Fourier coefficients are optimised in place of pixels, so that large smooth structures come first; a HOG leaves
    contrast, and which side of an edge is the brighter, open.

    Args:
        blocks: of `descriptor`, [h - 1, w - 1, 36].
        height, width: of the picture, pixels.
        cell: side of a cell, pixels.
        steps: of Adam.
        seed: of the noise.
        callback: called after each step with a Moment; a true answer stops.

    Returns:
        The picture, float32 [1, H, W, 3] in grey, and its history.
    """
    fourier = Fourier(height, width)
    problem = Problem(
        _pixels(),
        _match(blocks, cell, grey=True),
        parameters=fourier,
        optimizer=optimizers.Adam(0.02),
    )
    result = minimize(problem, fourier.noise([seed]), steps, callback=callback)
    grey = result.image.mean(axis=-1, keepdims=True)
    low, high = np.percentile(grey, [0.5, 99.5])
    stretched = np.clip((grey - low) / max(high - low, 1e-6) * 255, 0, 255)
    return Result(problem, np.repeat(stretched, 3, axis=-1).astype(np.float32), result.steps)


def _match(blocks: np.ndarray, cell: int, grey: bool = False) -> Objective:
    """Squared distance of a picture's HOG from a given one, as a share of that one's square."""
    target = tf.constant(blocks[None])

    def apart(image):
        image = tf.reduce_mean(image, axis=-1, keepdims=True) if grey else image
        return squared_distance(hog.dalal_triggs(image, cell), target, relative=True)

    return objectives.of("hog", IMAGE, apart)


def _near(start: np.ndarray) -> Objective:
    """Distance of a picture from another one: of gradients above all, and a little of values."""

    def apart(image):
        difference = (image - start) / 255
        down, right = tf.image.image_gradients(difference)
        squares = tf.square(down) + tf.square(right) + OF_VALUES * tf.square(difference)
        return tf.reduce_mean(squares, axis=[1, 2, 3])

    return objectives.of("distance", IMAGE, apart)


@functools.cache
def _pixels() -> keras.Model:
    """A net that gives back its picture: the objective reads pixels alone."""
    image = keras.Input((None, None, 3))
    return keras.Model(image, keras.layers.Identity()(image), name="pixels")
