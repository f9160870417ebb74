"""Training of HOG windows: warped objects against windows of the background, then rounds of hard negatives.

Each round runs the templates of all classes over some pictures at once, keeps the windows that score best where no
object of their class is, and fits each linear SVM anew, at the round's end and whenever its memory of negatives is
full; negatives that have become easy are then forgotten. At the end a box is regressed from the windows near objects,
and each template's margins are calibrated.

Letters: n examples, kh kw a template's sides in cells, D features of a cell.

Source: Dalal & Triggs 2005, section 4 (hard negatives); Felzenszwalb et al. 2010, section 4.4 (a memory of negatives
that forgets easy ones only); Girshick et al. 2014, 2.3 (what is a negative).
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence

import keras
import numpy as np

from tfcnn.datasets import Dataset, Record
from tfcnn.detection import calibration
from tfcnn.detection import pyramid as levels_of
from tfcnn.detection.hog_objects import HogSvmConfig, grouped, in_turn, shown
from tfcnn.detection.hog_svm import HogSvm, hog_svm, mirrored_deltas
from tfcnn.detection.hog_templates import Template, fit, layer_name, positives_of, regress
from tfcnn.detection.rounds import NOWHERE, Checkpoints, Keeping, Negatives, by_place, over_rounds
from tfcnn.ops import hog

REGRESSED_IOU = 0.5  # from which a window takes part in box regression
NEGATIVE_IOU = 0.3  # with an object of the class, below which a window is background
KIND = "hog_svm 2"  # of checkpoints; in the first, a mirror image had a regression of its own


def train_hog_svm(
    training: Dataset,
    config: HogSvmConfig,
    say: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[int, str], None] = lambda done, what: None,
    keeping: Keeping = NOWHERE,
) -> keras.Model:
    """Trains templates of all classes of a data set.

    Args:
        training: pictures with boxes; difficult ones and crowds are neither objects nor background.
        config: the settings.
        say: is told in a sentence what was found.
        progress: called with the pictures done since the last call and what is done, of `steps_of`.
        keeping: of checkpoints, from which the same call goes on to the same weights.

    Returns:
        A model of `tfcnn.detection.hog_svm.hog_svm`.

    Raises:
        InputError: a class has no objects that can be learned from, a picture cannot be read, or another training
            lies in the folder of checkpoints.
        Interrupted: a signal or `keeping.stop` ended it; a checkpoint lies there.
    """
    kept = Checkpoints(keeping, KIND, config, training)
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
        mirrored=config.mirrored,
        largest=config.largest,
        per_octave=config.per_octave,
        score_threshold=config.least_score,
    )
    learner = WindowLearner(model, config)
    if kept.finished:
        learner.restore(kept.arrays)
        progress(steps_of(training, config), "before")
        return model
    learner.templates = positives_of(training, groups, shapes, config, progress, keeping)
    say(
        f"{len(learner.templates)} templates of {len(training.classes)} classes, "
        f"{sum(len(each.positives) for each in learner.templates)} examples of objects"
    )
    pictures = in_rounds(training, config)
    over_rounds(learner, range(config.rounds + 2), pictures, kept, say, progress)
    return model


def in_rounds(training: Dataset, config: HogSvmConfig) -> Callable[[int], list[Record]]:
    """The pictures of each round: a quarter as many in the first, at random places; in the last, to calibrate, half.

    These are the first in turn again: later ones may show no object of a rare class.
    """
    order = in_turn(training, np.random.default_rng(config.seed))

    def pictures(number):
        count, turn = picture_counts(training, config)[number], number % (config.rounds + 1)
        return [training.examples[i] for i in np.roll(order, -turn * config.pictures)[:count]]

    return pictures


def picture_counts(training: Dataset, config: HogSvmConfig) -> list[int]:
    """How many pictures each round looks at."""
    own = min(config.pictures, len(training.examples))
    first, last = min(own, max(1, config.pictures // 4)), max(1, own // 2) if config.calibrated else 0
    return [first, *[own] * config.rounds, last]


def steps_of(training: Dataset, config: HogSvmConfig) -> int:
    """How many pictures `train_hog_svm` looks at, all rounds together."""
    with_objects = sum(bool(len(record.boxes)) for record in training.examples)
    return with_objects + sum(picture_counts(training, config))


class WindowLearner:
    """Templates as `tfcnn.detection.rounds.over_rounds` trains them.

    Args:
        model: of `hog_svm`; gets the weights.
        config: the settings.

    Attributes:
        templates: to be set before the first round.
    """

    def __init__(self, model: keras.Model, config: HogSvmConfig):
        self.model, self.config, self.method = model, config, HogSvm([model])
        self.templates: list[Template] = []
        self.judged = np.zeros([0, 3])

    def begin(self, number: int, pause: Callable[[], None]) -> None:
        """Before the last round, that of calibration, boxes are regressed."""
        pause()
        if number > self.config.rounds:
            regress(self.model, self.templates, self.config)

    def look(self, record: Record, number: int, place: int) -> int:
        """Adds windows of a picture to the background; in the last round judges them."""
        config = self.config
        if number > config.rounds:
            image, objects = shown(record, config.image_size)
            places, boxes, margins, labels = self.method.above(self.method.on_pyramid(image), -1.5)
            of_map = {
                (each.shape, column): i
                for i, each in enumerate(self.templates)
                for column in each.columns(config)
            }
            owners = np.array([of_map[shape, column] for shape, column in places[:, [1, 4]].tolist()], int)
            rows = calibration.judged(boxes, margins, owners, labels, record, objects)
            self.judged = np.concatenate([self.judged, rows])
            return int(rows[:, 2].sum())
        rng = np.random.default_rng([config.seed, place]) if number == 0 else None
        count = mine(self.method, self.templates, record, config, rng)
        full = [each for each in self.templates if len(each.negatives) >= config.negatives]
        if full:
            fit(self.model, full, config)
        return count

    def end(self, number: int, pictures: int, count: int) -> str:
        """Fits all templates; in the last round calibrates them."""
        if number > self.config.rounds:
            self.calibrate()
            return f"scores calibrated by {count} of {len(self.judged)} windows that show an object"
        fit(self.model, self.templates, self.config)
        return f"{count} windows of {pictures} pictures added to the background"

    def calibrate(self) -> None:
        """Makes the logistic function of twice a margin the probability that its window shows an object."""
        found = calibration.sigmoids(self.judged, [each.label for each in self.templates])
        for template, (factor, constant) in zip(self.templates, found, strict=True):
            layer = self.model.get_layer(layer_name(self.method.output, template))
            kernel, bias = layer.get_weights()
            for column in template.columns(self.config):
                kernel[..., column] *= factor
                bias[column] = factor * bias[column] + constant
            layer.set_weights([kernel, bias])

    def state(self) -> dict[str, np.ndarray]:
        """Weights, negatives, windows near objects and judgements; objects are read anew."""
        arrays = {f"weight_{i}": each for i, each in enumerate(self.model.get_weights())}
        sizes = [each.positives.shape[1] for each in self.templates]
        for i, (each, size) in enumerate(zip(self.templates, sizes, strict=True)):
            arrays |= by_place(i, "negatives", each.negatives, np.float16, size)
            arrays |= by_place(i, "near", [own for own, _ in each.pairs], np.float16, size)
            arrays |= by_place(i, "deltas", [own for _, own in each.pairs], np.float64, 4)
        return arrays | {"judged": self.judged}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes what `state` gave."""
        count = len(self.model.get_weights())
        self.model.set_weights([arrays[f"weight_{i}"] for i in range(count)])
        for i, each in enumerate(self.templates):
            each.negatives = Negatives(arrays[f"negatives_{i}"])
            each.pairs = list(zip(arrays[f"near_{i}"], arrays[f"deltas_{i}"], strict=True))
        self.judged = arrays["judged"]


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
        most: windows of a template; those that are known do not count.

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
            taken = (iou[:, of_class] >= NEGATIVE_IOU).any(axis=1)
            free = np.flatnonzero(~(taken | levels_of.ignored(windows, boxes, record, template.label)))
            for column in template.columns(config):
                owners[column] = template
                if rng is None:
                    hard = free[margins[free, column] > -1]
                    hard = hard[np.argsort(-margins[hard, column])[: 8 * most]]
                    near = np.flatnonzero(of_class & ~record.difficult & ~record.crowd)
                    scores, mirror = margins[:, column], column > template.column
                    _near(
                        template, levels, output, windows, places, scores, iou[:, near], boxes[near], mirror
                    )
                else:
                    hard = rng.choice(free, min(most, len(free)), replace=False)
                chosen.append(np.stack([hard, np.full_like(hard, column)], axis=1))
        window, column = np.concatenate(chosen).T
        kept = levels_of.suppressed(windows[window], margins[window, column], column, 0.5, len(window))
        kept = kept[levels_of.best_indices(margins[window[kept], column[kept]], column[kept], len(kept))]
        new: collections.Counter = collections.Counter()
        for i, number in zip(window[kept], column[kept], strict=True):
            if new[number] < most:
                template = owners[number]
                features = _features(levels, output, shape, places[i], number > template.column)
                new[number] += template.negatives.add(features)
        added += new.total()
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
                deltas = mirrored_deltas(deltas)
            features = _features(levels, output, template.shape, places[i], mirror)
            template.pairs.append((np.float16(features).ravel(), deltas))
