"""Deformable parts: scores against a search of all placements, and the same model as a net."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest

import tfcnn
from tfcnn import datasets
from tfcnn.datasets.classes import restricted
from tfcnn.detection import dpm, dpm_net, hog_objects, pyramid
from tfcnn.detection.dpm_training import DpmConfig, fit, train_dpm
from tfcnn.detection.pyramid import HogCells
from tfcnn.errors import InputError


def component(seed=0, label=0, shape=(3, 2), parts=2, side=2, depth=5):
    rng = np.random.default_rng(seed)
    normal = [rng.normal(size=s).astype(np.float32) for s in ((*shape, depth), (parts, side, side, depth))]
    anchors = np.stack([rng.integers(0, 2 * s - side + 1, parts) for s in shape], axis=1)
    costs = np.stack([rng.uniform(0.05, 0.5, parts), rng.normal(0, 0.2, parts)] * 2, axis=1).astype(
        np.float32
    )
    return dpm.Component(label, *normal, anchors, costs, 0.3)


def features(seed=5, height=5, width=4, depth=5):
    rng = np.random.default_rng(seed)
    sizes = ((height, width, depth), (2 * height, 2 * width, depth))
    return [rng.normal(size=size).astype(np.float32) for size in sizes]


def score_of_placement(model, coarse, fine, row, column, moves):
    kh, kw = model.shape
    score = (coarse[row : row + kh, column : column + kw] * model.root).sum() + model.bias
    side = model.parts.shape[1]
    for (y, x), (dy, dx), part, (a_x, b_x, a_y, b_y) in zip(
        model.anchors, moves, model.parts, model.deformation, strict=True
    ):
        v, u = 2 * row + y + dy, 2 * column + x + dx
        if not (0 <= v <= fine.shape[0] - side and 0 <= u <= fine.shape[1] - side):
            return -np.inf
        score += (fine[v : v + side, u : u + side] * part).sum()
        score -= a_x * dx**2 + b_x * dx + a_y * dy**2 + b_y * dy
    return score


def test_the_score_is_that_of_the_best_of_all_placements():
    model, (coarse, fine) = component(), features()
    found = dpm.score_map(model, coarse, fine, radius=2)
    steps = list(itertools.product(range(-2, 3), repeat=2))
    maps = dpm.responses(fine, model.parts).transpose(1, 2, 0)
    assert found.shape == (3, 3)
    for row, column in np.ndindex(found.shape):
        every = itertools.product(steps, repeat=2)  # 25 places of each of the two parts
        scores = {moves: score_of_placement(model, coarse, fine, row, column, moves) for moves in every}
        best = max(scores, key=scores.get)
        assert found[row, column] == pytest.approx(scores[best], abs=1e-4)
        assert tuple(map(tuple, dpm.placed(model, maps, row, column, 2))) == best


def test_an_examples_product_with_the_parameters_is_its_score():
    model, (coarse, fine) = component(), features()
    moves = np.array([[1, -1], [0, 2]])
    vector = dpm.example_vector(model, coarse, fine, 1, 0, moves)
    expected = score_of_placement(model, coarse, fine, 1, 0, moves)
    assert vector @ model.to_vector() == pytest.approx(expected, abs=1e-4)
    again = model.from_vector(model.to_vector())
    np.testing.assert_array_equal(again.parts, model.parts)
    assert again.bias == pytest.approx(model.bias)
    low = model.bounds()
    assert (np.isfinite(low).sum(), low[np.isfinite(low)].min()) == (4, dpm.LEAST)


def test_a_mirror_image_scores_the_same_on_the_mirrored_picture():
    model = component(depth=32)
    image = np.random.default_rng(0).uniform(0, 255, (1, 48, 64, 3)).astype(np.float32)
    maps = []
    for picture in (image, image[:, :, ::-1].copy()):
        maps.append(
            [HogCells(cell=cell, pad=(1, 1) if cell == 8 else (2, 2))(picture).numpy()[0] for cell in (8, 4)]
        )
    one = dpm.score_map(model, *maps[0], radius=2)
    other = dpm.score_map(model.mirrored(), *maps[1], radius=2)
    np.testing.assert_allclose(one[:, ::-1], other, atol=1e-4)
    moves = np.array([[1, -1], [0, 2]])
    vector = dpm.example_vector(model.mirrored(), *maps[1], 1, 1, moves)
    unmirrored = dpm.mirrored_example(model, vector)
    assert unmirrored @ model.to_vector() == pytest.approx(vector @ model.mirrored().to_vector(), abs=1e-4)


@pytest.fixture(scope="module")
def net():
    """Three components of two classes and two shapes, and their net."""
    shapes = ((0, 0, (3, 2)), (1, 1, (3, 2)), (2, 1, (2, 4)))
    models = [component(seed, label, shape, depth=32) for seed, label, shape in shapes]
    return models, dpm_net.dpm_net(models, 2, pad=1, radius=2)


def test_the_net_is_the_model(net):
    models, model = net
    image = np.random.default_rng(3).uniform(0, 255, (2, 40, 48, 3)).astype(np.float32)
    coarse, fine, _, scores, *maps = (each.numpy() for each in model(image))
    of_components = [maps[0][..., 0], maps[0][..., 1], maps[1][..., 0]]
    for n in range(2):
        expected = [dpm.score_map(each, coarse[n], fine[n], radius=2) for each in models]
        for found, own in zip(of_components, expected, strict=True):
            np.testing.assert_allclose(found[n], own, atol=1e-4)
        np.testing.assert_allclose(scores[n, :5, :7, 0], expected[0], atol=1e-4)
        height, width = expected[1].shape
        best = np.maximum(expected[1][:, :5], expected[2][:height, :5])
        np.testing.assert_allclose(scores[n, :height, :5, 1], best, atol=1e-4)  # maxout of class 1


def test_two_maps_of_a_convolutional_net_can_be_the_front_end():
    image = keras.Input([None, None, 3])
    fine = keras.layers.Conv2D(6, 4, 4, activation="relu")(image)
    coarse = keras.layers.Conv2D(7, 2, 2)(fine)
    one = component(depth=7)
    one = dataclasses.replace(one, parts=component(depth=6).parts)  # the maps need not have the same features
    model = dpm_net.dpm_net([one], 1, front=keras.Model(image, [coarse, fine]), pad=0, radius=3)
    maps = [each.numpy() for each in model(np.random.default_rng(0).random((1, 48, 40, 3), np.float32))]
    expected = dpm.score_map(one, maps[0][0], maps[1][0], radius=3)
    np.testing.assert_allclose(maps[3][0, ..., 0], expected, atol=1e-4)


def test_the_net_gives_back_its_components(net):
    models, model = net
    for found, expected in zip(dpm_net.components_of(model), models, strict=True):
        assert (found.label, found.shape) == (expected.label, expected.shape)
        for name in ("root", "parts", "anchors", "deformation"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_parts_lie_where_the_root_has_most_positive_weights():
    root = np.zeros([4, 4, 32], np.float32)
    root[0, 0, 3] = root[3, 3, 7] = 1
    root[0, 3, 5] = -5  # what a template wants not to see is no part
    made = dpm.with_parts(2, root, 0.5, 2, 3)
    assert {tuple(each) for each in made.anchors.tolist()} == {(0, 0), (5, 5)}
    assert made.label == 2 and (made.parts >= -0.5).all()


def test_the_fit_separates_and_keeps_the_springs_stiff():
    rng = np.random.default_rng(0)
    model = component()
    count = len(model.to_vector())
    truth = rng.normal(size=count)

    class Mixture:
        component = model
        positives = [v + 0.5 * truth for v in rng.normal(size=(30, count))]
        negatives = [np.float16(v - 0.5 * truth) for v in rng.normal(size=(40, count))]

    mixture = Mixture()
    assert fit(mixture, DpmConfig(c=1.0)) < 0.2
    assert (mixture.component.deformation[:, [0, 2]] >= dpm.LEAST - 1e-6).all()


@pytest.fixture(scope="module")
def trained():
    shapes = restricted(datasets.open("shapes", split="train"), ["ring"])
    config = DpmConfig(
        image_size=80,
        largest=1.2,
        per_octave=1,
        root_rounds=1,
        rounds=1,
        pictures=6,
        aspects=1,
        parts=3,
        side=4,
    )
    training = dataclasses.replace(shapes, examples=shapes.examples[:30])
    return train_dpm(training, config), shapes.examples[40:46]


def test_latent_training_finds_rings_and_their_parts(trained):
    model, others = trained
    method = dpm_net.Dpm([model])
    on_rings, elsewhere = [], []
    for record in others:
        image, objects = hog_objects.shown(record, 80)
        levels = method.on_pyramid(image)
        places, boxes, margins, _ = method.above(levels, -np.inf)
        near = (pyramid.overlaps(boxes, objects) > 0.5).any(axis=1)
        on_rings += [margins[near].max()] if near.any() else []
        elsewhere.append(margins[~near].max())
        boxes, scores, labels, filters = method.find(image)
        assert all(own.shape == (4, 4) for own in filters) and len(boxes) == len(scores) == len(labels)
        for own in filters:  # a part's middle lies within its radius round its anchor: near its root at least
            middles = (own[1:, :2] + own[1:, 2:]) / 2
            reach = 0.5 * (own[0, 2:] - own[0, :2])
            assert (middles > own[0, :2] - reach).all() and (middles < own[0, 2:] + reach).all()
    assert len(on_rings) >= 2 and np.mean(on_rings) > np.mean(elsewhere)


def test_a_saved_model_scores_the_same(trained, tmp_path):
    model, others = trained
    model.save(tmp_path / "model.keras")
    image = others[0].image()[None, :64, :80].astype(np.float32)
    for one, other in zip(tfcnn.load_model(tmp_path / "model.keras")(image), model(image), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_another_model_is_no_dpm():
    from tfcnn.detection.hog_svm import hog_svm

    with pytest.raises(InputError, match="no deformable part model"):
        dpm_net.Dpm([hog_svm(1, {(4, 4): [0]})])
