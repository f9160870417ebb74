import keras
import numpy as np
import pytest
import small_training as small
import tensorflow as tf

from tfcnn.errors import InputError
from tfcnn.training.classifier import Classifier


class Fixed(keras.layers.Layer):
    """Gives the same logits for every picture."""

    def call(self, image):
        return tf.tile(tf.constant([[2.0, 1.0, 0.0]]), [tf.shape(image)[0], 1])


def fixed():
    image = keras.Input((small.SIDE, small.SIDE, 3))
    return keras.Model(image, {"logits": Fixed()(image)})


def batch(labels):
    return {
        "image": np.zeros((len(labels), small.SIDE, small.SIDE, 3), np.float32),
        "label": np.int32(labels),
    }


def test_figures_by_hand():
    """Softmax of (2, 1, 0) is (.6652, .2447, .0900); a label of -1 pads."""
    trainee = Classifier(fixed(), lambda: [batch([0, 1, 0, -1]), batch([2, -1])], list("abc"))
    figures = trainee.validate()
    assert figures["top1"] == 0.5
    assert figures["loss"] == pytest.approx(-np.log([0.6652, 0.2447, 0.6652, 0.0900]).mean(), abs=1e-3)
    assert "top5" not in figures


def test_losses_are_sums_and_smoothing_spreads_a_label():
    plain = Classifier(fixed(), None, list("abc")).losses(batch([0, 1]))
    assert float(plain["softmax"]) == pytest.approx(-np.log(0.6652) - np.log(0.2447), abs=1e-3)
    smooth = Classifier(fixed(), None, list("abc"), smoothing=0.3).losses(batch([0]))
    expected = -(0.8 * np.log(0.6652) + 0.1 * np.log(0.2447) + 0.1 * np.log(0.09))
    assert float(smooth["softmax"]) == pytest.approx(expected, abs=1e-3)


def test_the_sheet_shows_real_pictures_only():
    trainee = Classifier(fixed(), lambda: [batch([0, 1, -1, -1])], list("abc"))
    (sheet,) = trainee.pictures()
    assert sheet.dtype == np.uint8 and sheet.shape[1] == 4 + 2 * (small.SIDE + 4)  # two cells in a row


def test_a_net_that_says_nothing_is_not_right():
    image = keras.Input((small.SIDE, small.SIDE, 3))
    silent = keras.Model(image, {"logits": keras.layers.Rescaling(0.0)(Fixed()(image))})
    assert Classifier(silent, lambda: [batch([0, 1, 2, 2])], list("abc")).validate()["top1"] == 0.25


def test_a_split_without_a_readable_picture_is_said():
    with pytest.raises(InputError, match="No picture of the validation split can be read"):
        Classifier(fixed(), lambda: [batch([-1, -1])], list("abc")).validate()
