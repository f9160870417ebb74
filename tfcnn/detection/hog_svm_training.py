"""Training of HOG windows: warped objects against windows of the background, then rounds of hard negatives.

Each round runs the templates of all classes over some pictures at once, keeps the windows that score best where no
object of their class is, and fits each linear SVM anew. At the end a box is regressed from the windows near objects.

Letters: n examples, kh kw a template's sides in cells, D features of a cell.

Source: Dalal & Triggs 2005, section 4 (hard negatives); Felzenszwalb et al. 2010, sections 4.3 and 5.2 (aspects, two
facings, warped positives); Girshick et al. 2014, 2.3 (what is a negative) and appendix C (box regression).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence

import keras
import numpy as np

from tfcnn.datasets import Dataset, Record
from tfcnn.detection import pyramid as levels_of
from tfcnn.detection.hog_objects import FEWEST, HogSvmConfig, facing, grouped, in_turn, shown, surrounded
from tfcnn.detection.hog_svm import HogSvm, hog_svm
from tfcnn.ops import hog

NEGATIVE_IOU = 0.3  # with an object of the class, below which a window is background
REGRESSED_IOU = 0.5  # from which a window takes part in box regression
RIDGE = 30.0  # of box regression


@dataclasses.dataclass(eq=False)
class Template:
    """A template in training.

    Attributes:
        label: its class.
        shape: index of its map.
        column: its place in the map; its mirror image, if there is one, has the next.
        positives: float32 [n, kh kw D].
        negatives: float16 [kh kw D] each, the newest first.
        pairs: (features, deltas [4]) of windows near objects.
    """

    label: int
    shape: int
    column: int
    positives: np.ndarray
    negatives: list[np.ndarray] = dataclasses.field(default_factory=list)
    pairs: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)


def train_hog_svm(
    training: Dataset,
    config: HogSvmConfig,
    say: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[int, str], None] = lambda done, what: None,
) -> keras.Model:
    """Trains templates of all classes of a data set.

    Args:
        training: pictures with boxes; difficult ones are neither objects nor background.
        config: the settings.
        say: is told in a sentence what was found.
        progress: called with the pictures done since the last call and what is done, of `steps_of`.

    Returns:
        A model of `tfcnn.detection.hog_svm.hog_svm`.

    Raises:
        InputError: a class has no objects that can be learned from, or a picture cannot be read.
    """
    rng = np.random.default_rng(config.seed)
    groups = grouped(training, config)
    shapes = list(dict.fromkeys(shape for shape, _, _ in groups))
    both = 2 if config.mirrored else 1
    labels = {
        shape: [label for own, label, _ in groups if own == shape for _ in range(both)] for shape in shapes
    }
    model = hog_svm(
        len(training.classes),
        labels,
        features=config.features,
        cell=config.cell,
        margin=config.margin,
        largest=config.largest,
        per_octave=config.per_octave,
    )
    method = HogSvm([model])
    templates = positives_of(training, groups, shapes, config, progress)
    say(
        f"{len(templates)} templates of {len(training.classes)} classes, "
        f"{sum(len(each.positives) for each in templates)} examples of objects"
    )
    order = in_turn(training, rng)
    for number in range(config.rounds + 1):
        chosen = [training.examples[i] for i in np.roll(order, -number * config.pictures)[: config.pictures]]
        if number == 0:
            chosen = chosen[: max(1, config.pictures // 4)]
        count = 0
        for record in chosen:
            count += mine(method, templates, record, config, rng if number == 0 else None)
            progress(1, f"round {number}")
        fit(model, templates, config)
        say(f"round {number}: {count} windows of {len(chosen)} pictures added to the background")
    regress(model, templates, config)
    return model


def steps_of(training: Dataset, config: HogSvmConfig) -> int:
    """How many pictures `train_hog_svm` looks at, all rounds together."""
    own = min(config.pictures, len(training.examples))
    with_objects = sum(bool(len(record.boxes)) for record in training.examples)
    return with_objects + min(own, max(1, config.pictures // 4)) + config.rounds * own


def positives_of(
    training: Dataset,
    groups: Sequence[tuple[tuple[int, int], int, list]],
    shapes: Sequence[tuple[int, int]],
    config: HogSvmConfig,
    progress: Callable[[int, str], None],
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


def mine(
    method: HogSvm,
    templates: Sequence[Template],
    record: Record,
    config: HogSvmConfig,
    rng: np.random.Generator | None = None,
    most: int = 10,
) -> int:
    """Adds a picture's hardest windows of each template to its negatives, and windows near objects to its pairs.

    Args:
        method: the templates as they are now.
        templates: grow.
        record: the picture.
        config: the settings.
        rng: chooses windows at random instead.
        most: windows of a template.

    Returns:
        How many windows were added.
    """
    image, boxes = shown(record, config.image_size)
    levels = method.on_pyramid(image)
    output, added = method.output, 0
    for shape in range(len(output.shapes)):
        margins, places, windows = _flat(levels, output, shape)
        iou = levels_of.overlaps(windows, boxes)
        own = [each for each in templates if each.shape == shape]
        chosen, owners = [], {}
        for template in own:
            of_class = record.labels == template.label
            free = np.flatnonzero(~(iou[:, of_class] >= NEGATIVE_IOU).any(axis=1))
            for column in range(template.column, template.column + (2 if config.mirrored else 1)):
                owners[column] = template
                if rng is None:
                    hard = free[margins[free, column] > -1]
                    hard = hard[np.argsort(-margins[hard, column])[: 8 * most]]
                    near = np.flatnonzero(of_class & ~record.difficult)
                    scores, mirror = margins[:, column], column > template.column
                    _near(
                        template, levels, output, windows, places, scores, iou[:, near], boxes[near], mirror
                    )
                else:
                    hard = rng.choice(free, min(most, len(free)), replace=False)
                chosen.append(np.stack([hard, np.full_like(hard, column)], axis=1))
        window, column = np.concatenate(chosen).T
        kept = levels_of.suppressed(windows[window], margins[window, column], column, 0.5, len(window))
        kept = kept[levels_of.best_indices(margins[window[kept], column[kept]], column[kept], most)]
        for i, number in zip(window[kept], column[kept], strict=True):
            template = owners[number]
            features = _features(levels, output, shape, places[i], number > template.column)
            template.negatives.insert(0, np.float16(features).ravel())
            del template.negatives[config.negatives :]
        added += len(kept)
    return added


def _flat(levels, output, shape):
    """Margins [n, T], places int [n, 3] (level, row, column) and windows [n, 4] of a map on all levels."""
    margins, places, windows = [], [], []
    for number, level in enumerate(levels):
        own = level.maps[1 + shape]
        rows, columns = np.divmod(np.arange(own.shape[0] * own.shape[1]), own.shape[1])
        margins.append(own.reshape(len(rows), -1))
        places.append(np.stack([np.full_like(rows, number), rows, columns], axis=1))
        windows.append(output.windows(shape, rows, columns, level.scale))
    return np.concatenate(margins), np.concatenate(places), np.concatenate(windows)


def _features(levels, output, shape, place, mirror):
    number, row, column = place
    features = output.window_features(levels[number].maps[0], shape, row, column)
    return hog.mirrored(features) if mirror else features


def _near(template, levels, output, windows, places, margins, iou, boxes, mirror, most=3):
    """Takes the windows near each object that score best, with the deltas to its box."""
    for own, box in zip(iou.T, boxes, strict=True):
        near = np.flatnonzero(own >= REGRESSED_IOU)
        for i in near[np.argsort(-margins[near])[:most]]:
            sides = np.tile(windows[i, 2:] - windows[i, :2], 2)
            deltas = (box - windows[i]) / sides
            if mirror:
                deltas = deltas[[2, 1, 0, 3]] * [-1, 1, -1, 1]
            features = _features(levels, output, template.shape, places[i], mirror)
            template.pairs.append((np.float16(features).ravel(), deltas))


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
            class_weight={True: config.positive_weight, False: 1.0},
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
        hard = negatives @ svm.coef_[0] + svm.intercept_[0] > -1.2
        template.negatives = [own for own, kept in zip(template.negatives, hard, strict=True) if kept]
    for (h, w), own in zip(output.shapes, weights, strict=True):
        model.get_layer(f"templates_{h}x{w}").set_weights(own)


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
        weights[template.shape][template.column] = own
        constants[template.shape][template.column] = target - middle @ own
        if config.mirrored:
            kernel = own.reshape(*model.get_layer(_name(output, template)).kernel.shape[:3], 4)
            side = np.stack([hog.mirrored(kernel[..., i]) for i in (2, 1, 0, 3)], axis=-1).reshape(own.shape)
            swap = np.array([-1, 1, -1, 1])
            weights[template.shape][template.column + 1] = side * swap
            constants[template.shape][template.column + 1] = (target - middle @ own)[[2, 1, 0, 3]] * swap
    for variable, value in zip(output.box_weights + output.box_constants, weights + constants, strict=True):
        variable.assign(value)


def _name(output, template):
    return "templates_{}x{}".format(*output.shapes[template.shape])
