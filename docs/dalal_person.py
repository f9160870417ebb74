"""Draws docs/dalal_person.png: the template of a trained person's window beside that of OpenCV's people detector.

    python docs/dalal_person.py out/hog_detector/release

The release is of `hog_detector train --features=dalal_triggs --window=16,8`.
"""

import pathlib
import sys

import cv2
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import tfcnn  # noqa: E402
from tfcnn import draw, images  # noqa: E402
from tfcnn.ops import hog  # noqa: E402


def opencv_template() -> np.ndarray:
    """The weights of OpenCV's people detector as ours are laid out, float32 [15, 7, 36]."""
    weights = cv2.HOGDescriptor_getDefaultPeopleDetector().ravel()[:-1]
    blocks = weights.reshape(7, 15, 2, 2, 9)  # column by column, of each its cells column by column
    return blocks.transpose(1, 0, 3, 2, 4).reshape(15, 7, 36)


def strokes(template: np.ndarray) -> np.ndarray:
    """What a template [15, 7, 36] asks for, uint8 [320, 160, 3]."""
    asked = hog.cell_weights(np.maximum(template, 0)[None]).numpy()[0]
    return draw.hog_glyphs(asked, 20)


def main(release: str) -> None:
    ours = tfcnn.load_model(release).get_layer("templates_16x8").kernel.numpy()[..., 0]
    sheet = draw.grid([strokes(each) for each in (ours, opencv_template())], 2, ["trained here", "OpenCV's"])
    images.write(pathlib.Path(__file__).with_name("dalal_person.png"), sheet)


if __name__ == "__main__":
    main(*sys.argv[1:])
