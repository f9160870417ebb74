"""The classifier under attack: its logits and their gradients, compiled once for any number of pictures.

N pictures of H x W, K classes. Pictures are float32 0..255; preprocessing is inside the net.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from tfcnn.backbones import folded
from tfcnn.backbones.convert import flat
from tfcnn.backbones.graph import require_gradient
from tfcnn.backbones.heads import with_logits
from tfcnn.backbones.rows import Preprocessing
from tfcnn.errors import InputError
from tfcnn.imageopt import objectives


class Classifier:
    """A net and what attacks ask of it. Attacks use the logits: softmax saturates, and its gradient vanishes.

    Answers are the model's; gradients are those of a copy whose batch norm is folded into its convolutions, which are
    the same but for rounding, and come sooner.

    Args:
        model: a classifier; what `with_logits` takes. Its weights are those of this moment.
        bounds: the model's values for black and white. Pictures are 0..255 here, as are eps and all sizes of changes;
            a model of other values is given a layer that scales them.

    Raises:
        InputError: it hides its logits, no gradient reaches its picture, or the bounds are no interval.
    """

    def __init__(self, model: keras.Model, bounds: tuple[float, float] = (0.0, 255.0)):
        self.model = with_logits(model)
        low, high = map(float, bounds)
        if not low < high < np.inf:
            raise InputError(
                f"bounds are ({low:g}, {high:g}): give the model's values for black and for white"
            )
        if (low, high) != (0.0, 255.0):
            unit = 255.0 / (high - low)  # grey levels
            self.model = flat(self.model, Preprocessing("rgb", (-low * unit,) * 3, (unit,) * 3))
        require_gradient(self.model)
        self.sooner = folded(self.model)
        pictures = tf.TensorSpec([None, *self.model.inputs[0].shape[1:]])
        given = [pictures, tf.TensorSpec([None], tf.int32)]

        def outputs(images):
            return self.model(images, training=False)

        def loss_gradient(images, classes):
            return self._gradient(objectives.cross_entropy, images, classes)

        def logit_gradient(images, classes):
            return self._gradient(objectives.logit, images, classes)

        self._outputs = tf.function(outputs, input_signature=[pictures])
        self._loss_gradient = tf.function(loss_gradient, input_signature=given)
        self._logit_gradient = tf.function(logit_gradient, input_signature=given)

    def outputs(self, images: np.ndarray | tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Gives logits and scores, [N, K] each."""
        outputs = self._outputs(tf.cast(images, tf.float32))
        return outputs["logits"].numpy(), outputs["scores"].numpy()

    def logits(self, images: np.ndarray | tf.Tensor) -> np.ndarray:
        """Gives the logits, [N, K]."""
        return self.outputs(images)[0]

    def loss_gradient(
        self, images: np.ndarray | tf.Tensor, classes: np.ndarray
    ) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, tf.Tensor]:
        """Gives (logits, scores) [N, K] each, cross-entropy with `classes` [N], and its gradient [N, H, W, 3].

        Where a class is below 0, the net's own answer takes its place.
        """
        return self._asked(self._loss_gradient, images, classes)

    def logit_gradient(
        self, images: np.ndarray | tf.Tensor, classes: np.ndarray
    ) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, tf.Tensor]:
        """Gives (logits, scores) [N, K] each, the logit of `classes` [N], and its gradient [N, H, W, 3]."""
        return self._asked(self._logit_gradient, images, classes)

    def _asked(self, function, images, classes):
        answers, value, gradient = function(tf.cast(images, tf.float32), tf.cast(classes, tf.int32))
        return tuple(each.numpy() for each in answers), value.numpy(), gradient

    def _gradient(self, objective, images, classes):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            outputs = self.sooner(images, training=False)
            logits = outputs["logits"]
            classes = tf.where(classes < 0, tf.argmax(logits, axis=1, output_type=tf.int32), classes)
            value = objective(classes)({"logits": logits})
        return (logits, outputs["scores"]), value, tape.gradient(value, images)


def lead(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Gives by how much the logit of a class leads all others, [N]; below 0 where another is above it.

    Args:
        logits: [N, K].
        classes: int32 [N].
    """
    chosen = tf.one_hot(classes, tf.shape(logits)[1], on_value=True, off_value=False)
    own = tf.reduce_sum(tf.where(chosen, logits, 0.0), axis=1)
    return own - tf.reduce_max(tf.where(chosen, -np.inf, logits), axis=1)


@dataclasses.dataclass(frozen=True)
class Aim:
    """What N pictures shall become.

    Args:
        classes: int32 [N], labels or targets.
        targeted: whether they are targets.
        confidence: logits by which the wrong class shall lead.
    """

    classes: np.ndarray
    targeted: bool = False
    confidence: float = 0.0

    def __getitem__(self, rows: np.ndarray) -> "Aim":
        return dataclasses.replace(self, classes=self.classes[rows])

    def margin(self, logits: np.ndarray) -> np.ndarray:
        """Gives what has yet to be overcome, [N]: by how much the label leads, or the target is behind."""
        leads = lead(tf.constant(logits), tf.constant(self.classes, tf.int32)).numpy()
        return -leads if self.targeted else leads

    def reached(self, logits: np.ndarray) -> np.ndarray:
        """Gives bool [N]: whether these logits [N, K] are an attack's success."""
        return self.margin(logits) < -self.confidence
