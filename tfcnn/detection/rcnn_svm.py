"""R-CNN's fourth and fifth steps: a linear SVM a class with hard negatives, and the ridge regression of boxes.

R regions of a picture, K classes, D numbers of a region's code, B of its place, n rows.

Source: Girshick, Donahue, Darrell, Malik, "Rich feature hierarchies", 2014, sections 2.3 and appendix C; constants of
rcnn_train.m and rcnn_train_bbox_regressor.m.
"""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from tfcnn.detection.rcnn_features import Features, Picture, changed, overlaps, truths
from tfcnn.errors import InputError
from tfcnn.ops import coders

NORM = 20.0  # what the mean length of a code is scaled to
NEVER = -100.0  # bias of a class that was not trained


@dataclasses.dataclass(frozen=True)
class SvmConfig:
    """Settings of `train_svms` and `train_regressor`; the defaults are the authors'.

    Attributes:
        svm_c: C of liblinear's L2-regularised hinge loss.
        positive_weight: of the objects in it.
        bias: value of the feature whose weight is the bias.
        negative: a region with an IoU below this with every object of the class is a negative.
        hard: margin above which a negative joins; evict: below which it leaves.
        retrain: so many new negatives lead to another training.
        first: negatives of each picture that the first training takes.
        most: negatives that a class keeps; the hardest stay.
        box_overlap: a region is regressed to the object that it has at least this IoU with.
        ridge: weight of the regression's penalty.
    """

    svm_c: float = 0.001
    positive_weight: float = 2.0
    bias: float = 10.0
    negative: float = 0.3
    hard: float = -1.0001
    evict: float = -1.2
    retrain: int = 2000
    first: int = 10
    most: int = 8000
    box_overlap: float = 0.6
    ridge: float = 1000.0


def mean_norm(features: Iterable[Picture], name: str, pictures: int = 200, regions: int = 200) -> float:
    """Mean length of the first regions' numbers, of `name` "code" or "place"; 1 where there is none."""
    lengths = [np.zeros(0)]
    for number, picture in enumerate(features):
        if number == pictures:
            break
        lengths.append(np.linalg.norm(getattr(picture, name)[:regions].astype(np.float32), axis=1))
    lengths = np.concatenate(lengths)
    return float(lengths.mean()) if len(lengths) and lengths.mean() > 0 else 1.0


