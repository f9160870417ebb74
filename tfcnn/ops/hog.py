"""Histograms of oriented gradients: dense, on whole pictures, with gradients with respect to the picture.

N pictures of H x W pixels, h x w cells, O orientations. The gradient of a pixel is [-1 0 1] along each axis, of the
colour in which it is longest; a pixel votes for its orientation with the gradient's length.
"""

import numpy as np
import tensorflow as tf

TINY = 1e-8  # below this squared length a gradient has no orientation
SHARE = 0.2357  # of a texture value in Felzenszwalb's features: about 1 / sqrt(18)


def dalal_triggs(
    images: tf.Tensor, cell: int = 8, block: int = 2, orientations: int = 9, interpolate: bool = True
) -> tf.Tensor:
    """Gives the blocks of Dalal and Triggs, each L2-Hys normalised: L2, values above 0.2 cut, L2 again.

    An orientation is that of a line, 0 to 180 degrees: bin o is centred on (o + 1/2) 180 / O. The paper weighs the
    pixels of a block by a Gaussian, which differs from block to block and is left out here: a cell has one histogram.

    Args:
        images: float [N, H, W, C], H and W at least `cell * block`; pixels beyond the last whole cell are left out.
        cell: side of a cell, pixels.
        block: side of a block, cells; blocks overlap, one at each cell.
        orientations: O.
        interpolate: share a vote between the two nearest orientations and the four nearest cells, as the paper does;
            else it goes whole to its own.

    Returns:
        float32 [N, h - block + 1, w - block + 1, block block O], of each block its cells row by row.

    Source: Dalal & Triggs 2005, Histograms of Oriented Gradients for Human Detection, section 6.
    """
    gx, gy = strongest_gradient(images)
    h, w = images.shape[1] // cell, images.shape[2] // cell
    gx, gy = gx[:, : h * cell, : w * cell], gy[:, : h * cell, : w * cell]
    length, gx, gy = _length(gx, gy)
    place = (
        tf.atan2(gy, gx) / np.pi
    ) % 1.0 * orientations - 0.5  # in units of a bin, from the first one's centre
    bins = tf.range(orientations, dtype=tf.float32)
    if interpolate:
        apart = tf.abs(place[..., None] - bins)
        share = tf.maximum(0.0, 1.0 - tf.minimum(apart, orientations - apart))
    else:
        whole = tf.cast(tf.floor(place + 0.5), tf.int32) % orientations
        share = tf.one_hot(whole, orientations)
    cells = _pooled(length[..., None] * share, cell, h, w, interpolate) / cell**2
    rows, columns = h - block + 1, w - block + 1
    parts = [cells[:, i : i + rows, j : j + columns] for i in range(block) for j in range(block)]
    blocks = tf.concat(parts, axis=-1)
    return _unit(tf.minimum(_unit(blocks), 0.2))


def felzenszwalb(images: tf.Tensor, cell: int = 8) -> tf.Tensor:
    """Gives the 31 features of a cell: 18 directions, 9 orientations, 4 textures.

    Bin o of the directions is centred on 20 o degrees; an orientation is two opposite directions. Each cell is
    divided by the energy of the four squares of 2 x 2 cells that it lies in, and values above 0.2 are cut.

    Args:
        images: float [N, H, W, C]; H / cell and W / cell, rounded, give h and w, at least 3.
        cell: side of a cell, pixels.

    Returns:
        float32 [N, h - 2, w - 2, 31]: the cells at the border, which lack neighbours, are left out. The truncation
        feature of the program, 0 inside a picture, is left to those who pad the map.

    Source: Felzenszwalb, Girshick, McAllester, Ramanan 2010, section 6; rbgirshick/voc-dpm features/features.cc.
    """
    height, width = images.shape[1:3]
    h, w = (int(side / cell + 0.5) for side in (height, width))
    gx, gy = strongest_gradient(images)
    rows = np.minimum(
        np.arange(1, h * cell - 1), height - 2
    )  # the last gradient is repeated where h was rounded up
    columns = np.minimum(np.arange(1, w * cell - 1), width - 2)
    gx, gy = (tf.gather(tf.gather(each, rows, axis=1), columns, axis=2) for each in (gx, gy))
    length, gx, gy = _length(gx, gy)
    angles = np.arange(18) * np.pi / 9
    along = gx[..., None] * np.cos(angles).astype(np.float32) + gy[..., None] * np.sin(angles).astype(
        np.float32
    )
    share = tf.one_hot(tf.argmax(along, axis=-1), 18)
    votes = tf.pad(length[..., None] * share, [[0, 0], [1, 1], [1, 1], [0, 0]])
    directions = _pooled(votes, cell, h, w, True)  # [N, h, w, 18]
    orientations = directions[..., :9] + directions[..., 9:]
    energy = tf.reduce_sum(tf.square(orientations), axis=-1)
    squares = energy[:, :-1, :-1] + energy[:, :-1, 1:] + energy[:, 1:, :-1] + energy[:, 1:, 1:]
    scale = tf.math.rsqrt(squares + 0.0001)  # [N, h - 1, w - 1]
    directions, orientations = directions[:, 1:-1, 1:-1], orientations[:, 1:-1, 1:-1]
    total, texture = 0.0, []
    for i, j in ((1, 1), (0, 1), (1, 0), (0, 0)):  # below right, above right, below left, above left
        factor = scale[:, i : i + h - 2, j : j + w - 2, None]
        signed = tf.minimum(directions * factor, 0.2)
        total += tf.concat([signed, tf.minimum(orientations * factor, 0.2)], axis=-1)
        texture.append(SHARE * tf.reduce_sum(signed, axis=-1))
    return tf.concat([0.5 * total, tf.stack(texture, axis=-1)], axis=-1)


