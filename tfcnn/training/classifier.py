"""Training a net that classifies pictures.

N pictures of a batch, K classes.
"""

import dataclasses
import pathlib
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping

import keras
import numpy as np
import tensorflow as tf

from tfcnn import draw
from tfcnn.datasets import augment, pipeline
from tfcnn.datasets.example import Dataset
from tfcnn.errors import InputError, unknown
from tfcnn.runtime import Stop
from tfcnn.training import freezing, last_layer, run
from tfcnn.training.config import ClassifierConfig, TrainingConfig
from tfcnn.training.team import check_alone

SHOWN = 32  # pictures on a sheet
# What `augment` names beside the presets of tfcnn.datasets: for small pictures, and for writing, which has no
# mirror image.
SMALL = {
    "shift": {"window": (0.85, 1.2), "aspect": 0.2, "rotation": 10.0, "fill": (0, 0, 0)},
    "shift_flip": {"window": (0.75, 1.1), "aspect": 0.1, "flip": 0.5},
}


def train_classifier(
    model: keras.Model,
    training: Dataset,
    validation: Dataset,
    config: ClassifierConfig,
    folder: str | pathlib.Path,
    *,
    endpoints: Mapping[str, str] | None = None,
    trainee: Callable[..., "Classifier"] | None = None,
    card: Mapping | None = None,
    flags: str | None = None,
    strategy: tf.distribute.Strategy | None = None,
    stop: Stop | None = None,
    progress: Callable[[int, dict], None] | None = None,
    show: Callable[[np.ndarray, str, str], None] = run.ignore,
    say: Callable[[str], None] = lambda sentence: print(sentence, file=sys.stderr),
) -> run.Trained:
    """Trains a classifier on pictures with a class each, and writes a release.

    Args:
        model: from pictures [N, H, W, 3] to a dict with `logits` [N, K], made in the strategy's scope; layers that
            start from trained weights learn at `config.backbone_rate` times the rate, but for the last.
        training, validation: data sets of the same K classes.
        config: the settings.
        folder: takes checkpoints, logs and the release; the same call goes on where it was killed.
        endpoints: {endpoint: name of its last layer}, names that `config.freeze` may use.
        trainee: makes the trainee in the place of `Classifier`, and takes what that takes.
        card, flags: as `training.run.release`.
        strategy, stop, progress, say: as `training.run.fit`.
        show: called with pictures of the run (uint8 [H, W, 3]), each with a file's name and a title.

    Returns:
        The model with the released weights, the figures, and where the release is.

    Raises:
        InputError: data, settings and net do not fit, or as `training.loop.train`.
    """
    training, validation = only_labels(training), only_labels(validation)
    data = run.summary(training, validation)
    if config.resize == "fit":
        raise InputError(
            "resize='fit' gives pictures of many shapes, and a classifier sees one: take another"
        )
    size = config.image_size or model.input_shape[1]
    batches, held_out = pictures(training, config, size), pictures(validation, config, size, once=True)
    run.check_data(folder, data, config)
    trained = run.trained_before(folder, data, config, model)
    multiplier = rates(model, config.backbone_rate, trained)
    _freeze(model, config, endpoints, trained)
    make = trainee or Classifier
    trainee, readers = (
        make(model, held_out, training.classes, config.label_smoothing),
        [batches, held_out],
    )
    check_alone(strategy, config.cache_features)
    if config.cache_features:
        told = {"stop": stop, "progress": progress, "say": say}
        head, source, batches, readers = last_layer.on_features(
            model, training, validation, config, size, **told
        )
        trainee = make(model, source, training.classes, config.label_smoothing, head)
    say(f"{freezing.described(model)}.")
    if len(training.classes) == 1:
        say(
            f"the data have one class only, {training.classes[0]}: every answer is right, and nothing is learned."
        )
    first = pictures(training, dataclasses.replace(config, batch_size=min(SHOWN, config.batch_size)), size)
    show(_first_batch(first, training.classes), "first_batch", "The first batch as it enters the net")
    told = {"strategy": strategy, "stop": stop, "progress": progress, "say": say}
    told |= {"data": data, "readers": readers}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using a softmax over axis")  # of one class, which was said
        result = run.fit(trainee, batches, config, folder, best=trainee.best, multiplier=multiplier, **told)
    for sheet in trainee.pictures():
        show(sheet, "answers", "What the released net answers to pictures of the validation split")
    path, card = run.release(
        model,
        folder,
        result,
        config,
        kind="classifier",
        training=training,
        validation=validation,
        card=card,
        flags=flags,
        image_size=size,
    )
    return run.Trained(model, result, path, card, run.unreadable(readers))


