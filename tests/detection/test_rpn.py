"""The region proposal network: targets by hand, proposals, losses, padding."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcnn.detection import rpn

SEED = tf.constant([1, 2])


@pytest.fixture(scope="module")
def grid():
    """One size and one ratio on a 3x3 map of stride 16: nine squares of 16 px round the middles of the cells."""
    return rpn.AnchorGrid(((16.0,),), (1.0,), (16,))


def test_anchors_lie_round_the_middles_of_the_cells(grid):
    boxes = grid.boxes([(3, 3)]).numpy()
    assert boxes.shape == (9, 4)
    np.testing.assert_allclose(boxes[0], [0, 0, 16, 16])
    np.testing.assert_allclose(boxes[1], [16, 0, 32, 16])  # the next column first
    np.testing.assert_allclose(boxes[5], [32, 16, 48, 32])


def test_rounded_anchors_are_the_authors():
    grid = rpn.AnchorGrid(((128.0, 256.0, 512.0),), (0.5, 1.0, 2.0), (16,), rounded=True)
    sides = [
        (184, 96),
        (368, 192),
        (736, 384),
        (128, 128),
        (256, 256),
        (512, 512),
        (88, 176),
        (176, 352),
        (352, 704),
    ]
    boxes = grid.boxes([(2, 3)]).numpy()
    assert grid.per_location == 9 and boxes.shape == (54, 4)
    np.testing.assert_array_equal(boxes[:9, 2:] - boxes[:9, :2], sides)
    np.testing.assert_array_equal(boxes[0], [-84, -40, 100, 56])
    np.testing.assert_array_equal(boxes[9:18] - boxes[:9], [[16, 0, 16, 0]] * 9)


def test_several_maps_follow_one_another():
    grid = rpn.AnchorGrid(((8.0,), (16.0,)), (1.0,), (8, 16))
    boxes = grid.boxes([(2, 2), (1, 1)]).numpy()
    assert boxes.shape == (5, 4)
    np.testing.assert_allclose(boxes[-1], [0, 0, 16, 16])


def targets(grid, boxes, labels, **options):
    anchors = grid.boxes([(3, 3)])
    index, label, deltas = rpn.rpn_targets(
        anchors, tf.constant(boxes, tf.float32), tf.constant(labels), 48, 48, SEED, count=20, **options
    )
    found = np.full((len(labels), 9), -1)
    for row in range(len(labels)):
        for place, value in zip(index[row].numpy(), label[row].numpy(), strict=True):
            if value >= 0:
                found[row, place] = value
    return found, index.numpy(), label.numpy(), deltas.numpy()


def test_targets_on_a_three_by_three_grid(grid):
    # A box equal to the middle anchor, and one that only half covers the first: 8x16 of 16x16, IoU 0.5.
    found, index, label, deltas = targets(grid, [[[16, 16, 32, 32], [0, 0, 8, 16]]], [[0, 3]])
    # The middle is positive by IoU 1; the first by being the second box's best, though 0.5 is below 0.7.
    assert found.tolist() == [[1, 0, 0, 0, 1, 0, 0, 0, 0]]
    first = deltas[0][(index[0] == 0) & (label[0] == 1)][0]
    # Centre 4 against 8 in a width of 16, and half the width.
    np.testing.assert_allclose(first, [-4 / 16, 0, np.log(0.5), 0], atol=1e-6)
    assert not deltas[0][label[0] != 1].any()


def test_an_anchor_between_the_thresholds_is_not_sampled(grid):
    # IoU 0.6 with the middle anchor; a second box takes "the best of a box" away from nobody.
    box = [16, 16, 32, 16 + 16 * 0.6]
    found, *_ = targets(grid, [[box, [16, 16, 32, 32]]], [[0, 0]])
    assert found[0, 4] == 1  # by the second box
    # Alone with a better anchor elsewhere the same overlap is neither positive nor negative.
    found, *_ = targets(grid, [[[16, 16, 32, 32 + 16 * 0.6 + 1]]], [[0]])
    assert found[0].tolist().count(1) == 1 and found[0, 4] == 1
    assert found[0, 7] == -1  # IoU 10.6 / 42.2 / ... lies between 0.3 and 0.7 for neither


def test_anchors_that_cross_the_edge_are_left_out():
    grid = rpn.AnchorGrid(
        ((20.0,),), (1.0,), (16,)
    )  # 20 px round the middles: only the middle one lies inside
    boxes, labels = [[[0, 0, 16, 16], [14, 14, 34, 34]]], [[0, 0]]
    inside, *_ = targets(grid, boxes, labels)
    assert inside.tolist() == [[-1, -1, -1, -1, 1, -1, -1, -1, -1]]
    every, *_ = targets(grid, boxes, labels, border=None)
    assert every[0, 0] == 1 and every[0, 8] == 0


def test_anchors_inside_a_crowd_or_a_difficult_object_are_not_background(grid):
    boxes, labels = [[[0, 0, 16, 16], [12, 16, 48, 48]]], [[0, 0]]
    every, *_ = targets(grid, boxes, labels)
    assert every.tolist() == [[1, 0, 0, 0, 1, 1, 0, 1, 1]]  # the best four of the large box, 256 / 1152
    found, *_ = targets(grid, boxes, labels, ignore=tf.constant([[False, True]]))
    assert found.tolist() == [[1, 0, 0, 0, -1, -1, 0, -1, -1]]  # a quarter of those at its left is inside
    found, *_ = targets(grid, boxes, labels, ignore=tf.constant([[False, True]]), ignore_overlap=0.2)
    assert found.tolist() == [[1, 0, 0, -1, -1, -1, -1, -1, -1]]
    found, *_ = targets(grid, boxes, labels, ignore=tf.constant([[False, True]]), ignore_overlap=1.0)
    assert found.tolist() == [[1, 0, 0, 0, 0, 0, 0, 0, 0]]


def test_no_column_of_boxes_at_all_is_only_negatives(grid):
    anchors = grid.boxes([(3, 3)])
    empty, none = tf.zeros((2, 0, 4)), tf.zeros((2, 0), tf.int32)
    index, label, deltas = rpn.rpn_targets(
        anchors, empty, none, 48, 48, SEED, count=12, ignore=tf.zeros((2, 0), bool)
    )
    assert (np.sort(label, axis=1) == [-1] * 3 + [0] * 9).all() and not deltas.numpy().any()


def test_half_of_the_drawn_anchors_are_positive_where_there_are_so_many():
    grid = rpn.AnchorGrid(((16.0,),), (1.0,), (16,))
    anchors = grid.boxes([(10, 10)])
    boxes = anchors[None, :40]
    _, label, _ = rpn.rpn_targets(anchors, boxes, tf.zeros((1, 40), tf.int32), 160, 160, SEED, count=32)
    assert (label.numpy() == 1).sum() == 16 and (label.numpy() == 0).sum() == 16


def test_without_objects_everything_is_negative_and_the_box_loss_is_zero(grid):
    anchors = grid.boxes([(3, 3)])
    drawn = rpn.rpn_targets(anchors, tf.zeros((2, 4, 4)), -tf.ones((2, 4), tf.int32), 48, 48, SEED, count=8)
    assert (drawn[1].numpy() == 0).all()
    objectness, deltas = tf.random.stateless_normal((2, 9), SEED), tf.random.stateless_normal((2, 9, 4), SEED)
    classes, box = rpn.rpn_losses(objectness, deltas, *drawn)
    assert box.numpy().tolist() == [0.0, 0.0]
    assert (classes.numpy() > 0).all()


def test_padded_boxes_change_nothing(grid):
    anchors = grid.boxes([(3, 3)])
    boxes = tf.constant([[[16.0, 16, 32, 32]]])
    lean = rpn.rpn_targets(anchors, boxes, tf.zeros((1, 1), tf.int32), 48, 48, SEED, count=9)
    padded = rpn.rpn_targets(
        anchors,
        tf.pad(boxes, [[0, 0], [0, 5], [0, 0]]),
        tf.constant([[0, -1, -1, -1, -1, -1]]),
        48,
        48,
        SEED,
        count=9,
    )
    for a, b in zip(lean, padded, strict=True):
        np.testing.assert_array_equal(a, b)


def test_losses_by_hand():
    objectness = tf.constant([[0.0, np.log(3.0), 5.0]])  # sigmoid 0.5, 0.75; the third is not drawn
    deltas = tf.constant([[[0.5, 0, 0, 0], [0, 0, 0, 0], [9, 9, 9, 9]]], tf.float32)
    index, label = tf.constant([[0, 1, 0]]), tf.constant([[1, 0, -1]])
    target = tf.zeros((1, 3, 4))
    classes, box = rpn.rpn_losses(objectness, deltas, index, label, target)
    assert classes.numpy()[0] == pytest.approx((np.log(2) + np.log(4)) / 2, rel=1e-5)
    # Sigma 3: 0.5 is beyond 1/9, so 0.5 - 1/18, over the two that were drawn.
    assert box.numpy()[0] == pytest.approx((0.5 - 1 / 18) / 2, rel=1e-5)


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_smooth_l1_is_continuous_with_its_slope(sigma):
    corner = 1 / sigma**2
    x = tf.constant([-2.0, -corner - 1e-4, -corner + 1e-4, 0.0, corner - 1e-4, corner + 1e-4, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = rpn.smooth_l1(x, sigma)
    slope = tape.gradient(y, x).numpy()
    np.testing.assert_allclose(slope, [-1, -1, -1, 0, 1, 1, 1], atol=2e-3)
    assert y.numpy()[0] == pytest.approx(2 - 0.5 * corner)


def test_proposals_are_sorted_clipped_suppressed_and_padded():
    anchors = tf.constant([[0.0, 0, 20, 20], [1, 0, 21, 20], [30, 30, 60, 60], [5, 5, 6, 6]])
    scores = tf.constant([[1.0, 2.0, 0.5, 9.0]])
    boxes, kept = rpn.propose(scores, tf.zeros((1, 4, 4)), anchors, 40, 50, count=5, before_nms=4)
    # The fourth is smaller than 2 px; the first is suppressed by the second; the third is cut at the edge.
    np.testing.assert_allclose(boxes[0, :2], [[1, 0, 21, 20], [30, 30, 50, 40]], atol=1e-5)
    assert kept[0].numpy().tolist() == [2.0, 0.5, -np.inf, -np.inf, -np.inf]
    assert not boxes[0, 2:].numpy().any()


def test_padding_of_proposals_comes_after_every_real_one():
    anchors = tf.constant([[0.0, 0, 20, 20], [30, 30, 60, 60]])
    few = rpn.propose(tf.constant([[-5.0, -7]]), tf.zeros((1, 2, 4)), anchors, 90, 90, count=3, before_nms=2)
    boxes, scores = (tf.concat([a, a], axis=1) for a in few)  # two views of the picture, put together
    best = tf.gather(boxes, tf.argsort(scores, direction="DESCENDING"), batch_dims=1)[0, :4]
    assert (best.numpy()[:, 2] > 0).all()


def test_proposals_are_clipped_and_sized_by_their_own_picture():
    anchors = tf.constant([[0.0, 0, 20, 20], [30, 30, 60, 60], [2, 2, 15, 15]])
    height, width, least = (
        tf.constant([[90.0], [40]]),
        tf.constant([[90.0], [50]]),
        tf.constant([[13.0], [14]]),
    )
    scores = tf.constant([[3.0, 2, 1]] * 2)
    options = {"count": 3, "before_nms": 3, "min_size": least}
    boxes, kept = rpn.propose(scores, tf.zeros((2, 3, 4)), anchors, height, width, **options)
    np.testing.assert_allclose(boxes[0], anchors, atol=1e-4)
    np.testing.assert_allclose(
        boxes[1], [[0, 0, 20, 20], [0, 0, 0, 0], [0, 0, 0, 0]], atol=1e-4
    )  # 10 px are left
    assert kept[1].numpy().tolist() == [3.0, -np.inf, -np.inf]


def test_the_least_side_of_a_proposal_follows_the_scale_of_its_picture():
    layer = rpn.Proposals(((32.0,),), (1.0,), (16,))
    assert layer.least_side(1.6) == 2.0  # pixels of the net's picture, whatever the file's
    layer = rpn.Proposals(((32.0,),), (1.0,), (16,), min_file_size=16.0)
    np.testing.assert_allclose(layer.least_side(tf.constant([1.6, 0.1])), [25.6, 2.0])


def test_a_layer_of_proposals_comes_back_from_its_config():
    options = {"rounded": True, "min_size": 3.0, "min_file_size": 16.0}
    layer = rpn.Proposals(
        ((24.0, 48.0),), (0.5, 1.0), (16,), count=7, before_nms=50, nms_threshold=0.6, **options
    )
    config = layer.get_config()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == config
    assert again.grid == layer.grid and again.count == 7
