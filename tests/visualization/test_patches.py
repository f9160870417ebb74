"""Patches that excite a unit: found where they were put, suppressed within a picture, whatever the batches are."""

import keras
import numpy as np
import pytest
from keras import layers

from tfcnn.visualization.patches import TopPatches, cut


@pytest.fixture(scope="module")
def net():
    """Two units: the sum of red over 4 x 4 pixels, and that of blue; 4 pixels from one location to the next."""
    image = keras.Input((32, 32, 3))
    maps = layers.Conv2D(2, 4, 4, use_bias=False, name="sums")(image)
    model = keras.Model(image, layers.Dense(3, name="end")(layers.GlobalAveragePooling2D()(maps)))
    kernel = np.zeros((4, 4, 3, 2), np.float32)
    kernel[:, :, 0, 0] = kernel[:, :, 2, 1] = 1
    model.get_layer("sums").set_weights([kernel])
    return model


def pictures():
    """Five pictures; red squares of falling strength in 0 (two, apart), 3 and 4, blue ones in 1."""
    made = np.zeros((5, 32, 32, 3), np.float32)
    made[0, 4:8, 8:12, 0], made[0, 20:24, 28:32, 0] = 90, 80
    made[3, 0:4, 0:4, 0] = 85
    made[4, 12:16, 12:16, 0] = 70
    made[1, 28:32, 0:4, 2] = 60
    return made


def test_patches_lie_where_the_unit_was_excited(net):
    best = TopPatches(net, "sums", [0, 1], 32, top=3)
    assert best.add(pictures(), range(5)).all()
    found = best.best(0)
    assert [(p.picture, p.row, p.column) for p in found] == [(0, 1, 2), (3, 0, 0), (0, 5, 7)]
    assert [p.value for p in found] == [16 * 90, 16 * 85, 16 * 80]
    assert best.boxes(found).tolist() == [[8, 4, 12, 8], [0, 0, 4, 4], [28, 20, 32, 24]]
    assert best.best(1)[0].picture == 1 and best.best(1)[0].value == 16 * 60


def test_one_by_one_is_as_all_at_once_and_a_broken_picture_adds_nothing(net):
    random = np.random.default_rng(0).uniform(0, 255, (12, 32, 32, 3)).astype(np.float32)
    together, alone = (TopPatches(net, "sums", [1, 0], 32, top=4) for _ in range(2))
    together.add(random, range(12))
    broken = np.full((1, 32, 32, 3), np.nan, np.float32)
    for number in (*range(6, 12), *range(6)):
        assert alone.add(random[number : number + 1], [number]).tolist() == [True]
        assert alone.add(broken, [99]).tolist() == [False]
    assert together.best(0) == alone.best(0) and together.best(1) == alone.best(1)
    maps = random.reshape(12, 8, 4, 8, 4, 3).sum((2, 4))[..., 0].ravel()  # by hand, without overlaps
    np.testing.assert_allclose([p.value for p in together.best(0)], np.sort(maps)[::-1][:4], rtol=1e-5)


def test_overlapping_patches_of_one_picture_are_suppressed():
    image = keras.Input((16, 16, 3))
    maps = layers.Conv2D(1, 8, 4, use_bias=False, kernel_initializer="ones", name="sums")(image)
    model = keras.Model(image, maps)
    picture = np.zeros((2, 16, 16, 3), np.float32)
    picture[0, 4:12, 4:12], picture[1, 12:, 12:] = 9, 1
    values = {}
    for overlap in (0.1, 0.2, 1.0):
        best = TopPatches(model, "sums", [0], 16, top=20, overlap=overlap)
        best.add(picture, [0, 1])
        values[overlap] = [(p.row, p.column) for p in best.best(0) if p.picture == 0]
    # The field 8 x 8 at (1, 1) meets its neighbours in a half (IoU 1/3) and a quarter (1/7).
    assert values[0.1] == [(1, 1)]
    assert sorted(values[0.2]) == [(0, 0), (0, 2), (1, 1), (2, 0), (2, 2)] and len(values[1.0]) == 9


def test_a_layer_without_locations_sees_the_whole_picture(net):
    best = TopPatches(net, "end", [2], 32, top=2)
    best.add(pictures(), range(10, 15))
    assert len(best.best(2)) == 2 and {p.picture for p in best.best(2)} < set(range(10, 15))
    assert best.boxes(best.best(2)).tolist() == [[0, 0, 32, 32]] * 2


def test_a_patch_over_the_edge_is_filled():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    assert (cut(image, np.array([1, 0, 5, 4])) == image[:, 1:5]).all()
    patch = cut(image, np.array([-2, 2, 2, 6]), (7, 8, 9))
    assert patch.shape == (4, 4, 3) and (patch[:2, 2:] == image[2:, :2]).all()
    assert (patch[2:] == [7, 8, 9]).all() and (patch[:, :2] == [7, 8, 9]).all()
