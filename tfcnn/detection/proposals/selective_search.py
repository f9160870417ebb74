"""Selective search: small regions merged, the most similar neighbours first; the box of every region is a proposal.

All hierarchies of a picture are merged in step: at step t each merges its best pair, so that the arrays of a step hold
B rows and the cost of a call is shared.

B hierarchies, R initial regions of the largest one, D numbers of a region's two histograms (75 of colour, 240 of
texture), n proposals.

Source: Uijlings, van de Sande, Gevers, Smeulders, "Selective Search for Object Recognition", 2013; constants of
the settings in the authors' program that R-CNN uses (rbgirshick/rcnn, selective_search_boxes.m).
"""

import dataclasses

import cv2
import numpy as np

from tfcnn.detection.proposals import segmentation

COLOUR_BINS, TEXTURE_BINS, ORIENTATIONS = 25, 10, 8
COLOURS = 3 * COLOUR_BINS
ALL, NO_COLOUR = (1, 1, 1, 1), (0, 1, 1, 1)  # which of colour, texture, size, fill are summed
FILL, SIZE = (0, 0, 0, 1), (0, 0, 1, 0)
MOST_PAIRS = 30_000_000  # similarities held at a time: 120 MB
LEAST_SIDE = 20 / 500  # of a proposal, as a share of the picture's longer side: 20 pixels of a VOC picture


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which hierarchies there are: every colour space with every scale and every sum of similarities.

    Attributes:
        spaces: of `segmentation.SPACES`.
        scales: the paper's k, each also the least region in pixels.
        similarities: sums, as (colour, texture, size, fill) of 0 and 1.
    """

    spaces: tuple[str, ...] = ("hsv", "lab")
    scales: tuple[int, ...] = (50, 100)
    similarities: tuple[tuple[int, int, int, int], ...] = (ALL, NO_COLOUR)


FAST = Settings()
QUALITY = Settings(
    ("hsv", "lab", "rgi", "hue", "intensity"), (50, 100, 150, 300), (ALL, NO_COLOUR, FILL, SIZE)
)


def selective_search(
    image: np.ndarray, settings: Settings = FAST, seed: int = 0, least_side: float = LEAST_SIDE
) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of all regions of all hierarchies, each once.

    Args:
        image: uint8 [H, W, 3], RGB.
        settings: FAST, QUALITY or others.
        seed: of the ranking's random numbers.
        least_side: smaller boxes are left out, as a share of the picture's longer side.

    Returns:
        (boxes float32 [n, 4], scores float32 [n], 0..1), best first: large regions first in the mean, as the paper's
        section 3.3 has it, where a box's rank is its place from the top of its hierarchy times a random number.
    """
    starts = [(each, sums) for each in _starts(image, settings) for sums in settings.similarities]
    starts.sort(key=lambda start: len(start[0].sizes))  # those that are merged in step have about as many
    boxes, levels, first = [], [], 0
    while first < len(starts):
        last = first + 1
        while last < len(starts) and (last + 1 - first) * len(starts[last][0].sizes) ** 2 <= MOST_PAIRS:
            last += 1
        for found, level in merged(
            [start for start, _ in starts[first:last]],
            [sums for _, sums in starts[first:last]],
            image.shape[0] * image.shape[1],
        ):
            boxes.append(found)
            levels.append(level)
        first = last
    boxes, levels = np.concatenate(boxes), np.concatenate(levels)
    rank = levels * np.random.default_rng(seed).random(len(levels))
    order = np.argsort(rank, kind="stable")
    boxes, rank = boxes[order], rank[order]
    large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= least_side * max(image.shape[:2])
    boxes, rank = boxes[large], rank[large]
    first = np.sort(np.unique(boxes, axis=0, return_index=True)[1])
    return boxes[first], (1 / (1 + rank[first])).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Regions:
    """A segmentation's regions, before any are merged.

    Attributes:
        sizes: float32 [R], pixels.
        boxes: float32 [R, 4].
        histograms: float32 [R, D]; those of colour sum to 1, and those of texture.
        pairs: int64 [P, 2], neighbours.
    """

    sizes: np.ndarray
    boxes: np.ndarray
    histograms: np.ndarray
    pairs: np.ndarray


