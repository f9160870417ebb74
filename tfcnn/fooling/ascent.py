"""Fooling images by gradient: noise that climbs the log-probability of a class until the net is sure of it.

N pictures, one a class, of H x W.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from tfcnn.imageopt import Problem, Result, constraints, minimize, objectives, optimizers
from tfcnn.imageopt.optimize import Callback
from tfcnn.imageopt.parameters import normal_noise


class Ascent:
    """Gradient ascent from noise, compiled once for any number of pictures.

    The paper climbs the probability itself by steps that should raise it by at most 0.03; where that is nearly 0, as
    with most nets of today, such a step has no bound. Here it is the logarithm that is climbed, by steps of a given
    size; it is that of the picture rounded to 8 bits.

    Args:
        model: pictures 0..255 -> a dict with `logits` and `scores`.
        size: side of the pictures, pixels.
        zero: the colour that the net sees as zero (`zero_rgb`).
        steps: at most; a batch ends when all of its pictures have `score`.
        rate: mean size of a step, grey levels.
        decay: share of the difference from `zero` that each step takes back; the paper's regularised pictures have
            0.01.
        score: probability that is enough.

    Source: Nguyen, Yosinski, Clune 2015, section 3.8 and supplementary; Evolving-AI-Lab/fooling,
    caffe/ascent/find_fooling_image.py.
    """

    def __init__(
        self,
        model: keras.Model,
        size: int,
        zero: Sequence[float] = (127.5, 127.5, 127.5),
        steps: int = 300,
        rate: float = 1.0,
        decay: float = 0.0,
        score: float = 0.9999,
    ):
        self.size, self.zero, self.steps, self.score = size, zero, steps, score
        centre = tf.constant(zero, tf.float32)

        def shrunk(image):
            return centre + (1.0 - decay) * (image - centre)

        self._classes = tf.Variable([0], shape=[None], dtype=tf.int32, trainable=False)
        self._problem = Problem(
            model,
            objectives.cross_entropy(self._classes),
            transform=lambda image, seed: image + tf.stop_gradient(tf.round(image) - image),
            constraint=constraints.compose(shrunk, constraints.in_range()),
            optimizer=optimizers.Normalized(rate),
        )

    def run(self, classes: Sequence[int], seed: int = 0, callback: Callback | None = None) -> Result:
        """Makes a picture for each class.

        Args:
            classes: [N] indices.
            seed: of the noise; each class adds its own index.
            callback: called after each step with a Moment; a true answer stops.

        Returns:
            The pictures, float32 [N, H, W, 3], and their history.
        """
        self._classes.assign(list(classes))
        start = normal_noise([seed + index for index in classes], self.size, self.size, self.zero, 1.0)
        enough = -tf.math.log(self.score).numpy()

        def sure(moment):
            stop = callback is not None and callback(moment)
            return stop or bool((moment.value < enough).all())

        return minimize(self._problem, start, self.steps, callback=sure)
