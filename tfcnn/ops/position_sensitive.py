"""Position-sensitive RoIAlign: each bin of a region reads channels of its own, so a region has few features.

Shape letters: B pictures, H and W rows and columns of the feature map, R regions of a picture, S = size, c
channels a bin.
"""

import tensorflow as tf

from tfcnn.ops.roi import bin_means


def ps_roi_align(
    features: tf.Tensor, boxes: tf.Tensor, stride: float, size: int = 7, samples: int = 2
) -> tf.Tensor:
    """The mean of bilinear samples in each of size x size bins, each from the bin's own group of channels.

    Coordinates are those of `roi.roi_align`. Only the channels that a bin needs are read, S S times fewer than RoIAlign
    of the same map.

    Args:
        features: float32 [B, H, W, S S c]; channels i c to (i + 1) c belong to bin i, bins row by row.
        boxes: float32 [B, R, 4], pixels of the picture; no gradient flows to them.
        stride: pixels from one feature to the next.
        size: S.
        samples: points on a side of a bin.

    Returns:
        float32 [B, R, S, S, c], with a gradient to the features.

    Source: Dai et al. 2016 (R-FCN), section 2; Li et al. 2017 (Light-Head R-CNN); Qin et al. 2019 (ThunderNet).
    """
    shape = tf.shape(features)
    batch, height, width = shape[0], shape[1], shape[2]
    bins = size * size
    depth = features.shape[-1] // bins
    regions = tf.shape(boxes)[1]
    padded = tf.pad(tf.cast(features, tf.float32), [[0, 0], [1, 1], [1, 1], [0, 0]], mode="SYMMETRIC")
    groups = tf.reshape(padded, [batch, height + 2, width + 2, bins, depth])
    groups = tf.reshape(tf.transpose(groups, [0, 3, 1, 2, 4]), [batch * bins, height + 2, width + 2, depth])

    extent = tf.cast(tf.stack([width, height]), tf.float32)
    low = tf.clip_by_value(tf.stop_gradient(boxes[..., :2]) / stride, 0.0, extent)  # cells of the map
    high = tf.clip_by_value(tf.stop_gradient(boxes[..., 2:]) / stride, low, extent)
    step = (high - low)[:, :, None] / size  # [B, R, 1, 2]
    column, row = tf.meshgrid(tf.range(size, dtype=tf.float32), tf.range(size, dtype=tf.float32))
    offset = tf.reshape(tf.stack([column, row], axis=-1), [bins, 2])  # (x, y) of each bin
    first = low[:, :, None] + step * (offset + 0.5 / samples)  # first and last sample of each bin
    last = low[:, :, None] + step * (offset + 1 - 0.5 / samples)
    corners = (tf.concat([first, last], axis=-1) + 0.5) / tf.tile(
        extent + 1, [2]
    )  # [B, R, bins, 4], x before y
    corners = tf.gather(corners, [1, 0, 3, 2], axis=-1)
    group = tf.range(batch)[:, None, None] * bins + tf.range(bins)  # [B, 1, bins]
    group = tf.broadcast_to(group, [batch, regions, bins])
    pooled = bin_means(groups, tf.reshape(corners, [-1, 4]), tf.reshape(group, [-1]), 1, samples)
    pooled = tf.cast(tf.reshape(pooled, [batch, regions, size, size, depth]), features.dtype)
    pooled.set_shape([features.shape[0], boxes.shape[1], size, size, depth])
    return pooled
