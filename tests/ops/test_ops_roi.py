"""RoI ops: against loops, bit for bit where the op is exact, and their gradients."""

import math

import numpy as np
import pytest
import tensorflow as tf
from ops_cases import awkward_boxes, random_boxes

from tfcnn.ops import roi


def bilinear(features, x, y):
    """The features at cell coordinates, those of the border beyond the centres of the outermost cells."""
    height, width, _ = features.shape
    x, y = min(max(x - 0.5, 0), width - 1), min(max(y - 0.5, 0), height - 1)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    upper = features[top, left] * (left + 1 - x) + features[top, right] * (x - left)
    lower = features[bottom, left] * (left + 1 - x) + features[bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def slow_roi_align(features, box, stride, size, samples):
    height, width, channels = features.shape
    x1, x2 = np.clip([box[0], box[2]], 0, width * stride) / stride
    y1, y2 = np.clip([box[1], box[3]], 0, height * stride) / stride
    x2, y2 = max(x1, x2), max(y1, y2)
    pooled = np.zeros([size, size, channels])
    for i in range(size):
        for j in range(size):
            for k in range(samples):
                for l in range(samples):
                    y = y1 + (y2 - y1) * (i + (k + 0.5) / samples) / size
                    x = x1 + (x2 - x1) * (j + (l + 0.5) / samples) / size
                    pooled[i, j] += bilinear(features, x, y) / samples**2
    return pooled


def round_half_away(x):
    whole = math.floor(abs(x))
    return int(math.copysign(whole + (abs(x) - whole >= 0.5), x))


def slow_roi_max_pool(features, box, scale, size, gradient, spread):
    """Fast R-CNN's loops, in float32 where the program is; adds the features' gradient to `spread`."""
    height, width, channels = features.shape
    corners = (np.float32(box) - np.float32([0, 0, 1, 1])) * np.float32(scale)
    x1, y1, x2, y2 = (round_half_away(float(v)) for v in corners)
    bin_width = np.float32(max(x2 - x1 + 1, 1)) / np.float32(size)
    bin_height = np.float32(max(y2 - y1 + 1, 1)) / np.float32(size)
    pooled = np.zeros([size, size, channels], np.float32)
    for i in range(size):
        top = min(max(math.floor(np.float32(i) * bin_height) + y1, 0), height)
        bottom = min(max(math.ceil(np.float32(i + 1) * bin_height) + y1, 0), height)
        for j in range(size):
            left = min(max(math.floor(np.float32(j) * bin_width) + x1, 0), width)
            right = min(max(math.ceil(np.float32(j + 1) * bin_width) + x1, 0), width)
            for c in range(channels):
                best = None
                for y in range(top, bottom):
                    for x in range(left, right):
                        if best is None or features[y, x, c] > features[(*best, c)]:
                            best = y, x
                if best is not None:
                    pooled[i, j, c] = features[(*best, c)]
                    spread[(*best, c)] += gradient[i, j, c]
    return pooled


def pooled_and_gradient(features, boxes, gradient, **options):
    features = tf.convert_to_tensor(features)
    with tf.GradientTape() as tape:
        tape.watch(features)
        pooled = roi.roi_max_pool(features, boxes, **options)
    return pooled, tape.gradient(pooled, features, gradient)


@pytest.mark.parametrize(("size", "samples"), [(7, 2), (3, 1), (2, 3), (1, 1)])
def test_roi_align_equals_a_loop(size, samples):
    rng = np.random.default_rng(size)
    features = rng.normal(size=(2, 6, 9, 3)).astype(np.float32)
    boxes = np.stack([awkward_boxes(rng, 8, side=130), awkward_boxes(rng, 8, side=130)])
    boxes[:, 0] = [0, 0, 144, 96]
    pooled = roi.roi_align(features, boxes, 16, size, samples)
    assert pooled.shape == (2, 8, size, size, 3)
    for b in range(2):
        for r in range(8):
            expected = slow_roi_align(features[b].astype(float), boxes[b, r].astype(float), 16, size, samples)
            np.testing.assert_allclose(pooled[b, r], expected, atol=2e-5)


def test_roi_align_of_a_plane_is_its_value_at_the_bins_middle():
    y, x = np.mgrid[:10, :12]
    features = (3 * (x + 0.5) + 5 * (y + 0.5)).astype(np.float32)[None, :, :, None]
    pooled = roi.roi_align(features, tf.constant([[[16.0, 32, 96, 80]]]), stride=8, size=2)
    # Cells x 2 to 12 and y 4 to 10: the middles of the bins are x 4.5 and 9.5, y 5.5 and 8.5.
    expected = [[3 * 4.5 + 5 * 5.5, 3 * 9.5 + 5 * 5.5], [3 * 4.5 + 5 * 8.5, 3 * 9.5 + 5 * 8.5]]
    np.testing.assert_allclose(pooled[0, 0, :, :, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(("size", "samples"), [(3, 2), (2, 1)])
def test_roi_aligns_gradient_equals_finite_differences(size, samples):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(2, 4, 5, 2)).astype(np.float32)
    boxes = np.stack([awkward_boxes(rng, 4, side=70), awkward_boxes(rng, 4, side=70)])
    # The op is linear in the features, so a step of 1 is exact but for rounding.
    exact, measured = tf.test.compute_gradient(
        lambda f: roi.roi_align(f, boxes, 16, size, samples), [tf.constant(features)], delta=1.0
    )
    np.testing.assert_allclose(exact[0], measured[0], atol=1e-5)
    assert np.abs(exact[0]).max() > 0.1


def test_roi_max_pool_by_hand():
    """One region of 3 x 3 cells in 2 x 2 bins: each bin is 2 x 2 cells, and they overlap."""
    features = tf.constant([[0.0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 9, 11], [12, 13, 14, 15]])[None, :, :, None]
    # Its inclusive pixels 0 to 39 give 0 and 39 / 16 = 2.44, rounded 2: cells 0 to 2.
    boxes = tf.constant([[[0.0, 0, 40, 40]]])
    pooled, gradient = pooled_and_gradient(features, boxes, tf.ones([1, 1, 2, 2, 1]), scale=1 / 16, size=2)
    np.testing.assert_array_equal(pooled[0, 0, :, :, 0], [[5, 6], [9, 9]])
    # Of the two nines the first in row order takes the gradient of both lower bins.
    np.testing.assert_array_equal(
        gradient[0, :, :, 0], [[0, 0, 0, 0], [0, 1, 1, 0], [0, 2, 0, 0], [0, 0, 0, 0]]
    )


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("height", "width", "size", "side"),
    [(20, 20, 7, 320), (45, 61, 7, 900), (9, 13, 3, 190), (40, 40, 2, 640), (3, 2, 7, 40), (64, 57, 7, 1000)],
)
def test_roi_max_pool_equals_a_loop_bit_for_bit(height, width, size, side, compiled):
    """Small and large regions, over the edge and outside, with many equal features; gradients of regions add
    in float32, in their order."""
    rng = np.random.default_rng(height)
    features = rng.integers(-3, 4, (2, height, width, 2)).astype(np.float32)
    features += (rng.random(features.shape) < 0.1) * rng.random(features.shape).astype(np.float32)
    boxes = random_boxes(rng, 2, 8, side=side, longest=1.2 * side)
    boxes[0, :4] = [[0, 0, side, side], [0, 0, 0, 0], [-500, -500, -400, -300], [8, 24, 40, 41]]
    boxes[1, :2] = boxes[1, :2][:, [2, 1, 0, 3]]  # inverted: the program makes them one cell wide
    gradient = rng.normal(size=(2, 8, size, size, 2)).astype(np.float32)
    call = tf.function(pooled_and_gradient) if compiled else pooled_and_gradient
    pooled, spread = call(features, tf.constant(boxes), gradient, scale=1 / 16, size=size)
    for b in range(2):
        total = np.zeros_like(features[b])
        for r in range(8):
            expected = slow_roi_max_pool(features[b], boxes[b, r], 1 / 16, size, gradient[b, r], total)
            np.testing.assert_array_equal(pooled[b, r], expected)
        np.testing.assert_array_equal(spread[b], total)


@pytest.mark.parametrize("size", [7, 6, 14])
def test_bins_are_those_of_float32_arithmetic_inside_a_graph(size):
    """57 cells in 7 bins, say: float32 puts one cell more into the last than whole numbers would, and a graph
    that multiplies by 1 / 7 does otherwise again."""
    regions = np.arange(1, 3001, dtype=np.float32)
    first, last = tf.function(lambda stop: roi._bins(tf.zeros_like(stop), stop, 10**6, size))(
        regions[None] - 1
    )
    bin_side = regions / np.float32(size)
    for p in range(size):
        np.testing.assert_array_equal(first[0, :, p], np.floor(np.float32(p) * bin_side))
        np.testing.assert_array_equal(last[0, :, p], np.ceil(np.float32(p + 1) * bin_side))
    if size == 7:
        np.testing.assert_array_equal(last.numpy()[0, [56, 113, 120], -1], [58, 115, 122])


@pytest.mark.parametrize("op", [roi.roi_align, roi.roi_max_pool])
def test_no_regions_padding_and_batches(op):
    rng = np.random.default_rng(2)
    features = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)
    boxes = random_boxes(rng, 2, 5, side=128)
    scale = 16 if op is roi.roi_align else 1 / 16
    together = op(features, boxes, scale, 2)
    padded = op(features, np.pad(boxes, [(0, 0), (0, 2), (0, 0)]), scale, 2)
    np.testing.assert_allclose(padded[:, :5], together, atol=1e-6)
    first = np.broadcast_to(features[:, None, None, None, 0, 0], padded[:, 5:].shape)
    np.testing.assert_allclose(padded[:, 5:], first, atol=1e-6)
    for b in range(2):
        np.testing.assert_allclose(
            op(features[b : b + 1], boxes[b : b + 1], scale, 2)[0], together[b], atol=1e-6
        )
    variable = tf.Variable(features)
    with tf.GradientTape() as tape:
        none = op(variable, boxes[:, :0], scale, 2)
    assert none.shape == (2, 0, 2, 2, 3)
    assert not tape.gradient(none, variable).numpy().any()


@pytest.mark.parametrize("op", [roi.roi_align, roi.roi_max_pool])
def test_half_precision_features_stay_so(op):
    rng = np.random.default_rng(3)
    features, boxes = rng.normal(size=(1, 8, 8, 4)).astype(np.float16), random_boxes(rng, 1, 5, side=128)
    scale = 16 if op is roi.roi_align else 1 / 16
    pooled = op(features, boxes, scale, 2)
    assert pooled.dtype == tf.float16
    np.testing.assert_allclose(pooled, op(features.astype(np.float32), boxes, scale, 2), atol=2e-3)


def test_boxes_take_no_gradient():
    rng = np.random.default_rng(4)
    boxes = tf.Variable(random_boxes(rng, 1, 5, side=128))
    with tf.GradientTape(persistent=True) as tape:
        features = tf.constant(rng.normal(size=(1, 8, 8, 4)).astype(np.float32))
        pooled = [roi.roi_align(features, boxes, 16, 2), roi.roi_max_pool(features, boxes, 1 / 16, 2)]
    assert [tape.gradient(p, boxes) for p in pooled] == [None, None]
