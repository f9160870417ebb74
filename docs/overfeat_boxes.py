"""Draws docs/overfeat_boxes.jpg: 2 x 2 windows on photographs, their boxes before and after OverFeat's merging.

    python docs/overfeat_boxes.py

Photographs: Chelsea the cat (Stefan van der Walt), coffee (Rachel Michetti), both CC0, from scikit-image.
"""

import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import tfcnn  # noqa: E402
from tfcnn import draw, images  # noqa: E402
from tfcnn.localization import overfeat  # noqa: E402

SCALE = 224  # pixels of the square: of windows of 192, 32 apart, it has 2 x 2
SIZE = (208, 208)


def main():
    window = overfeat.SlidingWindow(tfcnn.load_model("localizer_tinyimagenet"))
    tiles, captions = [], []
    for stem in ("chelsea", "coffee"):
        picture = next(images.read(source) for source in images.packaged() if source.path.stem == stem)
        side = min(picture.shape[:2])
        left = (picture.shape[1] - side) // 2
        square = picture[:side, left : left + side]
        look = window(square, SCALE)
        before, merged = overfeat.localize([look])
        best = merged.labels[0]
        for boxes, caption in (
            (look.places.reshape(-1, 4), "windows"),
            (before.boxes[before.labels == best], "boxes of the windows"),
            (merged.boxes[merged.labels == best], "merged"),
        ):
            drawn = draw.boxes(square, boxes, np.arange(len(boxes)))
            tiles.append(images.resize(drawn, SIZE, "letterbox")[0])
            captions.append(f"{len(boxes)} {caption}")
    images.write(pathlib.Path(__file__).with_suffix(".jpg"), draw.grid(tiles, 3, captions))


if __name__ == "__main__":
    main()
