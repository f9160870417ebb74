"""Whether proposals come back when the picture changes a little: it is scaled, turned, compressed, or has noise on it.

H, W: sides of a picture; n proposals.

Source: Hosang, Benenson, Dollar, Schiele, "What makes for effective detection proposals?", 2015, section 3.
"""

from collections.abc import Callable, Iterable

import cv2
import numpy as np

from tfcnn.evaluation.proposal_recall import one_to_one, pairwise_iou

# Amounts of each change; a picture and its changed form have the same objects in view.
CHANGES: dict[str, tuple[float, ...]] = {
    "scale": (0.5, 0.71, 0.9, 1.1, 1.41, 2.0),  # of the sides
    "noise": (10, 100, 1000),  # pixels turned black or white
    "jpeg": (5, 20, 50, 80),  # quality
    "rotation": (-20, -10, -5, 5, 10, 20),  # degrees
}

Change = tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]


def changed(image: np.ndarray, kind: str, amount: float, seed: int = 0) -> Change:
    """A picture and its changed form.

    Args:
        image: uint8 [H, W, 3].
        kind: one of CHANGES.
        amount: as there.
        seed: of the noise.

    Returns:
        (the picture to compare with, the changed one, a function from boxes [n, 4] of the changed one to those of the
        first). A rotated picture and its comparison are both the part that stays in view up to 20 degrees; of a turned
        box the centre is turned back, its sides stay.
    """
    height, width = image.shape[:2]
    if kind == "scale":
        sides = max(1, round(width * amount)), max(1, round(height * amount))
        method = cv2.INTER_AREA if amount < 1 else cv2.INTER_CUBIC
        back = np.float32([width / sides[0], height / sides[1]] * 2)
        return image, cv2.resize(image, sides, interpolation=method), lambda boxes: boxes * back
    if kind == "noise":
        noisy, random = image.copy(), np.random.default_rng(seed)
        count = min(int(amount), height * width)
        place = random.choice(height * width, count, replace=False)
        noisy.reshape(-1, 3)[place] = 255 * random.integers(0, 2, (count, 1), np.uint8)
        return image, noisy, lambda boxes: boxes
    if kind == "jpeg":
        _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(amount)])
        return (
            image,
            np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]),
            lambda boxes: boxes,
        )
    if kind != "rotation":
        raise ValueError(f"kind {kind!r} is none of {', '.join(CHANGES)}")
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), amount, 1.0)
    turned = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    x, y, inner_width, inner_height = _always_in_view(width, height)
    part = (slice(y, y + inner_height), slice(x, x + inner_width))
    middle = np.float32([inner_width, inner_height]) / 2
    angle = np.deg2rad(amount)  # of the picture, against the clock; y points down
    turn = np.float32([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def back(boxes):
        centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        centre = (centre - middle) @ turn.T + middle
        return np.concatenate([centre - half, centre + half], axis=1)

    return image[part], np.ascontiguousarray(turned[part]), back


def repeatability(
    pictures: Iterable[np.ndarray],
    propose: Callable[[np.ndarray], np.ndarray],
    kinds: Iterable[str] = tuple(CHANGES),
    seed: int = 0,
    count: int = 1000,
) -> dict[str, dict[str, float]]:
    """The mean IoU of a picture's proposals with those of its changed form, matched one to one.

    Args:
        pictures: uint8 [H, W, 3] each.
        propose: from a picture to its proposals float32 [n, 4 or more].
        kinds: of CHANGES.
        seed: of the noise.
        count: the best so many of each picture are compared.

    Returns:
        {kind: {amount: mean over the pictures, 0..1}}: the area under the curve of recall over IoU from 0 to 1, where
        the first picture's proposals are the truth.

    Source: section 3.1.
    """
    found: dict[str, dict[str, list[float]]] = {
        kind: {f"{amount:g}": [] for amount in CHANGES[kind]} for kind in kinds
    }
    for image in pictures:
        reference: dict[tuple[int, ...], np.ndarray] = {}
        for kind, amounts in found.items():
            for amount in CHANGES[kind]:
                first, second, back = changed(image, kind, amount, seed)
                if first.shape not in reference:
                    reference[first.shape] = np.float32(propose(first))[:count, :4]
                one, two = reference[first.shape], back(np.float32(propose(second))[:count, :4])
                if len(one):
                    matched = one_to_one(pairwise_iou(two, one))
                    amounts[f"{amount:g}"].append(float(matched.mean()))
    return {
        kind: {amount: float(np.mean(values)) for amount, values in amounts.items() if values}
        for kind, amounts in found.items()
    }


def _always_in_view(width, height):
    """(x, y, width, height) of the middle part that a turn by any amount of CHANGES leaves inside the picture."""
    angle = np.deg2rad(max(map(abs, CHANGES["rotation"])))
    share = min(
        width / (width * np.cos(angle) + height * np.sin(angle)),
        height / (height * np.cos(angle) + width * np.sin(angle)),
    )
    inner = max(1, int(width * share)), max(1, int(height * share))
    return (width - inner[0]) // 2, (height - inner[1]) // 2, *inner