class Classifier:
    """A trainee for training.loop: softmax cross entropy, and the share of right answers.

    Args:
        model: from pictures [N, H, W, 3] to a dict with `logits` [N, K].
        validation: a call that gives batches of `image` and `label` (int32 [N], -1 is padding), once through.
        classes: their K names.
        smoothing: share of a label's weight that is spread over all classes.
        head: the last layers of `model` as a net of their own, from the features of `training.features`; then
            batches have `features` in the place of `image`.

    Source of the smoothing: Szegedy et al., Inception v3 (2016), section 7.
    """

    best = "top1"  # the figure whose highest value marks the best validation

    def __init__(
        self,
        model: keras.Model,
        validation: Callable[[], Iterable[Mapping]],
        classes: list[str],
        smoothing: float = 0.0,
        head: keras.Model | None = None,
    ):
        self.networks = {"classifier": model}
        self.validation, self.classes, self.smoothing = validation, classes, smoothing
        self.net, self.input = (model, "image") if head is None else (head, "features")
        self._answer = tf.function(lambda x: self.net(x, training=False)["logits"], reduce_retracing=True)

    def losses(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Gives the cross entropy, summed over the batch."""
        logits = self.net(batch[self.input], training=True)["logits"]
        return {"softmax": self.cross_entropy(logits, batch["label"])}

    def cross_entropy(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Gives the cross entropy of logits [N, K] with smoothed labels int32 [N], summed over the batch."""
        count = len(self.classes)
        target = tf.one_hot(labels, count) * (1 - self.smoothing) + self.smoothing / count
        return tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(target, logits))

    def validate(self) -> dict[str, float]:
        """Gives `top1` and, of more than ten classes, `top5`, as shares, and the mean cross entropy `loss`.

        A picture whose logits are not all finite is answered wrongly, and makes `loss` NaN.

        Raises:
            InputError: no picture of the validation split can be read.
        """
        ranks, losses = [], []
        for batch in self.validation():
            label = np.asarray(batch["label"])
            logits = self._answer(tf.convert_to_tensor(batch[self.input])).numpy()[label >= 0]
            label = label[label >= 0]
            ranks += rank(logits, label).tolist()
            own = np.take_along_axis(logits, label[:, None], 1)[:, 0]
            with np.errstate(invalid="ignore"):
                losses += (np.logaddexp.reduce(logits, axis=1) - own).tolist()
        if not ranks:
            raise InputError("No picture of the validation split can be read: nothing can be measured.")
        figures = {"top1": float(np.mean(np.array(ranks) < 1)), "loss": float(np.mean(losses))}
        if len(self.classes) > 10:
            figures["top5"] = float(np.mean(np.array(ranks) < 5))
        return figures

    def pictures(self) -> list[np.ndarray]:
        """Gives a sheet of the first validation pictures with the answers, wrong ones with the truth behind."""
        if self.input != "image":
            return []
        batch = next(iter(self.validation()))
        answers = self._answer(batch["image"]).numpy().argmax(axis=1)
        shown, captions = [], []
        for picture, label, answer in zip(batch["image"], np.asarray(batch["label"]), answers, strict=True):
            if label >= 0 and len(shown) < SHOWN:
                shown.append(np.clip(picture, 0, 255).astype(np.uint8))
                wrong = "" if label == answer else f", not {self.classes[label]}"
                captions.append(self.classes[answer] + wrong)
        return [draw.grid(shown, captions=captions)]


