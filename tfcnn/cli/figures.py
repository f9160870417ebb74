"""The table of figures that `evaluate` prints."""

from __future__ import annotations

import math
from collections.abc import Sequence

SEGM_SHOWN = ("AP", "AP50", "AP75")  # of the twelve figures of masks


def table(
    answers: Sequence[dict], names: Sequence[str], errors: Sequence[dict | None]
) -> tuple[list[str], list[list[str]]]:
    """The means, the errors, and the classes that do worst, in percent: a column a results file.

    Args:
        answers: {rule: figures} of each file.
        names: of the files.
        errors: the kinds of errors of each file; empty where there are none.

    Returns:
        Columns and at most about 20 rows.
    """
    rows = []
    sides = [
        {k: v for rule, figures in reversed(answer.items()) if rule != "segm" for k, v in figures.items()}
        for answer in answers
    ]  # of two rules the first one's classes
    shown = [name for name, value in sides[0].items() if isinstance(value, float) and name != "iou_threshold"]
    rows += [[name, *(percent(side[name]) for side in sides)] for name in shown]
    if any("segm" in answer for answer in answers):
        masks = [answer.get("segm", {}) for answer in answers]
        rows += [
            [f"{name} of masks", *(percent(side.get(name, math.nan)) for side in masks)]
            for name in SEGM_SHOWN
        ]
    if errors:
        rows += [[f"top N: {kind}", *(percent(side[kind]) for side in errors)] for kind in errors[0]]
    per_class = [side.get("per_class") or side.get("per_joint") or {} for side in sides]
    key = next(
        (k for k in ("ap_area", "AP", "ap", "pdj_02") if any(k in v for v in per_class[0].values())), None
    )
    if key:
        known = [name for name, value in per_class[0].items() if not math.isnan(value[key])]
        worst = sorted(known, key=lambda name: per_class[0][name][key])[: max(0, 20 - len(rows))]
        rows += [[f"{key} {name}", *(percent(side[name][key]) for side in per_class)] for name in worst]
    return ["percent", *names], rows


def percent(value: float) -> str:
    """A share as a person reads it; "-" for none."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def some(names: Sequence[str]) -> str:
    """The first five of a list, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
