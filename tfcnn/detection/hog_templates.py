"""Templates of HOG in training: the features of their objects, the linear SVM, the regression of the box.

Letters: n examples, kh kw a template's sides in cells, D features of a cell.

Source: Felzenszwalb et al. 2010, sections 4.4 and 5.2 (easy negatives are forgotten, warped positives, two facings);
Girshick et al. 2014, appendix C (box regression).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence

import keras
import numpy as np

from tfcnn.datasets import Dataset
from tfcnn.detection import pyramid as levels_of
from tfcnn.detection.hog_objects import FEWEST, HogSvmConfig, facing, surrounded
from tfcnn.detection.rounds import Keeping, Negatives, hard_indices, pausing
from tfcnn.ops import hog

RIDGE = 30.0  # of box regression


@dataclasses.dataclass(eq=False)
class Template:
    """A template in training.

    Attributes:
        label: its class.
        shape: index of its map.
        column: its location in the map; its mirror image, if there is one, has the next.
        positives: float32 [n, kh kw D].
        negatives: float16 [kh kw D] each, none twice.
        pairs: (features, deltas [4]) of windows near objects.
    """

    label: int
    shape: int
    column: int
    positives: np.ndarray
    negatives: Negatives = dataclasses.field(default_factory=Negatives)
    pairs: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)

    def columns(self, config: HogSvmConfig) -> range:
        """Its location in the map, and that of its mirror image."""
        return range(self.column, self.column + (2 if config.mirrored else 1))


def positives_of(
    training: Dataset,
    groups: Sequence[tuple[tuple[int, int], int, list]],
    shapes: Sequence[tuple[int, int]],
    config: HogSvmConfig,
    progress: Callable[[int, str], None],
    keeping: Keeping,
) -> list[Template]:
    """The templates with the features of their objects, each stretched to the template's shape."""
    wanted: dict[int, list] = {}
    for number, (_, _, objects) in enumerate(groups):
        for record, box in objects:
            wanted.setdefault(id(record), []).append((number, box))
    crops: list[list[np.ndarray]] = [[] for _ in groups]
    for record in training.examples:
        if id(record) in wanted:
            image = record.image()
            placement = record.placement(image.shape)
            for number, box in wanted[id(record)]:
                shape = groups[number][0]
                around = surrounded(placement.from_file(box[None])[0], shape, config.margin)
                size = [(side + 2) * config.cell for side in shape]
                crops[number].append(levels_of.cut(image, around, *size))
        if len(record.boxes):
            progress(1, "objects")
            pausing(keeping.stop)
    layer = levels_of.HogCells(config.features, config.cell, (-1, -1))
    templates, columns = [], dict.fromkeys(shapes, 0)
    for (shape, label, _), own in zip(groups, crops, strict=True):
        parts = [own[i : i + 64] for i in range(0, len(own), 64)]
        features = np.concatenate([layer(np.stack(part)).numpy() for part in parts])
        own.clear()
        features = facing(features) if config.mirrored else np.concatenate([features, hog.mirrored(features)])
        features = features.reshape(len(features), -1)
        templates.append(Template(label, shapes.index(shape), columns[shape], features))
        columns[shape] += 2 if config.mirrored else 1
    return templates


def fit(model: keras.Model, templates: Sequence[Template], config: HogSvmConfig) -> None:
    """Fits a linear SVM for each template, and writes it and its mirror image into the model."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    output = model.layers[-1]
    weights = [model.get_layer(f"templates_{h}x{w}").get_weights() for h, w in output.shapes]
    for template in templates:
        kernel, bias = weights[template.shape]
        negatives = np.array(template.negatives, np.float32)
        examples = np.concatenate([template.positives, negatives])
        truth = np.arange(len(examples)) < len(template.positives)
        svm = LinearSVC(
            C=config.c,
            loss="hinge",
            intercept_scaling=10,
            class_weight={True: weight_of(config, len(template.positives)), False: 1.0},
            max_iter=300,
            tol=1e-2,
            random_state=config.seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a hundredth is enough
            svm.fit(examples, truth)
        own = svm.coef_.reshape(kernel.shape[:3]).astype(np.float32)
        for column, side in enumerate(
            (own, hog.mirrored(own))[: 2 if config.mirrored else 1], template.column
        ):
            kernel[..., column], bias[column] = side, svm.intercept_[0]
        hard = hard_indices(negatives @ svm.coef_[0] + svm.intercept_[0], config.negatives)
        template.negatives = Negatives(template.negatives[i] for i in hard)
    for (h, w), own in zip(output.shapes, weights, strict=True):
        model.get_layer(f"templates_{h}x{w}").set_weights(own)


def weight_of(config: HogSvmConfig, count: int) -> float:
    """The weight of each of `count` positives, so that few weigh together as much as `config.objects` would.

    Each is held by at most C times its weight: else a rare class has hardly a word against thousands of negatives.

    Args:
        config: or that of deformable parts: says positive_weight and objects.
        count: at least 1.
    """
    return config.positive_weight * max(1.0, config.objects / count)


def regress(model: keras.Model, templates: Sequence[Template], config: HogSvmConfig) -> None:
    """Fits each template's ridge regression from a window's features to its object's box."""
    output = model.layers[-1]
    weights = [each.numpy() for each in output.box_weights]
    constants = [each.numpy() for each in output.box_constants]
    for template in templates:
        if len(template.pairs) < FEWEST:
            continue
        features = np.stack([own for own, _ in template.pairs]).astype(np.float32)
        deltas = np.stack([own for _, own in template.pairs])
        middle, target = features.mean(axis=0), deltas.mean(axis=0)
        centred = features - middle
        gram = centred @ centred.T + RIDGE * np.eye(len(centred), dtype=np.float32)
        own = centred.T @ np.linalg.solve(gram, deltas - target)  # as many unknowns as pairs, not as features
        row = template.column // len(template.columns(config))  # its mirror image has the same
        weights[template.shape][row] = own
        constants[template.shape][row] = target - middle @ own
    for variable, value in zip(output.box_weights + output.box_constants, weights + constants, strict=True):
        variable.assign(value)


def layer_name(output: keras.layers.Layer, template: Template) -> str:
    """The layer that has a template."""
    return "templates_{}x{}".format(*output.shapes[template.shape])
