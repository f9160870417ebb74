"""Draws docs/localize_variants.jpg: the best box of the four variants of a box head, side by side, on photographs.

    python docs/localize_variants.py out/conv out/conv_per_class out/fc out/fc_per_class

Each folder is one of train_localizer. Green is the ground truth, drawn by hand, blue the guess. Photographs from
scikit-image, all CC0: Chelsea the cat (Stefan van der Walt), coffee (Rachel Michetti), a motorcycle (Middlebury).
"""

import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import tfcnn  # noqa: E402
from tfcnn import draw, images  # noqa: E402
from tfcnn.ops import boxes  # noqa: E402

TRUTH = {
    "chelsea": (0, 0, 404, 300),
    "coffee": (77, 18, 480, 388),
    "motorcycle_left": (92, 70, 684, 453),
}
SIZE = (200, 270)
COLOURS = (2, 1)  # of the ground truth and of the guess


def main(folders):
    pictures = {source.path.stem: images.read(source) for source in images.packaged()}
    localizers = {
        pathlib.Path(folder).name: tfcnn.localizer(pathlib.Path(folder) / "release") for folder in folders
    }
    tiles, captions = [], []
    for stem, truth in TRUTH.items():
        for name, localizer in localizers.items():
            (guesses,) = localizer([pictures[stem]])
            best = guesses.top(1)
            iou = boxes.iou(np.float32([truth]), np.float32(best.boxes))[0, 0]
            drawn = draw.boxes(pictures[stem], [truth, best.boxes[0]], COLOURS)
            tiles.append(images.resize(drawn, SIZE, "letterbox", fill=(255,) * 3)[0])
            captions.append(f"{name}: {best.names[best.labels[0]].split(',')[0]}, IoU {iou:.2f}")
    images.write(pathlib.Path(__file__).with_suffix(".jpg"), draw.grid(tiles, len(folders), captions))


if __name__ == "__main__":
    main(sys.argv[1:])
