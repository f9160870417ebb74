"""Histograms of oriented gradients: dense, on whole pictures, with gradients with respect to the picture.

N pictures of H x W pixels, h x w cells, O orientations. The gradient of a pixel is [-1 0 1] along each axis, of the
colour in which it is longest; a pixel votes for its orientation with the gradient's length.
"""

import numpy as np
import tensorflow as tf

TINY = 1e-8  # below this squared length a gradient has no orientation
SHARE = 0.2357  # of a texture value in Felzenszwalb's features: about 1 / sqrt(18)


def dalal_triggs(
    images: tf.Tensor,
    cell: int = 8,
    block: int = 2,
    orientations: int = 9,
    interpolate: bool = True,
    inside: tf.Tensor | None = None,
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
        inside: bool [N, H, W], where there is a picture; None: everywhere.

    Returns:
        float32 [N, h - block + 1, w - block + 1, block block O], of each block its cells row by row.

    Source: Dalal & Triggs 2005, Histograms of Oriented Gradients for Human Detection, section 6.
    """
    gx, gy = strongest_gradient(images, inside)
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


def felzenszwalb(
    images: tf.Tensor, cell: int = 8, inside: tf.Tensor | None = None, pad: tuple[int, int] = (-1, -1)
) -> tf.Tensor:
    """Gives the 31 features of a cell: 18 directions, 9 orientations, 4 textures.

    Bin o of the directions is centred on 20 o degrees; an orientation is two opposite directions. Each cell is
    divided by the energy of the four squares of 2 x 2 cells that it lies in, and values above 0.2 are cut.

    Args:
        images: float [N, H, W, C]; H / cell and W / cell, rounded, give h and w, at least 3.
        cell: side of a cell, pixels.
        inside: bool [N, H, W], where there is a picture: beside it, and across its border, no gradient counts. None:
            everywhere.
        pad: cells without gradients that are put before (above, left) and after (below, right); -1 leaves out the
            border cell, which lacks neighbours, as the program does.

    Returns:
        float32 [N, h + pad before + pad after, w + pad before + pad after, 31]. The truncation feature of the program
        is `truncation`.

    Source: Felzenszwalb, Girshick, McAllester, Ramanan 2010, section 6; rbgirshick/voc-dpm features/features.cc.
    """
    height, width = images.shape[1:3]
    h, w = (int(side / cell + 0.5) for side in (height, width))
    gx, gy = strongest_gradient(images, inside)
    rows = np.minimum(
        np.arange(1, h * cell - 1), height - 2
    )  # the last gradient is repeated where h was rounded up
    columns = np.minimum(np.arange(1, w * cell - 1), width - 2)
    gx, gy = (tf.gather(tf.gather(each, rows, axis=1), columns, axis=2) for each in (gx, gy))
    length, gx, gy = _length(gx, gy)
    bins = tf.cast(tf.floor(tf.atan2(gy, gx) * (9 / np.pi) + 0.5), tf.int32) % 18
    votes = length[..., None] * tf.one_hot(bins, 18)
    votes = tf.pad(votes, [[0, 0], [1, 1], [1, 1], [0, 0]])
    before, after = (count + 1 for count in pad)  # and a cell round them, whose neighbours are not looked at
    around = [[0, 0], [before, after], [before, after], [0, 0]]
    return _normalised(tf.pad(_pooled(votes, cell, h, w, True), around))


def truncation(inside: tf.Tensor, cell: int = 8, pad: tuple[int, int] = (-1, -1)) -> tf.Tensor:
    """Gives the 32nd feature of `felzenszwalb`: the share of each cell that lies beside the picture.

    Args:
        inside: bool [N, H, W], where there is a picture.
        cell, pad: of `felzenszwalb`.

    Returns:
        float32 [N, h + pad before + pad after, w + pad before + pad after, 1].
    """
    beside = 1.0 - tf.cast(inside, tf.float32)[..., None]
    share = tf.nn.avg_pool2d(beside, cell, cell, "VALID")
    before, after = (count + 1 for count in pad)
    around = [[0, 0], [before, after], [before, after], [0, 0]]
    return tf.pad(share, around, constant_values=1.0)[:, 1:-1, 1:-1]


def mirrored(features: np.ndarray, block: int = 2) -> np.ndarray:
    """Gives the features that a picture mirrored left to right has: of windows, or as weights of windows.

    Args:
        features: [..., h, w, D], of `felzenszwalb` (D 31, or 32 with `truncation`) or of `dalal_triggs`.
        block: of `dalal_triggs`.

    Returns:
        [..., h, w, D].
    """
    depth = features.shape[-1]
    if depth in (31, 32):
        order = [(9 - o) % 18 for o in range(18)] + [18 + -o % 9 for o in range(9)] + [29, 30, 27, 28, 31]
        return features[..., ::-1, order[:depth]]
    cells = features.reshape(*features.shape[:-1], block, block, depth // block**2)
    return cells[..., ::-1, :, ::-1, ::-1].reshape(features.shape)


def orientation_weights(features: np.ndarray) -> np.ndarray:
    """Gives what a template asks of each orientation: its positive weights, summed over a line's two directions.

    Args:
        features: [..., D], weights of `felzenszwalb`'s features.

    Returns:
        [..., 9], bin o centred on 20 o degrees: for `tfcnn.draw.hog_glyphs` with offset=0.
    """
    positive = np.maximum(features, 0)
    return positive[..., :9] + positive[..., 9:18] + positive[..., 18:27]


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


def strongest_gradient(images: tf.Tensor, inside: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """Gives the gradients gx, gy, [N, H, W] each: at each pixel of the colour where they are longest, 0 at the border.

    Args:
        images: float [N, H, W, C].
        inside: bool [N, H, W], where there is a picture; None: everywhere. A pixel beside it, or whose neighbour is,
            has the gradient 0.
    """
    planes = tf.unstack(
        tf.cast(images, tf.float32), axis=-1
    )  # three times as fast as all colours in one array
    gx, gy = _central(planes[0])
    longest = tf.square(gx) + tf.square(gy)
    for plane in planes[1:]:
        other_x, other_y = _central(plane)
        other = tf.square(other_x) + tf.square(other_y)
        longer = other > longest
        gx, gy = tf.where(longer, other_x, gx), tf.where(longer, other_y, gy)
        longest = tf.where(longer, other, longest)
    if inside is None:
        return gx, gy
    rows = tf.pad(inside[:, 2:] & inside[:, :-2], [[0, 0], [1, 1], [0, 0]])
    columns = tf.pad(inside[:, :, 2:] & inside[:, :, :-2], [[0, 0], [0, 0], [1, 1]])
    there = tf.cast(inside & rows & columns, tf.float32)
    return gx * there, gy * there


def _central(plane):
    """[-1 0 1] along each axis of a colour [N, H, W]; 0 at the border."""
    gx = tf.pad(plane[:, :, 2:] - plane[:, :, :-2], [[0, 0], [0, 0], [1, 1]])
    return gx, tf.pad(plane[:, 2:] - plane[:, :-2], [[0, 0], [1, 1], [0, 0]])


def _normalised(directions):
    """Felzenszwalb's features of the cells inside [N, h, w, 18]: [N, h - 2, w - 2, 31]."""
    h, w = directions.shape[1:3]
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


def _length(gx, gy):
    """The gradient's length, and the gradient; (1, 0) where it has no orientation, so that no slope is infinite."""
    square = tf.square(gx) + tf.square(gy)
    there = square > TINY
    length = tf.where(there, tf.sqrt(tf.where(there, square, 1.0)), 0.0)
    return length, tf.where(there, gx, 1.0), tf.where(there, gy, 0.0)


def _pooled(votes, cell, h, w, interpolate):
    """Votes [N, h cell, w cell, O] summed into cells [N, h, w, O]; shared between the nearest, or whole."""
    n, depth = tf.shape(votes)[0], votes.shape[-1]
    shares = _shares(
        cell, interpolate
    )  # [3, cell]: what goes to the cell before, to its own and to the next one
    rows = tf.matmul(shares, tf.reshape(votes, [n * h, cell, w * cell * depth]))
    rows = _handed_on(tf.reshape(rows, [n, h, 3, w * cell * depth]), 1)  # [N, h, w cell O]
    columns = tf.matmul(shares, tf.reshape(rows, [n * h * w, cell, depth]))
    return _handed_on(tf.reshape(columns, [n, h, w, 3, depth]), 2)


def _handed_on(sums, axis):
    """The sums [..., cells, 3, O] of each cell, with what its neighbours along an axis hand to it: [..., cells, O]."""
    to_before, own, to_next = tf.unstack(sums, axis=axis + 1)
    around = [[0, 0]] * len(own.shape)
    earlier, later = (
        around[:axis] + [[1, 0]] + around[axis + 1 :],
        around[:axis] + [[0, 1]] + around[axis + 1 :],
    )
    count = own.shape[axis]
    last, first = [slice(None)] * axis + [slice(count - 1)], [slice(None)] * axis + [slice(1, None)]
    return own + tf.pad(to_next[tuple(last)], earlier) + tf.pad(to_before[tuple(first)], later)


def _shares(cell, interpolate):
    """What of a pixel's vote goes to the cell before its own, to its own and to the next one: float32 [3, cell]."""
    place = (np.arange(cell) + 0.5) / cell - 0.5  # in cells, from its own one's centre
    if not interpolate:
        return np.float32([0 * place, 0 * place + 1, 0 * place])
    return np.float32([np.maximum(0, -place), 1 - np.abs(place), np.maximum(0, place)])


def _unit(values):
    """Vectors of length 1, but for the shortest: skimage's epsilon."""
    return values * tf.math.rsqrt(tf.reduce_sum(tf.square(values), axis=-1, keepdims=True) + 1e-5**2)
