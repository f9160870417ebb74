"""The mean of the boxes of all places, by hand and by loops."""

import keras
import numpy as np

from tfcnn.localization.places import MeanOfPlaces


def test_one_place_by_hand():
    """A place of a map 2 x 4 that outweighs all others: row 1, column 2, its centre (5/8, 3/4) of the window."""
    numbers = np.zeros((1, 2, 4, 5), np.float32)
    numbers[0, 1, 2, 0] = 40
    distances = np.array([0.25, 0.5, 0.125, 0.0625])
    numbers[0, 1, 2, 1:] = np.log(np.expm1(2 * distances))
    box = MeanOfPlaces((2, 4))(numbers).numpy()
    assert box.shape == (1, 1, 1, 4)
    np.testing.assert_allclose(box[0, 0, 0], [0.375, 0.25, 0.75, 0.8125], atol=1e-6)


def test_two_objects_and_their_weights_by_loops():
    numbers = np.random.default_rng(0).normal(0, 1, (2, 3, 3, 10)).astype(np.float32)
    boxes = MeanOfPlaces((3, 3))(numbers).numpy().reshape(2, 2, 4)
    for picture in range(2):
        for k in range(2):
            weights = np.exp(numbers[picture, ..., k])
            own = np.zeros(4)
            for y in range(3):
                for x in range(3):
                    d = np.log1p(np.exp(numbers[picture, y, x, 2 + 4 * k : 6 + 4 * k])) / 2
                    centre = (np.array([x, y, x, y]) + 0.5) / 3
                    own += weights[y, x] / weights.sum() * (centre + d * [-1, -1, 1, 1])
            np.testing.assert_allclose(boxes[picture, k], own, atol=1e-6)


def test_every_window_of_a_larger_map_is_that_window_alone():
    numbers = np.random.default_rng(1).normal(0, 3, (1, 4, 6, 10)).astype(np.float32)
    layer = MeanOfPlaces((3, 4))
    assert layer.compute_output_shape((None, 4, 6, 10)) == (None, 2, 3, 8)
    found = layer(numbers).numpy()
    assert found.shape == (1, 2, 3, 8)
    for y, x in np.ndindex(2, 3):
        alone = layer(numbers[:, y : y + 3, x : x + 4]).numpy()
        np.testing.assert_allclose(found[:, y : y + 1, x : x + 1], alone, atol=1e-5)


def test_windows_two_places_apart():
    numbers = np.random.default_rng(1).normal(0, 3, (1, 6, 8, 5)).astype(np.float32)
    layer, every = MeanOfPlaces((4, 4), 2), MeanOfPlaces((4, 4))
    assert layer.compute_output_shape((None, 6, None, 5)) == (None, 2, None, 4)
    np.testing.assert_allclose(layer(numbers), every(numbers)[:, ::2, ::2], atol=1e-5)


def test_a_window_far_below_the_greatest_weight_has_a_mean_still():
    numbers = np.zeros((1, 2, 8, 5), np.float32)
    numbers[0, 0, 0, 0] = 1000
    found = MeanOfPlaces((2, 2))(numbers).numpy()
    assert np.isfinite(found).all()
    np.testing.assert_allclose(
        found[0, 0, -1], MeanOfPlaces((2, 2))(numbers[:, :, 6:]).numpy()[0, 0, 0], atol=1e-5
    )


def test_it_is_saved_with_its_size(tmp_path):
    image = keras.Input((2, 3, 5))
    model = keras.Model(image, MeanOfPlaces((2, 3), 2)(image))
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    numbers = np.random.default_rng(2).normal(size=(1, 2, 3, 5)).astype(np.float32)
    np.testing.assert_array_equal(again(numbers), model(numbers))
