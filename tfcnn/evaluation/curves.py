"""Precision/recall curves as pictures."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from tfcnn.draw import fonts_for
from tfcnn.errors import InputError
from tfcnn.evaluation import coco, voc

A_PAGE = 20  # panels
COLUMNS = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """The curves of one class.

    Attributes:
        title: above the panel.
        lines: [(name in the legend, recall [n], precision [n])], the first drawn strongest.
    """

    title: str
    lines: list[tuple[str, np.ndarray, np.ndarray]]


def voc_panels(outcomes: Sequence[voc.Outcome], classes: Sequence[str]) -> list[Panel]:
    """A panel a class with objects: precision as it is, and made non-increasing as the area AP reads it."""
    panels = []
    for name, found in zip(classes, outcomes, strict=True):
        if found.truths:
            recall, precision = found.curve()
            highest = np.maximum.accumulate(precision[::-1])[::-1]
            numbers = voc.average_precision(found)
            title = f"{name}  {100 * numbers['ap_area']:.1f}"
            lines = [("as found", recall, precision), ("non-increasing", recall, highest)]
            panels.append(Panel(title, lines))
    return panels


def coco_panels(evaluation: coco.Evaluation, classes: Sequence[str]) -> list[Panel]:
    """A panel a class that has objects: precision at the 101 recalls, at IoU 0.5, 0.75 and 0.9."""
    panels = []
    for label, name in enumerate(classes):
        precision = evaluation.precision[:, :, label, 0]
        if not np.isnan(precision).any():
            lines = [(f"IoU {coco.THRESHOLDS[t]:g}", coco.RECALLS, precision[t]) for t in (0, 5, 8)]
            panels.append(Panel(f"{name}  {100 * precision.mean():.1f}", lines))
    return panels


def draw(panels: Sequence[Panel], title: str) -> list[np.ndarray]:
    """Pages of up to 20 panels, uint8 [H, W, 3] each.

    Args:
        panels: what to draw.
        title: above each page.

    Raises:
        InputError: there is nothing to draw.
    """
    if not panels:
        raise InputError("no class has an object to find: there is no curve to draw")
    with fonts_for("".join([title, *(panel.title for panel in panels)])) as shown:
        return [
            _page(panels[first : first + A_PAGE], title, shown) for first in range(0, len(panels), A_PAGE)
        ]


def _page(panels: Sequence[Panel], title: str, shown: Callable[[str], str]) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    width, height = max(2.3 * columns, 4.6), 2.2 * rows + 1.0  # inches
    figure = Figure(figsize=(width, height), dpi=110)
    figure.subplots_adjust(0.6 / width, 0.65 / height, 1 - 0.15 / width, 1 - 0.65 / height, 0.14, 0.28)
    figure.suptitle(shown(title), fontsize=11, y=1 - 0.15 / height)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    grid[0, 0].set(xlim=(0, 1), ylim=(0, 1.03), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])  # all share them
    for axes, panel in zip(grid.flat, panels, strict=False):
        for order, (name, recall, precision) in enumerate(panel.lines):
            axes.plot(recall, precision, label=name, color=f"C{order}", linewidth=1.4 - 0.3 * order)
        axes.set_title(shown(panel.title), fontsize=9, parse_math=False)
        axes.tick_params(labelsize=7)
        axes.grid(color="0.9")
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel("recall", fontsize=9, y=0.1 / height)
    figure.supylabel("precision", fontsize=9, x=0.1 / width)
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower right", ncols=len(names), fontsize=8, frameon=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]
