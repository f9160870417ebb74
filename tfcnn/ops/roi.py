"""Features of regions: every region of interest becomes a map of one size.

Shape letters: B pictures, H and W rows and columns of the feature map, C channels, R regions of a picture, S = size.
"""

import contextlib
import math

import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled  # public only for switching it on


def roi_align(
    features: tf.Tensor, boxes: tf.Tensor, stride: float, size: int = 7, samples: int = 2
) -> tf.Tensor:
    """RoIAlign: the mean of bilinear samples in each of size x size bins.

    Feature [i, j] lies at pixel ((j + 0.5) stride, (i + 0.5) stride), in the middle of its cell. Each bin
    takes samples x samples points, evenly spaced. Points within half a cell of the border take the border's
    value; boxes are cut to the map first, and a padded box gives the map's first cell.

    Args:
        features: float [B, H, W, C].
        boxes: float32 [B, R, 4], pixels of the picture; no gradient flows to them.
        stride: pixels from one feature to the next.
        size: S, bins on a side.
        samples: points on a side of a bin.

    Returns:
        As features, [B, R, S, S, C], with a gradient to the features.

    Source: He et al. 2017 (Mask R-CNN), section 3, with half-pixel centres.
    """
    features = tf.convert_to_tensor(features)
    batch, height, width, _ = tf.unstack(tf.shape(features))
    regions = tf.shape(boxes)[1]
    # The map grows by a copy of its border, so that a sample in cells [0, H] always lies between two values:
    # cell coordinate t is index t - 0.5 of the map, t + 0.5 of the padded one.
    padded = tf.pad(tf.cast(features, tf.float32), [[0, 0], [1, 1], [1, 1], [0, 0]], mode="SYMMETRIC")
    extent = tf.cast(tf.stack([width, height, width, height]), tf.float32)
    cells = tf.clip_by_value(tf.stop_gradient(boxes) / stride, 0, extent)
    low, high = cells[..., :2], tf.maximum(cells[..., :2], cells[..., 2:])
    points = size * samples
    margin = (high - low) / (2 * points)  # from the edge of the box to its first point
    span = extent[:2] + 1  # last index of the padded map
    x1, y1 = tf.unstack((low + margin + 0.5) / span, axis=-1)
    x2, y2 = tf.unstack((high - margin + 0.5) / span, axis=-1)
    corners = tf.reshape(tf.stack([y1, x1, y2, x2], axis=-1), [batch * regions, 4])
    picture = tf.repeat(tf.range(batch), regions)
    pooled = bin_means(padded, corners, picture, size, samples)
    return _per_region(tf.cast(pooled, features.dtype), features, boxes, size)


def bin_means(image: tf.Tensor, corners: tf.Tensor, picture: tf.Tensor, size: int, samples: int) -> tf.Tensor:
    """The mean of samples x samples bilinear points in each of size x size bins of each region.

    Args:
        image: float32 [B, H, W, C].
        corners: float32 [N, 4], (y1, x1, y2, x2) of the first and the last point of each region, as shares of
            H - 1 and W - 1; no gradient flows to them.
        picture: int32 [N], the picture of each region.
        size: S, bins on a side.
        samples: points on a side of a bin.

    Returns:
        float32 [N, S, S, C], with a gradient to the image.
    """
    points = size * samples

    @tf.custom_gradient
    def means(image):
        crops = tf.image.crop_and_resize(image, corners, picture, [points, points])
        pooled = tf.nn.avg_pool2d(crops, samples, samples, "VALID")  # [N, S, S, C]

        def backward(gradient):
            # Each point gets its share; spreading by hand takes half the time of average pooling's own
            # gradient.
            share = gradient[:, :, None, :, None] / samples**2
            spread = tf.tile(share, [1, 1, samples, 1, samples, 1])  # [N, S, samples, S, samples, C]
            with _ordered_sums():
                return tf.raw_ops.CropAndResizeGradImage(
                    grads=tf.reshape(spread, tf.shape(crops)),
                    boxes=corners,
                    box_ind=picture,
                    image_size=tf.shape(image),
                    T=tf.float32,
                )

        return pooled, backward

    return means(image)


