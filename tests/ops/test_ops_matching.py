"""Matching and sampling: a 3x3 grid by hand, against a loop, and what a balanced draw must hold."""

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_cases import awkward_boxes, random_boxes

from tfcnn.ops import anchors, matching
from tfcnn.ops import boxes as bx


def slow_match(iou, valid, positive, negative, best_for_each, lowest):
    count, boxes = iou.shape
    index, label = np.zeros(count, int), np.zeros(count, int)
    for a in range(count):
        best = 0.0
        for m in range(boxes):
            if valid[m] and iou[a, m] > best:
                best, index[a] = iou[a, m], m
        label[a] = 1 if best >= positive else 0 if lowest <= best < negative else -1
    if best_for_each:
        for m in range(boxes):
            if valid[m] and iou[:, m].max() > 0:
                label[iou[:, m] == iou[:, m].max()] = 1
    return index, label


def test_targets_of_a_3x3_grid_by_hand():
    """Anchors of 16 px at stride 16, so the nine tile a picture of 48 px and overlaps are easy to count."""
    placed = anchors.grid(3, 3, 16, anchors.base_anchors([16], [1]))
    boxes = tf.constant(
        [
            [0.0, 0, 16, 16],  # anchor 0 exactly
            [24, 16, 40, 32],  # half on anchor 4, half on anchor 5: IoU 128 / 384 = 1/3 with both
            [2, 32, 16, 48],  # 14 of the 16 columns of anchor 6: IoU 0.875
            [0, 0, 0, 0],  # padded
        ]
    )
    overlap = bx.iou(placed, boxes)
    valid = tf.constant([True, True, True, False])
    index, label = matching.match(overlap, valid)
    np.testing.assert_array_equal(label, [1, 0, 0, 0, 1, 1, 1, 0, 0])  # both best anchors of the second box
    np.testing.assert_array_equal(index, [0, 0, 0, 0, 1, 1, 2, 0, 0])
    _, label = matching.match(overlap, valid, best_for_each=False)
    np.testing.assert_array_equal(label, [1, 0, 0, 0, -1, -1, 1, 0, 0])  # 1/3 is between 0.3 and 0.7
    _, label = matching.match(overlap, valid, positive=0.5, negative=0.5, best_for_each=False, lowest=0.1)
    np.testing.assert_array_equal(label, [1, -1, -1, -1, 0, 0, 1, -1, -1])


def test_of_equal_boxes_the_first_is_taken_and_thresholds_belong_to_the_upper_side():
    overlap = tf.constant([[0.5, 0.5], [0.2, 0.3], [0.7, 0.1], [0.29, 0.0]])
    index, label = matching.match(overlap, tf.constant([True, True]), 0.7, 0.3, best_for_each=False)
    np.testing.assert_array_equal(index, [0, 1, 0, 0])
    np.testing.assert_array_equal(label, [-1, -1, 1, 0])


@given(st.integers(0, 2**31), st.booleans())
@settings(max_examples=25, deadline=None)
def test_match_equals_a_loop_in_a_batch(seed, best_for_each):
    rng = np.random.default_rng(seed)
    proposals, boxes = random_boxes(rng, 2, 30), np.stack([awkward_boxes(rng, 6), awkward_boxes(rng, 6)])
    valid = rng.random((2, 6)) < 0.7
    overlap = bx.iou(proposals, boxes)
    index, label = matching.match(overlap, valid, 0.5, 0.4, best_for_each, lowest=0.1)
    for b in range(2):
        expected = slow_match(overlap[b].numpy(), valid[b], 0.5, 0.4, best_for_each, 0.1)
        has_box = bx.iou(proposals[b], boxes[b][valid[b]]).numpy().max(axis=1, initial=0) > 0
        np.testing.assert_array_equal(index[b].numpy()[has_box], expected[0][has_box])
        np.testing.assert_array_equal(label[b], expected[1])


def test_padding_changes_nothing():
    rng = np.random.default_rng(1)
    proposals, boxes = random_boxes(rng, 50), random_boxes(rng, 4)
    padded = np.concatenate([boxes, np.zeros([3, 4], np.float32)])
    plain = matching.match(bx.iou(proposals, boxes), np.ones(4, bool), 0.5, 0.3)
    more = matching.match(bx.iou(proposals, padded), np.arange(7) < 4, 0.5, 0.3)
    for one, other in zip(plain, more, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_picture_without_boxes_has_only_negatives():
    for boxes, valid in (
        (tf.zeros([2, 0, 4]), tf.zeros([2, 0], tf.bool)),
        (tf.zeros([2, 3, 4]), tf.zeros([2, 3], bool)),
    ):
        index, label = matching.match(bx.iou(tf.ones([5, 4]), boxes), valid)
        assert index.shape == label.shape == (2, 5)
        assert not index.numpy().any() and not label.numpy().any()
    index, label = matching.match(tf.zeros([0, 3]), tf.ones([3], tf.bool))
    assert index.shape == label.shape == (0,)


@given(
    st.lists(st.sampled_from([-1, 0, 0, 1]), max_size=40),
    st.integers(1, 20),
    st.sampled_from([0, 0.25, 0.5, 1]),
    st.integers(0, 2**31 - 1),
)
@settings(max_examples=60, deadline=None)
def test_a_draw_is_balanced_without_repeats(labels, count, share, seed):
    labels = np.array([labels, labels[::-1]], np.int32).reshape(2, -1)
    index, picked = (x.numpy() for x in matching.sample(labels, count, share, [seed, 7]))
    assert index.shape == picked.shape == (2, count)
    for b in range(2):
        positives = min(round(count * share), (labels[b] == 1).sum())
        negatives = min(count - positives, (labels[b] == 0).sum())
        expected = [1] * positives + [0] * negatives + [-1] * (count - positives - negatives)
        np.testing.assert_array_equal(picked[b], expected)
        drawn = index[b][picked[b] >= 0]
        assert len(set(drawn)) == len(drawn)
        np.testing.assert_array_equal(labels[b][drawn], picked[b][picked[b] >= 0])
        assert not index[b][picked[b] < 0].any()


def test_a_draw_is_a_function_of_its_seed_and_even():
    labels = tf.constant([1] * 20 + [0] * 80)
    one, other, new = (matching.sample(labels, 16, 0.5, tf.constant(s))[0] for s in ([1, 2], [1, 2], [1, 3]))
    np.testing.assert_array_equal(one, other)
    assert (one.numpy() != new.numpy()).any()
    draws = np.zeros(100)
    for step in range(300):
        draws[matching.sample(labels, 16, 0.5, [3, step])[0].numpy()] += 1
    assert abs(draws[:20] - 120).max() < 45 and abs(draws[20:] - 30).max() < 25  # over 4 deviations
