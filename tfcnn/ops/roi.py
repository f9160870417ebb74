"""Features of regions: every region of interest becomes a map of one size.

Shape letters: B pictures, H and W places of the feature map, C channels, R regions of a picture, S = size.
"""

import tensorflow as tf


def roi_align(features, boxes, stride, size=7, samples=2):
    """RoIAlign: the mean of bilinear samples in each of size x size bins.

    Feature [i, j] lies at pixel ((j + 0.5) stride, (i + 0.5) stride), in the middle of its cell. Each bin
    takes samples x samples points, evenly spaced. Points within half a cell of the border take the border's
    value; boxes are cut to the map first, and a padded box gives the map's first cell.

    Args:
        features: float32 [B, H, W, C].
        boxes: float32 [B, R, 4], pixels of the picture; no gradient flows to them.
        stride: pixels from one feature to the next.
        size: S, bins on a side.
        samples: points on a side of a bin.

    Returns:
        float32 [B, R, S, S, C], with a gradient to the features.

    Source: He et al. 2017 (Mask R-CNN), section 3, with half-pixel centres.
    """
    shape = tf.shape(features)
    batch, height, width = shape[0], shape[1], shape[2]
    regions = tf.shape(boxes)[1]
    extent = tf.cast(tf.stack([width, height, width, height]), tf.float32)
    boxes = tf.clip_by_value(tf.stop_gradient(boxes) / stride, 0, extent)  # cells of the map
    low, high = boxes[..., :2], tf.maximum(boxes[..., :2], boxes[..., 2:])
    # The map grows by a copy of its border, so that a sample in cells [0, H] always lies between two values:
    # cell coordinate t is index t - 0.5 of the map, t + 0.5 of the padded one.
    padded = tf.pad(features, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="SYMMETRIC")
    points = size * samples
    margin = (high - low) / (2 * points)
    span = tf.cast(tf.stack([width, height]) + 1, tf.float32)  # last index of the padded map
    x1, y1 = tf.unstack((low + margin + 0.5) / span, axis=-1)
    x2, y2 = tf.unstack((high - margin + 0.5) / span, axis=-1)
    corners = tf.reshape(tf.stack([y1, x1, y2, x2], axis=-1), [batch * regions, 4])
    picture = tf.repeat(tf.range(batch), regions)
    crops = tf.image.crop_and_resize(padded, corners, picture, [points, points])
    pooled = tf.nn.avg_pool2d(crops, samples, samples, "VALID")
    pooled = tf.reshape(pooled, [batch, regions, size, size, features.shape[-1]])
    pooled.set_shape([features.shape[0], boxes.shape[1], size, size, features.shape[-1]])
    return pooled
