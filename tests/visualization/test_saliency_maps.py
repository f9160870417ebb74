"""Saliency by hand, against finite differences, picture by picture, and on the cat."""

import keras
import numpy as np
import pytest

from tfcnn import images
from tfcnn.backbones import classifier
from tfcnn.errors import InputError
from tfcnn.visualization import gradients, saliency

layers = keras.layers


@pytest.fixture(scope="module")
def net():
    """A small smooth net in float64, so that finite differences are sharp."""
    keras.utils.set_random_seed(3)
    image = keras.Input((9, 9, 3), dtype="float64")
    x = layers.Conv2D(6, 3, activation="tanh", dtype="float64", name="first")(image)
    x = layers.GlobalAveragePooling2D(dtype="float64")(
        layers.Conv2D(4, 3, activation="gelu", dtype="float64")(x)
    )
    return keras.Model(image, layers.Dense(5, activation="softmax", dtype="float64")(x))


def pictures(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 9, 9, 3))


def test_a_linear_classifier_has_its_weights_as_saliency():
    image = keras.Input((2, 2, 3))
    model = keras.Model(image, layers.Dense(2, name="scores")(layers.Flatten()(image)))
    weights = np.arange(24, dtype=np.float32).reshape(12, 2) - 11  # pixel by pixel, red green blue
    model.get_layer("scores").set_weights([weights, np.array([7.0, -7.0], np.float32)])
    maps, index, answers, _ = saliency.saliency_maps(gradients.class_gradients(model))(
        np.ones((1, 2, 2, 3), np.float32), np.array([1], np.int32)
    )
    # class 1 has the weights -10, -8, ..., 12; of each pixel's three the largest size
    assert np.array(maps[0]).tolist() == [[10.0, 4.0], [6.0, 12.0]]
    assert int(index[0]) == 1 and np.allclose(
        answers[0], [-12 * 0 + weights[:, 0].sum() + 7, weights[:, 1].sum() - 7]
    )


def test_gradients_equal_finite_differences_of_the_score_before_softmax(net):
    find = gradients.class_gradients(net)
    picture = pictures(1)
    gradient, index, logits, scores = find(picture, np.array([2], np.int32))
    step = 1e-5
    for y, x, c in [(0, 0, 0), (4, 4, 1), (8, 3, 2), (2, 7, 0)]:
        up, down = picture.copy(), picture.copy()
        up[0, y, x, c] += step
        down[0, y, x, c] -= step
        slope = (find(up, index)[2][0, 2] - find(down, index)[2][0, 2]) / (2 * step)
        assert abs(slope - gradient[0, y, x, c]) < 1e-8 and abs(slope) > 1e-6
    assert logits.shape == (1, 5)
    np.testing.assert_allclose(scores, net(picture), rtol=1e-5)


def test_a_batch_is_as_many_pictures_alone_and_best_is_the_best(net):
    find = gradients.class_gradients(net)
    batch = pictures(4, seed=1)
    wanted = np.array([gradients.BEST, 3, gradients.BEST, 0], np.int32)
    together, chosen, logits, _ = find(batch, wanted)
    assert np.array(chosen).tolist() == [int(np.argmax(logits[0])), 3, int(np.argmax(logits[2])), 0]
    for i in range(4):
        alone, *_ = find(batch[i : i + 1], wanted[i : i + 1])
        assert np.allclose(alone[0], together[i], atol=1e-12)


def test_a_channel_is_asked_by_its_mean_over_locations(net):
    find = gradients.channel_gradients(net, "first")
    picture = pictures(1)
    gradient, index, means, _ = find(picture, np.array([gradients.BEST], np.int32))
    answer = keras.Model(net.inputs, net.get_layer("first").output)(picture)
    assert np.allclose(means, np.mean(answer, axis=(1, 2))) and int(index[0]) == int(np.argmax(means[0]))
    assert np.abs(gradient).max() > 0
    with pytest.raises(InputError, match="first"):
        gradients.channel_gradients(net, "frist")


def test_ten_views_are_laid_where_they_were_cut_out_and_mirrored_back():
    image = np.random.default_rng(0).integers(0, 256, (12, 15, 3)).astype(np.uint8)

    def maps(views, indices):  # stands for a net whose map of a view is the view's own red channel
        answers = np.stack([views[:, 0, 0, 0], np.full(10, 90.0)], axis=1)
        return views[..., 0], np.where(indices < 0, answers.argmax(-1), indices), answers, answers / 100

    found, index, answers, scores = saliency.mean_of_views(maps, image, 10, gradients.BEST)
    assert np.allclose(found, image[..., 0])
    views, places = saliency.ten_views(image, 10)
    assert places == [(0, 0), (0, 5), (2, 0), (2, 5), (1, 2)]
    assert (views[6] == image[0:10, 5:15][:, ::-1]).all()
    assert np.isclose(scores[1], 0.9) and answers[1] == 90 and index == int(views[:, 0, 0, 0].mean() < 90)
    wide, *_ = saliency.mean_of_views(maps, np.full((10, 45, 3), 8, np.uint8), 10, 0)
    assert (wide[:, :10] == 8).all() and (wide[:, 10:17] == 0).all() and (wide[:, 17:27] == 8).all()


def test_the_picture_of_a_map_is_black_at_nothing_and_white_at_its_brightest():
    grey = saliency.picture(np.arange(1000.0).reshape(20, 50))
    assert grey[0, 0] == 0 and grey.max() == 255 and (grey == 255).sum() == 5
    assert (saliency.picture(np.zeros((3, 3))) == 0).all()
    assert np.isnan(saliency.picture(np.array([[np.nan, 1.0]]))).any()


def test_on_the_cat_photo_the_net_looks_at_the_nose_more_than_at_the_forehead():
    photo = images.read(images.packaged()[0])
    seen, place = images.resize(photo, 224, "crop")
    maps, index, *_ = saliency.saliency_maps(gradients.class_gradients(classifier("efficientnet_lite0")))(
        seen[None].astype(np.float32), np.array([gradients.BEST], np.int32)
    )
    assert 281 <= int(index[0]) <= 287  # a cat
    saliency_map = np.array(maps[0])

    def mean(box):
        x1, y1, x2, y2 = place.from_file([box])[0].round().astype(int)
        return saliency_map[y1:y2, x1:x2].mean() / saliency_map.mean()

    nose, forehead, eye = mean([235, 228, 290, 268]), mean([180, 20, 300, 90]), mean([298, 112, 343, 165])
    assert nose > 1.3 and eye > 1 and forehead < 0.8
