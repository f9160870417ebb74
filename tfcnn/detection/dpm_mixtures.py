"""Mixtures of deformable parts in training: where root and parts lie on each object, the latent SVM, the box.

Letters: n examples, L parameters of a component, P its parts.

Source: Felzenszwalb et al. 2010, sections 4 and 5; box prediction 7.2. A component and its mirror image share their
parameters; examples of the mirror image are mirrored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
from scipy import optimize

from tfcnn.datasets import Dataset
from tfcnn.detection import hog_objects
from tfcnn.detection import pyramid as levels_of
from tfcnn.detection.dpm import Component, example_vector, mirrored_example, with_parts
from tfcnn.detection.dpm_net import FIRST_MAP, Dpm, dpm_net, inputs_of_box, set_components
from tfcnn.detection.hog_objects import HogSvmConfig
from tfcnn.detection.hog_templates import weight_of
from tfcnn.detection.rounds import Keeping, Negatives, hard_indices, pausing

LATENT_IOU = 0.6  # of a root with its object (the paper: 0.7, with roots of any size)
NEIGHBOURS = (2**-0.25, 1.0, 2**0.25)  # sizes at which an object is searched, times that of equal areas


@dataclasses.dataclass(frozen=True)
class DpmConfig:
    """Settings of `train_dpm`.

    Attributes:
        area: cells of a root, about.
        aspects: components of a class, before mirroring.
        parts: P.
        side: of a part, cells of the fine map.
        radius: most cells of the fine map that a part moves along an axis.
        cell, largest, per_octave: of `tfcnn.detection.dpm_net.dpm_net`.
        image_size: longer side of a picture, pixels.
        objects: that a component learns from, at most.
        root_rounds: of hard negatives for the roots alone.
        rounds: of latent placements and hard negatives.
        pictures: mined in each round.
        negatives: placements of a component that are kept, at most.
        c: of the SVM.
        positive_weight: of an object's loss, where a component has `objects`; fewer weigh as much together.
        calibrated: make scores probabilities at the end, by half as many pictures as a round has.
        least_score: least score of the model's detections.
        seed: of the choice of pictures.
    """

    area: int = 40
    aspects: int = 2
    parts: int = 8
    side: int = 6
    radius: int = 4
    cell: int = 8
    largest: float = 1.25
    per_octave: int = 4
    image_size: int = 320
    objects: int = 250
    root_rounds: int = 1
    rounds: int = 3
    pictures: int = 200
    negatives: int = 1500
    c: float = 0.01
    positive_weight: float = 2.0
    calibrated: bool = True
    least_score: float = 0.005
    seed: int = 0

    def of_roots(self) -> HogSvmConfig:
        """The settings by which the roots are trained first."""
        names = (
            "area",
            "aspects",
            "cell",
            "largest",
            "per_octave",
            "image_size",
            "objects",
            "pictures",
            "c",
            "seed",
        )
        return HogSvmConfig(
            margin=0,
            rounds=self.root_rounds,
            calibrated=False,
            **{name: getattr(self, name) for name in names},
        )


@dataclasses.dataclass(eq=False)
class Mixture:
    """A component in training, with its mirror image.

    Attributes:
        component: as it is now.
        objects: (record, box float32 [4] in the annotation's pixels).
        method: a net of this component and its mirror image alone.
        crops: float16 [3 n, H, W, 3], the surroundings of the objects at three sizes each.
        boxes: float64 [3 n, 4], the objects there, pixels.
        positives: float32 [n, L].
        negatives: float16 [n, L], none twice.
        placements: (inputs [2 P + 1], deltas [4]) of objects, for box prediction.
    """

    component: Component
    objects: list
    method: Dpm
    crops: np.ndarray | None = None
    boxes: np.ndarray | None = None
    positives: list[np.ndarray] = dataclasses.field(default_factory=list)
    negatives: Negatives = dataclasses.field(default_factory=Negatives)
    placements: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)


def mixtures_of(roots: keras.Model, training: Dataset, config: DpmConfig) -> list[Mixture]:
    """The components, shape after shape, with roots from a model of HOG windows and parts cut out of these."""
    groups = hog_objects.grouped(training, config.of_roots())
    shapes = roots.layers[-1].shapes
    mixtures = []
    for shape in shapes:
        kernel, bias = roots.get_layer("templates_{}x{}".format(*shape)).get_weights()
        own = [(label, objects) for kind, label, objects in groups if kind == tuple(shape)]
        for column, (label, objects) in enumerate(own):
            root = kernel[..., 2 * column]
            component = with_parts(label, root, bias[2 * column], config.parts, config.side)
            alone = dataclasses.replace(component, label=0)
            net = dpm_net([alone, alone.mirrored()], 1, cell=config.cell, radius=config.radius)
            mixtures.append(Mixture(component, objects, Dpm([net])))
    return mixtures


def cut_out(mixtures: Sequence[Mixture], config: DpmConfig, keeping: Keeping) -> None:
    """Cuts out the surroundings of each object, at sizes where the root's shape covers about as much as the object."""
    pictures: dict[int, tuple] = {}
    for mixture in mixtures:
        pausing(keeping.stop)
        kh, kw = mixture.component.shape
        height, width = (kh + 4) * config.cell, (kw + 4) * config.cell
        crops, boxes = [], []
        for record, box in mixture.objects:
            if id(record) not in pictures:
                image = record.image()
                pictures[id(record)] = image, record.placement(image.shape)
            image, placement = pictures[id(record)]
            x1, y1, x2, y2 = placement.from_file(box[None])[0]
            middle = np.array([x1 + x2, y1 + y2]) / 2
            for factor in NEIGHBOURS:
                scale = factor * np.sqrt(kh * kw * config.cell**2 / ((x2 - x1) * (y2 - y1)))
                half = np.array([width, height]) / 2 / scale
                around = np.rint(np.concatenate([middle - half, middle + half]))
                crops.append(levels_of.cut(image, around, height, width))
                scales = np.tile([width, height] / (around[2:] - around[:2]), 2)
                boxes.append((np.array([x1, y1, x2, y2]) - np.tile(around[:2], 2)) * scales)
        mixture.crops, mixture.boxes = np.float16(crops), np.array(boxes)


def place_objects(mixture: Mixture, batch: int = 24) -> int:
    """Finds the best placement on each object of a mixture, the mirror image's included.

    Args:
        mixture: gets new positives and placements.
        batch: crops at once, a multiple of 3.

    Returns:
        How many objects have a placement that overlaps them by LATENT_IOU.
    """
    method, output = mixture.method, mixture.method.output
    mixture.positives, mixture.placements = [], []
    for start in range(0, len(mixture.crops), batch):
        images = mixture.crops[start : start + batch].astype(np.float32)
        maps = [each.numpy() for each in method.model(images, training=False)]
        scores = maps[FIRST_MAP]  # [batch, h, w, 2]
        _, h, w, _ = scores.shape
        rows, columns = np.divmod(np.arange(h * w), w)
        roots = output.windows(0, rows, columns, 1.0)
        for one in range(0, len(images), len(NEIGHBOURS)):
            crops = range(one, one + len(NEIGHBOURS))
            overlap = [levels_of.overlaps(roots, mixture.boxes[[start + i]])[:, 0] for i in crops]
            allowed = (np.stack(overlap) >= LATENT_IOU).reshape(-1, h, w, 1)
            own = np.where(allowed, scores[one : one + len(NEIGHBOURS)], -np.inf)
            size, row, column, side = np.unravel_index(np.argmax(own), own.shape)
            if not np.isfinite(own[size, row, column, side]):
                continue
            i = one + size
            level = [levels_of.Level(1.0, [each[i] for each in maps])]
            place = np.array([0, 0, row, column, side])
            mixture.positives.append(example_at(method, level, place))
            root = output.windows(0, np.array([row]), np.array([column]), 1.0)[0]
            parts, _ = method.parts_at(level, place)
            box = mixture.boxes[start + i]
            if side:  # everything as the mirror image sees it
                root, box, parts = (_mirrored_boxes(each) for each in (root, box, parts))
            deltas = (box - root) / np.tile(root[2:] - root[:2], 2)
            mixture.placements.append((inputs_of_box(root, parts), deltas))
    return len(mixture.positives)


def _mirrored_boxes(boxes):
    return boxes[..., [2, 1, 0, 3]] * [-1, 1, -1, 1]


def example_at(method: Dpm, levels: Sequence[levels_of.Level], place: np.ndarray) -> np.ndarray:
    """The example vector of a placement, as the unmirrored component has it."""
    level, _, row, column, _ = place
    component = method.components[method.number(place)]
    coarse, fine = levels[level].maps[:2]
    _, moves = method.parts_at(levels, place)
    vector = example_vector(component, coarse, fine, row, column, moves)
    return mirrored_example(component, vector) if method.number(place) % 2 else vector


def fit(mixture: Mixture, config: DpmConfig) -> float:
    """Fits a component to its examples, and drops negatives that have become easy.

    Half the squared norm and C times the squared hinge loss are minimised by L-BFGS, with a_x and a_y bounded below.

    Returns:
        The mean hinge loss of the examples after.
    """
    if not mixture.positives:
        return 0.0
    positives = np.float32(mixture.positives).reshape(len(mixture.positives), -1)
    negatives = np.array(mixture.negatives, np.float32).reshape(len(mixture.negatives), positives.shape[1])
    examples = np.concatenate([positives, negatives])
    signs = np.where(np.arange(len(examples)) < len(positives), 1, -1).astype(np.float32)
    costs = np.where(signs > 0, weight_of(config, len(positives)), 1.0).astype(np.float32) * config.c

    def objective(vector):
        weights = vector.astype(np.float32)
        short = np.maximum(0, 1 - signs * (examples @ weights))
        slope = weights - 2 * ((costs * signs * short) @ examples)
        value = 0.5 * weights @ weights + costs @ short**2
        return float(value), slope.astype(np.float64)

    start = mixture.component.to_vector().astype(np.float64)
    low = mixture.component.bounds()
    found = optimize.minimize(
        objective,
        np.maximum(start, low),
        jac=True,
        method="L-BFGS-B",
        bounds=optimize.Bounds(low, np.inf),
        options={"maxiter": 100},
    )
    weights = found.x.astype(np.float32)
    mixture.component = mixture.component.from_vector(weights)
    hard = hard_indices(negatives @ weights, config.negatives)
    mixture.negatives = Negatives(mixture.negatives[i] for i in hard)
    return float(np.maximum(0, 1 - signs * (examples @ weights)).mean())


def update(method: Dpm, mixtures: Sequence[Mixture]) -> None:
    """Writes all components and their mirror images into the model and into the mixtures' own nets."""
    both = [each for own in mixtures for each in (own.component, own.component.mirrored())]
    for own, components in (
        (method, both),
        *((m.method, [m.component, m.component.mirrored()]) for m in mixtures),
    ):
        set_components(own.model, components)
        own.refresh()


def predict_boxes(method: Dpm, mixtures: Sequence[Mixture], ridge: float = 1.0) -> None:
    """Fits the linear prediction of an object's box from the locations of root and parts, a component each.

    Source: Felzenszwalb et al. 2010, section 7.2, by least squares; with `ridge`, since some have few examples.
    """
    variable = method.output.box_weights
    weights = np.zeros(variable.shape, np.float32)
    turn = np.array([-1, 1, -1, 1])
    for number, mixture in enumerate(mixtures):
        if len(mixture.placements) < hog_objects.FEWEST:
            continue
        inputs = np.stack([own for own, _ in mixture.placements])
        deltas = np.stack([own for _, own in mixture.placements])
        middle = inputs.mean(axis=0)
        centred = inputs - middle
        own = np.linalg.solve(
            centred.T @ centred + ridge * np.eye(len(middle)), centred.T @ (deltas - deltas.mean(axis=0))
        )
        own[-1] = deltas.mean(axis=0) - middle[:-1] @ own[:-1]
        weights[2 * number, : len(own) - 1], weights[2 * number, -1] = own[:-1], own[-1]
        flipped = np.ones(len(own))
        flipped[:-1:2] = -1  # across
        mirror = (own * flipped[:, None])[:, [2, 1, 0, 3]] * turn
        weights[2 * number + 1, : len(own) - 1], weights[2 * number + 1, -1] = mirror[:-1], mirror[-1]
    variable.assign(weights)
