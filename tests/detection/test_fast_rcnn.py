"""The region head: what is drawn, what is said of it, losses and outputs."""

import numpy as np
import pytest
import tensorflow as tf

from tfcnn.detection import fast_rcnn

SEED = tf.constant([3, 4])


def drawn(proposals, boxes, labels, **options):
    regions, columns, matched = fast_rcnn.sample_regions(
        tf.constant([proposals], tf.float32),
        tf.constant([boxes], tf.float32),
        tf.constant([labels]),
        SEED,
        **options,
    )
    return regions[0].numpy(), columns[0].numpy(), matched[0].numpy()


def test_regions_are_named_after_their_best_box_with_background_first():
    boxes = [[0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 0, 0]]
    proposals = [[0, 0, 10, 9], [20, 20, 40, 32], [20, 20, 24, 40], [60, 60, 70, 70], [0, 0, 0, 0]]
    regions, columns, matched = drawn(
        proposals, boxes, [4, 0, -1], count=8, positive_share=0.5, add_truth=False
    )
    named = {tuple(r): int(c) for r, c in zip(regions, columns, strict=True) if c >= 0}
    assert named[(0, 0, 10, 9)] == 5  # class 4 is column 5
    assert named[(20, 20, 40, 32)] == 1  # class 0 is column 1, IoU 0.6
    assert named[(20, 20, 24, 40)] == 0  # IoU 0.2: background
    assert (60, 60, 70, 70) not in named  # below the lower bound of 0.1
    assert (0, 0, 0, 0) not in named  # padding
    place = [tuple(r) for r in regions].index((20, 20, 40, 32))
    assert matched[place].tolist() == [20, 20, 40, 40]


def test_the_lower_bound_of_background_is_an_option():
    _, columns, _ = drawn(
        [[60, 60, 70, 70]], [[0, 0, 10, 10]], [2], count=4, negative=(0.0, 0.5), add_truth=False
    )
    assert columns.tolist() == [0, -1, -1, -1]


def test_true_boxes_join_the_proposals():
    regions, columns, _ = drawn([[60, 60, 70, 70]], [[0, 0, 10, 10]], [2], count=4, positive_share=0.5)
    assert (columns == 3).sum() == 1
    assert regions[columns == 3].tolist() == [[0, 0, 10, 10]]


def test_a_quarter_is_foreground_at_most():
    proposals = [[0, 0, 10, 10 + 0.1 * i] for i in range(30)] + [[0, 0, 10, 30 + i] for i in range(30)]
    _, columns, _ = drawn(proposals, [[0, 0, 10, 10]], [0], count=32)
    assert (columns == 1).sum() == 8 and (columns == 0).sum() == 24


def test_without_objects_only_background_and_a_box_loss_of_zero():
    regions, columns, matched = fast_rcnn.sample_regions(
        tf.constant([[[0.0, 0, 9, 9], [5, 5, 30, 30]]]),
        tf.zeros((1, 3, 4)),
        -tf.ones((1, 3), tf.int32),
        SEED,
        count=4,
        negative=(0.0, 0.5),
    )
    assert sorted(columns[0].numpy()) == [-1, -1, 0, 0]
    logits, deltas = tf.random.stateless_normal((1, 4, 6), SEED), tf.random.stateless_normal((1, 4, 20), SEED)
    name, box = fast_rcnn.region_losses(logits, deltas, regions, columns, matched)
    assert box.numpy().tolist() == [0.0] and name.numpy()[0] > 0 and np.isfinite(name.numpy()).all()


def losses(hardest=0, classes=2, agnostic=True):
    logits = np.zeros((1, 4, classes + 1), np.float32)
    logits[0, 1, 0] = 10.0  # sure of background where the truth is class 1: the hardest
    regions = tf.constant([[[0.0, 0, 10, 10]] * 4])
    columns = tf.constant([[1, 2, 0, -1]])
    matched = tf.constant([[[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 0, 0], [0, 0, 0, 0]]])
    deltas = tf.zeros((1, 4, 4 if agnostic else 4 * classes))
    return fast_rcnn.region_losses(tf.constant(logits), deltas, regions, columns, matched, hardest=hardest)


