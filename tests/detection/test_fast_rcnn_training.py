"""Fast R-CNN's training step: what is drawn, its targets, the losses."""

import numpy as np
import pytest
import tensorflow as tf

from tfcnn.detection import fast_rcnn, fast_rcnn_training, rpn

SEED = tf.constant([3, 4])


def drawn(proposals, boxes, labels, **options):
    regions, columns, matched = fast_rcnn_training.sample_regions(
        tf.constant([proposals], tf.float32),
        tf.constant([boxes], tf.float32),
        tf.constant([labels]),
        SEED,
        **options,
    )
    return regions[0].numpy(), columns[0].numpy(), matched[0].numpy()


def test_regions_take_the_class_of_their_best_box_with_background_first():
    boxes = [[0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 0, 0]]
    proposals = [[0, 0, 10, 9], [20, 20, 40, 32], [20, 20, 24, 40], [60, 60, 70, 70], [0, 0, 0, 0]]
    regions, columns, matched = drawn(
        proposals, boxes, [4, 0, -1], count=8, positive_share=0.5, add_truth=False
    )
    column_of = {tuple(r): int(c) for r, c in zip(regions, columns, strict=True) if c >= 0}
    assert column_of[(0, 0, 10, 9)] == 5  # class 4 is column 5
    assert column_of[(20, 20, 40, 32)] == 1  # class 0 is column 1, IoU 0.6
    assert column_of[(20, 20, 24, 40)] == 0  # IoU 0.2: background
    assert (60, 60, 70, 70) not in column_of  # below the lower bound of 0.1
    assert (0, 0, 0, 0) not in column_of  # padding
    place = [tuple(r) for r in regions].index((20, 20, 40, 32))
    assert boxes[matched[place]] == [20, 20, 40, 40]
    assert (columns[:2] > 0).all() and (columns[2:] <= 0).all()  # foreground comes first


def test_the_lower_bound_of_background_is_an_option():
    _, columns, _ = drawn(
        [[60, 60, 70, 70]], [[0, 0, 10, 10]], [2], count=4, negative=(0.0, 0.5), add_truth=False
    )
    assert columns.tolist() == [0, -1, -1, -1]


def test_ground_truth_joins_the_proposals():
    regions, columns, _ = drawn([[60, 60, 70, 70]], [[0, 0, 10, 10]], [2], count=4, positive_share=0.5)
    assert (columns == 3).sum() == 1
    assert regions[columns == 3].tolist() == [[0, 0, 10, 10]]


def test_a_quarter_is_foreground_at_most():
    proposals = [[0, 0, 10, 10 + 0.1 * i] for i in range(30)] + [[0, 0, 10, 30 + i] for i in range(30)]
    _, columns, _ = drawn(proposals, [[0, 0, 10, 10]], [0], count=32)
    assert (columns == 1).sum() == 8 and (columns == 0).sum() == 24


def test_without_objects_only_background_and_a_box_loss_of_zero():
    regions, columns, matched = fast_rcnn_training.sample_regions(
        tf.constant([[[0.0, 0, 9, 9], [5, 5, 30, 30]]]),
        tf.zeros((1, 3, 4)),
        -tf.ones((1, 3), tf.int32),
        SEED,
        count=4,
        negative=(0.0, 0.5),
    )
    assert sorted(columns[0].numpy()) == [-1, -1, 0, 0]
    logits, deltas = tf.random.stateless_normal((1, 4, 6), SEED), tf.random.stateless_normal((1, 4, 20), SEED)
    truth = rpn.rows(tf.zeros((1, 3, 4)), matched)
    classes, box = fast_rcnn_training.region_losses(logits, deltas, regions, columns, truth)
    assert box.numpy().tolist() == [0.0] and classes.numpy()[0] > 0 and np.isfinite(classes.numpy()).all()


def losses(hardest=0, classes=2, agnostic=True, **options):
    logits = np.zeros((1, 4, classes + 1), np.float32)
    logits[0, 1, 0] = 10.0  # sure of background where the ground truth is class 1: the hardest
    regions = tf.constant([[[0.0, 0, 10, 10]] * 4])
    columns = tf.constant([[1, 2, 0, -1]])
    matched = tf.constant([[[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 0, 0], [0, 0, 0, 0]]])
    deltas = tf.zeros((1, 4, 4 if agnostic else 4 * classes))
    return fast_rcnn_training.region_losses(
        tf.constant(logits), deltas, regions, columns, matched, hardest=hardest, **options
    )


@pytest.mark.parametrize("agnostic", [True, False])
def test_losses_by_hand(agnostic):
    classes, box = losses(agnostic=agnostic)
    hard = np.log(np.exp(10) + 2)
    assert classes.numpy()[0] == pytest.approx((2 * np.log(3) + hard) / 3, rel=1e-5)
    # The second box lies a tenth of a width aside: 0.1 / 0.1 = 1, smooth L1 of 1 is 0.5; three regions count.
    assert box.numpy()[0] == pytest.approx(0.5 / 3, rel=1e-5)


def test_only_the_hardest_regions_count():
    classes, box = losses(hardest=1)
    assert classes.numpy()[0] == pytest.approx(np.log(np.exp(10) + 2), rel=1e-5)
    assert box.numpy()[0] == pytest.approx(0.5, rel=1e-5)


