"""Every op inside a functional model with unknown batch and sizes, run for no boxes and for some."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ops_cases import random_boxes

from tfcnn.ops import anchors, coders, matching, nms, roi
from tfcnn.ops import boxes as bx


class EveryOp(keras.layers.Layer):
    def call(self, features, boxes, scores):
        placed = anchors.grid(
            tf.shape(features)[1], tf.shape(features)[2], 16, anchors.base_anchors([24], [1])
        )
        valid = scores > 0
        index, label = matching.match(bx.iou(placed, boxes), valid, 0.5, 0.3)
        sampled, _ = matching.sample(label, 8, 0.25, tf.constant([1, 2]))
        kept, _, _, count = nms.batched_nms(boxes, scores, 0.5, 6)
        by_class, _, _, _ = nms.class_nms(boxes, tf.repeat(scores[..., None], 3, axis=-1), 0.5, 6)
        deltas = coders.encode(kept, by_class)
        owner, targets = coders.encode_yolo(bx.to_unit(boxes, 128, 128), valid)
        return {
            "index": index,
            "sampled": sampled,
            "flipped": bx.clip(bx.flip(boxes, 128), 128, 128),
            "voted": nms.vote(kept, boxes, scores[:, None]),
            "decoded": coders.decode(deltas, by_class),
            "owner": owner,
            "unit": coders.decode_yolo(targets[..., None, :]),
            "aligned": roi.roi_align(features, kept, 16),
            "pooled": roi.roi_max_pool(features, by_class, 1 / 16),
            "count": count,
        }


@pytest.fixture(scope="module")
def model():
    features, boxes, scores = keras.Input((None, None, 4)), keras.Input((None, 4)), keras.Input((None,))
    return keras.Model([features, boxes, scores], EveryOp()(features, boxes, scores))


def inputs(count):
    rng = np.random.default_rng(count)
    features = rng.normal(size=(2, 8, 8, 4)).astype(np.float32)
    return features, random_boxes(rng, 2, count, side=128), rng.random((2, count)).astype(np.float32)


def test_shapes_are_known_as_far_as_they_can_be(model):
    shapes = {name: tuple(output.shape) for name, output in model.output.items()}
    assert shapes["aligned"] == shapes["pooled"] == (None, 6, 7, 7, 4)
    assert shapes["voted"] == shapes["decoded"] == (None, 6, 4)
    assert shapes["sampled"] == (None, 8) and shapes["index"] == (None, None)
    assert shapes["owner"] == (None, 7, 7) and shapes["unit"] == (None, 7, 7, 1, 4)


def test_a_graph_gives_what_eager_gives(model):
    specs = [
        tf.TensorSpec([None, None, None, 4]),
        tf.TensorSpec([None, None, 4]),
        tf.TensorSpec([None, None]),
    ]
    graph = tf.function(lambda *x: model(list(x)), input_signature=specs)
    for count in (0, 1, 30):
        batch = inputs(count)
        eager = EveryOp()(*map(tf.constant, batch))
        for name, value in graph(*batch).items():
            assert np.isfinite(value.numpy()).all(), name
            np.testing.assert_allclose(value, eager[name], atol=1e-4, err_msg=name)


def test_a_batch_equals_its_pictures_one_by_one(model):
    batch = inputs(12)
    together = model(list(batch))
    for b in range(2):
        alone = model([x[b : b + 1] for x in batch])
        for name in set(together) - {"sampled"}:  # a draw depends on the place in the batch
            np.testing.assert_allclose(alone[name][0], together[name][b], atol=1e-4, err_msg=name)


def test_an_exported_model_runs_without_tfcnn(model, tmp_path):
    model.export(tmp_path / "ops", verbose=False)
    batch = inputs(9)
    served = tf.saved_model.load(tmp_path / "ops").serve([tf.constant(x) for x in batch])
    for name, value in model(list(batch)).items():
        np.testing.assert_allclose(served[name], value, atol=1e-4, err_msg=name)
