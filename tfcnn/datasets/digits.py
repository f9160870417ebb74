"""scikit-learn's digits: 1797 handwritten digits of 8 x 8, packed with the library.

Source: sklearn.datasets.load_digits; E. Alpaydin and C. Kaynak, UCI, 1998.
"""

import numpy as np

from tfcnn.datasets.example import Dataset
from tfcnn.datasets.mnist import pictures
from tfcnn.errors import InputError

TRAIN_PICTURES = 1437  # four fifths, in the library's order: other people wrote the rest


def read(path: None = None, split: str = "train") -> Dataset:
    """The digits, no file needed.

    Args:
        path: not needed.
        split: "train" (the first 1437) or "test" (the last 360; "val" is the same).

    Raises:
        InputError: another split.
    """
    from sklearn.datasets import load_digits

    if split not in ("train", "test", "val"):
        raise InputError(f"digits has no split {split!r}: it has train, test")
    digits = load_digits()
    part = slice(0, TRAIN_PICTURES) if split == "train" else slice(TRAIN_PICTURES, None)
    pixels = np.round(digits.images[part] * (255 / 16)).astype(np.uint8)[..., None]
    name = "train" if split == "train" else "test"
    return pictures("digits", name, pixels, digits.target[part], [str(digit) for digit in range(10)])
