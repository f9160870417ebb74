"""Training of a localizer, as a function: the lecture's four steps.

1. Take a classifier; layers of it that are still random are trained first, on the classes.
2. Attach a new fully connected box head (`with_box_head`).
3. Train that head alone, with SGD and L2 loss on normalised boxes.
4. Use both heads at test.

N pictures of a batch, C classes, K boxes of a picture. What is frozen is computed once, and kept on disk.

Source: the lecture's slides on localization; Sermanet et al., OverFeat, 2013, section 4.2; Simonyan and Zisserman,
2014, appendix A.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from tfcnn import draw
from tfcnn.datasets.example import Dataset, evenly
from tfcnn.errors import InputError, unknown
from tfcnn.evaluation import imagenet
from tfcnn.localization import class_rpn, heads, losses
from tfcnn.localization.localizer import GUESSES, Localizer
from tfcnn.localization.localizer_data import Source
from tfcnn.localization.targets import largest_objects
from tfcnn.ops import boxes as ops
from tfcnn.predictor import Predictor
from tfcnn.runtime import Stop
from tfcnn.training import freezing, run
from tfcnn.training.classifier import Classifier
from tfcnn.training.config import TrainingConfig
from tfcnn.training.team import Team, check_alone

SHOWN = 16  # pictures on a sheet


@dataclasses.dataclass(frozen=True)
class LocalizerConfig(TrainingConfig):
    """Settings of `train_localizer`.

    Attributes:
        augment: None or "flip": pictures and their mirror images, whose features are computed once; any other
            computes the whole net at each step.
        loss: "l2", "smooth_l1", "iou" or "giou", of `localization.losses`.
        order: of K boxes: "fixed" (the largest object first) or "matched" (Hungarian).
        exactly: take only pictures with exactly K objects, to train on and to measure.
        fine_tune: train the backbone too, at `backbone_rate` times the rate, on both heads' losses: one net must
            still serve both.
        classifier_epochs: of the stage before, in which layers of the classifier that are random are trained by
            AdamW; passed over where none is.
        classifier_rate: learning rate of that stage.
        validate_images: pictures of each validation, evenly spread; 0 takes all.
        cache_features: folder that keeps the features for other runs; None: inside the run's, until its end.
    """

    batch_size: int = 64
    optimizer: str = "sgd"
    learning_rate: float = 0.003
    weight_decay: float = 1e-5
    loss: str = "l2"
    order: str = "fixed"
    exactly: bool = False
    fine_tune: bool = False
    classifier_epochs: float = 10.0
    classifier_rate: float = 1e-3
    validate_images: int = 0
    cache_features: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("loss", losses.LOSSES), ("order", ("fixed", "matched"))):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        if self.resize not in ("stretch", "letterbox"):
            raise InputError(
                f"resize={self.resize!r} is none of stretch, letterbox: a localizer sees one size"
            )


def train_localizer(
    model: keras.Model,
    training: Dataset,
    validation: Dataset,
    config: LocalizerConfig,
    folder: str | pathlib.Path,
    *,
    card: Mapping | None = None,
    flags: str | None = None,
    strategy: tf.distribute.Strategy | None = None,
    stop: Stop | None = None,
    progress: Callable[[int, dict], None] | None = None,
    show: Callable[[np.ndarray, str, str], None] = run.ignore,
    say: Callable[[str], None] = lambda sentence: print(sentence, file=sys.stderr),
) -> run.Trained:
    """Trains a localizer on pictures with boxes, and writes a release.

    Of each picture the K largest objects are learned (K the model's), its class is that of the largest or its own;
    pictures without an object are left out, and both are counted and said.

    Args:
        model: of `localization.with_box_head`, made in the strategy's scope.
        training, validation: data sets of the model's C classes.
        config: the settings.
        folder: takes checkpoints, logs, features and the release; the same call goes on where it was killed.
        card, flags: as `training.run.release`.
        strategy, stop, progress, say: as `training.run.fit`.
        show: called with pictures of the run (uint8 [H, W, 3]), each with a file's name and a title.

    Returns:
        The model with the released weights, the figures, and where the release is.

    Raises:
        InputError: data, settings and net do not fit, several processes are to keep features, or as
            `training.loop.train`.
    """
    form, size = heads.form(model), model.input_shape[1]
    if form.classes != len(training.classes):
        raise InputError(
            f"The model has {form.classes} classes, and the data set {training.name} has {len(training.classes)}"
        )
    if config.image_size not in (None, size):
        raise InputError(f"image_size={config.image_size}: the model takes pictures of {size} pixels")
    training = largest_objects(training, form.objects, say, config.exactly)
    validation = largest_objects(validation, form.objects, say, config.exactly)
    folder, data = pathlib.Path(folder), run.summary(training, validation)
    before = folder / "classifier"
    run.check_data(before if before.exists() else folder, data, config)
    trained = run.trained_before(before if before.exists() else folder, data, config, model)
    own = heads.box_layers(model)
    untrained = {layer.name for layer in model.layers if layer.weights} - trained - own
    measure = Validation(model, validation, config)
    told = {"stop": stop, "progress": progress, "say": say}
    check_alone(strategy, config.cache_features)
    team = Team(strategy or tf.distribute.get_strategy())
    source = Source(model, untrained, training, validation, config, folder, told, team)
    show(
        _first_batch(source.pictures(), training.classes),
        "first_batch",
        "The first batch as it enters the net",
    )
    told = {**told, "strategy": strategy, "data": data}
    kept = {}
    if untrained and config.classifier_epochs:
        say(f"first the classifier: {len(untrained)} layers are random and learn the classes")
        _train_only(model, untrained)
        kept = _train_classifier(model, source, config, before, told)
    _train_only(model, own)
    if config.fine_tune:
        for layer in model.layers:
            layer.trainable = True
        freezing.freeze_batch_norm(model)
        freezing.freeze(model, config.freeze)
    say(f"{freezing.described(model)}.")
    net, batches, _ = source.live() if config.fine_tune else source.of(own, validates=False)
    trainee = LocalizerTrainee(model, net, config, measure)
    slow = {id(v) for layer in model.layers if layer.name not in own for v in layer.variables}
    result = run.fit(
        trainee,
        batches,
        config,
        folder,
        best="mean_iou" if form.objects > 1 else "-top5_loc",
        multiplier=lambda variable: config.backbone_rate if id(variable) in slow else 1.0,
        readers=[*source.readers, measure],
        **told,
    )
    for sheet in measure.drawn():
        show(
            sheet,
            "answers",
            "Pictures of the validation split: the best guess with its name, the truth without",
        )
    path, card = run.release(
        model,
        folder,
        result,
        config,
        kind="localizer",
        training=training,
        validation=measure.dataset,
        card=card,
        flags=flags,
        image_size=size,
        resize=config.resize,
        category_ids=training.category_ids,
        **kept,
    )
    source.clear()
    return run.Trained(model, result, path, card, run.unreadable([*source.readers, measure]))


class LocalizerTrainee:
    """A trainee for training.loop: the loss of the boxes, and with `fine_tune` that of the classes.

    Args:
        model: of `localization.with_box_head`.
        net: the model, or its `heads.split` head; batches then have `features` in the place of `image`.
        config: the settings.
        validation: measures the model.
    """

    def __init__(
        self,
        model: keras.Model,
        net: keras.Model,
        config: LocalizerConfig,
        validation: Callable[[], dict[str, float]] = dict,
    ):
        self.networks, self.net, self.config = {"localizer": model}, net, config
        self.form, self.validate = heads.form(model), validation
        self.anchors = model.get_layer(heads.FORMS["rpn"]) if self.form.kind == "rpn" else None

    def losses(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Gives the losses, summed over the batch.

        Args:
            batch: image float32 [N, H, W, 3] (or features [N, ...]), label int32 [N], unit_boxes float32 [N, K, 4],
                zeros where a picture has fewer objects; and for `with_class_rpn` seed int32 [2] or int64 [N, 2].

        Returns:
            {"box"} and, with `fine_tune`, "softmax": scalars. A picture without an object has no loss of boxes.
        """
        found = self.net(batch["features" if "features" in batch else "image"], training=True)
        truth, label = batch["unit_boxes"], batch["label"]
        predicted = found["boxes"]
        if self.form.kind == "agnostic":
            predicted = predicted[:, None]
        elif self.form.kind == "per_class":  # the ground-truth class's box alone
            predicted = tf.gather(predicted, tf.maximum(label, 0), batch_dims=1)[:, None]
        present = ops.area(truth) > 0
        if self.form.kind == "rpn":
            box = class_rpn.losses(self.anchors, found, truth, present, label, batch["seed"])
        else:
            matched = self.config.order == "matched" and self.form.objects > 1
            box = losses.objects_loss(self.config.loss, predicted, truth, present, matched)
        value = {"box": box}
        if self.config.fine_tune:
            value["softmax"] = tf.nn.sparse_softmax_cross_entropy_with_logits(label, found["logits"])
        return {name: tf.reduce_sum(each) for name, each in value.items()}


class Validation:
    """ImageNet's errors of five guesses and the mean IoU, on a data set of `largest_objects`.

    Args:
        model: of `localization.with_box_head`.
        dataset: the pictures.
        config: the settings.

    Attributes:
        dataset: the pictures that are looked at.
        refused: {file: why} of pictures that could not be read.
    """

    def __init__(self, model: keras.Model, dataset: Dataset, config: LocalizerConfig):
        self.predictor = Predictor(
            Localizer([model], top=len(dataset.classes)),
            names=dataset.classes,
            image_size=model.input_shape[1],
            resize=config.resize,
            batch_size=32,
            threads=config.threads,
        )
        self.dataset = dataset
        if config.validate_images:
            kept = evenly(dataset.examples, config.validate_images)
            self.dataset = dataclasses.replace(dataset, examples=kept)
        self.refused: dict[str, str] = {}

    def __call__(self) -> dict[str, float]:
        """Gives `top1_cls`, `top5_cls`, `top1_loc` and `top5_loc` (shares of wrong answers) and `mean_iou`.

        The mean IoU is that of the ground-truth class's box, however the classifier answers; of K boxes each object
        has the one that the best assignment gives it.

        Raises:
            InputError: no picture can be read.
        """
        found, unreadable = self.predictor.over_records(self.dataset.examples)
        self.refused |= unreadable
        if not found:
            raise InputError("No picture of the validation split can be read: nothing can be measured.")
        records = [record for record in self.dataset.examples if record.image_id in found]
        few = {name: guesses.top(max(GUESSES, self._objects)) for name, guesses in found.items()}
        figures = imagenet.localization(records, few, len(self.dataset.classes))
        return figures | {"mean_iou": self._mean_iou(records, found)}

    @property
    def _objects(self) -> int:
        return self.predictor.method.form.objects

    def _mean_iou(self, records, found):
        count = self._objects
        predicted, truth = np.zeros((2, len(records), count, 4), np.float32)
        for row, wanted, record in zip(predicted, truth, records, strict=True):
            guesses = found[record.image_id]
            row[:] = guesses.boxes if count > 1 else guesses.boxes[guesses.labels == record.label]
            wanted[: len(record.boxes)] = record.boxes
        overlap, present = ops.iou(predicted, truth).numpy(), ops.area(truth).numpy() > 0
        box = losses.assignment(-overlap, present)
        return float(np.take_along_axis(overlap, box[:, None], axis=1)[:, 0][present].mean())

    def drawn(self) -> list[np.ndarray]:
        """Gives a sheet of validation pictures, evenly spread, with their best guess and the truth."""
        shown, captions = [], []
        for record in evenly(self.dataset.examples, SHOWN):
            with contextlib.suppress(InputError):  # named by the validation
                picture = record.image()
                (guesses,) = self.predictor([picture])
                best = guesses.top(self._objects)
                truth = record.placement(picture.shape).from_file(record.boxes)
                picture = draw.boxes(draw.boxes(picture, truth), best.boxes, best.labels, names=best.names)
                shown.append(picture)
                wrong = (
                    "" if best.labels[0] == record.label else f", not {self.dataset.classes[record.label]}"
                )
                captions.append(best.names[best.labels[0]] + wrong)
        return [draw.grid(shown, captions=captions)] if shown else []


def _train_classifier(model, source, config, folder, told):
    """The stage before: the classifier's random layers; what is to be said of it on the card."""
    random = {layer.name for layer in model.layers if layer.trainable and layer.weights}
    net, batches, once = source.of(random)
    stage = dataclasses.replace(
        config,
        steps=None,
        epochs=config.classifier_epochs,
        optimizer="adamw",
        learning_rate=config.classifier_rate,
        weight_decay=0.02,
    )
    trainee = Classifier(model, once, source.parts[1].classes)
    trainee.net, trainee.input = net, "image" if net is model else "features"
    result = run.fit(
        trainee, batches, stage, folder, best="top1", what="classifier", readers=source.readers, **told
    )
    return {"classifier_metrics": result.metrics}


def _train_only(model: keras.Model, names: set[str]) -> None:
    for layer in model.layers:
        layer.trainable = layer.name in names


def _first_batch(batches, classes):
    """A sheet of the first batch, with its boxes."""
    batch, shown = batches.batch(0), []
    columns = (batch[name][:SHOWN] for name in ("image", "boxes", "labels"))
    for image, boxes, labels in zip(*columns, strict=True):
        picture = np.clip(image, 0, 255).astype(np.uint8)
        shown.append(draw.boxes(picture, boxes[labels >= 0], labels[labels >= 0], names=classes))
    return draw.grid(shown, columns=4)
