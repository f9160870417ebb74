"""The generalised distance transform: the best location of a part near each anchor, for a quadratic cost of moving.

At each location p of a map f, the maximum over all q of f(q) - (a_x dx^2 + b_x dx + a_y dy^2 + b_y dy), (dx, dy) =
q - p. Max pooling is the same with the cost 0 inside a window and infinite outside (Girshick et al. 2015).

Letters: N pictures, h w a map's sides, P parts, R the radius, the most that a part may move along each axis.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

NEVER = np.float32(-1e9)  # the value beside a map


def distance_transform(
    values: np.ndarray, deformation: np.ndarray, radius: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The transform in time linear in the number of locations, by the upper envelope of parabolas rooted at them.

    Args:
        values: float [P, h, w].
        deformation: float [P, 4], (a_x, b_x, a_y, b_y) of each map, a above 0.
        radius: R; None: parts may move anywhere in the map.

    Returns:
        (float64 [P, h, w] maxima, int [P, h, w] rows and columns of the locations q that give them).

    Source: Felzenszwalb & Huttenlocher 2012, Distance Transforms of Sampled Functions, section 2; Felzenszwalb et al.
    2010, section 3.1. With a radius, the few locations whose best part lies beyond it are searched anew.
    """
    values = np.asarray(values, np.float64)
    a_x, b_x, a_y, b_y = (np.asarray(deformation, np.float64)[:, i, None] for i in range(4))
    parts, height, width = values.shape

    def along(lines, a, b):  # [P, lines, n], cost [P, 1]
        flat = lines.reshape(-1, lines.shape[2])
        a, b = (np.broadcast_to(each, lines.shape[:2]).reshape(-1) for each in (a, b))
        best, place = _envelope(flat, a, b) if radius is None else _within(flat, a, b, radius)
        return best.reshape(lines.shape), place.reshape(lines.shape)

    in_rows, columns = along(values, a_x, b_x)
    best, rows = along(in_rows.transpose(0, 2, 1), a_y, b_y)
    best, rows = best.transpose(0, 2, 1), rows.transpose(0, 2, 1)
    columns = columns[np.arange(parts)[:, None, None], rows, np.arange(width)]
    return best, rows, columns


def _envelope(lines, a, b):
    """Lines [L, n] with costs a, b [L]: at each p the maximum over q of f(q) - a (q - p)^2 - b (q - p), and its q.

    As a function of p each q has a parabola of the same width, so two cross once: q's stays the higher one up to
    s = (e(r) - e(q)) / (2 a (r - q)) and r's from there on, with e(q) = a q^2 + b q - f(q). All lines take each step at
    once.
    """
    count, n = lines.shape
    each = np.arange(n)
    e = a[:, None] * each**2 + b[:, None] * each - lines
    roots = np.zeros([count, n], int)  # the locations whose parabolas make the envelope, from the left
    ends = np.full([count, n + 1], np.inf)  # ends[:, k] is where the k-th begins
    ends[:, 0] = -np.inf
    last = np.zeros(count, int)
    for r in range(1, n):
        crossing = np.empty(count)
        open_lines = np.arange(count)
        while len(open_lines):
            q = roots[open_lines, last[open_lines]]
            s = (e[open_lines, r] - e[open_lines, q]) / (2 * a[open_lines] * (r - q))
            crossing[open_lines] = s
            hidden = s <= ends[open_lines, last[open_lines]]  # q's parabola is nowhere the highest any more
            open_lines = open_lines[hidden]
            last[open_lines] -= 1
        last += 1
        roots[np.arange(count), last] = r
        ends[np.arange(count), last] = crossing
        ends[np.arange(count), last + 1] = np.inf
    place = np.empty([count, n], int)
    at = np.zeros(count, int)
    for p in range(n):
        while (behind := ends[np.arange(count), at + 1] < p).any():
            at += behind
        place[:, p] = roots[np.arange(count), at]
    moved = place - each
    return np.take_along_axis(lines, place, 1) - a[:, None] * moved**2 - b[:, None] * moved, place


def _within(lines, a, b, radius):
    """As `_envelope`, with |q - p| at most radius: those that break it look at their few locations."""
    best, place = _envelope(lines, a, b)
    line, p = np.nonzero(np.abs(place - np.arange(lines.shape[1])) > radius)
    moved = np.arange(-radius, radius + 1)
    q = p[:, None] + moved
    there = (q >= 0) & (q < lines.shape[1])
    found = lines[line[:, None], np.clip(q, 0, lines.shape[1] - 1)]
    found = np.where(there, found - a[line, None] * moved**2 - b[line, None] * moved, -np.inf)
    choice = np.argmax(found, axis=1)
    best[line, p] = found[np.arange(len(line)), choice]
    place[line, p] = q[np.arange(len(line)), choice]
    return best, place


def distance_transform_pooling(values: tf.Tensor, deformation: tf.Tensor, radius: int) -> tf.Tensor:
    """The transform as a net has it: the maximum over all moves up to a radius, along one axis and then the other.

    Args:
        values: float32 [N, h, w, P].
        deformation: float32 [P, 4], (a_x, b_x, a_y, b_y).
        radius: R.

    Returns:
        float32 [N, h, w, P]; gradients reach values and deformation.

    Source: Girshick, Iandola, Darrell, Malik 2015, Deformable Part Models are Convolutional Neural Networks, section 3.
    """
    a_x, b_x, a_y, b_y = tf.unstack(deformation, axis=1)
    for axis, a, b in ((2, a_x, b_x), (1, a_y, b_y)):
        around = [[0, 0], [0, 0], [0, 0], [0, 0]]
        around[axis] = [radius, radius]
        padded = tf.pad(values, around, constant_values=NEVER)
        length = tf.shape(values)[axis]
        best = None
        for move in range(-radius, radius + 1):
            first = radius + move
            window = padded[:, first : first + length] if axis == 1 else padded[:, :, first : first + length]
            moved = window - (a * move**2 + b * move)
            best = moved if best is None else tf.maximum(best, moved)
        values = best
    return values