def _starts(image, settings):
    for space in settings.spaces:
        converted = segmentation.in_space(image, space)
        codes = appearance(converted)
        for scale in settings.scales:
            yield regions(segmentation.graph_segments(converted, scale, scale), codes)


def appearance(image: np.ndarray) -> np.ndarray:
    """The bins of each pixel in its region's histograms.

    Args:
        image: uint8 [H, W, 3], in any colour space.

    Returns:
        int16 [27, H W], 0..D-1: three of colour, then the eight directions of each channel's gradient, whose
        strength is counted in ten equal steps up to the greatest of the picture.

    Source: section 3.2: 25 bins a channel; Gaussian derivatives with sigma 1 in eight orientations, 10 bins each.
    """
    colour = image.reshape(-1, 3).T.astype(np.int16) * COLOUR_BINS // 256
    rows = [colour + COLOUR_BINS * np.arange(3, dtype=np.int16)[:, None]]
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.0)
    across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=1).reshape(-1, 3).T
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=1).reshape(-1, 3).T
    for number, angle in enumerate(np.arange(ORIENTATIONS // 2) * (2 * np.pi / ORIENTATIONS)):
        along = np.float32(np.cos(angle)) * across + np.float32(np.sin(angle)) * down
        for half, strength in enumerate((along, -along)):
            most = np.maximum(strength.max(axis=1, keepdims=True), 1e-6)
            step = np.clip(strength * (TEXTURE_BINS / most), 0, TEXTURE_BINS - 1).astype(np.int16)
            first = COLOURS + TEXTURE_BINS * (3 * (2 * number + half) + np.arange(3, dtype=np.int16))
            rows.append(step + first[:, None])
    return np.concatenate(rows)


def regions(labels: np.ndarray, codes: np.ndarray) -> Regions:
    """What the merging needs to know of a segmentation.

    Args:
        labels: int32 [H, W], 0..R-1.
        codes: of `appearance`, of the same picture.
    """
    flat = labels.ravel()
    sizes = np.bincount(flat).astype(np.float32)
    depth = COLOURS + 3 * ORIENTATIONS * TEXTURE_BINS
    counts = np.bincount((codes + flat * depth).ravel(), minlength=len(sizes) * depth)
    counts = counts.reshape(len(sizes), depth).astype(np.float32)
    counts[:, :COLOURS] /= 3 * sizes[:, None]
    counts[:, COLOURS:] /= 3 * ORIENTATIONS * sizes[:, None]
    return Regions(sizes, segmentation.region_boxes(labels), counts, segmentation.neighbours(labels))


def merged(
    starts: list[Regions], similarities: list[tuple[int, int, int, int]], area: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Merge the most similar neighbours of each hierarchy until one region is left.

    Args:
        starts: B segmentations.
        similarities: of each, which of colour, texture, size and fill are summed.
        area: pixels of the picture.

    Returns:
        of each, (boxes float32 [2 R - 1, 4] of the initial regions and of the merged ones in their order; places
        int64 [2 R - 1] from the top of the hierarchy: the last merge, the whole picture, has 1).

    Source: section 3.1, algorithm 1; similarities of section 3.2.
    """
    state = _Merging(starts, np.float32(similarities), area)
    found = [[start.boxes] for start in starts]
    while True:
        live, boxes = state.step()
        if not len(live):
            break
        for number, box in zip(live, boxes, strict=True):
            found[number].append(box[None])
    found = [np.concatenate(boxes) for boxes in found]
    return [(boxes, np.arange(len(boxes), 0, -1)) for boxes in found]


class _Merging:
    """Regions of B hierarchies under way. A merged region takes the place of one of the two; -1 in `similar` says that
    two are no neighbours, and the greatest of each row is kept beside it."""

    def __init__(self, starts, weights, area):
        count = max(len(start.sizes) for start in starts)
        self.area, self.weights = np.float32(area), weights
        self.sizes = np.zeros((len(starts), count), np.float32)
        self.boxes = np.zeros((len(starts), count, 4), np.float32)
        self.histograms = np.zeros((len(starts), count, starts[0].histograms.shape[1]), np.float32)
        self.similar = np.full((len(starts), count, count), -1, np.float32)
        scale = np.repeat(weights[:, :2], [COLOURS, self.histograms.shape[2] - COLOURS], axis=1)
        for number, start in enumerate(starts):
            own = slice(len(start.sizes))
            self.sizes[number, own], self.boxes[number, own] = start.sizes, start.boxes
            self.histograms[number, own] = start.histograms * scale[number]
            a, b = start.pairs.T
            similarity = self._similarity(np.full(len(a), number), a, b)
            self.similar[number, a, b] = self.similar[number, b, a] = similarity
        self.best = self.similar.argmax(axis=2)  # [B, R]
        self.value = np.take_along_axis(self.similar, self.best[..., None], axis=2)[..., 0]

    def _similarity(self, number, a, b):
        """Of regions a and b of the hierarchies `number`, [pairs] each."""
        value = np.minimum(self.histograms[number, a], self.histograms[number, b]).sum(axis=1)
        size = self.sizes[number, a] + self.sizes[number, b]
        one, two = self.boxes[number, a], self.boxes[number, b]
        around = np.maximum(one[:, 2:], two[:, 2:]) - np.minimum(one[:, :2], two[:, :2])
        fill = 1 - (around[:, 0] * around[:, 1] - size) / self.area
        weights = self.weights[number]
        return value + weights[:, 2] * (1 - size / self.area) + weights[:, 3] * fill

    def step(self):
        """One merge of each hierarchy that has neighbours left: (their numbers [B'], the new boxes [B', 4])."""
        a = self.value.argmax(axis=1)
        live = np.flatnonzero(self.value[np.arange(len(a)), a] >= 0)
        a = a[live]
        b = self.best[live, a]
        sizes = self.sizes[live, a], self.sizes[live, b]
        total = sizes[0] + sizes[1]
        share = (sizes[0] / total)[:, None]
        mixed = share * self.histograms[live, a] + (1 - share) * self.histograms[live, b]
        self.histograms[live, a] = mixed
        self.sizes[live, a] = total
        low = np.minimum(self.boxes[live, a, :2], self.boxes[live, b, :2])
        high = np.maximum(self.boxes[live, a, 2:], self.boxes[live, b, 2:])
        self.boxes[live, a] = boxes = np.concatenate([low, high], axis=1)

        near = (self.similar[live, a] >= 0) | (self.similar[live, b] >= 0)
        near[np.arange(len(live)), a] = near[np.arange(len(live)), b] = False
        row, other = np.nonzero(near)
        number, new = live[row], a[row]
        self.similar[live, b] = -1
        self.similar[live, :, b] = -1
        self.value[live, b] = self.value[live, a] = -1
        similarity = self._similarity(number, new, other)
        self.similar[number, new, other] = self.similar[number, other, new] = similarity
        number, other = np.concatenate([number, live]), np.concatenate([other, a])
        rows = self.similar[number, other]
        best = rows.argmax(axis=1)
        self.best[number, other], self.value[number, other] = best, rows[np.arange(len(best)), best]
        return live, boxes


def propose(
    image: np.ndarray, count: int, seed: int = 0, settings: Settings = FAST
) -> tuple[np.ndarray, np.ndarray]:
    """The best `count` of `selective_search`, as all methods of proposals are called."""
    boxes, scores = selective_search(image, settings, seed)
    return boxes[:count], scores[:count]
