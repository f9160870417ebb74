"""Training of deformable part models: roots as HOG windows, then parts, by a latent SVM.

Where the root and the parts of an object are is not in the data. So each round (1) finds the best placement that
overlaps each object well, with the model as it is; (2) searches pictures for the best placements where no object is;
(3) fits all parameters of a component, filters, springs and bias, as one linear SVM on these placements, and whenever
its memory of negatives is full. At the end boxes are predicted from the parts' locations, and margins calibrated.

Source: Felzenszwalb et al. 2010, sections 4 and 5.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np

from tfcnn.datasets import Dataset, Record
from tfcnn.detection import calibration, hog_objects
from tfcnn.detection import hog_svm_training as windows_of
from tfcnn.detection import pyramid as levels_of
from tfcnn.detection.dpm_mixtures import (
    DpmConfig,
    Mixture,
    cut_out,
    example_at,
    fit,
    mixtures_of,
    place_objects,
    predict_boxes,
    update,
)
from tfcnn.detection.dpm_net import Dpm, dpm_net
from tfcnn.detection.rounds import NOWHERE, Checkpoints, Keeping, Negatives, by_place, over_rounds

LEARNED = ("root", "parts", "anchors", "deformation")  # of a component, beside its bias


def train_dpm(
    training: Dataset,
    config: DpmConfig,
    say: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[int, str], None] = lambda done, what: None,
    keeping: Keeping = NOWHERE,
) -> keras.Model:
    """Trains mixtures of deformable part models of all classes of a data set.

    Args:
        training: pictures with boxes; difficult ones and crowds are neither objects nor background.
        config: the settings.
        say: is told in a sentence what was found.
        progress: called with the pictures done since the last call and what is done, of `steps_of`.
        keeping: of checkpoints, from which the same call goes on to the same weights.

    Returns:
        A model of `tfcnn.detection.dpm_net.dpm_net`.

    Raises:
        InputError: a class has no objects that can be learned from, a picture cannot be read, or another training
            lies in the folder of checkpoints.
        Interrupted: a signal or `keeping.stop` ended it; a checkpoint lies there.
    """
    kept = Checkpoints(keeping.inside("parts"), "dpm", config, training)
    roots = windows_of.train_hog_svm(training, config.of_roots(), say, progress, keeping.inside("roots"))
    mixtures = mixtures_of(roots, training, config)
    both = [each for own in mixtures for each in (own.component, own.component.mirrored())]
    model = dpm_net(
        both,
        len(training.classes),
        cell=config.cell,
        radius=config.radius,
        largest=config.largest,
        per_octave=config.per_octave,
        score_threshold=config.least_score,
    )
    learner = PartLearner(model, mixtures, config, progress)
    if kept.finished:
        learner.restore(kept.arrays)
        progress(steps_of(training, config), "before")
        return model
    say(f"{len(mixtures)} components and their mirror images, of {config.parts} parts each")
    cut_out(mixtures, config, keeping)
    order = hog_objects.in_turn(training, np.random.default_rng(config.seed))
    counts = picture_counts(training, config)

    def pictures(number):
        turn = number % (
            config.rounds + 1
        )  # calibrated by the first in turn: they show objects of all classes
        chosen = np.roll(order, -turn * config.pictures)[: counts[number - 1]]
        return [training.examples[i] for i in chosen]

    over_rounds(learner, range(1, config.rounds + 2), pictures, kept, say, progress)
    return model


def picture_counts(training: Dataset, config: DpmConfig) -> list[int]:
    """How many pictures each round looks at, from the first one on; in the last one scores are calibrated."""
    own = min(config.pictures, len(training.examples))
    return [*[own] * config.rounds, max(1, own // 2) if config.calibrated else 0]


def steps_of(training: Dataset, config: DpmConfig) -> int:
    """How many pictures and groups of objects `train_dpm` looks at, all rounds together."""
    groups = len(hog_objects.grouped(training, config.of_roots()))
    roots = windows_of.steps_of(training, config.of_roots())
    return roots + (config.rounds + 1) * groups + sum(picture_counts(training, config))


class PartLearner:
    """Mixtures as `tfcnn.detection.rounds.over_rounds` trains them.

    Args:
        model: of `dpm_net`; gets the weights.
        mixtures: of its components, in its order.
        config: the settings.
        progress: told of each group of objects.
    """

    def __init__(
        self,
        model: keras.Model,
        mixtures: Sequence[Mixture],
        config: DpmConfig,
        progress: Callable[[int, str], None],
    ):
        self.mixtures, self.config, self.method, self.progress = mixtures, config, Dpm([model]), progress
        self.judged = np.zeros([0, 3])
        self.placed = 0

    def begin(self, number: int, pause: Callable[[], None]) -> None:
        """Places root and parts on each object; before the last round, that of calibration, predicts boxes by them."""
        self.placed = 0
        for own in self.mixtures:
            pause()
            self.placed += place_objects(own)
            self.progress(1, "objects")
        if number > self.config.rounds:
            predict_boxes(self.method, self.mixtures)

    def look(self, record: Record, number: int, place: int) -> int:
        """Adds placements in a picture to the background; in the last round judges them."""
        config = self.config
        if number > config.rounds:
            image, objects = hog_objects.shown(record, config.image_size)
            places, boxes, margins, labels = self.method.above(self.method.on_pyramid(image), -1.5)
            owners = (self.method.first_component[places[:, 1]] + places[:, 4]) // 2
            rows = calibration.judged(boxes, margins, owners, labels, record, objects)
            self.judged = np.concatenate([self.judged, rows])
            return int(rows[:, 2].sum())
        count = mine(self.method, self.mixtures, record, config)
        full = [each for each in self.mixtures if len(each.negatives) >= config.negatives]
        for own in full:
            fit(own, config)
        if full:
            update(self.method, self.mixtures)
        return count

    def end(self, number: int, pictures: int, count: int) -> str:
        """Fits all components; in the last round calibrates them."""
        if number > self.config.rounds:
            found = calibration.sigmoids(self.judged, [each.component.label for each in self.mixtures])
            for own, (factor, constant) in zip(self.mixtures, found, strict=True):
                own.component = own.component.calibrated(factor, constant)
            update(self.method, self.mixtures)
            return f"scores calibrated by {count} of {len(self.judged)} placements that show an object"
        losses = [fit(own, self.config) for own in self.mixtures]
        update(self.method, self.mixtures)
        return (
            f"{self.placed} objects placed, {count} placements on the background of {pictures} pictures added, "
            f"mean loss {np.mean(losses):.3f}"
        )

    def state(self) -> dict[str, np.ndarray]:
        """Components, examples, the prediction of boxes and judgements; objects are read anew."""
        arrays = {"judged": self.judged, "box_weights": self.method.output.box_weights.numpy()}
        for i, own in enumerate(self.mixtures):
            component = own.component
            size = len(component.to_vector())
            arrays |= {f"{name}_{i}": getattr(component, name) for name in LEARNED}
            arrays |= {f"bias_{i}": np.array(component.bias)}
            arrays |= by_place(i, "positives", own.positives, np.float32, size)
            arrays |= by_place(i, "negatives", own.negatives, np.float16, size)
        return arrays

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes what `state` gave."""
        self.judged = arrays["judged"]
        self.method.output.box_weights.assign(arrays["box_weights"])
        for i, own in enumerate(self.mixtures):
            learned = {name: arrays[f"{name}_{i}"] for name in LEARNED}
            own.component = dataclasses.replace(own.component, bias=float(arrays[f"bias_{i}"]), **learned)
            own.positives = list(arrays[f"positives_{i}"])
            own.negatives = Negatives(arrays[f"negatives_{i}"])
        update(self.method, self.mixtures)


