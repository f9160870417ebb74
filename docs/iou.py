"""Draws docs/iou.png: what the overlap of two boxes, intersection over union, is.

    python docs/iou.py

The photograph is Chelsea the cat, by Stefan van der Walt (CC0), from scikit-image.
"""

import pathlib
import sys

import numpy as np
import skimage.data
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tfcnn.ops import boxes  # noqa: E402

TRUE, FOUND = "#1a9850", "#d73027"
CAT = [90.0, 8.0, 330.0, 292.0]  # ground truth: the cat's face
GUESS = [128.0, 54.0, 372.0, 296.0]
UNIT = [0.0, 0.0, 100.0, 100.0]


def frame(axes, box, colour, **more):
    """Draws a box (x1, y1, x2, y2)."""
    x1, y1, x2, y2 = box
    more = {"fill": False, "edgecolor": colour, "linewidth": 2.5} | more
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **more))


def shared(a, b):
    """The box in which two boxes meet."""
    return [max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])]


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def iou_of(a, b):
    return float(boxes.iou(np.float32([a]), np.float32([b]))[0, 0])


def shifted(overlap):
    """UNIT moved to the right until its IoU with where it was is `overlap`."""
    move = 100 * (1 - overlap) / (1 + overlap)
    return [move, 0.0, 100 + move, 100.0]


def main():
    figure = Figure(figsize=(11, 5.2), dpi=90, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[2, 1])
    cat = skimage.data.chelsea()
    meet = shared(CAT, GUESS)
    iou = iou_of(CAT, GUESS)
    union = area(CAT) + area(GUESS) - area(meet)
    titles = [
        "ground-truth box and detection",
        f"intersection: {area(meet):,.0f} pixels",
        f"union: {union:,.0f} pixels",
    ]
    for axes, title in zip(above.subplots(1, 3), titles, strict=True):
        axes.imshow(cat, alpha=1.0 if title.startswith("ground") else 0.35)
        if title.startswith("inter"):
            frame(axes, meet, None, fill=True, facecolor="#4575b4", alpha=0.75)
        if title.startswith("union"):
            for box in (CAT, GUESS):
                frame(axes, box, None, fill=True, facecolor="#4575b4", edgecolor="none")
        frame(axes, CAT, TRUE)
        frame(axes, GUESS, FOUND)
        axes.set_title(title, fontsize=11)
        axes.set_axis_off()
    above.suptitle(
        f"IoU = intersection / union = {area(meet):,.0f} / {union:,.0f} = {iou:.2f}", fontsize=13, y=0.04
    )
    for axes, overlap in zip(below.subplots(1, 5), (0.1, 0.3, 0.5, 0.7, 0.9), strict=True):
        other = shifted(overlap)
        assert abs(iou_of(UNIT, other) - overlap) < 1e-6
        frame(axes, shared(UNIT, other), None, fill=True, facecolor="#4575b4", edgecolor="none", alpha=0.6)
        frame(axes, UNIT, TRUE)
        frame(axes, other, FOUND)
        middle = other[2] / 2
        axes.set(xlim=(middle - 100, middle + 100), ylim=(103, -3), aspect="equal")
        right = ": just enough for VOC" if overlap == 0.5 else ""
        axes.set_title(f"IoU {overlap}{right}", fontsize=10)
        axes.set_axis_off()
    FigureCanvasAgg(figure).print_png(str(pathlib.Path(__file__).with_suffix(".png")))


if __name__ == "__main__":
    main()
