"""Suppression: against a loop, ties, fixed sizes, soft suppression and voting."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_cases import awkward_boxes, random_boxes
from test_ops_boxes import slow_iou

from tfcnn.ops import boxes as bx
from tfcnn.ops import nms


def slow_nms(boxes, scores, threshold, most, lowest):
    """Greedy over (score, index) pairs; boxes and scores may be those of one class."""
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        if len(kept) == most or not scores[i] > lowest:
            break
        if all(slow_iou(boxes[i].astype(float), boxes[k].astype(float)) <= threshold for k in kept):
            kept.append(i)
    return kept


def slow_class_nms(boxes, scores, threshold, most, lowest):
    """[(score, box index, class)], best first, the lower box index then the lower class first of equals."""
    kept = []
    for k in range(scores.shape[1]):
        own = boxes[:, min(k, boxes.shape[1] - 1)]
        kept += [(-scores[i, k], i, k) for i in slow_nms(own, scores[:, k], threshold, len(scores), lowest)]
    return sorted(kept)[:most]


def coarse_scores(rng, *shape):
    """Scores with many ties."""
    return (rng.integers(0, 8, shape) / 8).astype(np.float32)


def test_by_hand():
    boxes = tf.constant([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 5, 10, 15]])
    scores = tf.constant([0.8, 0.9, 0.1, 0.7])
    # 1 first; it overlaps 0 by 90/110 = 0.82 and 3 by 45/155 = 0.29; 3 overlaps 0 by 1/3.
    np.testing.assert_array_equal(nms.nms(boxes, scores, 0.5, 10), [1, 3, 2])
    np.testing.assert_array_equal(nms.nms(boxes, scores, 0.2, 10), [1, 2])
    np.testing.assert_array_equal(nms.nms(boxes, scores, 0.9, 10), [1, 0, 3, 2])
    np.testing.assert_array_equal(nms.nms(boxes, scores, 0.5, 2), [1, 3])
    np.testing.assert_array_equal(nms.nms(boxes, scores, 0.5, 10, score_threshold=0.1), [1, 3])
    exact = tf.constant([[0.0, 0, 10, 10], [0, 0, 10, 5]])  # IoU exactly a half: not above it
    np.testing.assert_array_equal(nms.nms(exact, tf.constant([1.0, 1.0]), 0.5, 10), [0, 1])


@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.3, 0.7]), st.sampled_from([3, 100]))
@settings(max_examples=30, deadline=None)
def test_lists_and_batches_equal_a_loop_with_ties(seed, threshold, most):
    rng = np.random.default_rng(seed)
    boxes = np.stack([awkward_boxes(rng, 40), awkward_boxes(rng, 40)])
    scores = coarse_scores(rng, 2, 40)
    together = nms.batched_nms(boxes, scores, threshold, most, 0.25)
    for b in range(2):
        expected = slow_nms(boxes[b], scores[b], threshold, most, 0.25)
        np.testing.assert_array_equal(nms.nms(boxes[b], scores[b], threshold, most, 0.25), expected)
        kept_boxes, kept_scores, indices, count = (x[b].numpy() for x in together)
        assert count == len(expected)
        np.testing.assert_array_equal(indices[:count], expected)
        np.testing.assert_array_equal(kept_boxes[:count], boxes[b][expected])
        np.testing.assert_array_equal(kept_scores[:count], scores[b][expected])
        assert not kept_boxes[count:].any() and not kept_scores[count:].any() and not indices[count:].any()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    "most", [2, 15, 200]
)  # 8 * 2 of 160 candidates do not decide, 8 * 15 do, 200 is more than all
def test_per_class_equals_a_loop_with_ties(shared, most):
    rng = np.random.default_rng(most)
    for crowded in (False, True):
        side = 10 if crowded else 100  # crowded: almost all boxes of a class suppress each other
        boxes = random_boxes(rng, 2, 40, 1 if shared else 4, side=side)
        scores = coarse_scores(rng, 2, 40, 4)
        kept_boxes, kept_scores, classes, counts = nms.class_nms(boxes, scores, 0.1, most, 0.125)
        assert kept_boxes.shape == (2, most, 4)
        for b in range(2):
            expected = slow_class_nms(boxes[b], scores[b], 0.1, most, 0.125)
            count = len(expected)
            assert counts[b] == count
            np.testing.assert_array_equal(kept_scores[b, :count], [-score for score, _, _ in expected])
            np.testing.assert_array_equal(classes[b, :count], [k for _, _, k in expected])
            origin = [boxes[b, i, 0 if shared else k] for _, i, k in expected]
            np.testing.assert_array_equal(kept_boxes[b, :count], origin)
            assert (classes[b, count:].numpy() == -1).all() and not kept_boxes[b, count:].numpy().any()
        if shared:
            again = nms.class_nms(boxes[:, :, 0], scores, 0.1, most, 0.125)
            np.testing.assert_array_equal(again[0], kept_boxes)
            np.testing.assert_array_equal(again[2], classes)


def test_the_rest_is_looked_at_when_the_best_do_not_decide():
    """1000 candidates in one place, and the worst elsewhere: the 8 * 2 best give one box."""
    boxes = np.tile(np.float32([[[0, 0, 10, 10]]]), [1, 1001, 1])
    boxes[0, 1000] = [50, 50, 60, 60]
    scores = np.linspace(1, 0.1, 1001, dtype=np.float32)[None]
    _, _, indices, count = nms.batched_nms(boxes, scores, 0.5, 2)
    assert count[0] == 2
    np.testing.assert_array_equal(indices[0], [0, 1000])


def test_suppression_of_what_was_kept_keeps_all():
    rng = np.random.default_rng(5)
    boxes, scores = random_boxes(rng, 60), rng.random(60).astype(np.float32)
    kept = nms.nms(boxes, scores, 0.3, 100).numpy()
    np.testing.assert_array_equal(nms.nms(boxes[kept], scores[kept], 0.3, 100), np.arange(len(kept)))


def test_padding_changes_nothing_and_batches_equal_runs():
    rng = np.random.default_rng(6)
    boxes, scores = random_boxes(rng, 3, 30), rng.random((3, 30, 5)).astype(np.float32)
    more_boxes = np.pad(boxes, [(0, 0), (0, 9), (0, 0)])
    more_scores = np.pad(scores, [(0, 0), (0, 9), (0, 0)], constant_values=-np.inf)
    plain = nms.class_nms(boxes, scores, 0.3, 20)
    for one, other in zip(plain, nms.class_nms(more_boxes, more_scores, 0.3, 20), strict=True):
        np.testing.assert_array_equal(one, other)
    for b in range(3):
        alone = nms.class_nms(boxes[b : b + 1], scores[b : b + 1], 0.3, 20)
        for one, other in zip(plain, alone, strict=True):
            np.testing.assert_array_equal(one[b], other[0])


def test_no_boxes():
    assert nms.nms(tf.zeros([0, 4]), tf.zeros([0]), 0.5, 3).shape == (0,)
    assert nms.soft_nms(tf.zeros([0, 4]), tf.zeros([0]), 3)[0].shape == (0,)
    boxes, scores, indices, count = nms.batched_nms(tf.zeros([2, 0, 4]), tf.zeros([2, 0]), 0.5, 3)
    assert (
        not boxes.numpy().any()
        and not scores.numpy().any()
        and not indices.numpy().any()
        and not count.numpy().any()
    )
    for own in (1, 5):
        boxes, scores, classes, count = nms.class_nms(tf.zeros([2, 0, own, 4]), tf.zeros([2, 0, 5]), 0.5, 3)
        assert boxes.shape == (2, 3, 4) and (classes.numpy() == -1).all() and not count.numpy().any()
    assert nms.batched_nms(tf.zeros([0, 4, 4]), tf.zeros([0, 4]), 0.5, 3)[0].shape == (0, 3, 4)


def test_kept_boxes_and_scores_have_gradients():
    rng = np.random.default_rng(7)
    boxes, scores = (
        tf.Variable(random_boxes(rng, 1, 12)),
        tf.Variable(rng.random((1, 12, 3)).astype(np.float32)),
    )
    with tf.GradientTape() as tape:
        kept_boxes, kept_scores, _, count = nms.class_nms(boxes, scores, 0.3, 50)
        total = tf.reduce_sum(kept_boxes) + tf.reduce_sum(kept_scores)
    for_boxes, for_scores = tape.gradient(total, [boxes, scores])
    assert tf.reduce_sum(for_scores) == float(count[0])
    assert tf.reduce_sum(tf.convert_to_tensor(for_boxes)) == 4 * float(count[0])


def test_soft_suppression_equals_a_loop():
    rng = np.random.default_rng(8)
    boxes, scores = awkward_boxes(rng, 40, side=50), rng.random(40).astype(np.float32)
    left, expected = scores.astype(float), []
    while left.max() > 0.05 and len(expected) < 25:
        best = int(left.argmax())
        expected.append((best, left[best]))
        left[best] = -1
        for i in np.flatnonzero(left > 0):
            left[i] *= math.exp(-(slow_iou(boxes[best].astype(float), boxes[i].astype(float)) ** 2) / 0.5)
    indices, lowered = nms.soft_nms(boxes, scores, 25, sigma=0.5, score_threshold=0.05)
    np.testing.assert_array_equal(indices, [i for i, _ in expected])
    np.testing.assert_allclose(lowered, [score for _, score in expected], rtol=1e-4)


def test_voting_by_hand():
    kept = tf.constant([[0.0, 0, 10, 10], [50, 50, 50, 50]])
    boxes = tf.constant([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 4], [0, 0, 0, 0]])
    # The third overlaps by 0.4 and has no vote; the empty kept box has no voters and stays.
    voted = nms.vote(kept, boxes, tf.constant([[3.0, 1.0, 9.0, 9.0]]))
    np.testing.assert_allclose(voted, [[0, 0, 10, 9.5], [50, 50, 50, 50]])


def test_voting_equals_a_loop_in_a_batch():
    rng = np.random.default_rng(9)
    kept, boxes = random_boxes(rng, 2, 6), random_boxes(rng, 2, 50)
    weights = rng.random((2, 6, 50)).astype(np.float32)
    voted = nms.vote(kept, boxes, weights, 0.3)
    overlap = bx.iou(kept, boxes).numpy()
    for b in range(2):
        for l in range(6):
            voters = overlap[b, l] >= 0.3
            expected = (
                np.average(boxes[b][voters], axis=0, weights=weights[b, l][voters])
                if voters.any()
                else kept[b, l]
            )
            np.testing.assert_allclose(voted[b, l], expected, rtol=1e-4, atol=1e-4)
