"""Boxes, suppression and regions: tfcnn's ops beside the plain TensorFlow that a competent user writes.

    python benchmarks/ops.py [--rounds=40]

Both run compiled, in one process, in turn; a ratio is the median over the rounds of tfcnn's time over the plain one's.
Up to 1.05 counts as even.
"""

import argparse
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from tfcnn.ops import boxes as bx  # noqa: E402
from tfcnn.ops import nms, roi  # noqa: E402

SIDE, CELLS, CHANNELS, REGIONS = 320, 20, 320, 300


# --- the plain versions ---------------------------------------------------------------------------------------------


def plain_iou(a, b):
    low = tf.maximum(a[:, None, :2], b[None, :, :2])
    high = tf.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = tf.reduce_prod(tf.maximum(high - low, 0), axis=-1)
    area_a = tf.reduce_prod(a[:, 2:] - a[:, :2], axis=-1)
    area_b = tf.reduce_prod(b[:, 2:] - b[:, :2], axis=-1)
    return shared / (area_a[:, None] + area_b[None] - shared)


def plain_iou_by_columns(a, b):
    ax1, ay1, ax2, ay2 = tf.split(a, 4, axis=1)
    bx1, by1, bx2, by2 = tf.split(tf.transpose(b), 4, axis=0)
    width = tf.maximum(tf.minimum(ax2, bx2) - tf.maximum(ax1, bx1), 0)
    height = tf.maximum(tf.minimum(ay2, by2) - tf.maximum(ay1, by1), 0)
    shared = width * height
    return shared / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared)


def plain_nms(boxes, scores):
    return tf.image.non_max_suppression(
        boxes, scores, 300, 0.7
    )  # IoU does not mind that x and y are exchanged


def plain_padded_nms(boxes, scores):
    indices, count = tf.image.non_max_suppression_padded(boxes, scores, 300, 0.7, pad_to_max_output_size=True)
    kept = tf.gather(boxes, indices, batch_dims=1)
    return kept, tf.gather(scores, indices, batch_dims=1), indices, count


def plain_class_nms(boxes, scores):
    boxes = boxes[:, :, None]
    return tf.image.combined_non_max_suppression(boxes, scores, 100, 100, 0.3, 0.05, clip_boxes=False)


def plain_roi_align(features, boxes):
    corners = tf.reshape(tf.gather(boxes, [1, 0, 3, 2], axis=-1), [-1, 4]) / SIDE
    picture = tf.repeat(tf.range(tf.shape(boxes)[0]), tf.shape(boxes)[1])
    crops = tf.image.crop_and_resize(features, corners, picture, [14, 14])
    return tf.nn.avg_pool2d(crops, 2, 2, "VALID")


# --- measuring ------------------------------------------------------------------------------------------------------


def forward(function):
    return tf.function(function, autograph=False)


def backward(function):
    """The gradient of the first argument, for a gradient of the result given last."""

    def run(features, boxes, gradient):
        with tf.GradientTape() as tape:
            tape.watch(features)
            result = function(features, boxes)
        return tape.gradient(result, features, tf.reshape(gradient, tf.shape(result)))

    return tf.function(run, autograph=False)


def seconds(function, inputs):
    begin = time.perf_counter()
    tf.nest.map_structure(lambda x: x.numpy(), function(*inputs))
    return time.perf_counter() - begin


def compare(name, plain, ours, inputs, rounds):
    """Prints median milliseconds of both and the median ratio; the order within a round alternates."""
    for function in (plain, ours, plain, ours):
        seconds(function, inputs)
    times = np.empty([rounds, 2])
    for i in range(rounds):
        for which in (0, 1) if i % 2 else (1, 0):
            times[i, which] = seconds((plain, ours)[which], inputs)
    plain_ms, our_ms = 1e3 * np.median(times, axis=0)
    print(f"{name:62} {plain_ms:8.2f} {our_ms:8.2f} {np.median(times[:, 1] / times[:, 0]):7.2f}", flush=True)


def random_boxes(rng, *shape):
    """Boxes of 5 to 150 px in a picture of 320 px."""
    center, size = rng.uniform(0, SIDE, (*shape, 2)), rng.uniform(5, 150, (*shape, 2))
    boxes = np.concatenate([center - size / 2, center + size / 2], axis=-1)
    return tf.constant(np.clip(boxes, 0, SIDE), tf.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="paired rounds of each comparison")
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)

    def uniform(*shape):
        return tf.constant(rng.random(shape), tf.float32)

    print(f"{'op':62} {'plain ms':>8} {'tfcnn ms':>8} {'ratio':>7}")
    for n, m in ((4000, 100), (2000, 2000)):
        pair = random_boxes(rng, n), random_boxes(rng, m)
        compare(f"IoU {n} x {m}, plain: corners together", forward(plain_iou), forward(bx.iou), pair, rounds)
        compare("  plain: a column each", forward(plain_iou_by_columns), forward(bx.iou), pair, rounds)

    boxes, scores = random_boxes(rng, 2000), uniform(2000)
    ours = forward(lambda b, s: nms.nms(b, s, 0.7, 300))
    compare("NMS of 2000 at 0.7 to 300, a list", forward(plain_nms), ours, (boxes, scores), 5 * rounds)
    ours = forward(lambda b, s: nms.batched_nms(b, s, 0.7, 300))
    for batch in (1, 8):
        pair = random_boxes(rng, batch, 2000), uniform(batch, 2000)
        compare(f"  padded, a batch of {batch}", forward(plain_padded_nms), ours, pair, 2 * rounds)
    ours = forward(lambda b, s: nms.class_nms(b, s, 0.3, 100, 0.05))
    shared = random_boxes(rng, 1, 300)
    like_softmax = tf.constant(rng.dirichlet(np.full(21, 0.1), (1, 300))[..., 1:], tf.float32)
    for kind, given in (("uniform", uniform(1, 300, 20)), ("peaked", like_softmax)):
        name = f"NMS of 300 x 20 classes at 0.3, {kind} scores"
        compare(name, forward(plain_class_nms), ours, (shared, given), 5 * rounds)

    features = tf.constant(rng.standard_normal([1, CELLS, CELLS, CHANNELS]), tf.float32)
    gradient = tf.constant(rng.standard_normal([1, REGIONS, 7, 7, CHANNELS]), tf.float32)
    regions = random_boxes(rng, 1, REGIONS)

    def align(f, b):
        return roi.roi_align(f, b, SIDE / CELLS)

    def exact(f, b):
        return roi.roi_max_pool(f, b, CELLS / SIDE)

    inputs = features, regions
    compare("RoIAlign of 300, 20x20x320 to 7x7", forward(plain_roi_align), forward(align), inputs, rounds)
    compare("  exact max pooling, beside our RoIAlign", forward(align), forward(exact), inputs, rounds)
    inputs = features, regions, gradient
    compare("RoIAlign, forward and backward", backward(plain_roi_align), backward(align), inputs, rounds)
    compare("  exact max pooling, beside our RoIAlign", backward(align), backward(exact), inputs, rounds)
    compare(
        "  exact max pooling, beside plain RoIAlign",
        backward(plain_roi_align),
        backward(exact),
        inputs,
        rounds,
    )


if __name__ == "__main__":
    main()