def mine(method: Dpm, mixtures: Sequence[Mixture], record: Record, config: DpmConfig, most: int = 6) -> int:
    """Adds a picture's hardest placements of each component to its mixture's negatives.

    Args:
        method: the model as it is now.
        mixtures: grow.
        record: the picture.
        config: the settings.
        most: placements of a component; those that are known with the same parts do not count.

    Returns:
        How many were added.
    """
    image, objects = hog_objects.shown(record, config.image_size)
    levels = method.on_pyramid(image)
    places, boxes, margins, labels = method.above(levels, -1.0)
    numbers = method.first_component[places[:, 1]] + places[:, 4]
    chosen = levels_of.best_indices(margins, numbers, 10 * most)
    overlap = levels_of.overlaps(boxes[chosen], objects)
    blocked = (overlap * (labels[chosen][:, None] == record.labels)).max(axis=1, initial=0)
    free = blocked < windows_of.NEGATIVE_IOU
    for label in np.unique(labels[chosen]):
        own = labels[chosen] == label
        free[own] &= ~levels_of.ignored(boxes[chosen[own]], objects, record, label)
    chosen = chosen[free]
    chosen = chosen[levels_of.suppressed(boxes[chosen], margins[chosen], numbers[chosen], 0.5, len(chosen))]
    chosen = chosen[levels_of.best_indices(margins[chosen], numbers[chosen], len(chosen))]
    added: collections.Counter = collections.Counter()
    for index in chosen:
        number = numbers[index]
        if added[number] < most:
            negatives = mixtures[number // 2].negatives
            added[number] += negatives.add(example_at(method, levels, places[index]))
    return added.total()
