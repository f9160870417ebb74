"""A localizer's guesses by hand, in the pixels of the file."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcnn
from tfcnn.errors import InputError
from tfcnn.localization.localizer import Localizer

SIDE = 64


class Fixed(keras.layers.Layer):
    """Gives the same numbers for every picture."""

    def __init__(self, values, **options):
        super().__init__(**options)
        self.values = np.float32(values)

    def call(self, image):
        values = tf.constant(self.values)[None]
        return tf.tile(values, [tf.shape(image)[0], *[1] * self.values.ndim])


def fixed(kind, boxes, scores=(0.2, 0.5, 0.3)):
    """A localizer of three classes that always says the same."""
    image = keras.Input((SIDE, SIDE, 3))
    answer = Fixed(scores)(image)
    found = keras.layers.Reshape(np.shape(boxes), name=f"box_{kind}")(Fixed(boxes)(image))
    return keras.Model(image, {"logits": answer, "scores": answer, "boxes": found})


BOX = [0.25, 0.5, 0.5, 1.0]
BLACK = np.zeros((100, 200, 3), np.uint8)  # BOX is (50, 50, 100, 100) of it


def test_one_box_goes_with_the_best_classes():
    (guesses,) = tfcnn.localizer(fixed("agnostic", BOX), top=2, labels=["cat", "dog", "owl"])([BLACK])
    assert [guesses.names[label] for label in guesses.labels] == ["dog", "owl"]
    assert guesses.scores == pytest.approx([0.5, 0.3])
    assert guesses.boxes == pytest.approx(np.array([[50, 50, 100, 100]] * 2))


def test_a_box_for_each_class_is_that_of_the_class():
    boxes = [[0, 0, 0.1, 0.1], [0, 0, 0.5, 0.5], BOX]
    (guesses,) = tfcnn.localizer(fixed("per_class", boxes))([BLACK])
    assert guesses.labels.tolist() == [1, 2, 0]
    assert guesses.boxes == pytest.approx(np.array([[0, 0, 100, 50], [50, 50, 100, 100], [0, 0, 20, 10]]))


def test_several_objects_all_have_the_best_class():
    boxes = [BOX, [0, 0, 0.5, 0.5]]
    (guesses,) = tfcnn.localizer(fixed("objects", boxes))([BLACK])
    assert guesses.labels.tolist() == [1, 1] and guesses.scores == pytest.approx([0.5, 0.5])
    assert guesses.boxes == pytest.approx(np.array([[50, 50, 100, 100], [0, 0, 100, 50]]))


def test_boxes_have_their_corners_in_order_and_end_at_the_picture():
    (guesses,) = tfcnn.localizer(fixed("agnostic", [0.5, 1.5, -0.25, 0.5]), top=1)([BLACK])
    assert guesses.boxes == pytest.approx(np.array([[0, 50, 100, 100]]))


def test_under_letterbox_the_box_is_of_the_square():
    """100 x 200 lies in the middle half of the square: a box from 1/4 to 3/4 of its height is the whole picture's."""
    (guesses,) = tfcnn.localizer(fixed("agnostic", [0, 0.25, 0.5, 0.5]), top=1, resize="letterbox")([BLACK])
    assert guesses.boxes == pytest.approx(np.array([[0, 0, 100, 50]]))


def test_an_ensemble_averages_scores_and_boxes():
    other = fixed("agnostic", [0.75, 0.5, 1.0, 1.0], scores=(0.8, 0.1, 0.1))
    (guesses,) = tfcnn.localizer([fixed("agnostic", BOX), other], top=1)([BLACK])
    assert guesses.labels.tolist() == [0] and guesses.scores == pytest.approx([0.5])
    assert guesses.boxes == pytest.approx(np.array([[100, 50, 150, 100]]))
    with pytest.raises(InputError, match="same classes, form of boxes and size"):
        Localizer([other, fixed("objects", [BOX, BOX])])


def test_numbers_that_are_not_finite_are_no_guesses():
    with pytest.raises(InputError, match="non-finite"):
        tfcnn.localizer(fixed("agnostic", [0, 0, np.nan, 1]))([BLACK])


def test_other_models_and_arguments_are_refused():
    with pytest.raises(InputError, match="digits is a classifier, no localizer"):
        tfcnn.localizer("digits")
    with pytest.raises(InputError, match="resize='crop'"):
        tfcnn.localizer(fixed("agnostic", BOX), resize="crop")
    with pytest.raises(InputError, match="top=0"):
        tfcnn.localizer(fixed("agnostic", BOX), top=0)
