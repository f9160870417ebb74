"""Edges of a picture: how strong, which way, and joined to groups along which a contour runs on.

H, W: sides of a picture; P edge pixels, G groups.

Source: Zitnick and Dollar, "Edge Boxes: Locating Object Proposals from Edges", 2014, section 3.1 (groups and
affinities). The edges themselves are the colour gradient at three widths instead of the paper's structured forest,
which has to be trained on segmentations drawn by hand.
"""

import dataclasses

import cv2
import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

WIDTHS = (1.0, 2.0, 4.0)  # sigma of the smoothing, pixels
LEAST_MAGNITUDE = 0.25  # weaker pixels are no edge: 0.1 of the paper's edges, which have less noise
MOST_TURN = np.pi / 2  # edgeMergeThr: summed change of orientation inside a group
LEAST_GROUP = 0.5  # clusterMinMag: summed magnitude of a group that stays one
REACH = 2  # pixels between two groups that may be one contour
GAMMA = 2.0  # the paper's, of the affinity
LEAST_AFFINITY = 0.05  # smaller ones count as none


def edge_map(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strength and direction of the edges, thinned to lines.

    Args:
        image: uint8 [H, W, 3], RGB.

    Returns:
        (magnitude float32 [H, W], 0..1, 0 off the lines; orientation float32 [H, W], 0..pi, along the edge).
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    across = down = 0
    for sigma in WIDTHS:
        smooth = cv2.GaussianBlur(lab, (0, 0), sigma)
        x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=1)
        y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=1)
        # the tensor of all channels has one direction, whose sign is taken to point right
        across = across + sigma * ((x * x).sum(2) - (y * y).sum(2))
        down = down + sigma * 2 * (x * y).sum(2)
    normal = np.arctan2(down, across) / 2
    strength = np.hypot(across, down) ** 0.25  # small steps beside large ones, as a probability has them
    strength /= max(float(np.quantile(strength, 0.995)), 1e-6)
    return _thinned(np.minimum(strength, 1), normal), np.mod(normal + np.pi / 2, np.pi).astype(np.float32)


