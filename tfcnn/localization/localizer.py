"""A localizer at work: the part of a `tfcnn.predictor.Predictor` that is its own.

N pictures of a batch, H W the net's size, C classes, G guesses of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn import backbones
from tfcnn.errors import InputError, NotFinite
from tfcnn.localization import heads

GUESSES = 5  # ImageNet's rule


class Localizer:
    """One or several localizers: both heads, and from them the guesses (class, score, box).

    A model with one box gives it to each class, one with a box for each class that of the class. A model of K
    objects has K guesses, all of the picture's best class: its classifier judges the picture, not each box.

    Args:
        models: of `tfcnn.localization.with_box_head` or `with_class_rpn`; of several of one form, scores and boxes are
            averaged. Weights may be trained on between two calls.
        top: guesses of a picture, one a class, best first.

    Attributes:
        classes: C.
        zero_rgb: the colour that the network sees as zero.
        needs_proposals: False.
        form: of the boxes.
        size: side of the pictures, in pixels.

    Raises:
        InputError: a model is no localizer, or the models differ in form or size.
    """

    needs_proposals = False

    def __init__(self, models: Sequence[keras.Model], top: int = GUESSES):
        forms = {(heads.form(model), model.input_shape[1:3]) for model in models}
        if len(forms) > 1:
            raise InputError("The localizers of an ensemble need the same classes, form of boxes and size.")
        ((self.form, (self.size, _)),) = forms
        self.classes, self.zero_rgb = self.form.classes, backbones.zero_rgb(models[0])
        self.top = min(top, self.classes)

        def both(pictures: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            pictures = tf.cast(pictures, tf.float32)
            found = [model(pictures, training=False) for model in models]
            scores, boxes = ([each[name] for each in found] for name in ("scores", "boxes"))
            return tf.add_n(scores) / len(models), tf.add_n(boxes) / len(models)

        self._both = tf.function(both, reduce_retracing=True)

    def __call__(
        self,
        pictures: list[np.ndarray],
        sizes: list[np.ndarray],
        shapes: np.ndarray,
        proposals: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Guesses of a batch, as `tfcnn.predictor.Method` says."""
        (picture,) = pictures
        scores, boxes = (tensor.numpy() for tensor in self._both(tf.constant(picture)))
        return self.decode({"scores": scores, "boxes": boxes}, picture.shape[1:3])

    def decode(self, found: dict[str, np.ndarray], sides: tuple[int, int]) -> dict[str, np.ndarray]:
        """Guesses from the heads' numbers, of these models or of a program that was exported.

        Args:
            found: `scores` float32 [N, C] and `boxes` in the form's shape, unit boxes.
            sides: height and width of the pictures as the net sees them.

        Returns:
            What a call gives.
        """
        scores, boxes = found["scores"], found["boxes"]
        if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
            raise NotFinite
        labels = np.argsort(-scores, axis=1, kind="stable")[:, : self.top].astype(np.int32)
        if self.form.kind == "objects":
            labels = np.repeat(labels[:, :1], self.form.objects, axis=1)
        elif self.form.kind in ("per_class", "rpn"):
            boxes = np.take_along_axis(boxes, labels[..., None], axis=1)
        else:
            boxes = np.repeat(boxes[:, None], labels.shape[1], axis=1)
        height, width = sides
        boxes = np.concatenate(  # a net may swap corners; a box has them in order
            [np.minimum(boxes[..., :2], boxes[..., 2:]), np.maximum(boxes[..., :2], boxes[..., 2:])], axis=-1
        )
        return {
            "boxes": boxes * np.float32([width, height, width, height]),
            "scores": np.take_along_axis(scores, labels, axis=1),
            "labels": labels,
            "count": np.full(len(labels), labels.shape[1]),
        }
