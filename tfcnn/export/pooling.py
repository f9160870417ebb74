"""Pooling of regions in operations that LiteRT has, and ONNX without loops.

Neither has a kernel that cuts regions out of a map. A bilinear sample is a weighted sum of rows and of columns, though,
and so is the mean of several: RoIAlign is the product of a matrix for a region's rows, the map, and a matrix for its
columns. Where each bin reads channels of its own, few numbers of the map count for it, and these are gathered. The
sub-images of a pose net are cut from the picture in the same way.

N pictures, H and W rows and columns of the map, C channels, R regions of a picture, S = size, s = samples, c channels a
bin. For LiteRT the sizes of the map and N = 1 are known beforehand.
"""

import numpy as np
import tensorflow as tf

from tfcnn.ops.position_sensitive import SAMPLES


def sample_places(low: tf.Tensor, high: tf.Tensor, length: int | tf.Tensor, points: int) -> tf.Tensor:
    """The points along one side of regions at which a map is read.

    Args:
        low, high: float32 [...], where regions begin and end, in cells of the map; cell i covers [i, i + 1).
        length: of the side, cells.
        points: of a region, evenly spaced.

    Returns:
        float32 [..., points], 0..length - 1: index i is the middle of cell i. A region is cut to the map, a degenerate
        one is its first point.
    """
    length = tf.cast(length, tf.float32)
    low = tf.clip_by_value(low, 0.0, length)
    high = tf.maximum(tf.minimum(high, length), low)
    share = (np.arange(points, dtype=np.float32) + 0.5) / points
    places = low[..., None] + (high - low)[..., None] * share - 0.5
    return tf.clip_by_value(places, 0.0, length - 1.0)


def _sides(features):
    """N, H, W and C: numbers where they are known, else tensors."""
    found = zip(features.shape, tf.unstack(tf.shape(features)), strict=True)
    return [size if known is None else known for known, size in found]


def roi_align(
    features: tf.Tensor, boxes: tf.Tensor, stride: float, size: int = 7, samples: int = 2
) -> tf.Tensor:
    """`tfcnn.ops.roi.roi_align` by products of matrices.

    Args:
        features: float [N, H, W, C].
        boxes: float32 [N, R, 4], pixels.
        stride: pixels from one feature to the next.
        size: S.
        samples: points on a side of a bin.

    Returns:
        As features, [N, R, S, S, C].
    """
    batch, height, width, channels = _sides(features)
    given, features = features.dtype, tf.cast(features, tf.float32)
    first = [] if features.shape[0] == 1 else [batch]  # LiteRT is faster without an axis of one picture

    def bin_weights(low, high, length):
        """How much each location along a side counts in each bin, [N R, S, length]."""
        places = sample_places(low, high, length, size * samples)
        distance = tf.abs(places[..., None] - tf.range(tf.cast(length, tf.float32)))
        bilinear = tf.reshape(tf.nn.relu(1.0 - distance), [-1, size, samples, length])
        return tf.reduce_mean(bilinear, axis=2)

    x1, y1, x2, y2 = tf.unstack(boxes / stride, axis=-1)
    rows, columns = bin_weights(y1, y2, height), bin_weights(x1, x2, width)
    lines = tf.reshape(features, [*first, height, width * channels])
    across = tf.matmul(tf.reshape(rows, [*first, -1, height]), lines)
    across = tf.reshape(across, [-1, size, width, channels])  # [N R, S, W, C]
    pooled = tf.reshape(tf.matmul(columns[:, None], across), [batch, -1, size, size, channels])
    return tf.cast(pooled, given)