@pytest.mark.parametrize("agnostic", [True, False])
def test_losses_by_hand(agnostic):
    name, box = losses(agnostic=agnostic)
    hard = np.log(np.exp(10) + 2)
    assert name.numpy()[0] == pytest.approx((2 * np.log(3) + hard) / 3, rel=1e-5)
    # The second box lies a tenth of a width aside: 0.1 / 0.1 = 1, smooth L1 of 1 is 0.5; three regions count.
    assert box.numpy()[0] == pytest.approx(0.5 / 3, rel=1e-5)


def test_only_the_hardest_regions_count():
    name, box = losses(hardest=1)
    assert name.numpy()[0] == pytest.approx(np.log(np.exp(10) + 2), rel=1e-5)
    assert box.numpy()[0] == pytest.approx(0.5, rel=1e-5)


def test_each_region_takes_the_deltas_of_its_class():
    deltas = tf.reshape(tf.range(24.0), (1, 2, 12))
    own = fast_rcnn.of_class(deltas, tf.constant([[2, 0]]))
    assert own.numpy().tolist() == [[[8, 9, 10, 11], [12, 13, 14, 15]]]


def test_scores_leave_out_background_and_padding():
    logits = tf.constant([[[2.0, 1.0, 0.0], [0.0, 5.0, 0.0]]])
    regions = tf.constant([[[0.0, 0, 10, 10], [0, 0, 0, 0]]])
    scores, boxes = fast_rcnn.decode_regions(logits, tf.zeros((1, 2, 4)), regions, 8, 20)
    exp = np.exp([2.0, 1.0, 0.0])
    np.testing.assert_allclose(scores[0, 0], exp[1:] / exp.sum(), rtol=1e-5)
    assert scores[0, 1].numpy().tolist() == [0, 0]
    np.testing.assert_allclose(boxes[0, 0, 0], [0, 0, 10, 8], atol=1e-5)  # cut at the picture's edge


def test_a_pyramid_takes_each_region_from_the_map_of_its_size():
    maps = [tf.fill((1, 40 // 2**i, 40 // 2**i, 2), float(i)) for i in range(3)]
    regions = tf.constant([[[0.0, 0, 30, 30], [0, 0, 230, 230], [0, 0, 120, 120], [0, 0, 320, 320]]])
    pool = fast_rcnn.RegionPool((8, 16, 32), levels=True)
    pooled = pool([regions, *maps]).numpy()
    # 224 px belong to stride 16; half of that, and all below, to stride 8.
    assert pooled.mean(axis=(1, 2, 3)).tolist() == [0.0, 1.0, 0.0, 1.0]


def test_context_adds_the_whole_picture_last():
    x = tf.random.stateless_normal((2, 5, 5, 3), SEED)
    regions = tf.constant([[[0.0, 0, 30, 30]], [[10, 10, 50, 50]]])
    pooled = fast_rcnn.RegionPool((16,), context=True)([regions, x])
    whole = fast_rcnn.RegionPool((16,))([tf.constant([[[0.0, 0, 80, 80]]] * 2), x])
    assert pooled.shape[0] == 4
    np.testing.assert_allclose(pooled[1::2], whole, atol=1e-6)
    joined = fast_rcnn.JoinContext()([tf.reshape(tf.range(8.0), (4, 2)), regions])
    assert joined.numpy().tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("method", ["align", "max", "position"])
def test_gradients_reach_the_maps(method):
    x = tf.random.stateless_normal((1, 8, 8, 98), SEED)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = fast_rcnn.RegionPool((16,), method=method)([tf.constant([[[8.0, 8, 100, 90]]]), x])
    assert y.shape[1:] == (7, 7, 2 if method == "position" else 98)
    assert np.abs(tape.gradient(y, x)).sum() > 0
