"""BING: windows of any size, shrunk to 8 x 8 gradient magnitudes, look alike around objects; one linear filter scores
them all.

N windows, S window sizes.

Source: Cheng, Zhang, Lin, Torr, "BING: Binarized Normed Gradients for Objectness Estimation at 300fps", 2014; details
of OpenCV's saliency module. The filter is applied as a convolution in float; the paper's binary form is a
speed-up of the same product.
"""

import json
import pathlib
from collections.abc import Callable, Iterable

import cv2
import numpy as np

from tfcnn import files
from tfcnn.errors import InputError
from tfcnn.evaluation.proposal_recall import pairwise_iou

SIDE = 8  # of the filter
SIDES = (10, 20, 40, 80, 160, 320)  # of the windows, in a picture of 500 pixels
RADIUS = 2  # a window stands where it is the best of its 5 x 5 neighbours
PACKAGED = pathlib.Path(__file__).with_name("bing_voc.json")
NEGATIVES = 50  # random windows of a picture in training
LEAST_WINDOWS = 10  # of a size in training, of which half or more of an object: rarer sizes are left out


class Weights:
    """What training finds.

    Attributes:
        filter: float32 [8, 8].
        sizes: {(width, height) in a picture of 500 pixels: (factor, offset) of the second stage}.
    """

    def __init__(self, filter: np.ndarray, sizes: dict[tuple[int, int], tuple[float, float]]):
        self.filter, self.sizes = np.asarray(filter, np.float32), dict(sizes)

    def to_json(self) -> dict:
        """The same as lists and numbers."""
        return {
            "filter": [[float(f"{value:.5g}") for value in row] for row in self.filter.tolist()],
            "sizes": [[*size, *(float(f"{v:.5g}") for v in second)] for size, second in self.sizes.items()],
        }

    @classmethod
    def read(cls, path: str | pathlib.Path = PACKAGED) -> "Weights":
        """Reads what `to_json` gave.

        Raises:
            InputError: the file is not there or holds something else.
        """
        try:
            found = files.from_json(pathlib.Path(path).read_bytes(), "the file")
            kernel = np.array(found["filter"], np.float32).reshape(SIDE, SIDE)
            sizes = {(int(w), int(h)): (float(v), float(t)) for w, h, v, t in found["sizes"]}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path} holds no weights of BING, as the app propose makes them ({error})"
            ) from error
        return cls(kernel, sizes)


def normed_gradients(image: np.ndarray) -> np.ndarray:
    """The sum of horizontal and vertical steps at each pixel, of the channel where it is greatest.

    Args:
        image: uint8 [H, W, 3].

    Returns:
        float32 [H, W], 0..255.

    Source: section 3.1: min(|gx| + |gy|, 255), gx and gy by [-1, 0, 1].
    """
    values = image.astype(np.float32)
    across = np.abs(cv2.filter2D(values, -1, np.float32([[-1, 0, 1]]), borderType=cv2.BORDER_REPLICATE))
    down = np.abs(cv2.filter2D(values, -1, np.float32([[-1], [0], [1]]), borderType=cv2.BORDER_REPLICATE))
    return np.minimum((across + down).max(axis=2), 255)


def window_sizes(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """The (width, height) of all windows, in a picture of 500 pixels, that fit into a picture of shape (H, W, ...)."""
    longest = max(shape[:2])
    sides = [(w, h) for w in SIDES for h in SIDES]
    return [(w, h) for w, h in sides if w * longest <= 500 * shape[1] and h * longest <= 500 * shape[0]]


def shrunk(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, float, float]:
    """The picture at the scale where windows of a size are 8 x 8.

    Args:
        image: uint8 [H, W, 3].
        size: (width, height) of the windows in a picture of 500 pixels.

    Returns:
        (uint8 [h, w, 3], pixels of the picture for one of these in x, in y).
    """
    height, width = image.shape[:2]
    scale = max(height, width) / 500
    w = max(SIDE, round(width * SIDE / (size[0] * scale)))
    h = max(SIDE, round(height * SIDE / (size[1] * scale)))
    return cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR), width / w, height / h


