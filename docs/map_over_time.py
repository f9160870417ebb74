"""Draws docs/map_over_time.png: mean AP against the time of a picture, from the detectors before R-CNN to YOLO.

    python docs/map_over_time.py

PUBLISHED are the lecture's figures (VOC 2007 test; GPU, or the authors' CPU); OURS were measured with the packages of
this repository on two CPU cores, each with the command that docs/classical_detection.md or docs/detection.md names.
"""

import pathlib

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# name, seconds of a picture, mean AP in percent (11 points)
PUBLISHED = [
    ("100 Hz DPM", 0.01, 16.0),
    ("30 Hz DPM", 1 / 30, 26.1),
    ("Fastest DPM", 1 / 15, 30.4),
    ("R-CNN", 50.0, 66.0),
    ("Fast R-CNN", 2.0, 66.9),
    ("Faster R-CNN", 0.2, 66.9),
    ("Faster R-CNN VGG-16, 07+12", 1 / 7, 73.2),
    ("Faster R-CNN ZF, 07+12", 1 / 18, 62.1),
    ("YOLO", 1 / 45, 63.4),
    ("Fast YOLO", 1 / 155, 52.7),
]
OURS = [  # mAP on VOC 2007 val, trained on train alone
    ("HOG windows", 0.101, 18.0),
    ("deformable parts*", 0.99, 14.4),
    ("R-CNN", 0.46 + 0.65, 52.5),
    ("Fast R-CNN", 0.46 + 0.14, 58.6),
    ("Faster R-CNN", 0.038, 65.1),
    ("YOLO", 1 / 41, 52.7),
    ("Fast YOLO", 1 / 119, 49.5),
    ("one-stage", 1 / 23.5, 63.7),
]


def main() -> None:
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for rows, marker, colour, label, below in (
        (PUBLISHED, "o", "C7", "published, as the lecture quotes them", 5),
        (OURS, "D", "C3", "this repository on VOC 2007 val, two CPU cores (*250 pictures)", -12),
    ):
        _, seconds, mean = zip(*rows, strict=True)
        axes.scatter(seconds, mean, marker=marker, color=colour, label=label, zorder=3)
        for name, x, y in rows:
            axes.annotate(
                name,
                (x, y),
                xytext=(5, 5 if y > 64 else below),
                textcoords="offset points",
                fontsize=8,
                color=colour,
            )
    axes.set(
        xscale="log",
        xlabel="seconds a picture, proposals included",
        ylabel="mAP on VOC 2007, %",
        ylim=(0, 85),
    )
    axes.set_xlim(0.004, 300)
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(pathlib.Path(__file__).with_name("map_over_time.png"), dpi=90)


if __name__ == "__main__":
    main()