def _thinned(strength, normal):
    """The pixels that are the greatest of their line across the edge, others 0."""
    height, width = strength.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    across, down = np.cos(normal).astype(np.float32), np.sin(normal).astype(np.float32)
    kept = strength.astype(np.float32)
    for sign in (-1, 1):
        beside = cv2.remap(strength.astype(np.float32), x + sign * across, y + sign * down,
                           cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
        kept = np.where(strength * 1.0001 < beside, 0, kept)
    kept[[0, -1]] = 0
    kept[:, [0, -1]] = 0
    return kept


@dataclasses.dataclass(frozen=True, eq=False)
class Groups:
    """Edge pixels joined along a contour.

    Attributes:
        boxes: int32 [G, 4], of each group's pixels (x1, y1, x2, y2).
        magnitudes: float32 [G], summed.
        affinities: sparse float32 [G, G], of every two groups the greatest product of affinities along a path from one
            to the other, where that is LEAST_AFFINITY or more; 1 on the diagonal.
    """

    boxes: np.ndarray
    magnitudes: np.ndarray
    affinities: sparse.csr_array


def grouped(magnitude: np.ndarray, orientation: np.ndarray) -> Groups:
    """Groups of the edge pixels and their affinities.

    Neighbours are joined in the order of their difference in orientation while a group's summed differences stay below
    MOST_TURN: the paper grows one group after the other by the same rule.

    Args:
        magnitude: float32 [H, W], 0 where there is no edge.
        orientation: float32 [H, W], radians, modulo pi.

    Source: section 3.1, equation 1.
    """
    y, x = np.nonzero(magnitude >= LEAST_MAGNITUDE)
    if not len(y):
        return Groups(np.zeros((0, 4), np.int32), np.zeros(0, np.float32), sparse.csr_array((0, 0)))
    number = np.full(np.add(magnitude.shape, 2 * REACH), -1, np.int32)
    number[y + REACH, x + REACH] = np.arange(len(y))
    angle, strength = orientation[y, x], magnitude[y, x]
    a, b = _near(number, x, y, 1)
    turn = _difference(angle[a], angle[b])
    label = _joined(len(y), a, b, turn)
    total = np.bincount(label, strength)
    label = np.where(total[label] > LEAST_GROUP, label, -1)
    for first, second in ((a, b), (b, a)):  # small groups join a neighbour's
        free = (label[first] < 0) & (label[second] >= 0)
        label[first[free]] = label[second[free]]
    kept = label >= 0
    y, x, angle, strength = y[kept], x[kept], angle[kept], strength[kept]
    _, label = np.unique(label[kept], return_inverse=True)
    if not len(label):
        return Groups(np.zeros((0, 4), np.int32), np.zeros(0, np.float32), sparse.csr_array((0, 0)))
    count = label.max() + 1
    boxes = np.empty((count, 4), np.int32)
    boxes[:, :2], boxes[:, 2:] = 1 << 30, 0
    for column, place in enumerate((x, y)):
        np.minimum.at(boxes[:, column], label, place)
        np.maximum.at(boxes[:, 2 + column], label, place + 1)
    weights = np.bincount(label, strength)
    number[:] = -1
    number[y + REACH, x + REACH] = np.arange(len(y))
    return Groups(
        boxes, weights.astype(np.float32), _affinities(number, x, y, angle, strength, label, weights)
    )


def _near(number, x, y, reach):
    """Pairs of pixels at most `reach` apart in x and y, each once."""
    first, second = [], []
    for down in range(reach + 1):
        for right in range(-reach, reach + 1):
            if down == 0 and right <= 0:
                continue
            other = number[y + REACH + down, x + REACH + right]
            found = np.flatnonzero(other >= 0)
            first.append(found)
            second.append(other[found])
    return np.concatenate(first), np.concatenate(second)


def _difference(one, two):
    turn = np.abs(one - two)
    return np.minimum(turn, np.pi - turn)


def _joined(count, a, b, turn):
    """A group's number for each pixel: union of neighbours by rising difference, below MOST_TURN in all."""
    parent, turned = list(range(count)), [0.0] * count

    def root(node):
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    order = np.argsort(turn, kind="stable")
    for one, two, more in zip(a[order].tolist(), b[order].tolist(), turn[order].tolist(), strict=True):
        one, two = root(one), root(two)
        if one != two and turned[one] + turned[two] + more <= MOST_TURN:
            parent[two] = one
            turned[one] += turned[two] + more
    return np.array([root(node) for node in range(count)])


def _affinities(number, x, y, angle, strength, label, weights):
    """Best products along paths between groups."""
    count = len(weights)
    centre_x = np.bincount(label, strength * x) / weights
    centre_y = np.bincount(label, strength * y) / weights
    double = (
        np.bincount(label, strength * np.cos(2 * angle)),
        np.bincount(label, strength * np.sin(2 * angle)),
    )
    mean = np.arctan2(double[1], double[0]) / 2
    a, b = (label[pixels] for pixels in _near(number, x, y, REACH))
    pairs = np.unique(np.sort(np.stack([a, b], axis=1)[a != b], axis=1), axis=0)
    a, b = pairs.T
    between = np.arctan2(centre_y[b] - centre_y[a], centre_x[b] - centre_x[a])
    affinity = np.abs(np.cos(mean[a] - between) * np.cos(mean[b] - between)) ** GAMMA
    strong = affinity >= LEAST_AFFINITY
    a, b = a[strong], b[strong]
    far = np.maximum(-np.log(np.minimum(affinity[strong], 1)), 1e-9)  # 0 would be no edge
    graph = sparse.csr_array((far, (a, b)), (count, count))
    distance = csgraph.dijkstra(graph, directed=False, limit=-np.log(LEAST_AFFINITY))
    one, two = np.nonzero(np.isfinite(distance))
    return sparse.csr_array((np.exp(-distance[one, two]).astype(np.float32), (one, two)), (count, count))