def cell_weights(blocks: tf.Tensor, block: int = 2) -> tf.Tensor:
    """Gives what the blocks of `dalal_triggs` say of each cell: the mean over all blocks that it lies in.

    Args:
        blocks: float [N, h - block + 1, w - block + 1, block block O].
        block: side of a block, cells.

    Returns:
        float32 [N, h, w, O].
    """
    rows, columns, depth = blocks.shape[1:]
    size = depth // block**2
    total, count = 0.0, 0.0
    for i in range(block):
        for j in range(block):
            around = [[0, 0], [i, block - 1 - i], [j, block - 1 - j], [0, 0]]
            first = (i * block + j) * size
            total += tf.pad(blocks[..., first : first + size], around)
            count += tf.pad(tf.ones([1, rows, columns, 1]), around)
    return total / count


def strongest_gradient(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Gives the gradients gx, gy, [N, H, W] each: at each pixel of the colour where they are longest, 0 at the border.

    Args:
        images: float [N, H, W, C].
    """
    images = tf.cast(images, tf.float32)
    gx = tf.pad(images[:, :, 2:] - images[:, :, :-2], [[0, 0], [0, 0], [1, 1], [0, 0]])
    gy = tf.pad(images[:, 2:] - images[:, :-2], [[0, 0], [1, 1], [0, 0], [0, 0]])
    strongest = tf.argmax(tf.square(gx) + tf.square(gy), axis=-1)
    chosen = tf.one_hot(strongest, images.shape[-1])
    return tf.reduce_sum(gx * chosen, axis=-1), tf.reduce_sum(gy * chosen, axis=-1)


def _length(gx, gy):
    """The gradient's length, and the gradient; (1, 0) where it has no orientation, so that no slope is infinite."""
    square = tf.square(gx) + tf.square(gy)
    there = square > TINY
    length = tf.where(there, tf.sqrt(tf.where(there, square, 1.0)), 0.0)
    return length, tf.where(there, gx, 1.0), tf.where(there, gy, 0.0)


def _pooled(votes, cell, h, w, interpolate):
    """Votes [N, h cell, w cell, O] summed into cells [N, h, w, O]; shared between the nearest, or whole."""
    rows, columns = (_shares(count, cell, interpolate) for count in (h, w))
    summed = tf.tensordot(votes, columns, [[2], [1]])  # [N, h cell, O, w]
    return tf.transpose(tf.tensordot(summed, rows, [[1], [1]]), [0, 3, 2, 1])


def _shares(count, cell, interpolate):
    """What of a pixel's vote goes to a cell, along one side: float32 [cells, pixels]."""
    place = (np.arange(count * cell) + 0.5) / cell - 0.5  # in cells, from the first one's centre
    cells = np.arange(count)[:, None]
    shares = np.maximum(0, 1 - np.abs(place - cells)) if interpolate else np.abs(place - cells) < 0.5
    return shares.astype(np.float32)


def _unit(values):
    """Vectors of length 1, but for the shortest: skimage's epsilon."""
    return values * tf.math.rsqrt(tf.reduce_sum(tf.square(values), axis=-1, keepdims=True) + 1e-5**2)
