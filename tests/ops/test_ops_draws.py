"""A row that draws for itself has the same numbers whatever batch it stands in."""

import numpy as np
import pytest
import tensorflow as tf

from tfcnn.ops import draws, matching

SEEDS = np.int64([[7, 0], [7, 1], [7, 2**40], [8, 0]])


@pytest.mark.parametrize("draw", [draws.uniform, draws.normal])
def test_a_rows_numbers_are_its_seeds_alone(draw):
    whole = draw([4, 3, 5], tf.constant(SEEDS)).numpy()
    parts = [draw([2, 3, 5], tf.constant(SEEDS[rows])).numpy() for rows in ([2, 0], [1, 3])]
    np.testing.assert_array_equal(whole[[2, 0, 1, 3]], np.concatenate(parts))
    assert len({row.tobytes() for row in whole}) == 4
    together = draw([4, 3, 5], tf.constant([7, 0])).numpy()  # one seed: all rows are one draw
    assert len({row.tobytes() for row in together}) == 4
    np.testing.assert_array_equal(together, draw([4, 3, 5], tf.constant([7, 0])))


def test_uniform_keeps_its_interval():
    values = draws.uniform([4, 1000], tf.constant(SEEDS), -2.0, 3.0).numpy()
    assert values.min() >= -2 and values.max() < 3 and abs(values.mean() - 0.5) < 0.1


def test_a_pictures_sample_is_the_same_in_every_batch():
    labels = np.random.default_rng(0).integers(-1, 2, (4, 50)).astype(np.int32)

    @tf.function(input_signature=[tf.TensorSpec([None, 50], tf.int32), tf.TensorSpec([None, 2], tf.int64)])
    def sample(labels, seeds):
        return matching.sample(labels, 8, 0.5, seeds)

    index, picked = sample(labels, SEEDS)
    for row in range(4):
        own_index, own_picked = sample(labels[row : row + 1], SEEDS[row : row + 1])
        np.testing.assert_array_equal(index[row], own_index[0])
        np.testing.assert_array_equal(picked[row], own_picked[0])
    assert len({row.tobytes() for row in index.numpy()}) == 4