def test_each_region_takes_the_deltas_of_its_class():
    deltas = tf.reshape(tf.range(24.0), (1, 2, 12))
    own = fast_rcnn_training.of_class(deltas, tf.constant([[2, 0]]))
    assert own.numpy().tolist() == [[[8, 9, 10, 11], [12, 13, 14, 15]]]


def test_regions_inside_a_crowd_or_a_difficult_object_are_not_background():
    boxes = [[0, 0, 10, 10], [40, 40, 100, 100]]
    proposals = [
        [0, 20, 10, 30],  # background
        [50, 50, 60, 60],  # inside the crowd
        [40, 90, 60, 104],  # 10/14 of it inside: above 0.7
        [40, 90, 60, 105],  # 2/3 of it inside: background
        [40, 40, 100, 99],  # the crowd itself, found
    ]
    options = {"count": 16, "negative": (0.0, 0.5), "ignore": tf.constant([[False, True]])}
    regions, columns, _ = drawn(proposals, boxes, [3, 2], **options)
    found = {tuple(map(int, r)): int(c) for r, c in zip(regions, columns, strict=True) if c >= 0}
    assert found == {(0, 0, 10, 10): 4, (0, 20, 10, 30): 0, (40, 90, 60, 105): 0}
    _, columns, _ = drawn(proposals, boxes, [3, 2], ignore_overlap=1.0, **options)
    assert (columns == 0).sum() == 5  # the authors' VOC code: difficult objects are background


def test_an_object_inside_a_crowd_is_still_foreground():
    boxes = [[50, 50, 60, 60], [40, 40, 100, 100]]
    _, columns, _ = drawn(
        [[50, 50, 60, 59]], boxes, [0, 0], count=4, positive_share=0.5, ignore=tf.constant([[False, True]])
    )
    assert sorted(columns) == [-1, -1, 1, 1]


@pytest.mark.parametrize("regions", [3, 0])
def test_no_column_of_boxes_at_all_is_only_background(regions):
    proposals = tf.random.stateless_uniform((2, regions, 2), SEED, 0, 50)
    proposals = tf.concat([proposals, proposals + 10], axis=-1)
    empty, none = tf.zeros((2, 0, 4)), tf.zeros((2, 0), tf.int32)
    drawn_regions, columns, matched = fast_rcnn_training.sample_regions(
        proposals, empty, none, SEED, count=5, negative=(0.0, 0.5), ignore=tf.zeros((2, 0), bool)
    )
    assert drawn_regions.shape == (2, 5, 4) and matched.shape == (2, 5)
    assert np.sort(columns, axis=1).tolist() == [[-1] * (5 - regions) + [0] * regions] * 2
    losses = fast_rcnn_training.region_losses(
        tf.zeros((2, 5, 3)), tf.zeros((2, 5, 4)), drawn_regions, columns, rpn.rows(empty, matched)
    )
    np.testing.assert_allclose(losses, [[np.log(3) if regions else 0.0] * 2, [0.0, 0.0]], rtol=1e-6)


def test_box_targets_are_normalised_by_the_mean_and_deviation_of_their_class():
    # The second box lies 0.1 widths aside; of class 1: (0.1 - 0.05) / 0.025 = 2, smooth L1 1.5; of three regions.
    # The first, of class 0, is (0 - 0) / 1.
    means, stds = [[0.0] * 4, [0.05, 0, 0, 0]], [[1.0] * 4, [0.025, 1, 1, 1]]
    _, box = losses(agnostic=False, means=means, stds=stds)
    assert box.numpy()[0] == pytest.approx(1.5 / 3, rel=1e-5)


def test_statistics_of_box_targets_by_hand():
    boxes, labels = np.array([[0.0, 0, 10, 10], [50, 50, 70, 70]], np.float32), np.array([0, 2])
    proposals = np.array([[1, 0, 11, 10], [0, 0, 10, 20], [0, 4.9, 10, 15], [80, 80, 90, 90]], np.float32)
    # To class 0: the box itself 0, one aside by 0.1 and its mirror image, one twice as high (IoU 0.5); the third has
    # IoU 0.34. Of class 2 there is only the box itself: joint training's numbers.
    means, stds = fast_rcnn_training.box_statistics([(proposals, boxes, labels)], 3)
    dx, dy, dh = [0, 0, -0.1, 0.1, 0, 0], [0, 0, 0, 0, -0.25, -0.25], [0, 0, 0, 0, np.log(0.5), np.log(0.5)]
    np.testing.assert_allclose(means[1:], np.tile(fast_rcnn.BOX_MEANS, (2, 1)))
    np.testing.assert_allclose(stds[1:], np.tile(fast_rcnn.BOX_STDS, (2, 1)))
    # No target of class 0 changes its width: a deviation of 0 is none, so the class keeps joint training's too.
    assert means[0] == list(fast_rcnn.BOX_MEANS) and stds[0] == list(fast_rcnn.BOX_STDS)
    wider = np.concatenate([proposals, [[0, 0, 20, 10]]]).astype(np.float32)
    means, stds = fast_rcnn_training.box_statistics(
        [(wider, boxes, labels), (wider[:0], boxes[:0], labels[:0])], 3
    )
    dx, dy, dh = dx + [-0.25, 0.25], dy + [0, 0], dh + [0, 0]
    dw = [0] * 6 + [np.log(0.5)] * 2
    np.testing.assert_allclose(means[0], np.mean([dx, dy, dw, dh], axis=1), atol=1e-6)
    np.testing.assert_allclose(stds[0], np.std([dx, dy, dw, dh], axis=1), rtol=1e-5)
