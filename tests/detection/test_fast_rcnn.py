"""The region head: pooling, scores and boxes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcnn.detection import fast_rcnn

SEED = tf.constant([3, 4])


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


def test_boxes_are_decoded_by_the_means_and_deviations_of_their_class():
    means, stds = [[0.0] * 4, [0.5, 0, 0, 0]], [[0.1, 0.1, 0.2, 0.2], [1.0, 1, 1, 1]]
    deltas = tf.constant([[[1.0, 0, 0, 0, 1, 0, 0, 0]]])
    regions = tf.constant([[[10.0, 10, 20, 20]]])
    _, boxes = fast_rcnn.decode_regions(tf.zeros((1, 1, 3)), deltas, regions, 99, 99, means, stds)
    np.testing.assert_allclose(boxes[0, 0], [[11, 10, 21, 20], [25, 10, 35, 20]], rtol=1e-6)
    layer = fast_rcnn.DetectionOutput(means=means, stds=stds, score_threshold=0.0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    image = tf.zeros((1, 99, 99, 3))
    found = again([tf.constant([[0.0, 1, 2]]), deltas[0], regions, image])
    np.testing.assert_allclose(found["boxes"][0, :2], [[25, 10, 35, 20], [11, 10, 21, 20]], rtol=1e-6)


def test_vggs_dense_layers_come_from_its_classifier():
    classifier = keras.Sequential(
        [keras.Input((2, 2, 3)), keras.layers.Flatten(), *(keras.layers.Dense(n) for n in (8, 8, 5))]
    )
    pooled = keras.Input((2, 2, 3))
    head = keras.Model(pooled, fast_rcnn.dense_head(pooled, units=8))
    assert fast_rcnn.copy_dense(classifier, head) == ["region_fc6", "region_fc7"]
    x = tf.random.stateless_normal((3, 2, 2, 3), SEED)
    first = tf.nn.relu(classifier.layers[1](classifier.layers[0](x)))
    np.testing.assert_allclose(head(x), tf.nn.relu(classifier.layers[2](first)), rtol=1e-5, atol=1e-6)
    other = keras.Model(pooled, fast_rcnn.dense_head(pooled, units=4))
    before = other.get_weights()
    assert fast_rcnn.copy_dense(classifier, other) == []
    for a, b in zip(before, other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
