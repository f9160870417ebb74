"""Scores that compare: a detector's margins become the log-odds that its window shows an object, a template at a time.

A linear SVM's margin says which of its own windows is likelier an object's, not how likely: a template of a class that
is hard to tell from the background gives as high margins as a good one. Platt's sigmoid, fitted on pictures, makes
them probabilities. It is linear in the margin, so it goes into the template's weights and constant.

Letters: n windows, m judged ones, T templates.

Source: Platt 1999, Probabilistic Outputs for Support Vector Machines; a sigmoid for each of many linear SVMs, so that
they compare: Malisiewicz, Gupta and Efros 2011, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize

from tfcnn.datasets import Record
from tfcnn.detection import pyramid as levels_of

RIGHT_IOU = 0.5  # with an object of the class, from which a window shows it
MOST = 30  # windows of a template in a picture that are judged
FEWEST_RIGHT = 5  # with less, a template takes the sigmoid of its class, or of all
FLATTEST = 0.5  # least slope: a higher margin never means less


def judged(
    boxes: np.ndarray,
    margins: np.ndarray,
    owners: np.ndarray,
    labels: np.ndarray,
    record: Record,
    objects: np.ndarray,
) -> np.ndarray:
    """Whether the best windows of each template in a picture show an object of its class.

    Args:
        boxes: float [n, 4], pixels of the picture.
        margins: float [n].
        owners: int [n], the template of each.
        labels: int [n], its class.
        record: the picture's annotation; what lies on a difficult object or a crowd is left out.
        objects: float [M, 4], its boxes in pixels of the picture.

    Returns:
        float64 [m, 3]: template, margin, and 1 for a window that shows an object, else 0.
    """
    kept = levels_of.best_indices(margins, owners, 5 * MOST)
    kept = kept[levels_of.suppressed(boxes[kept], margins[kept], owners[kept], 0.3, len(kept))]
    kept = kept[levels_of.best_indices(margins[kept], owners[kept], MOST)]
    on = levels_of.overlaps(boxes[kept], objects) >= RIGHT_IOU
    on &= labels[kept][:, None] == record.labels
    right, unclear = on.any(axis=1), (on & (record.difficult | record.crowd)).any(axis=1)
    for label in np.unique(labels[kept]):
        own = labels[kept] == label
        unclear[own] |= ~right[own] & levels_of.ignored(boxes[kept[own]], objects, record, label)
    return np.stack([owners[kept], margins[kept], right], axis=1).astype(float)[~unclear]


def platt(margins: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """The sigmoid 1 / (1 + exp(-(a margin + b))) of the greatest likelihood, with Platt's targets.

    Args:
        margins: float [n].
        right: bool [n].

    Returns:
        (a, b), a at least FLATTEST.
    """
    count = right.sum()
    targets = np.where(right, (count + 1) / (count + 2), 1 / (len(right) - count + 2))

    def objective(sigmoid):
        odds = sigmoid[0] * margins + sigmoid[1]
        slope = 1 / (1 + np.exp(-np.clip(odds, -50, 50))) - targets
        return np.sum(np.logaddexp(0, odds) - targets * odds), np.array([slope @ margins, slope.sum()])

    limits = [(FLATTEST, None), (None, None)]
    found = optimize.minimize(objective, [2.0, 0.0], jac=True, method="L-BFGS-B", bounds=limits)
    return float(found.x[0]), float(found.x[1])


def sigmoids(rows: np.ndarray, labels: Sequence[int]) -> list[tuple[float, float]]:
    """The sigmoid of each template as factor and constant of its margin, in the units of `pyramid.score_of`.

    Args:
        rows: float [m, 3], of `judged`, of all pictures.
        labels: int [T], the templates' classes.

    Returns:
        (factor, constant) T times: with margin' = factor margin + constant, `score_of(margin')` is a probability.
        (1, 0) where too few windows show an object to fit even one sigmoid for all.
    """
    owners, right = rows[:, 0].astype(int), rows[:, 2] > 0
    of_class = np.asarray(labels, int)[owners]
    found = []
    for template, label in enumerate(labels):
        choices = (owners == template, of_class == label, np.ones(len(rows), bool))
        enough = [own for own in choices if right[own].sum() >= FEWEST_RIGHT]
        if not enough:
            found.append((1.0, 0.0))
            continue
        a, b = platt(rows[enough[0], 1], right[enough[0]])
        found.append((a / levels_of.SLOPE, b / levels_of.SLOPE))
    return found
