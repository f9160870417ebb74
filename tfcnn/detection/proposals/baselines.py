"""Proposals that hardly look at the picture: what a method of proposals has to be better than.

n proposals.

Source: Hosang, Benenson, Dollar, Schiele, "What makes for effective detection proposals?", 2015, section 2.3; the
generation as in the authors' program (hosang/detection-proposals).
"""

from collections.abc import Callable

import numpy as np

from tfcnn.detection.proposals import segmentation

# Of the 6300 boxes of VOC 2007's train, difficult ones left out, in the order of ASPECT, ROOT, X, Y: log2(width /
# height), root of the area as a share of the picture's, centre as a share of its width and height.
LOW = (-2.3075, 0.0506, 0.0406, 0.0708)  # 99 % lie between LOW and HIGH
HIGH = (2.0964, 0.9940, 0.9594, 0.9107)
MEAN = (-0.2247, 0.3728, 0.5031, 0.5405)
COVARIANCE = (
    (0.8206, 0.0550, 0.0010, 0.0049),
    (0.0550, 0.0584, -0.0007, 0.0026),
    (0.0010, -0.0007, 0.0479, -0.0003),
    (0.0049, 0.0026, -0.0003, 0.0275),
)
SIDES = (10, 20, 40, 80, 160, 320)  # BING's, of windows in a picture of 500 pixels
SEGMENTATIONS = (("hsv", 50), ("hsv", 100), ("lab", 50), ("lab", 100))


def uniform(image: np.ndarray, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes whose centre, size and aspect are drawn evenly from the range of real ones.

    Args:
        image: [H, W, 3]; its size alone is looked at.
        count: n.
        seed: of the drawing.

    Returns:
        (boxes float32 [n, 4], clipped to the picture; scores float32 [n], falling, of no meaning).
    """
    drawn = np.random.default_rng(seed).uniform(LOW, HIGH, (count, 4))
    return _boxes(drawn, image.shape), _falling(count)


def gaussian(image: np.ndarray, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes drawn from one normal distribution of centre, size and aspect, fitted to real ones.

    Arguments and results as of `uniform`; what lies outside the picture or is thinner than 5 pixels, or a fifth of a
    small picture, is drawn again.
    """
    random = np.random.default_rng(seed)
    found = np.zeros((0, 4))
    least = min(5, *(side / 5 for side in image.shape[:2]))
    while len(found) < count:
        drawn = random.multivariate_normal(MEAN, COVARIANCE, count + 16)
        inside = (drawn[:, 1:] > 0).all(axis=1) & (drawn[:, 1:] <= 1).all(axis=1)
        boxes = _boxes(drawn[inside], image.shape)
        found = np.concatenate([found, boxes[(boxes[:, 2:] - boxes[:, :2] >= least).all(axis=1)]])
    return found[:count].astype(np.float32), _falling(count)


def sliding_window(image: np.ndarray, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Windows of BING's sizes on regular grids, an equal share of each size.

    Args:
        image: [H, W, 3]; its size alone is looked at.
        count: most boxes; the grid is made for this number.
        seed: of their order.

    Returns:
        (boxes float32 [n, 4], scores float32 [n], falling in an order without meaning).
    """
    height, width = image.shape[:2]
    scale = max(height, width) / 500
    sizes = [(w * scale, h * scale) for w in SIDES for h in SIDES]
    fitting = [(w, h) for w, h in sizes if w <= width and h <= height]
    boxes = [np.array([[0, 0, width, height]])] if len(fitting) < len(sizes) else []
    share = max(1, (count - len(boxes)) // max(1, len(fitting)))
    for w, h in fitting:
        free = width - w, height - h
        stride = max(1.0, np.sqrt((free[0] + 1) * (free[1] + 1) / share))
        across, down = (int(side // stride) + 1 for side in free)
        x = (free[0] - (across - 1) * stride) / 2 + stride * np.arange(across)
        y = (free[1] - (down - 1) * stride) / 2 + stride * np.arange(down)
        x, y = (grid.ravel() for grid in np.meshgrid(x, y))
        boxes.append(np.stack([x, y, x + w, y + h], axis=1))
    boxes = np.concatenate(boxes)
    boxes = np.random.default_rng(seed).permutation(boxes)[:count]
    return boxes.astype(np.float32), _falling(len(boxes))


def superpixels(image: np.ndarray, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of the regions of four segmentations, none merged: selective search without its search.

    Args:
        image: uint8 [H, W, 3], RGB.
        count: most boxes.
        seed: of their order.

    Returns:
        (boxes float32 [n, 4], each once; scores float32 [n], falling in an order without meaning).
    """
    found = []
    for space, scale in SEGMENTATIONS:
        labels = segmentation.graph_segments(segmentation.in_space(image, space), scale, scale)
        found.append(segmentation.region_boxes(labels))
    boxes = np.random.default_rng(seed).permutation(np.unique(np.concatenate(found), axis=0))[:count]
    return boxes, _falling(len(boxes))


BASELINES: dict[str, Callable] = {
    "uniform": uniform,
    "gaussian": gaussian,
    "sliding_window": sliding_window,
    "superpixels": superpixels,
}


def _boxes(drawn, shape):
    """(aspect, root, x, y) as float32 boxes clipped to the picture."""
    aspect, root, x, y = drawn.T
    height, width = shape[:2]
    side = root * np.sqrt(height * width)
    half_width, half_height = side * 2 ** (aspect / 2) / 2, side * 2 ** (-aspect / 2) / 2
    centre_x, centre_y = x * width, y * height
    boxes = [centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height]
    return np.clip(np.stack(boxes, axis=1), 0, [width, height, width, height]).astype(np.float32)


def _falling(count):
    return (1 / (1 + np.arange(count))).astype(np.float32)
