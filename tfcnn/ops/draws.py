"""Random numbers of a batch, one draw for all of it or a draw a row.

A row that draws for itself has the same numbers whatever batch it stands in: several replicas, each with its rows of a
batch, draw what one device draws with all of them.
"""

import tensorflow as tf


def uniform(shape: tf.Tensor, seed: tf.Tensor, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
    """Numbers of a uniform distribution, a function of shape and seed alone.

    Args:
        shape: int32 [k], of the result; its first axis are the N rows.
        seed: int32 or int64 [2], of all rows, or [N, 2], of each row.
        low, high: the interval, high left out.

    Returns:
        float32 of that shape.
    """
    return _rows(lambda shape, seed: tf.random.stateless_uniform(shape, seed, low, high), shape, seed)


def normal(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Numbers of the standard normal distribution; arguments as of `uniform`."""
    return _rows(tf.random.stateless_normal, shape, seed)


def _rows(draw, shape, seed):
    seed = tf.convert_to_tensor(seed)
    if seed.shape.rank == 1:
        return draw(shape, seed)
    return tf.map_fn(lambda own: draw(shape[1:], own), seed, fn_output_signature=tf.float32)
