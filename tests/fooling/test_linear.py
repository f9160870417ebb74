"""Linear classifiers: the lecture's ten numbers, and pictures moved along the weights."""

import numpy as np
import pytest

from tfcnn.fooling import linear


@pytest.fixture(scope="module")
def trained():
    """Pictures of three classes, told apart by which third of the picture is bright: (model, images, labels)."""
    random = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = random.integers(0, 120, [120, 6, 6, 3])
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] += 120
    images = images.astype(np.uint8)
    return linear.train(images, labels, 3, epochs=40, learning_rate=1e-2), images, labels


def scores(model, image):
    return np.asarray(model(image[None].astype(np.float32)))[0]


def test_the_lectures_ten_numbers():
    rows, ((before, p_before), (after, p_after)) = linear.ten_numbers()
    assert [row[2] for row in rows] == [1.5, -1.5, 3.5, -2.5, 2.5, 1.5, 1.5, -3.5, 4.5, 1.5]
    assert before == -3 and after == 2 and after - before == 0.5 * 10  # eps times the L1 norm of w
    assert round(p_before, 4) == 0.0474 and round(p_after, 2) == 0.88


def test_it_learns_and_its_templates_show_the_classes(trained):
    model, images, labels = trained
    assert (np.asarray(model(images.astype(np.float32))).argmax(axis=1) == labels).mean() > 0.95
    templates = linear.templates(model)
    assert templates.shape == (3, 6, 6, 3)
    for index, template in enumerate(templates):
        thirds = [template[2 * part : 2 * part + 2].mean() for part in range(3)]
        assert int(np.argmax(thirds)) == index
    x = images[0].reshape(-1) / 127.5 - 1
    bias = model.get_layer("linear").get_weights()[1]
    logits = templates.reshape(3, -1) @ x + bias
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(scores(model, images[0]), expected, rtol=1e-4)


def test_a_picture_moves_as_little_as_makes_the_model_sure(trained):
    model, images, labels = trained
    target = int(labels[0] + 1) % 3
    made = linear.move_until(model, images[0], target, score=0.9)
    assert made.dtype == np.uint8 and scores(model, made)[target] >= 0.9
    template = linear.templates(model)[target]
    size = np.abs(made.astype(float) - images[0]).mean()
    assert scores(model, linear.moved(images[0], template, 0.8 * size))[target] < 0.9


def test_a_score_that_cannot_be_reached_gives_the_longest_move(trained):
    model, images, _ = trained
    made = linear.move_until(model, images[0], 1, score=2.0)
    assert np.abs(made.astype(float) - images[0]).mean() > 40


def test_a_template_is_a_picture_with_grey_for_0():
    template = np.zeros([4, 4, 3])
    template[0, 0] = [2, -2, 0]
    picture = linear.template_picture(template, percentile=100)
    assert picture[0, 0].tolist() == [255, 0, 128] and (picture[1:] == 128).all()
