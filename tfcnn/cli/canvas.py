"""The size at which a picture is dreamt or painted: its own, or --image_size on its longer side."""

from __future__ import annotations

import numpy as np
from absl import flags

from tfcnn import images


def describe(text: str) -> None:
    """Say what --image_size means in an app that keeps a picture's shape, and let --resize be none."""
    flags.FLAGS["image_size"].help = text
    resize = "Make the picture a square of --image_size pixels: stretched, its middle, or with bars; none "
    flags.FLAGS["resize"].help = resize + "keeps its shape, e.g. --resize=crop"


def fitted(image: np.ndarray, longer: int | None, resize: str | None) -> np.ndarray:
    """The picture with its longer side of `longer` pixels, or a square by `resize`; its own size by None."""
    if longer is None:
        return image
    if resize is not None:
        return images.resize(image, longer, resize)[0]
    scale = longer / max(image.shape[:2])
    return images.resize(image, [max(1, round(side * scale)) for side in image.shape[:2]])[0]