def rank(scores: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Gives each label's rank among a picture's scores.

    Args:
        scores: float [N, K].
        label: int [N], 0..K-1.

    Returns:
        int [N], 0 where the label is the best; of equal scores the first counts as best. K where a score is not
        finite: such an answer is wrong, however many are asked for.
    """
    count = scores.shape[1]
    own = np.take_along_axis(scores, label[:, None], 1)
    before = (scores == own) & (np.arange(count) < label[:, None])
    ranks = np.sum((scores > own) | before, axis=1)
    return np.where(np.isfinite(scores).all(axis=1), ranks, count)


def only_labels(dataset: Dataset) -> Dataset:
    """Gives the data set without boxes, so that the pipeline sees a picture's class alone.

    Raises:
        InputError: its pictures have no class.
    """
    if any(record.label < 0 for record in dataset.examples):
        raise InputError(f"{dataset.name} gives no class a picture: it is data for a detector")
    plain = {name: None for name in ("labels", "difficult", "truncated", "crowd", "area", "truth")}
    boxes = np.zeros((0, 4), np.float32)
    examples = [dataclasses.replace(record, boxes=boxes, **plain) for record in dataset.examples]
    return dataclasses.replace(dataset, examples=examples)


def pictures(dataset: Dataset, config: TrainingConfig, size: int, *, once: bool = False) -> pipeline.Batches:
    """Gives a data set's batches: endless, shuffled and augmented, or `once`, in order and as they are.

    Raises:
        InputError: no such augmentation.
    """
    how = None
    if not once:
        how = config.augment or ("shift" if dataset.name in last_layer.WRITING else "classification")
        if isinstance(how, str) and how not in (*SMALL, *augment.PRESETS):
            raise unknown("augment", how, [*SMALL, *augment.PRESETS])
        how = augment.Augmentation(**SMALL[how]) if how in SMALL else how
    return pipeline.batches(
        dataset,
        size=size,
        batch_size=config.batch_size,
        seed=config.seed,
        threads=config.threads,
        resize=config.resize,
        augment=how,
        shuffle=not once,
        repeat=not once,
    )


def rates(
    model: keras.Model, backbone_rate: float, trained: Collection[str]
) -> Callable[[keras.Variable], float]:
    """Gives the factor of each variable's rate: `backbone_rate` in layers that were trained before, but the last."""
    last = [layer for layer in model.layers if layer.weights][-1]
    slow = {
        id(v)
        for layer in model.layers
        if layer.name in trained and layer is not last
        for v in layer.variables
    }
    return lambda variable: backbone_rate if id(variable) in slow else 1.0


def _freeze(
    model: keras.Model,
    config: ClassifierConfig,
    endpoints: Mapping[str, str] | None,
    trained: Collection[str],
) -> None:
    freezing.freeze(model, config.freeze, endpoints)
    if not model.trainable_variables:
        raise InputError(f"freeze={','.join(config.freeze)} freezes every layer: nothing is left to train")
    if config.freeze_batch_norm is None:
        freezing.freeze_trained(model, trained=trained)
    elif config.freeze_batch_norm:
        freezing.freeze_batch_norm(model)
    if config.sync_batch_norm:
        freezing.synchronize_batch_norm(model)


def _first_batch(batches: pipeline.Batches, classes: list[str]) -> np.ndarray:
    """Draws the first batch as it enters the net."""
    batch = batches.batch(0)
    shown = [np.clip(picture, 0, 255).astype(np.uint8) for picture in batch["image"]]
    return draw.grid(shown, captions=[classes[label] for label in batch["label"]])
