"""The one-stage detector: cells, assignment by hand, losses without objects, learning, its file."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcnn import backbones
from tfcnn.detection import one_stage
from tfcnn.detection.one_stage import OneStageLoss
from tfcnn.errors import InputError

CENTER = OneStageLoss(assignment="center")
IMAGE = np.random.default_rng(1).uniform(0, 255, (1, 64, 96, 3)).astype(np.float32)


def grid(side=64):
    shapes = [(side // stride, side // stride) for stride in one_stage.STRIDES]
    return one_stage.cells(shapes, one_stage.STRIDES)


def raw_of(batch=1, side=64, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    sides = [side // stride for stride in one_stage.STRIDES]
    return [
        tf.constant(rng.normal(0, 0.3, (batch, s, s, c)), tf.float32) for s in sides for c in (classes, 1, 4)
    ]


def test_cells_know_their_middles_and_strides():
    middles, strides = grid()
    assert middles.shape == (64 + 16 + 4, 2)
    np.testing.assert_allclose(middles[:2], [[4, 4], [12, 4]])
    np.testing.assert_allclose(middles[-1], [48, 48])
    assert strides[0] == 8 and strides[64] == 16 and strides[-1] == 32


def test_distances_of_zero_are_one_stride_to_each_side():
    raw = [tf.zeros_like(x) for x in raw_of()]
    _, _, boxes, _, _ = one_stage.flatten(raw)
    np.testing.assert_allclose(boxes[0, 0], [-4, -4, 12, 12])
    np.testing.assert_allclose(boxes[0, -1], [16, 16, 80, 80])


def owners(truth, labels, how, raw=None):
    logits, objectness, boxes, middles, strides = one_stage.flatten(raw or raw_of())
    truth = tf.constant(np.reshape(truth, (-1, 4)), tf.float32)
    labels = tf.constant(np.reshape(labels, -1), tf.int32)
    return one_stage.assign(
        logits[0], objectness[0], boxes[0], truth, labels, middles, strides, how
    ).numpy(), middles.numpy()


def test_center_assignment_by_hand():
    # 40 px long: the map of stride 8 answers (up to 64). Its cells within 12 px of (28, 28) on both axes.
    owner, middles = owners([[8, 8, 48, 48]], [0], CENTER)
    wanted = (np.abs(middles - 28).max(axis=1) < 12) & (np.arange(len(owner)) < 64)
    assert wanted.sum() == 9
    np.testing.assert_array_equal(owner == 0, wanted)


@pytest.mark.parametrize(
    ("strides", "longer", "stride"),
    [
        ((8, 16, 32), 64, 8),  # up to 8 strides of 8
        ((8, 16, 32), 65, 16),
        ((8, 16, 32), 129, 32),
        ((8, 16, 32), 999, 32),
        ((16, 32), 10, 16),  # the finest map has all that is small, the coarsest all that is large
        ((16, 32), 129, 32),
        ((16,), 10, 16),
        ((16,), 999, 16),
    ],
)
def test_center_assignment_takes_the_map_of_the_objects_size(strides, longer, stride):
    middles, of_cells = one_stage.cells([(64 // s, 64 // s) for s in strides], strides)
    truth = tf.constant([[28 - longer / 2, 24, 28 + longer / 2, 32]], tf.float32)
    cells = len(middles)
    owner = one_stage.assign(
        tf.zeros([cells, 1]),
        tf.zeros(cells),
        tf.zeros([cells, 4]),
        truth,
        tf.constant([0]),
        middles,
        of_cells,
        CENTER,
    ).numpy()
    assert set(of_cells.numpy()[owner == 0]) == {stride}


def test_of_two_objects_in_a_cell_the_smaller_is_answered_for():
    owner, middles = owners([[8, 8, 48, 48], [20, 20, 36, 36]], [0, 1], CENTER)
    assert set(owner[np.abs(middles[:64] - 28).max(axis=1).argsort()[:9]]) == {1}


@pytest.mark.parametrize("assignment", ["center", "dynamic"])
def test_padding_and_pictures_without_objects_have_no_owner(assignment):
    how = OneStageLoss(assignment=assignment)
    assert np.all(owners([[8, 8, 48, 48]], [-1], how)[0] == -1)
    assert np.all(owners(np.zeros((0, 4)), [], how)[0] == -1)


def test_dynamic_assignment_gives_every_object_its_best_cells():
    truth = [[8, 8, 48, 48], [40, 40, 62, 62]]
    owner, middles = owners(truth, [0, 1], OneStageLoss())
    assert set(owner) == {-1, 0, 1}
    for index, box in enumerate(truth):
        reach = np.abs(middles[owner == index] - (np.array(box[:2]) + box[2:]) / 2).max(axis=1)
        inside = (middles[owner == index] > box[:2]).all(axis=1) & (middles[owner == index] < box[2:]).all(
            axis=1
        )
        assert np.all(inside | (reach < 2.5 * 32))
        assert 1 <= (owner == index).sum() <= 10


@pytest.mark.parametrize("assignment", ["center", "dynamic"])
@pytest.mark.parametrize(("box", "focal"), [("giou", 0.0), ("ciou", 2.0), ("l1", 0.0)])
def test_without_objects_only_objectness_counts(assignment, box, focal):
    how = OneStageLoss(assignment=assignment, box=box, focal=focal)
    for count in (0, 3):
        terms = one_stage.one_stage_losses(
            raw_of(2), tf.zeros([2, count, 4]), -tf.ones([2, count], tf.int32), how
        )
        assert np.all(terms["class"] == 0) and np.all(terms["box"] == 0) and np.all(terms["object"] > 0)


def test_cells_inside_an_ignored_object_have_no_objectness():
    raw, how = raw_of(1), OneStageLoss()
    boxes = tf.constant(
        [[[0.0, 0, 64, 64], [8, 8, 24, 24]]]
    )  # a crowd over the whole picture, and an object in it
    whole, found, all_of_it = (
        one_stage.one_stage_losses(raw, boxes, tf.constant([[-1, 0]]), how, ignore, overlap)
        for ignore, overlap in (
            (None, 0.7),
            (tf.constant([[True, False]]), 0.7),
            (tf.constant([[True, False]]), 1.0),
        )
    )
    assert found["object"] < 0.5 * whole["object"] and found["object"] > 0  # of the cells that answer alone
    np.testing.assert_allclose(all_of_it["object"], whole["object"])
    np.testing.assert_allclose(found["box"], whole["box"])


def test_the_loss_on_the_sides_by_hand():
    """One map of stride 32, one cell: it gives a stride to each side of (16, 16), so (-16, -16, 48, 48)."""
    raw = [tf.zeros([1, 1, 1, 2]), tf.zeros([1, 1, 1, 1]), tf.zeros([1, 1, 1, 4])]
    box = tf.constant([[[-16.0, 0, 112, 48]]])  # centre (48, 24), a stride away: within 1.5
    how = OneStageLoss(assignment="center", box="l1")
    found = one_stage.one_stage_losses(raw, box, tf.constant([[0]]), how, of_maps=[32])
    # The sides are 0, 1/2, 2 and 0 strides away: smooth L1 of 0, 1/8, 3/2 and 0, in the mean, times the weight 5.
    np.testing.assert_allclose(found["box"], 5 * (1 / 8 + 3 / 2) / 4, rtol=1e-6)


def test_focal_objectness_by_hand():
    logit = tf.constant([[2.0, -1.0]])
    found = one_stage._objectness(logit, tf.constant([[1.0, 0.0]]), 2.0).numpy()[0]
    p = 1 / (1 + np.exp(-np.array([2.0, -1.0])))
    np.testing.assert_allclose(
        found, [-0.25 * (1 - p[0]) ** 2 * np.log(p[0]), -0.75 * p[1] ** 2 * np.log(1 - p[1])], rtol=1e-5
    )


@pytest.fixture(scope="module")
def model():
    return one_stage.one_stage(backbones.backbone("tiny", None), 3, channels=16, tower=1, score_threshold=0.0)


def test_the_model_takes_any_size_and_comes_back_from_its_file(model, tmp_path):
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for shape in ((1, 70, 110, 3), (2, 64, 64, 3)):
        image = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
        for name, value in model(image).items():
            np.testing.assert_array_equal(value, again(image)[name])


def test_a_score_is_the_geometric_mean_of_class_and_objectness():
    """Maps of 4, 2 and 1 cells of one picture; every cell says 0.8 and 0.2 of two classes and 0.5 of an object."""
    raw = []
    for side in (4, 2, 1):
        logits = np.broadcast_to(np.log([4, 0.25]), (1, side, side, 2)).astype(np.float32)
        raw += [tf.constant(logits), tf.zeros((1, side, side, 1)), tf.zeros((1, side, side, 4))]
    boxes, scores = one_stage.CellDetections(2).decode(raw, tf.constant(32.0), tf.constant(32.0))
    assert boxes.shape == (1, 21, 4)
    np.testing.assert_allclose(scores, np.broadcast_to([0.4**0.5, 0.1**0.5], (1, 21, 2)), rtol=1e-5)
    np.testing.assert_allclose(
        boxes[0, 0], [0, 0, 12, 12]
    )  # a stride to each side of (4, 4), cut to the picture


@pytest.mark.parametrize("strides", [(16,), (16, 32)])
def test_maps_of_other_strides_and_their_file(strides, tmp_path):
    model = one_stage.one_stage(
        backbones.backbone("tiny", None), 3, strides=strides, channels=16, tower=1, score_threshold=0.0
    )
    shapes = [tuple(x.shape[1:]) for x in keras.Model(model.inputs, model.layers[-1].input[:-1])(IMAGE)]
    assert shapes == [(64 // s, 96 // s, c) for s in strides for c in (3, 1, 4)]
    cells = sum(shape[0] * shape[1] for shape in shapes[::3])
    boxes, scores = model.layers[-1].decode([tf.zeros((1, *shape)) for shape in shapes], 64.0, 96.0)
    assert boxes.shape == (1, cells, 4) and scores.shape == (1, cells, 3)
    np.testing.assert_allclose(boxes[0, 0], [0, 0, 1.5 * strides[0], 1.5 * strides[0]])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert tuple(again.layers[-1].strides) == strides
    for name, value in model(IMAGE).items():
        np.testing.assert_array_equal(value, again(IMAGE)[name])


@pytest.mark.parametrize(
    ("strides", "why"),
    [((), "none"), ((8, 32), "8, 32"), ((32, 16), "32, 16"), ((64,), "no endpoint of stride 64")],
)
def test_strides_that_are_none_are_refused(strides, why):
    with pytest.raises(InputError, match=why):
        one_stage.one_stage(backbones.backbone("tiny", None), 3, strides=strides)
