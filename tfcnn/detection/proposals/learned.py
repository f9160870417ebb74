"""The proposals of a Faster R-CNN's first network, as a method beside those that are not trained."""

from collections.abc import Callable

import numpy as np

from tfcnn.errors import InputError
from tfcnn.predictor import Predictor


def of_predictor(predictor: Predictor) -> Callable[[np.ndarray], np.ndarray]:
    """A region proposal network at work.

    Args:
        predictor: of a Faster R-CNN, opened with as many proposals as are wanted.

    Returns:
        A function from uint8 [H, W, 3] to float32 [n, 5] (x1, y1, x2, y2, score), in the picture's pixels, best first;
        the score says the rank alone.

    Raises:
        InputError: the model makes no proposals.

    Source: Ren, He, Girshick, Sun, "Faster R-CNN", 2015, section 3.1.
    """
    if not getattr(predictor.method, "proposal_count", 0):
        raise InputError("The model makes no proposals: a Faster R-CNN does.")

    def propose(image: np.ndarray) -> np.ndarray:
        prepared = predictor.prepare(image)
        pictures, sizes, shapes = predictor.stack([prepared])
        boxes = predictor.method.propose(pictures[0], sizes[0], shapes)[0]
        boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
        height, width = image.shape[:2]
        boxes = np.clip(prepared.placement.to_file(boxes), 0, [width, height, width, height])
        return np.concatenate([boxes, 1 / (1 + np.arange(len(boxes)))[:, None]], axis=1).astype(np.float32)

    return propose
