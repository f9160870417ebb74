"""Pictures cut into small regions of even colour, by the graph method that selective search starts from.

H, W: sides of a picture; R: regions.

Source: Felzenszwalb and Huttenlocher, "Efficient Graph-Based Image Segmentation", 2004; Uijlings, van de Sande, Gevers,
Smeulders, "Selective Search for Object Recognition", 2013, section 3.2 (colour spaces).
"""

from collections.abc import Callable

import cv2
import numpy as np
from skimage import segmentation

SIGMA = 0.8  # of the smoothing before the segmentation, pixels


def _normalised_rg(image):
    """r, g and intensity, 0..255."""
    total = image.sum(axis=2, dtype=np.int32)
    shares = image[..., :2].astype(np.int32) * 255 // np.maximum(total, 1)[..., None]
    return np.dstack([shares, total // 3]).astype(np.uint8)


def _three(channel):
    return np.repeat(channel[..., None], 3, axis=2)


SPACES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "hsv": lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL),
    "lab": lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2LAB),
    "rgi": _normalised_rg,
    "hue": lambda image: _three(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)[..., 0]),
    "intensity": lambda image: _three(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)),
}


def in_space(image: np.ndarray, space: str) -> np.ndarray:
    """A picture in another colour space.

    Args:
        image: uint8 [H, W, 3], RGB.
        space: one of SPACES; those of one channel have it three times.

    Returns:
        uint8 [H, W, 3], each channel 0..255.
    """
    return SPACES[space](image)


def graph_segments(image: np.ndarray, scale: float, least: int, sigma: float = SIGMA) -> np.ndarray:
    """Regions joined while the step between them is small beside the steps inside them.

    Args:
        image: uint8 [H, W, 3], in any colour space.
        scale: the paper's k, in grey levels: larger gives larger regions.
        least: pixels of the smallest region.
        sigma: of the smoothing before.

    Returns:
        int32 [H, W], 0..R-1.

    Source: Felzenszwalb and Huttenlocher, section 4; computed by scikit-image.
    """
    found = segmentation.felzenszwalb(image, scale=scale, sigma=sigma, min_size=least)
    return found.astype(np.int32)


def neighbours(labels: np.ndarray) -> np.ndarray:
    """Pairs of regions that touch, corners included.

    Args:
        labels: int32 [H, W], 0..R-1.

    Returns:
        int64 [pairs, 2], the smaller number first, each pair once.
    """
    count = int(labels.max()) + 1
    keys = []
    for a, b in (
        (labels[:, :-1], labels[:, 1:]),
        (labels[:-1], labels[1:]),
        (labels[:-1, :-1], labels[1:, 1:]),
        (labels[:-1, 1:], labels[1:, :-1]),
    ):
        differ = a != b
        a, b = a[differ].astype(np.int64), b[differ]
        keys.append(np.minimum(a, b) * count + np.maximum(a, b))
    keys = np.unique(np.concatenate(keys))
    return np.stack([keys // count, keys % count], axis=1)


def region_boxes(labels: np.ndarray) -> np.ndarray:
    """The box around each region.

    Args:
        labels: int32 [H, W], 0..R-1, each number in use.

    Returns:
        float32 [R, 4], (x1, y1, x2, y2), pixel i covering [i, i + 1).
    """
    height, width = labels.shape
    count = int(labels.max()) + 1
    boxes = np.empty((count, 4), np.float32)
    y, x = np.divmod(np.arange(labels.size), width)
    flat = labels.ravel()
    boxes[flat[::-1], 1], boxes[flat, 3] = y[::-1], y + 1  # of repeated indices the last assignment stays
    across = labels.T.ravel()
    x, _ = np.divmod(np.arange(labels.size), height)
    boxes[across[::-1], 0], boxes[across, 2] = x[::-1], x + 1
    return boxes
