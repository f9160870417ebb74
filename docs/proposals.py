"""Draws docs/proposals.png from runs of the app propose, and prints their table.

    python docs/proposals.py out/selective_search out/edge_boxes ...

Each folder holds the results.json of one method on the same pictures, with --counts=100,1000,10000.
"""

import json
import pathlib
import sys

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tfcnn.detection.proposals import METHODS  # noqa: E402

COUNTS = ("100", "1000", "10000")
STYLES = {"grouping": "-", "window scoring": "--", "baseline": ":"}


def name_of(found: dict) -> str:
    """The method's name, with the search of EdgeBoxes where it is not our own."""
    name = METHODS[found["flags"]["method"]].name
    return f"{name}, opencv-contrib's search" if found.get("search") == "contrib" else name


def row(found: dict) -> str:
    """A method's line of the table."""
    metrics, method = found["metrics"], METHODS[found["flags"]["method"]]
    repeated = metrics.get("repeatability", {})
    cells = [
        name_of(found),
        method.type,
        f"{metrics['seconds_per_image']:.3f}",
        f"{metrics['proposals_per_image']:.0f}",
    ]
    cells += [f"{100 * metrics[count]['recall']['0.5']:.1f}" for count in COUNTS]
    cells += [
        f"{100 * metrics['1000']['recall']['0.7']:.1f}",
        f"{100 * metrics['1000']['average_recall']:.1f}",
    ]
    for kind in ("scale", "noise", "jpeg", "rotation"):
        values = list(repeated.get(kind, {}).values())
        cells.append(f"{np.mean(values):.2f}" if values else "")
    return "| " + " | ".join(cells) + " |"


def main(folders: list[str]) -> None:
    runs = [json.loads((pathlib.Path(folder) / "results.json").read_text()) for folder in folders]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3, sharey=True)
    for count, axes in zip(COUNTS, panels, strict=True):
        for number, found in enumerate(runs):
            method = METHODS[found["flags"]["method"]]
            curve = found["metrics"][count]["curve"]
            axes.plot(
                np.linspace(0.5, 1, 11), curve, STYLES[method.type], color=f"C{number}", label=name_of(found)
            )
        axes.set(title=f"at most {count} proposals", xlabel="IoU", xlim=(0.5, 1), ylim=(0, 1))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("recall")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(pathlib.Path(__file__).with_name("proposals.png"), dpi=90)
    print("\n".join(map(row, runs)))


if __name__ == "__main__":
    main(sys.argv[1:])
