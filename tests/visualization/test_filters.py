"""Kernels as pictures, in the picture's own colours, and fits of Gabor functions to functions that are known."""

import keras
import numpy as np
import pytest
from keras import layers

from tfcnn.backbones.layers import Preprocess
from tfcnn.errors import InputError
from tfcnn.visualization import filters


def gabor(side, x=0.0, y=0.0, along=2.0, across=3.0, angle=0.6, frequency=0.18, phase=0.7):
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    u = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    v = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
    return np.exp(-((u / along) ** 2 + (v / across) ** 2) / 2) * np.cos(2 * np.pi * frequency * u + phase)


def test_a_gabor_function_is_found_again_in_colours_and_under_noise():
    plane = gabor(11, x=1.0, y=-0.5)
    kernel = plane[..., None] * [0.2, -0.7, 0.4] + [0.1, 0.2, 0.3]
    found = filters.fit_gabor(kernel)
    assert found.explained > 0.9999
    np.testing.assert_allclose(found.picture, kernel, atol=1e-2 * np.abs(kernel).max())
    numbers = [found.x, found.y, found.along, found.across, found.angle, found.frequency]
    np.testing.assert_allclose(numbers, [1, -0.5, 2, 3, 0.6, 0.18], atol=0.02)
    noise = np.random.default_rng(0).normal(size=(11, 11, 1))
    noise *= np.sqrt(np.square(plane - plane.mean()).sum() / np.square(noise - noise.mean()).sum())
    half = filters.fit_gabor(plane[..., None] + noise).explained  # half of the variance is noise
    assert 0.4 < half < 0.75


def test_blobs_and_edges_are_gabor_functions_and_noise_is_not():
    blob = gabor(7, along=1.5, across=1.5, frequency=0.0, phase=0.0)
    edge = np.sign(np.arange(7) - 3.0) * np.ones((7, 1))
    assert filters.fit_gabor(blob[..., None]).explained > 0.999
    assert filters.fit_gabor(edge[..., None]).explained > 0.9
    assert filters.explained_of_noise((11, 11, 1), 3) < 0.45 < filters.explained_of_noise((4, 4, 1), 3)
    assert filters.fit_gabor(np.full((5, 5, 3), 0.2)).explained is None


def test_two_colours_of_two_shapes_are_not_explained_by_one_function():
    kernel = np.stack([gabor(9, angle=0.0), gabor(9, angle=np.pi / 2)], axis=-1)
    assert 0.3 < filters.fit_gabor(kernel).explained < 0.7


def test_kernels_are_in_the_pictures_own_colours():
    image = keras.Input((8, 8, 3))
    x = Preprocess("bgr", (1, 2, 3), name="preprocess")(image)
    x = layers.Conv2D(4, 3, name="first")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="deep")(x)
    x = layers.SeparableConv2D(3, 3, padding="same", name="parts")(layers.Conv2D(5, 1, name="one")(x))
    model = keras.Model(image, x)
    assert filters.convolutions(model) == ["first", "deep", "parts"]
    kernel = np.array(model.get_layer("first").kernel)
    assert (filters.kernels(model, "first")[2] == kernel[..., ::-1, 2]).all()
    deep = np.array(model.get_layer("deep").kernel)
    assert (filters.kernels(model, "deep")[5, ..., 0] == deep[..., 2, 1]).all()
    assert filters.kernels(model, "parts").shape == (5, 3, 3, 1)
    for name in ("one", "frist"):
        with pytest.raises(InputError, match=f"{name}.*first, deep, parts"):
            filters.kernels(model, name)


def test_pictures_have_zero_in_the_middle_and_the_largest_weight_at_the_end():
    kernels = np.zeros((2, 2, 2, 3))
    kernels[0, 0, 0], kernels[1, 1, 1, 2] = [0.5, -0.25, 0], -8
    own, together = filters.pictures(kernels), filters.pictures(kernels, together=True)
    assert own[0, 0, 0].tolist() == [255, 64, 128] and own[1, 1, 1].tolist() == [128, 128, 0]
    assert together[0, 0, 0].tolist() == [135, 124, 128]
    assert filters.pictures(kernels[..., 0]).shape == (2, 2, 2, 3)
