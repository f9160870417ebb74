"""Position-sensitive RoIAlign: each bin of a region reads channels of its own, so a region has few features.

Shape letters: B pictures, H and W rows and columns of the feature map, R regions of a picture, S = size, c
channels a bin.
"""

import tensorflow as tf

from tfcnn.ops.roi import bin_means

SAMPLES = 2  # points on a side of a bin: they are the corners between which `bin_means` interpolates


def ps_roi_align(features: tf.Tensor, boxes: tf.Tensor, stride: float, size: int = 7) -> tf.Tensor:
    """The mean of 2 x 2 bilinear samples in each of size x size bins, each from the bin's own group of channels.

    Coordinates are those of `roi.roi_align`. Only the channels that a bin needs are read, S S times fewer than RoIAlign
    of the same map.

    Args:
        features: float32 [B, H, W, S S c]; channels i c to (i + 1) c belong to bin i, bins row by row.
        boxes: float32 [B, R, 4], pixels of the picture; no gradient flows to them.
        stride: pixels from one feature to the next.
        size: S.

    Returns:
        float32 [B, R, S, S, c], with a gradient to the features.

    Source: Dai et al. 2016 (R-FCN), section 2; Li et al. 2017 (Light-Head R-CNN); Qin et al. 2019 (ThunderNet).
    """
    batch, height, width = tf.unstack(tf.shape(features)[:3])
    bins, regions = size * size, tf.shape(boxes)[1]
    depth = features.shape[-1] // bins
    groups = tf.reshape(tf.cast(features, tf.float32), [batch, height * width, bins, depth])
    groups = tf.reshape(tf.transpose(groups, [0, 2, 1, 3]), [batch * bins, height, width, depth])

    extent = tf.cast(tf.stack([width, height]), tf.float32)
    low = tf.clip_by_value(tf.stop_gradient(boxes[..., :2]) / stride, 0.0, extent)  # cells of the map
    high = tf.clip_by_value(tf.stop_gradient(boxes[..., 2:]) / stride, low, extent)
    count = size * SAMPLES
    shares = (tf.range(count, dtype=tf.float32)[:, None] + 0.5) / tf.cast(count, tf.float32)
    points = low[:, :, None] + (high - low)[:, :, None] * shares - 0.5  # [B, R, S SAMPLES, (x, y)]: features
    points = tf.clip_by_value(points, 0.0, extent - 1) / tf.maximum(extent - 1, 1)
    points = tf.reshape(points, [batch, regions, size, SAMPLES, 2])
    whole = [batch, regions, size, size, SAMPLES]
    y = tf.broadcast_to(points[:, :, :, None, :, 1], whole)
    x = tf.broadcast_to(points[:, :, None, :, :, 0], whole)
    corners = tf.stack([y[..., 0], x[..., 0], y[..., -1], x[..., -1]], axis=-1)
    group = tf.range(batch)[:, None, None] * bins + tf.range(bins)  # [B, 1, bins]
    group = tf.broadcast_to(group, [batch, regions, bins])
    pooled = bin_means(groups, tf.reshape(corners, [-1, 4]), tf.reshape(group, [-1]), 1, SAMPLES)
    pooled = tf.cast(tf.reshape(pooled, [batch, regions, size, size, depth]), features.dtype)
    pooled.set_shape([features.shape[0], boxes.shape[1], size, size, depth])
    return pooled