def _ordered_sums() -> contextlib.AbstractContextManager:
    """Where sums are taken whose kernels for GPUs add in any order, and refuse to under op determinism.

    Then these few run on the CPU, whose order is fixed, as TensorFlow's own scatter_nd does.
    """
    return tf.device("CPU:0") if is_op_determinism_enabled() else contextlib.nullcontext()


def roi_max_pool(features: tf.Tensor, boxes: tf.Tensor, scale: float, size: int = 7) -> tf.Tensor:
    """RoI max pooling exactly as in Fast R-CNN: rounded regions, bins of whole cells, the largest value of
    each.

    The program's boxes are inclusive pixels, (x1, y1, x2 - 1, y2 - 1) of ours. Its corners times the scale
    are rounded, halves away from zero; a region is at least one cell; bins reach from floor to ceil, so
    neighbours overlap; bins outside the map are 0 and give no gradient; of equal values the first in row
    order takes the gradient. A padded box gives the map's first cell.

    Args:
        features: float [B, H, W, C].
        boxes: float32 [B, R, 4], pixels of the picture; no gradient flows to them.
        scale: features per pixel, 1/16 in VGG16.
        size: S, bins on a side.

    Returns:
        As features, [B, R, S, S, C], with a gradient to the features.

    Source: Girshick 2015 (Fast R-CNN), section 2.1; its roi_pooling_layer.cpp.
    """
    features = tf.convert_to_tensor(features)
    batch, height, width, channels = tf.unstack(tf.shape(features))
    corners = tf.stop_gradient(boxes) - tf.constant([0, 0, 1, 1], boxes.dtype)
    x1, y1, x2, y2 = tf.unstack(_round_half_away(corners * scale), axis=-1)  # each [B, R]
    top, bottom = _bins(y1, y2, height, size)  # each [B, R, S], cells; bottom is excluded
    left, right = _bins(x1, x2, width, size)
    tall = _window_limit(features.shape[1], size)
    wide = _window_limit(features.shape[2], size)
    high = tf.clip_by_value(bottom - top, 1, tall)  # sides of the windows that fill the bins
    long = tf.clip_by_value(right - left, 1, wide)
    columns = _windows_across(right - left, wide)
    windows = _windows_across(bottom - top, tall) * columns
    empty = (bottom <= top)[..., :, None] | (right <= left)[..., None, :]  # [B, R, S, S]
    first_cell = tf.range(batch)[:, None, None, None] * (height * width)
    cells = batch * height * width

    def window(i):
        """Where in the tables the i-th of the windows lies that together fill each bin, [B * R * S * S]."""
        y = tf.minimum(top + i // columns * tall, bottom - high)[..., :, None]
        x = tf.minimum(left + i % columns * wide, right - long)[..., None, :]
        table = (high - 1)[..., :, None] * wide + (long - 1)[..., None, :]
        place = table * cells + first_cell + y * width + x
        return tf.reshape(tf.where(empty, tall * wide * cells, place), [-1])

    @tf.custom_gradient
    def pool(features):
        values, places = _window_tables(features, tall, wide)

        def larger(i, best):
            return i + 1, tf.maximum(best, tf.gather(values, window(i)))

        # One window fills each bin but in large regions: mostly this loop has nothing to do.
        pooled = tf.gather(values, window(0))
        _, pooled = tf.while_loop(lambda i, _: i < windows, larger, (1, pooled))

        def backward(gradient):
            nowhere = height * width * channels

            def nearer(i, best):
                found = tf.gather(values, window(i)) == pooled
                return i + 1, tf.minimum(best, tf.where(found, tf.gather(places, window(i)), nowhere))

            def search():
                start = tf.fill(tf.shape(pooled), nowhere)
                return tf.while_loop(lambda i, _: i < windows, nearer, (0, start))[1]

            place = tf.cond(windows > 1, search, lambda: tf.gather(places, window(0)))
            # Counting with weights is ten times faster than a scatter of single numbers; with a row for each
            # picture it adds in the order of the regions, so the sums are the same in every run.
            place, weight = (tf.reshape(x, [batch, -1]) for x in (place, gradient))
            bins = nowhere + 1  # the last takes what is for empty bins
            with _ordered_sums():
                total = tf.math.bincount(place, weight, minlength=bins, maxlength=bins, axis=-1)
            return tf.reshape(total[:, :-1], tf.shape(features))

        return pooled, backward

    pooled = pool(tf.cast(features, tf.float32))
    return _per_region(tf.cast(pooled, features.dtype), features, boxes, size)


def _round_half_away(x: tf.Tensor) -> tf.Tensor:
    """C's round: halves away from zero."""
    size = tf.abs(x)
    whole = tf.floor(size)
    return tf.sign(x) * (whole + tf.cast(size - whole >= 0.5, x.dtype))  # floor(size + 0.5) can round the sum


def _bins(start: tf.Tensor, stop: tf.Tensor, side: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """First cell and the cell after the last of each bin of a region from `start` to `stop` inclusive, cut
    to the map.

    Args:
        start: float [B, R], whole numbers, cells.
        stop: float [B, R].
        side: rows or columns of the map.
        size: S, bins.

    Returns:
        Two int32 [B, R, S].
    """
    # The program divides in float32. TensorFlow would turn that into a product with 1 / size, which is not
    # the same; in float64 the difference is far too small to be seen after rounding to float32.
    region = tf.cast(tf.maximum(stop - start + 1, 1), tf.float64)
    bin_side = tf.cast(region / size, tf.float32)[..., None]
    step = tf.range(size, dtype=tf.float32)
    first = tf.cast(tf.floor(step * bin_side) + start[..., None], tf.int32)
    last = tf.cast(tf.math.ceil((step + 1) * bin_side) + start[..., None], tf.int32)
    return tf.clip_by_value(first, 0, side), tf.clip_by_value(last, 0, side)


def _window_limit(side: int | None, size: int) -> int:
    """Longest window to prepare along a side of the map: a bin's longest, or an equal part of it up to 6."""
    if side is None:
        return 5
    longest = min(side, side // size + 2)
    return math.ceil(longest / math.ceil(longest / 6))


def _windows_across(length: tf.Tensor, limit: int) -> tf.Tensor:
    """How many windows of at most `limit` cells fill the longest bin, a scalar of at least 1."""
    return tf.maximum((tf.reduce_max(length) + limit - 1) // limit, 1)


def _window_tables(features: tf.Tensor, tall: int, wide: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The largest value, and where it first is, of every window of up to tall x wide cells.

    Args:
        features: float32 [B, H, W, C].

    Returns:
        values: float32 [tall * wide * B * H * W + 1, C]. The window of h x w cells with its first cell at
            (b, y, x) is row (((h - 1) wide + w - 1) B + b) H W + y W + x; windows that would leave the map
            hold anything; the last row is 0, for empty bins.
        places: int32, likewise: where that value is in the flat features of its picture; the last row is one beyond.
    """
    shape = tf.shape(features)
    count = tf.reduce_prod(shape[1:])
    cell = features, tf.broadcast_to(tf.reshape(tf.range(count), shape[1:]), shape)

    def joined(near, far, distance, axis):
        """The windows `near` grown by the windows `far` that lie so many cells further along the axis."""
        value, place = (tf.roll(x, -distance, axis) for x in far)
        further = value > near[0]  # strictly, so the first in row order stays
        return tf.where(further, value, near[0]), tf.where(further, place, near[1])

    row = [cell]
    for distance in range(1, wide):
        row.append(joined(row[-1], cell, distance, axis=2))
    table = [row]
    for distance in range(1, tall):
        table.append([joined(near, far, distance, axis=1) for near, far in zip(table[-1], row, strict=True)])
    windows = [window for row in table for window in row]
    channels = shape[-1]
    values = [tf.reshape(value, [-1, channels]) for value, _ in windows]
    places = [tf.reshape(place, [-1, channels]) for _, place in windows]
    return (
        tf.concat([*values, tf.zeros([1, channels])], axis=0),
        tf.concat([*places, tf.fill([1, channels], count)], axis=0),
    )


def _per_region(pooled: tf.Tensor, features: tf.Tensor, boxes: tf.Tensor, size: int) -> tf.Tensor:
    """[B * R * S * S, C] or [B * R, S, S, C] as [B, R, S, S, C], with all that is known of the shape."""
    channels = features.shape[-1]
    pooled = tf.reshape(pooled, [tf.shape(boxes)[0], tf.shape(boxes)[1], size, size, channels])
    return tf.ensure_shape(pooled, [boxes.shape[0], boxes.shape[1], size, size, channels])
