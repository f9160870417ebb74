"""Synthetic pictures of textured shapes with exact boxes and masks, so that everything runs with no download.

Each picture is a function of (seed, split, index) alone and is drawn when it is asked for.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from tfcnn import masks
from tfcnn.datasets.example import Dataset, Record, Truth
from tfcnn.errors import InputError

CLASSES = ["circle", "triangle", "square", "star", "ring"]
SPLITS = {"train": 0, "val": 1, "test": 2}
FINE = 4  # outlines are filled at this many times the size, and averaged
OVERLAP = 0.15  # of the smaller shape's box, at most


@dataclasses.dataclass(frozen=True)
class Shape:
    """One shape.

    Attributes:
        label: its class, 0..4.
        x, y: its centre, pixels.
        radius: distance of its farthest points from the centre, pixels.
        angle: radians.
    """

    label: int
    x: float
    y: float
    radius: float
    angle: float

    def outlines(self) -> list[np.ndarray]:
        """Closed outlines [P, 2] in pixels; the second is a hole in the first."""
        rounds = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        corners = {"triangle": 3, "square": 4, "star": 10}.get(CLASSES[self.label])
        if corners is None:
            radii = [1.0] if CLASSES[self.label] == "circle" else [1.0, 0.55]
            unit = [np.column_stack([np.cos(rounds), np.sin(rounds)]) * radius for radius in radii]
        else:
            turn = self.angle + 2 * np.pi * np.arange(corners) / corners
            radii = np.where(np.arange(corners) % 2, 0.45, 1.0) if corners == 10 else np.ones(corners)
            unit = [np.column_stack([np.cos(turn), np.sin(turn)]) * radii[:, None]]
        return [outline * self.radius + [self.x, self.y] for outline in unit]

    def box(self) -> np.ndarray:
        """float64 [4], the outline's exact bounds."""
        outline = self.outlines()[0]
        return np.concatenate([outline.min(0), outline.max(0)])


def read(
    path: None = None, split: str = "train", count: int = 500, side: int = 160, seed: int = 0
) -> Dataset:
    """Synthetic shapes, no file needed.

    Args:
        path: not needed.
        split: "train", "val" or "test": other pictures each.
        count: pictures.
        side: of a picture, in pixels.
        seed: of everything.

    Returns:
        A data set of none to five shapes a picture, with boxes exact to a fraction of a pixel and masks.

    Raises:
        InputError: another split.
    """
    if split not in SPLITS:
        raise InputError(f"shapes has no split {split!r}: it has {', '.join(SPLITS)}")
    examples = []
    for index in range(count):
        key = [seed, SPLITS[split], index]
        shapes = _arranged(np.random.default_rng(key), side)
        boxes = np.array([shape.box() for shape in shapes], np.float64).reshape(-1, 4)
        labels = np.array([shape.label for shape in shapes], np.int32)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        truth = Truth(boxes, areas, areas, labels, np.zeros(len(labels), bool))
        truth.masks = _run_lengths(draw := _masks(shapes, side))
        examples.append(
            Record(
                image_id=f"{split}-{index:05d}",
                file=f"{split}-{index:05d}",
                width=side,
                height=side,
                source=_source(shapes, side, key),
                boxes=boxes.astype(np.float32),
                labels=labels,
                masks=draw,
                truth=truth,
            )
        )
    return Dataset("shapes", list(CLASSES), list(range(1, len(CLASSES) + 1)), examples)


def _arranged(rng: np.random.Generator, side: int) -> list[Shape]:
    """Up to five shapes that lie inside the picture and hardly cover each other."""
    shapes: list[Shape] = []
    for _ in range(rng.integers(0, 6)):
        radius = side * np.exp(rng.uniform(np.log(0.07), np.log(0.28)))
        x, y = rng.uniform(radius + 1, side - radius - 1, 2)
        shape = Shape(int(rng.integers(len(CLASSES))), x, y, radius, rng.uniform(0, 2 * np.pi))
        if all(_covers(shape.box(), other.box()) <= OVERLAP for other in shapes):
            shapes.append(shape)
    return shapes


def _covers(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    return sides.prod() / min((a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod())


def _source(shapes: list[Shape], side: int, key: list[int]) -> Callable[[], np.ndarray]:
    def draw() -> np.ndarray:
        rng = np.random.default_rng([*key, 1])
        image = texture(rng, side, contrast=35)
        for shape in shapes:
            share = _coverage(shape, side)[..., None]
            image += share * (texture(rng, side, contrast=70) - image)
        return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)

    return draw


def _masks(shapes: list[Shape], side: int) -> Callable[[], np.ndarray]:
    def draw() -> np.ndarray:
        shown = np.zeros((len(shapes), side, side), bool)
        for index, shape in enumerate(shapes):
            covered = _coverage(shape, side) > 0.5
            shown[:index] &= ~covered  # what is drawn later lies on top
            shown[index] = covered
        return shown

    return draw


def _run_lengths(draw: Callable[[], np.ndarray]) -> Callable[[], list[dict | None]]:
    return lambda: [masks.encode(mask) if mask.any() else None for mask in draw()]


def _coverage(shape: Shape, side: int) -> np.ndarray:
    """float32 [side, side], the share of each pixel that lies inside the shape."""
    import cv2

    mask = np.zeros((side * FINE, side * FINE), np.uint8)
    for level, outline in zip((255, 0), shape.outlines(), strict=False):
        cv2.fillPoly(mask, [np.round((outline * FINE - 0.5) * 16).astype(np.int32)], level, shift=4)
    return cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def texture(rng: np.random.Generator, size: int, contrast: float) -> np.ndarray:
    """Draws stripes, checks, waves or blots of two colours of one hue's neighbourhood.

    Args:
        rng: the source of randomness.
        size: side of the picture, in pixels.
        contrast: grey levels between the two colours, at most.

    Returns:
        float32 [size, size, 3], 0..255.
    """
    import cv2

    base = rng.uniform(40, 215, 3)
    other = np.clip(base + rng.choice([-1, 1], 3) * rng.uniform(0.4, 1, 3) * contrast, 0, 255)
    angle, period = rng.uniform(0, np.pi), size * rng.uniform(0.02, 0.1)
    ys, xs = np.mgrid[:size, :size].astype(np.float32) / period * np.pi
    along, across = xs * np.cos(angle) + ys * np.sin(angle), ys * np.cos(angle) - xs * np.sin(angle)
    kind = rng.integers(4)
    if kind == 0:
        share = (np.sin(along) > 0).astype(np.float32)
    elif kind == 1:
        share = (np.sin(along) * np.sin(across) > 0).astype(np.float32)
    elif kind == 2:
        share = (np.sin(along) + 1) / 2
    else:
        coarse = rng.random((12, 12)).astype(np.float32)
        share = np.clip(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)
    return (base + share[..., None] * (other - base)).astype(np.float32)
