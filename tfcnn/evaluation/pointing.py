"""The pointing game: does a map have its maximum on the object of the class that it is asked for?

H W the size of a picture. Source: Zhang et al., "Top-down Neural Attention by Excitation Backprop", 2016, section 4.1;
jimmie33/Caffe-ExcitationBP excitationBP/eval_coco.py: a hit lies within 15 pixels of the object.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import ndimage

TOLERANCE = 15.0  # pixels


def maximum(values: np.ndarray) -> tuple[int, int]:
    """Gives row and column of a map's maximum: the middle of the locations that share it, where there are several.

    Args:
        values: [H, W].
    """
    places = np.argwhere(values == values.max())
    return tuple(int(each) for each in places[len(places) // 2])


def is_hit(place: Sequence[int], mask: np.ndarray, tolerance: float = TOLERANCE) -> bool:
    """Whether a location lies on an object or near it.

    Args:
        place: row and column.
        mask: bool [H, W], the objects of the class.
        tolerance: distance in pixels that still counts.
    """
    if not mask.any():
        return False
    distance = ndimage.distance_transform_edt(~mask)
    return bool(distance[tuple(place)] <= tolerance)


def accuracy(outcomes: Iterable[tuple[int, bool]]) -> dict[str, float | dict[int, float]]:
    """Gives the game's figures.

    Args:
        outcomes: (class, hit) of each map.

    Returns:
        {"mean": over classes, as the paper has it, "all": over maps, "per_class": {class: share of hits}}; the first
        two are 0 where there is no outcome.
    """
    found: dict[int, list[bool]] = {}
    for label, hit in outcomes:
        found.setdefault(int(label), []).append(bool(hit))
    shares = {label: float(np.mean(hits)) for label, hits in sorted(found.items())}
    every = [hit for hits in found.values() for hit in hits]
    return {
        "mean": float(np.mean(list(shares.values()))) if shares else 0.0,
        "all": float(np.mean(every)) if every else 0.0,
        "per_class": shares,
    }


def mask_iou(found: np.ndarray, mask: np.ndarray, void: np.ndarray | None = None) -> float:
    """Gives intersection over union of two masks; 1 where both are empty.

    Args:
        found: bool [H, W].
        mask: bool [H, W], the truth.
        void: bool [H, W], pixels that count for neither, such as VOC's border.
    """
    counts = np.ones(mask.shape, bool) if void is None else ~void
    union = ((found | mask) & counts).sum()
    return float((found & mask & counts).sum() / union) if union else 1.0