def scored(image: np.ndarray, weights: Weights, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The windows of a size that are the best of their neighbours.

    Args:
        image: uint8 [H, W, 3], RGB.
        weights: of training.
        size: (width, height) in a picture of 500 pixels.

    Returns:
        (boxes float32 [n, 4] in the picture's pixels, first stage's scores float32 [n]).

    Source: section 3.2, equations 1 and 2.
    """
    small, across, down = shrunk(image, size)
    gradients = normed_gradients(small)
    found = cv2.matchTemplate(gradients, weights.filter, cv2.TM_CCORR)  # the valid part of a correlation
    best = cv2.dilate(found, np.ones((2 * RADIUS + 1,) * 2, np.uint8))
    y, x = np.nonzero(found >= best)
    boxes = np.stack([x * across, y * down, (x + SIDE) * across, (y + SIDE) * down], axis=1)
    return boxes.astype(np.float32), found[y, x]


def bing(image: np.ndarray, count: int, seed: int = 0, weights: Weights | None = None) -> tuple[
    np.ndarray, np.ndarray
]:  # fmt: skip
    """The best windows by both stages.

    Args:
        image: uint8 [H, W, 3], RGB.
        count: most boxes.
        seed: not used: nothing is drawn.
        weights: of training; None: those trained on VOC 2007.

    Returns:
        (boxes float32 [n, 4], scores float32 [n]), best first.
    """
    weights = weights or Weights.read()
    boxes, scores = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
    for size in window_sizes(image.shape):
        if size in weights.sizes:
            found, score = scored(image, weights, size)
            factor, offset = weights.sizes[size]
            boxes.append(found)
            scores.append(np.float32(factor) * score + np.float32(offset))
    boxes, scores = np.concatenate(boxes), np.concatenate(scores)
    order = np.argsort(-scores, kind="stable")[:count]
    return boxes[order], scores[order]


def train_bing(pictures: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]], seed: int = 0) -> Weights:
    """Both stages by linear SVMs.

    Args:
        pictures: gives, as often as it is called, (image uint8 [H, W, 3], boxes float32 [M, 4]) of each picture.
        seed: of the negative windows.

    Raises:
        InputError: there is no box.

    Source: section 3.2: first stage, windows of objects in their nearest sizes and mirrored against random windows;
    second stage, the windows that the first finds, a factor and an offset a size.
    """
    from sklearn.svm import LinearSVC

    random = np.random.default_rng(seed)
    rows, labels = [], []
    for image, boxes in pictures():
        for box in boxes:
            for size in _nearest(box, image.shape):
                code = _code(image, box, size)
                rows += [code, code[:, ::-1]]
                labels += [1, 1]
        sizes = window_sizes(image.shape)
        for number in random.integers(0, len(sizes), NEGATIVES if sizes else 0):
            box = _random_box(random, sizes[number], image.shape)
            if not len(boxes) or pairwise_iou(box[None], boxes).max() < 0.5:
                rows.append(_code(image, box, sizes[number]))
                labels.append(0)
    if not any(labels):
        raise InputError("BING needs pictures with boxes: there is none.")
    flat = np.float32(rows).reshape(len(rows), -1) / 255
    svm = LinearSVC(C=1, class_weight="balanced", random_state=seed).fit(flat, labels)
    weights = Weights(svm.coef_.reshape(SIDE, SIDE) / 255, {})

    found: dict[tuple[int, int], list] = {}
    for image, boxes in pictures():
        for size in window_sizes(image.shape):
            windows, scores = scored(image, weights, size)
            best = pairwise_iou(windows, boxes).max(axis=1) if len(boxes) else np.zeros(len(windows))
            found.setdefault(size, []).append(np.stack([scores, best >= 0.5], axis=1))
    for size, parts in found.items():
        scores, hits = np.concatenate(parts).T
        if hits.sum() >= LEAST_WINDOWS and hits.sum() < len(hits):
            # a logistic fit, so that the second stage's values are odds that compare between the sizes
            weights.sizes[size] = _logistic(scores, hits)
    if not weights.sizes:
        weights.sizes = {size: (1.0, 0.0) for size in found}
    return weights


def save(weights: Weights, path: str | pathlib.Path) -> None:
    """Writes the weights as JSON."""
    files.write_bytes(pathlib.Path(path), (json.dumps(weights.to_json()) + "\n").encode())


def _logistic(scores, hits):
    from sklearn.linear_model import LogisticRegression

    scale = scores.std() or 1.0
    fit = LogisticRegression(C=1000).fit(scores[:, None] / scale, hits)
    return float(fit.coef_[0, 0] / scale), float(fit.intercept_[0])


def _nearest(box, shape):
    """The sizes whose window, centred on the box, has an IoU of half or more with it."""
    scale = max(shape[:2]) / 500
    w, h = (box[2:] - box[:2]) / scale
    inside = [(a, b, min(a, w) * min(b, h)) for a, b in window_sizes(shape)]
    return [(a, b) for a, b, common in inside if common / (a * b + w * h - common) >= 0.5]


def _random_box(random, size, shape):
    w, h = np.array(size) * max(shape[:2]) / 500
    x, y = random.uniform(0, [max(shape[1] - w, 1e-6), max(shape[0] - h, 1e-6)])
    return np.array([x, y, x + w, y + h])


def _code(image, box, size):
    """Normed gradients [8, 8] of a box, as seen at the scale of a size."""
    small, across, down = shrunk(image, size)
    x = round(min(max((box[0] + box[2]) / 2 / across - SIDE / 2, 0), small.shape[1] - SIDE))
    y = round(min(max((box[1] + box[3]) / 2 / down - SIDE / 2, 0), small.shape[0] - SIDE))
    return normed_gradients(small)[y : y + SIDE, x : x + SIDE]