def ps_roi_align(features: tf.Tensor, boxes: tf.Tensor, stride: float, size: int = 7) -> tf.Tensor:
    """`tfcnn.ops.position_sensitive.ps_roi_align` by gathering.

    Args:
        features: float [N, H, W, S S c]; bins row by row.
        boxes: float32 [N, R, 4], pixels.
        stride: pixels from one feature to the next.
        size: S.

    Returns:
        As features, [N, R, S, S, c].
    """
    batch, height, width, channels = _sides(features)
    given, features = features.dtype, tf.cast(features, tf.float32)
    bins, depth = size**2, channels // size**2
    cells = tf.reshape(features, [batch * height, width, bins, depth])
    right = tf.concat([cells[:, 1:], cells[:, -1:]], axis=1)
    # A cell lies beside its right neighbour, so that one row of the table holds both.
    table = tf.reshape(tf.concat([cells, right], axis=-1), [-1, 2 * depth])

    def first_and_share(low, high, length):
        """The cell at or before each sample, and the shares of that and the next one, [N, R, S s] and [.., S s, 2]."""
        places = sample_places(low, high, length, size * SAMPLES)
        first = tf.floor(places)
        after = places - first
        return tf.cast(first, tf.int32), tf.stack([1.0 - after, after], axis=-1) / SAMPLES

    x1, y1, x2, y2 = tf.unstack(boxes / stride, axis=-1)
    row, row_share = first_and_share(y1, y2, height)
    column, column_share = first_and_share(x1, x2, width)
    row = tf.minimum(row[..., None] + np.arange(2, dtype=np.int32), height - 1)
    if features.shape[0] != 1:
        row += (tf.range(batch) * height)[:, None, None, None]
    # Axes: region of a picture, bin's row, bin's column, rows of a bin's samples, columns of them.
    row = tf.reshape(row, [-1, size, 1, 2 * SAMPLES, 1])
    column = tf.reshape(column, [-1, 1, size, 1, SAMPLES])
    own = np.arange(bins, dtype=np.int32).reshape(1, size, size, 1, 1)
    index = row * (width * bins) + (column * bins + own)
    share = tf.reshape(row_share, [-1, size, 1, 2 * SAMPLES, 1])
    share *= tf.reshape(column_share, [-1, 1, size, 1, 2 * SAMPLES])
    found = tf.reshape(tf.gather(table, tf.reshape(index, [-1])), [-1, (2 * SAMPLES) ** 2, depth])
    pooled = tf.reduce_sum(tf.reshape(share, [-1, (2 * SAMPLES) ** 2, 1]) * found, axis=1)
    return tf.cast(tf.reshape(pooled, [batch, -1, size, size, depth]), given)


def crops(image: tf.Tensor, corners: tf.Tensor, size: int, fill: float) -> tf.Tensor:
    """Bilinear samples of squares of one picture, `tf.image.crop_and_resize` with an extrapolation value.

    Args:
        image: float32 [1, H, W, C], H and W known.
        corners: float32 [R, 4], (y1, x1, y2, x2) of the first and the last sample, as shares of H - 1 and W - 1.
        size: S, samples on a side.
        fill: value of samples beyond the picture.

    Returns:
        float32 [R, S, S, C].
    """
    _, height, width, channels = image.shape
    share = np.arange(size, dtype=np.float32) / (size - 1)

    def sample_weights(first, last, length):
        """How much each location along a side counts in each sample, [R, S, length]; nothing beyond the picture."""
        places = (first[:, None] + (last - first)[:, None] * share) * (length - 1.0)
        inside = tf.cast((places >= 0.0) & (places <= length - 1.0), tf.float32)
        distance = tf.abs(places[..., None] - np.arange(length, dtype=np.float32))
        return tf.nn.relu(1.0 - distance) * inside[..., None], inside

    y1, x1, y2, x2 = tf.unstack(corners, axis=-1)
    (rows, above), (columns, beside) = sample_weights(y1, y2, height), sample_weights(x1, x2, width)
    across = tf.matmul(tf.reshape(rows, [-1, height]), tf.reshape(image, [height, width * channels]))
    found = tf.matmul(columns[:, None], tf.reshape(across, [-1, size, width, channels]))
    return found + fill * (1.0 - above[:, :, None, None] * beside[:, None, :, None])
