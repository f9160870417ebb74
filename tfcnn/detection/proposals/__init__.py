"""Region proposals: boxes that may hold an object, whatever its class.

    from tfcnn.detection import proposals
    propose = proposals.proposer("selective_search", count=1000)
    rows = propose(image)   # float32 [n, 5]: x1, y1, x2, y2, score

n proposals of a picture.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
from collections.abc import Callable

import numpy as np

from tfcnn import images
from tfcnn.errors import InputError, unknown
from tfcnn.predictor import Predictor

LONGEST = 500  # pixels of the longer side, beyond which a picture is looked at reduced, as R-CNN does


@dataclasses.dataclass(frozen=True)
class Kind:
    """A method of proposals: the function that computes it, (image, count, seed) -> (boxes, scores).

    Attributes:
        module, function: where it is; another keyword argument of it is fixed by `option`.
        name: as the literature calls it.
        type: "grouping" of segments, "window scoring" or "baseline", as Hosang et al. divide them.
        option: (name, value), or None; a value that begins with a dot is looked up in the module.
    """

    module: str
    function: str
    name: str
    type: str
    option: tuple[str, str] | None = None


METHODS = {
    "selective_search": Kind("selective_search", "propose", "SelectiveSearch, fast", "grouping"),
    "selective_search_quality": Kind(
        "selective_search", "propose", "SelectiveSearch, quality", "grouping", ("settings", ".QUALITY")
    ),
    "edge_boxes": Kind("edge_boxes", "edge_boxes", "EdgeBoxes", "window scoring"),
    "bing": Kind("bing", "bing", "BING", "window scoring"),
    "uniform": Kind("baselines", "uniform", "Uniform", "baseline"),
    "gaussian": Kind("baselines", "gaussian", "Gaussian", "baseline"),
    "sliding_window": Kind("baselines", "sliding_window", "SlidingWindow", "baseline"),
    "superpixels": Kind("baselines", "superpixels", "Superpixels", "baseline"),
    "rpn": Kind("learned", "", "RPN", "window scoring"),
}

Proposer = Callable[[np.ndarray], np.ndarray]


def proposer(
    method: str,
    count: int = 2000,
    seed: int = 0,
    *,
    bing_weights: str | os.PathLike | None = None,
    predictor: Predictor | None = None,
    longest: int = LONGEST,
    search: str | None = None,
) -> Proposer:
    """A method of proposals, ready to be called on a picture.

    Args:
        method: one of METHODS.
        count: most proposals of a picture.
        seed: of those that draw numbers; the same picture always gives the same proposals.
        bing_weights: of bing: a file that `bing.save` wrote; None: those trained on VOC 2007.
        predictor: of rpn: a Faster R-CNN, which `tfcnn.detector` opens, with `count` proposals.
        longest: most pixels of the longer side; a larger picture is reduced to it first. The rpn takes its model's.
        search: of edge_boxes: "own", "contrib" (opencv-contrib's), or None: opencv-contrib's where it is installed.

    Returns:
        A function from uint8 [H, W, 3] to float32 [n, 5] (x1, y1, x2, y2, score), in the picture's pixels, best first.

    Raises:
        InputError: an unknown method, a count below 1, or weights, a predictor or a search that
            cannot be used.
    """
    if method not in METHODS:
        raise unknown("proposal method", method, METHODS)
    if count < 1:
        raise InputError(f"count={count}: there is at least one proposal.")
    kind = METHODS[method]
    module = importlib.import_module(f"tfcnn.detection.proposals.{kind.module}")
    if method == "rpn":
        if predictor is None:
            raise InputError("The proposals of an rpn need a Faster R-CNN: give its predictor.")
        return module.of_predictor(predictor)
    compute = getattr(module, kind.function)
    if kind.option:
        name, value = kind.option
        compute = functools.partial(compute, **{name: getattr(module, value.removeprefix("."))})
    if method == "bing":
        compute = functools.partial(compute, weights=module.Weights.read(bing_weights or module.PACKAGED))
    if method == "edge_boxes":
        compute = functools.partial(compute, search=module.search_of(search))

    def propose(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        ratio = longest / max(height, width)
        seen, placement = image, None
        if ratio < 1:
            sides = [max(1, round(side * ratio)) for side in (height, width)]
            seen, placement = images.resize(image, sides)
        boxes, scores = compute(seen, count, seed)
        boxes, scores = boxes[:count], scores[:count]
        boxes = boxes if placement is None else placement.to_file(boxes)
        boxes = np.clip(boxes, 0, [width, height, width, height])
        return np.concatenate([boxes, scores[:, None]], axis=1).astype(np.float32)

    return propose
