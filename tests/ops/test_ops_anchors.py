"""Anchors: the golden nine, their order on the grid, and their shapes."""

import numpy as np
import tensorflow as tf

from tfcnn.ops import anchors
from tfcnn.ops import boxes as bx

# What generate_anchors.py returns, in its inclusive pixels.
GOLDEN = [
    [-84, -40, 99, 55],
    [-176, -88, 191, 103],
    [-360, -184, 375, 199],
    [-56, -56, 71, 71],
    [-120, -120, 135, 135],
    [-248, -248, 263, 263],
    [-36, -80, 51, 95],
    [-80, -168, 95, 183],
    [-168, -344, 183, 359],
]


def test_the_nine_of_py_faster_rcnn():
    base = anchors.py_faster_rcnn_anchors()
    inclusive = anchors.grid(1, 1, 16, base).numpy() - [0, 0, 1, 1]
    np.testing.assert_array_equal(inclusive, GOLDEN)


def test_places_are_row_major_with_anchors_fastest():
    base = anchors.py_faster_rcnn_anchors()
    placed = anchors.grid(3, 2, 16, base).numpy()
    assert placed.shape == (3 * 2 * 9, 4)
    i = 0
    for row in range(3):
        for column in range(2):
            for anchor in GOLDEN:
                x, y = 16 * column, 16 * row
                expected = [anchor[0] + x, anchor[1] + y, anchor[2] + x + 1, anchor[3] + y + 1]
                np.testing.assert_array_equal(placed[i], expected)
                i += 1


def test_areas_and_shapes_are_as_asked():
    base = anchors.base_anchors([24, 100], [0.5, 1, 2])
    assert base.dtype == np.float32
    center = bx.to_center(tf.constant(base)).numpy()
    np.testing.assert_allclose(center[:, :2], 0, atol=1e-5)
    np.testing.assert_allclose(bx.area(tf.constant(base)), [576, 10000] * 3, rtol=1e-5)
    np.testing.assert_allclose(center[:, 3] / center[:, 2], [0.5, 0.5, 1, 1, 2, 2], rtol=1e-5)


def test_a_grid_of_tensors_for_sides():
    base = anchors.base_anchors([32], [1, 2])

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
    def of_map(features):
        return anchors.grid(tf.shape(features)[1], tf.shape(features)[2], 8, base)

    np.testing.assert_array_equal(of_map(tf.zeros([1, 4, 6, 3])), anchors.grid(4, 6, 8, base))
    assert of_map(tf.zeros([1, 0, 6, 3])).shape == (0, 4)


def test_inside():
    placed = tf.constant([[0.0, 0, 10, 10], [-1, 0, 9, 10], [0, 0, 21, 10], [0, -3, 10, 10], [0, 2, 20, 13]])
    np.testing.assert_array_equal(anchors.inside(placed, 12, 20), [True, False, False, False, False])
    np.testing.assert_array_equal(anchors.inside(placed, 12, 20, border=1), [True, True, True, False, True])
