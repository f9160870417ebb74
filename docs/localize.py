"""Draws docs/localize.jpg: photographs, each with the best guess of a packaged localizer.

    python docs/localize.py

Photographs: Chelsea the cat (Stefan van der Walt), coffee (Rachel Michetti), both CC0; Eileen Collins (NASA, public
domain); a motorcycle (Middlebury stereo data, CC0): all from scikit-image.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import tfcnn  # noqa: E402
from tfcnn import draw, images  # noqa: E402

SHOWN = {
    "localizer_tinyimagenet": ("chelsea", "coffee", "astronaut"),
    "localizer_voc": ("chelsea", "motorcycle_left", "astronaut"),
}
SIZE = (240, 320)


def main():
    pictures = {source.path.stem: images.read(source) for source in images.packaged()}
    tiles, captions = [], []
    for name, stems in SHOWN.items():
        localizer = tfcnn.localizer(name)
        for stem, guesses in zip(stems, localizer([pictures[stem] for stem in stems]), strict=True):
            tiles.append(
                images.resize(guesses.top(1).draw(pictures[stem]), SIZE, "letterbox", fill=(255,) * 3)[0]
            )
            captions.append(name)
    images.write(pathlib.Path(__file__).with_suffix(".jpg"), draw.grid(tiles, 3, captions))


if __name__ == "__main__":
    main()
