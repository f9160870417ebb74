"""Training a net that names what is in a picture.

N pictures of a batch, K classes.
"""

import keras
import numpy as np
import tensorflow as tf

from tfcnn import draw
from tfcnn.errors import InputError

SHOWN = 32  # pictures on a sheet


class Classifier:
    """A trainee for training.loop: softmax cross entropy, and the share of right answers.

    Args:
      model: from pictures [N, H, W, 3] to a dict with `logits` [N, K].
      validation: a call that gives batches of `image` and `label` (int32 [N], -1 is padding), once through.
      classes: their K names.
      smoothing: share of a label's weight that is spread over all classes.
      head: the last layers of `model` as a net of their own, from the features of `training.features`; then
        batches have `features` in the place of `image`.

    Source of the smoothing: Szegedy et al., Inception v3 (2016), section 7.
    """

    def __init__(
        self,
        model: keras.Model,
        validation,
        classes: list[str],
        smoothing: float = 0.0,
        head: keras.Model | None = None,
    ):
        self.networks = {"classifier": model}
        self.validation, self.classes, self.smoothing = validation, classes, smoothing
        self.net, self.input = (model, "image") if head is None else (head, "features")
        self._answer = tf.function(lambda x: self.net(x, training=False)["logits"], reduce_retracing=True)

    def losses(self, batch: dict) -> dict[str, tf.Tensor]:
        """Gives the cross entropy, summed over the batch."""
        logits = self.net(batch[self.input], training=True)["logits"]
        count = len(self.classes)
        target = tf.one_hot(batch["label"], count) * (1 - self.smoothing) + self.smoothing / count
        return {"softmax": tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(target, logits))}

    def validate(self) -> dict[str, float]:
        """Gives `top1` and, of more than ten classes, `top5`, as shares, and the mean cross entropy `loss`.

        Raises:
          InputError: no picture of the validation split can be read.
        """
        ranks, losses = [], []
        for batch in self.validation():
            label = np.asarray(batch["label"])
            logits = self._answer(tf.convert_to_tensor(batch[self.input])).numpy()[label >= 0]
            label = label[label >= 0]
            own = np.take_along_axis(logits, label[:, None], 1)
            before = (logits == own) & (
                np.arange(logits.shape[1]) < label[:, None]
            )  # of equals the first counts
            ranks += np.sum((logits > own) | before, axis=1).tolist()
            losses += (np.logaddexp.reduce(logits, axis=1) - own[:, 0]).tolist()
        if not ranks:
            raise InputError("No picture of the validation split can be read: nothing can be measured.")
        figures = {"top1": float(np.mean(np.array(ranks) < 1)), "loss": float(np.mean(losses))}
        if len(self.classes) > 10:
            figures["top5"] = float(np.mean(np.array(ranks) < 5))
        return figures

    def pictures(self) -> list[np.ndarray]:
        """Gives a sheet of the first validation pictures with the answers, wrong ones with the truth behind."""
        if self.input != "image":
            return []
        batch = next(iter(self.validation()))
        answers = self._answer(batch["image"]).numpy().argmax(axis=1)
        shown, captions = [], []
        for picture, label, answer in zip(batch["image"], np.asarray(batch["label"]), answers, strict=True):
            if label >= 0 and len(shown) < SHOWN:
                shown.append(np.clip(picture, 0, 255).astype(np.uint8))
                wrong = "" if label == answer else f", not {self.classes[label]}"
                captions.append(self.classes[answer] + wrong)
        return [draw.grid(shown, captions=captions)]
