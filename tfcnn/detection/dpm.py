"""Deformable part models: a root filter, part filters at twice its resolution, and springs between them.

The score of a component at a location of the root is the root filter's response, and for each part the best of its
responses near its anchor less the cost of moving there. A class has several components (aspects, and both facings);
the highest counts. Here the model stands as the paper has it, with the generalised distance transform;
`tfcnn.detection.dpm_net` is the same model as a net.

Letters: kh kw a root's sides in cells, P parts of a component, s their side in cells of the fine map, D features of a
cell, R the most cells that a part may move along each axis.

Source: Felzenszwalb, Girshick, McAllester, Ramanan 2010, Object Detection with Discriminatively Trained Part-Based
Models, sections 3 and 7.1.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tfcnn.ops import hog
from tfcnn.ops.distance_transform import distance_transform

START = (0.1, 0.0, 0.1, 0.0)  # of (a_x, b_x, a_y, b_y): a cell away costs 0.1, as in the paper
LEAST = 0.05  # of a_x and a_y: a part is never free; four cells away cost nearly a margin


@dataclasses.dataclass(frozen=True, eq=False)
class Component:
    """One component of a class's mixture.

    Attributes:
        label: its class.
        root: float32 [kh, kw, D].
        parts: float32 [P, s, s, D].
        anchors: int [P, 2], (row, column) of each part in cells of the fine map from the root's upper left corner.
        deformation: float32 [P, 4], (a_x, b_x, a_y, b_y): moving by (dx, dy) costs a_x dx^2 + b_x dx + a_y dy^2 +
            b_y dy.
        bias: added to the score, so that components can be compared.
    """

    label: int
    root: np.ndarray
    parts: np.ndarray
    anchors: np.ndarray
    deformation: np.ndarray
    bias: float

    @property
    def shape(self) -> tuple[int, int]:
        """(kh, kw)."""
        return self.root.shape[:2]

    def mirrored(self) -> Component:
        """The component that finds mirror images of what this one finds."""
        anchors = self.anchors.copy()
        anchors[:, 1] = 2 * self.shape[1] - self.parts.shape[2] - anchors[:, 1]
        return dataclasses.replace(
            self,
            root=hog.mirrored(self.root),
            parts=hog.mirrored(self.parts),
            anchors=anchors,
            deformation=self.deformation * np.float32([1, -1, 1, 1]),
        )

    def calibrated(self, factor: float, constant: float) -> Component:
        """The component whose score is `factor` times this one's, above 0, and `constant` more."""
        own = {name: np.float32(factor * getattr(self, name)) for name in ("root", "parts", "deformation")}
        return dataclasses.replace(self, **own, bias=factor * self.bias + constant)

    def to_vector(self) -> np.ndarray:
        """All parameters that are learned, as `example_vector` orders what they weigh: float32 [L]."""
        bias = np.float32([self.bias / BIAS])
        return np.concatenate([self.root.ravel(), self.parts.ravel(), self.deformation.ravel(), bias])

    def from_vector(self, vector: np.ndarray) -> Component:
        """This component with other parameters, [L]."""
        sizes = np.cumsum([self.root.size, self.parts.size, self.deformation.size])
        root, parts, deformation, bias = np.split(np.asarray(vector, np.float32), sizes)
        return dataclasses.replace(
            self,
            root=root.reshape(self.root.shape),
            parts=parts.reshape(self.parts.shape),
            deformation=deformation.reshape(-1, 4),
            bias=float(bias[0] * BIAS),
        )

    def bounds(self) -> np.ndarray:
        """The least value of each parameter, [L]: that of a_x and a_y is LEAST."""
        low = np.full(len(self.to_vector()), -np.inf)
        first = self.root.size + self.parts.size
        low[first : first + self.deformation.size] = np.tile(
            [LEAST, -np.inf, LEAST, -np.inf], len(self.parts)
        )
        return low


BIAS = 10.0  # the feature that the bias weighs, so that regularisation hardly holds it


def example_vector(
    component: Component, coarse: np.ndarray, fine: np.ndarray, row: int, column: int, moves: np.ndarray
) -> np.ndarray:
    """What a component's parameters weigh in one placement: their product is the score.

    Args:
        component: says the sizes and anchors.
        coarse, fine: float32 [h, w, D] and [2 h, 2 w, D], the features at both resolutions.
        row, column: of the root in the coarse map.
        moves: int [P, 2], (dy, dx) of each part from its anchor.

    Returns:
        float32 [L].
    """
    kh, kw = component.shape
    side = component.parts.shape[1]
    root = coarse[row : row + kh, column : column + kw]
    places = 2 * np.array([row, column]) + component.anchors + moves
    parts = [fine[y : y + side, x : x + side] for y, x in places]
    dy, dx = moves.T.astype(np.float32)
    springs = -np.stack([dx**2, dx, dy**2, dy], axis=1)
    pieces = [root.ravel(), np.stack(parts).ravel(), springs.ravel(), [BIAS]]
    return np.concatenate(pieces).astype(np.float32)


