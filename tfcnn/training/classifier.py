"""Training a net that names what is in a picture.

N pictures of a batch, K classes.
"""

import keras
import numpy as np
import tensorflow as tf


class Classifier:
    """A trainee for training.loop: softmax cross entropy, and the share of right answers.

    Args:
      model: from pictures [N, H, W, 3] to a dict with `logits` [N, K].
      validation: a call that gives batches of `image` and `label` (int32 [N], -1 is padding), once through.
      smoothing: share of a label's weight that is spread over all classes.
      head: the last layers of `model` as a net of their own, from the features of `training.features`; then
        batches have `features` in the place of `image`.

    Source of the smoothing: Szegedy et al., Inception v3 (2016), section 7.
    """

    def __init__(
        self, model: keras.Model, validation, smoothing: float = 0.0, head: keras.Model | None = None
    ):
        self.networks = {"classifier": model}
        self.validation, self.smoothing = validation, smoothing
        self.net, self.input = (model, "image") if head is None else (head, "features")
        self._answer = tf.function(lambda x: self.net(x, training=False)["logits"], reduce_retracing=True)

    def losses(self, batch: dict) -> dict[str, tf.Tensor]:
        """Gives the cross entropy, summed over the batch."""
        logits = self.net(batch[self.input], training=True)["logits"]
        classes = logits.shape[-1]
        target = tf.one_hot(batch["label"], classes) * (1 - self.smoothing) + self.smoothing / classes
        return {"softmax": tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(target, logits))}

    def validate(self) -> dict[str, float]:
        """Gives `top1` and, of more than ten classes, `top5`, as shares, and the mean cross entropy `loss`."""
        ranks, losses = [], []
        for batch in self.validation():
            label = np.asarray(batch["label"])
            logits = self._answer(tf.convert_to_tensor(batch[self.input])).numpy()[label >= 0]
            label = label[label >= 0]
            own = np.take_along_axis(logits, label[:, None], 1)
            ranks += np.sum(logits > own, axis=1).tolist()
            losses += (np.logaddexp.reduce(logits, axis=1) - own[:, 0]).tolist()
        figures = {"top1": float(np.mean(np.array(ranks) < 1)), "loss": float(np.mean(losses))}
        if logits.shape[-1] > 10:
            figures["top5"] = float(np.mean(np.array(ranks) < 5))
        return figures
