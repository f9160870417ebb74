"""Pictures in the plane: codes, neighbours, cells, and what TensorBoard reads."""

import sys
import types

import keras
import numpy as np
import pytest
from keras import layers
from scipy.spatial import distance
from sklearn.datasets import load_digits

from tfcnn import images
from tfcnn.backbones import tap
from tfcnn.backbones.heads import with_logits
from tfcnn.errors import InputError
from tfcnn.visualization import embedding


@pytest.fixture(scope="module")
def digits():
    """70 of scikit-learn's digits 0, 1, 4 and 6, and their labels."""
    found = load_digits()
    some = np.flatnonzero(np.isin(found.target, [0, 1, 4, 6]))[:70]
    return found.data[some].astype(np.float32), found.target[some]


def test_codes_are_means_over_locations_and_the_last_code_is_what_the_classes_are_linear_in():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="map")(image)
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D(name="mean")(x))
    model = with_logits(keras.Model(image, layers.Dense(3, activation="softmax", name="end")(x)))
    pictures = np.random.default_rng(0).uniform(0, 255, (5, 8, 8, 3)).astype(np.float32)
    maps = np.array(tap(model, ["map"])(pictures)["map"])
    np.testing.assert_allclose(embedding.codes(model, "map")(pictures), maps.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(
        embedding.codes(model, "map", [3, 1])(pictures), maps.mean((1, 2))[:, [3, 1]], rtol=1e-5
    )
    last = embedding.last_code(model)
    np.testing.assert_allclose(embedding.codes(model, last)(pictures), maps.mean((1, 2)), rtol=1e-5)


def test_digits_lie_with_their_like(digits):
    codes, labels = digits
    flat = embedding.positions(codes, "tsne", perplexity=15, seed=1)
    assert flat.shape == (70, 2) and embedding.agreement(codes, labels) > 0.9
    assert embedding.agreement(flat, labels) > 0.9
    again = [embedding.positions(codes[:12], "tsne", perplexity=3, seed=1) for _ in range(2)]
    assert (again[0] == again[1]).all()


def test_pca_is_the_two_directions_of_greatest_variance(digits):
    codes, _ = digits
    centred = codes - codes.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    found = embedding.positions(codes, "pca")
    for axis in range(2):
        expected = centred @ vectors[:, -1 - axis]
        sign = np.sign((expected * found[:, axis]).sum())
        np.testing.assert_allclose(found[:, axis], sign * expected, atol=1e-2)
    with pytest.raises(InputError, match="5 pictures at least, and there are 4; method=pca needs 2"):
        embedding.positions(codes[:4])


def test_neighbours_are_counted_by_hand():
    points = np.array([[0.0], [1], [2.1], [10], [11]])
    labels = np.array([0, 0, 1, 1, 0])
    # nearest two of each: (1 2), (0 2), (1 0), (4 2), (3 2)
    assert embedding.agreement(points, labels, 2) == pytest.approx((1 + 1 + 0 + 1 + 0) / 10)
    assert embedding.agreement(points, labels, 99) == pytest.approx((2 + 2 + 1 + 1 + 2) / 20)


def test_every_cell_gets_a_picture_of_its_own_and_the_distances_are_the_least():
    random = np.random.default_rng(0)
    points = random.normal(size=(7, 2))
    found = embedding.cells(points, 2)
    assert found.shape == (2, 2) and len(set(found.ravel().tolist())) == 4
    square = embedding.in_unit_square(points)
    cost = distance.cdist([[0, 0], [1, 0], [0, 1], [1, 1]], square, "sqeuclidean")
    best = min(
        ((cost[0, a] + cost[1, b] + cost[2, c] + cost[3, d]), (a, b, c, d))
        for a in range(7)
        for b in range(7)
        for c in range(7)
        for d in range(7)
        if len({a, b, c, d}) == 4
    )
    assert tuple(found.ravel().tolist()) == best[1]
    exact = np.stack(np.meshgrid(range(4), range(4)), axis=-1).reshape(-1, 2).astype(float)
    assert (embedding.cells(exact * [5, 1], 4).ravel() == range(16)).all()


def test_pictures_lie_at_their_places():
    thumbnails = np.stack([np.full((8, 8, 3), shade, np.uint8) for shade in (10, 90, 170)])
    points = np.array([[0, 0], [1, 0], [0.5, 1]], float)
    sheet = embedding.pictures_at(points, thumbnails, 100)
    assert (sheet[8, 8] == 10).all() and (sheet[8, 92] == 90).all() and (sheet[92, 50] == 170).all()
    assert (sheet[50, 50] == 255).all()
    laid = embedding.in_cells(np.array([[2, 0]]), thumbnails)
    assert laid.shape == (8, 16, 3) and (laid[:, :8] == 170).all() and (laid[:, 8:] == 10).all()
    dots = embedding.scatter(points, np.array([0, 1, 1]), ["a", "b"], 200)
    assert dots.shape[0] == 200 and dots.shape[1] > 200
    assert (embedding.scatter(points, side=200) != 255).any()


def test_the_projectors_files_are_what_tensorboard_reads(tmp_path):
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    random = np.random.default_rng(0)
    thumbnails = random.integers(0, 256, (6, 8, 8, 3), np.uint8)
    codes, names = random.normal(size=(6, 60)), [f"{n}\t.png" for n in range(6)]
    files = embedding.projector(codes, codes[:, :2], names, ["cat"] * 6, thumbnails)
    config = text_format.Parse(files["projector_config.pbtxt"].decode(), ProjectorConfig())
    assert [each.tensor_path for each in config.embeddings] == ["codes.tsv", "positions.tsv"]
    assert list(config.embeddings[0].sprite.single_image_dim) == [8, 8]
    rows = files["metadata.tsv"].decode().splitlines()
    assert rows[0] == "file\tlabel" and rows[1] == "0 .png\tcat" and len(rows) == 7
    table = np.array([line.split("\t") for line in files["positions.tsv"].decode().splitlines()], float)
    np.testing.assert_allclose(table, codes[:, :2], rtol=1e-5)
    assert len(files["codes.tsv"].decode().splitlines()) == 6
    sprite = images.read(files["sprite.png"])
    assert sprite.shape == (24, 24, 3) and (sprite[8:16, :8] == thumbnails[3]).all()


def test_opentsne_is_taken_where_it_is_installed(digits, monkeypatch):
    class Stand:
        def __init__(self, components, perplexity, random_state):
            assert components == 2 and random_state == 3

        def fit(self, codes):
            return codes[:, :2] * 0 + 5

    monkeypatch.setitem(sys.modules, "openTSNE", types.SimpleNamespace(TSNE=Stand))
    assert (embedding.positions(digits[0], seed=3) == 5).all()