def mirrored_example(component: Component, vector: np.ndarray) -> np.ndarray:
    """An example of the mirrored component as one of the component itself: float32 [L] both."""
    turned = component.from_vector(vector)
    springs = turned.deformation * np.float32([1, -1, 1, 1])
    both = dataclasses.replace(
        turned, root=hog.mirrored(turned.root), parts=hog.mirrored(turned.parts), deformation=springs
    )
    return both.to_vector()


def responses(features: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """The products of filters with all windows of a map.

    Args:
        features: float [h, w, D].
        filters: float [P, a, b, D].

    Returns:
        float64 [P, h - a + 1, w - b + 1].
    """
    windows = sliding_window_view(np.asarray(features, np.float64), filters.shape[1:3], axis=(0, 1))
    return np.einsum("yxdab,pabd->pyx", windows, np.asarray(filters, np.float64), optimize=True)


def score_map(component: Component, coarse: np.ndarray, fine: np.ndarray, radius: int | None) -> np.ndarray:
    """The score of the best placement with the root at each location.

    Args:
        component: the model.
        coarse, fine: float [h, w, D] and [2 h, 2 w, D].
        radius: R; None: parts may move anywhere.

    Returns:
        float64 [h - kh + 1, w - kw + 1].

    Source: Felzenszwalb et al. 2010, equations 8 to 10.
    """
    score = responses(coarse, component.root[None])[0] + component.bias
    height, width = score.shape
    best, _, _ = distance_transform(responses(fine, component.parts), component.deformation, radius)
    for (y, x), part in zip(component.anchors, best, strict=True):
        score += part[y : y + 2 * height : 2, x : x + 2 * width : 2][:height, :width]
    return score


def placed(component: Component, part_maps: np.ndarray, row: int, column: int, radius: int) -> np.ndarray:
    """Where the parts of one root are.

    Args:
        component: the model.
        part_maps: float [h', w', P], the responses of its parts in the fine map.
        row, column: of the root in the coarse map.
        radius: R.

    Returns:
        int [P, 2], the moves (dy, dx) from the anchors.
    """
    steps = np.arange(-radius, radius + 1)
    moves = []
    for number, ((y, x), (a_x, b_x, a_y, b_y)) in enumerate(
        zip(component.anchors + 2 * np.array([row, column]), component.deformation, strict=True)
    ):
        rows, columns = y + steps, x + steps
        inside_y = (rows >= 0) & (rows < part_maps.shape[0])
        inside_x = (columns >= 0) & (columns < part_maps.shape[1])
        dy, dx = steps[inside_y][:, None], steps[inside_x]
        own = part_maps[rows[inside_y][:, None], columns[inside_x], number]
        own = own - (a_x * dx**2 + b_x * dx + a_y * dy**2 + b_y * dy)
        best = np.unravel_index(np.argmax(own), own.shape)
        moves.append((dy[best[0], 0], dx[best[1]]))
    return np.array(moves)


def with_parts(label: int, root: np.ndarray, bias: float, count: int, side: int) -> Component:
    """A component whose parts are cut out of its root, enlarged twice, where that has the most positive weights.

    Root and parts are scaled so that together they answer as the root alone did.

    Args:
        label: class.
        root: float32 [kh, kw, D].
        bias: of the root.
        count: P.
        side: s.

    Source: Felzenszwalb et al. 2010, section 5.2 (initialising the part filters): greedily the location of most energy,
    which is then set to 0.
    """
    import cv2

    side = min(side, 2 * root.shape[0], 2 * root.shape[1])
    size = (2 * root.shape[1], 2 * root.shape[0])
    planes = [cv2.resize(root[..., d], size, interpolation=cv2.INTER_CUBIC) for d in range(root.shape[2])]
    large = np.stack(planes, axis=-1)
    energy = np.square(np.maximum(large, 0)).sum(axis=-1)
    left = energy.copy()
    anchors = []
    for _ in range(count):
        sums = sliding_window_view(left, (side, side)).sum(axis=(2, 3))
        y, x = np.unravel_index(np.argmax(sums), sums.shape)
        anchors.append((y, x))
        left[y : y + side, x : x + side] *= (
            0.1  # not 0: where all is covered, the strongest may be covered twice
        )
    parts = np.stack([large[y : y + side, x : x + side] for y, x in anchors]).astype(np.float32)
    parts *= np.square(root).sum() / max(
        np.square(parts).sum(), 1e-9
    )  # now all parts answer as loud as the root
    deformation = np.tile(np.float32(START), (count, 1))
    return Component(label, np.float32(root / 2), parts / 2, np.array(anchors), deformation, float(bias))