class _Class:
    """The examples of one class under way, and its SVM."""

    def __init__(self, config, seed):
        self.config, self.seed = config, seed
        self.positives: list[np.ndarray] = []
        self.negatives: list[np.ndarray] = []
        self.keys: list[np.ndarray] = []  # of each negative: number of the picture, and of the region in it
        self.new = 0
        self.weights, self.bias = None, 0.0

    def add(self, picture, regions, code):
        """Adds regions of a picture to the negatives; `code` is of all its regions."""
        self.negatives.append(code[regions])
        self.keys.append(np.stack([np.full_like(regions, picture), regions], axis=1))

    def fit(self):
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVC

        config = self.config
        self.positives = [np.concatenate(self.positives)]
        self.negatives, self.keys = [np.concatenate(self.negatives)], [np.concatenate(self.keys)]
        rows = np.concatenate(self.positives + self.negatives)
        labels = np.repeat([1, 0], [len(self.positives[0]), len(self.negatives[0])])
        svm = LinearSVC(
            C=config.svm_c,
            loss="hinge",
            dual=True,
            intercept_scaling=config.bias,
            class_weight={1: config.positive_weight},
            random_state=self.seed,
            max_iter=300,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            svm.fit(rows, labels)
        self.weights, self.bias = svm.coef_[0].astype(np.float32), float(svm.intercept_[0])
        margins = self.negatives[0] @ self.weights + self.bias
        kept = margins >= config.evict
        if kept.sum() > config.most:
            kept = np.argsort(-margins, kind="stable")[: config.most]
        self.negatives, self.keys, self.new = [self.negatives[0][kept]], [self.keys[0][kept]], 0


def train_svms(
    features: Features,
    classes: Sequence[str],
    config: SvmConfig | None = None,
    seed: int = 0,
    *,
    say: Callable[[str], None] = print,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """A linear SVM a class: its objects against the regions that overlap none of them, the hard ones of all pictures.

    Args:
        features: of the training pictures.
        classes: K names.
        config: the settings.
        seed: of liblinear and of the first negatives.
        say: told of a class without objects, and of the negatives that were found.
        progress: called with the number of pictures looked at since the last call; they are looked at twice.

    Returns:
        (weights float32 [D, K] and biases [K] on the code as it is stored; names of the classes without an object,
        whose margin is NEVER).
    """
    config = config or SvmConfig()
    scale, random = NORM / mean_norm(features, "code"), np.random.default_rng(seed)
    each = [_Class(config, seed) for _ in classes]
    for number, picture in enumerate(features):
        code = picture.code.astype(np.float32) * scale
        per_class, _, _ = overlaps(picture, len(classes))
        _, labels = truths(picture.record)
        for row, label in enumerate(labels[: picture.truths]):
            each[label].positives.append(code[row : row + 1])
        for label, own in enumerate(each):
            far = np.flatnonzero(per_class[:, label] < config.negative)
            own.add(number, random.permutation(far)[: config.first], code)
        progress(1)
    empty = [name for name, own in zip(classes, each, strict=True) if not own.positives]
    for name in empty:
        say(f"no object of {name} among the training pictures: it will never be found")
    trained = [(label, own) for label, own in enumerate(each) if own.positives]
    for _, own in trained:
        own.fit()
    for number, picture in enumerate(features):
        code = picture.code.astype(np.float32) * scale
        per_class, _, _ = overlaps(picture, len(classes))
        for label, own in trained:
            margins = code @ own.weights + own.bias
            hard = np.flatnonzero((margins > config.hard) & (per_class[:, label] < config.negative))
            known = own.keys[0]  # since the last fit no region of this picture was added
            hard = hard[~np.isin(hard, known[known[:, 0] == number, 1])]
            own.add(number, hard, code)
            own.new += len(hard)
            if own.new > config.retrain:
                own.fit()
        progress(1)
    weights = np.zeros((features.code, len(classes)), np.float32)
    biases = np.full(len(classes), NEVER, np.float32)
    for label, own in trained:
        own.fit()
        weights[:, label], biases[label] = own.weights * scale, own.bias
    kept = sum(len(own.negatives[0]) for _, own in trained)
    say(
        f"{len(trained)} SVMs on {sum(len(own.positives[0]) for _, own in trained):,} objects and {kept:,} negatives"
    )
    return weights, biases, empty


def svm_file(weights: np.ndarray, biases: np.ndarray, fingerprint: Mapping[str, str], svm_c: float) -> bytes:
    """The content of an .npz file of SVMs.

    Args:
        weights, biases: of `train_svms`.
        fingerprint: of the features that they were trained on.
        svm_c: with which they were trained.
    """
    buffer, known = io.BytesIO(), np.array(json.dumps(dict(fingerprint)))
    np.savez(buffer, weights=weights, biases=biases, fingerprint=known, svm_c=svm_c)
    return buffer.getvalue()


def read_svms(
    path: str | pathlib.Path, fingerprint: Mapping[str, str], svm_c: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The weights float32 [D, K] and biases [K] of a file that `svm_file` made.

    Args:
        path: of the file.
        fingerprint: of the features that the SVMs are to be of.
        svm_c: with which they are to be trained; None: any.

    Raises:
        InputError: it is not there, damaged, without a fingerprint, of other features, or of another C.
    """
    try:
        with np.load(path) as archive:
            arrays = dict(archive)
        weights, biases = arrays["weights"], arrays["biases"]
        known = json.loads(str(arrays.get("fingerprint", "null")))
        own_c = float(arrays["svm_c"]) if "svm_c" in arrays else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not there or damaged: run the svm step.") from error
    if not isinstance(known, dict):
        raise InputError(f"{path} does not tell which features it is of: run the svm step again.")
    if what := changed(known, fingerprint):
        raise InputError(f"The SVMs in {path} are of other {what}: run the svm step again.")
    if svm_c not in (None, own_c):
        raise InputError(
            f"The SVMs in {path} were trained with svm_c={own_c or 'unknown'}, not {svm_c}: run the svm step again."
        )
    return weights, biases


def train_regressor(
    features: Features,
    classes: int,
    config: SvmConfig | None = None,
    *,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression of each class's box deltas from the place.

    Args:
        features: of the training pictures.
        classes: K.
        config: the settings.
        progress: called with the number of pictures looked at since the last call.

    Returns:
        (weights float32 [B, 4 K], biases [4 K]) to deltas as `coders.decode` takes them; 0, so that boxes stay as they
        are, for a class without a region to learn from.

    Source: appendix C; as in the authors' program the targets are centred and whitened first, and the bias is
    penalised too.
    """
    config = config or SvmConfig()
    scale = NORM / mean_norm(features, "place")
    rows: list[list[np.ndarray]] = [[] for _ in range(classes)]
    targets: list[list[np.ndarray]] = [[] for _ in range(classes)]
    for picture in features:
        boxes, labels = truths(picture.record)
        if len(boxes):
            _, best, index = overlaps(picture, classes)
            near = np.flatnonzero(best >= config.box_overlap)
            near = near[near >= picture.truths]  # proposals, not the objects themselves
            deltas = coders.encode(boxes[index[near]], picture.regions[near]).numpy()
            for label in np.unique(labels[index[near]]):
                own = labels[index[near]] == label
                rows[label].append(picture.place[near[own]].astype(np.float32) * scale)
                targets[label].append(deltas[own])
        progress(1)
    weights = np.zeros((features.place, 4 * classes), np.float32)
    biases = np.zeros(4 * classes, np.float32)
    for label in range(classes):
        if rows[label]:
            columns = slice(4 * label, 4 * label + 4)
            own = ridge(np.concatenate(rows[label]), np.concatenate(targets[label]), config.ridge)
            weights[:, columns], biases[columns] = own[0] * scale, own[1]
    return weights, biases


def ridge(rows: np.ndarray, targets: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases of targets that are centred and whitened before they are regressed.

    Args:
        rows: float [n, B].
        targets: float [n, 4].
        penalty: lambda.

    Returns:
        (weights float64 [B, 4], biases [4]) to the targets themselves.
    """
    rows, targets = rows.astype(np.float64), targets.astype(np.float64)
    mean = targets.mean(axis=0)
    centred = targets - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    root = np.sqrt(np.maximum(values, 0) + 0.001)
    white, back = vectors / root @ vectors.T, vectors * root @ vectors.T
    rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    square = rows.T @ rows + penalty * np.eye(rows.shape[1])
    solved = np.linalg.solve(square, rows.T @ (centred @ white)) @ back
    return solved[:-1], solved[-1] + mean
