"""Training of the detectors of one network, as a function: YOLO and the one-stage detector.

Source: Redmon et al., "You Only Look Once", 2016, section 2.2, and darknet for YOLO; `one_stage` names its own.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcnn import backbones
from tfcnn.datasets import pipeline
from tfcnn.datasets.example import Dataset
from tfcnn.detection import one_stage, yolo, yolo_cells
from tfcnn.detection.detector_training import (
    DetectorConfig,
    Validation,
    first_batch,
    freeze,
    rates,
    scope,
)
from tfcnn.detection.one_stage import CellDetections, OneStageLoss
from tfcnn.detection.single_shot import SingleShot
from tfcnn.errors import InputError
from tfcnn.ops import boxes as box_ops
from tfcnn.ops import draws
from tfcnn.runtime import Stop
from tfcnn.training import freezing, run


@dataclasses.dataclass(frozen=True)
class SingleShotConfig(DetectorConfig):
    """Settings of `train_single_shot`.

    Attributes:
        ignore_overlap: share of a cell inside a crowd or a difficult object above which it is no background.
        lambda_coord, lambda_noobj: YOLO's weights of the box terms and of cells without an object.
        cell_epochs: epochs before, in which YOLO's dense layers are convolutions that all cells share
            (`yolo_cells`).
        cell_rate: highest learning rate in these.
        loss: of the one-stage detector.
    """

    freeze_stride: int = 0
    ignore_overlap: float = 0.7
    lambda_coord: float = 5.0
    lambda_noobj: float = 0.5
    cell_epochs: float = 0.0
    cell_rate: float = 1e-3
    loss: OneStageLoss = dataclasses.field(default_factory=OneStageLoss)


def train_single_shot(
    model: keras.Model,
    training: Dataset,
    validation: Dataset,
    config: SingleShotConfig,
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
    """Trains a YOLO or a one-stage detector on pictures with boxes, and writes a release.

    Args:
        model: of `yolo.yolo` or `one_stage.one_stage`, made in the strategy's scope. Of its backbone, batch norm and
            layers up to `config.freeze_stride` stay as they are where they have been trained before; what else has
            been trained learns at `config.backbone_rate` times the rate.
        training, validation: data sets of the same K classes.
        config: the settings.
        folder: takes checkpoints, logs and the release; the same call goes on where it was killed.
        card, flags: as `training.run.release`.
        strategy, stop, progress, say: as `training.run.fit`.
        show: called with pictures of the run (uint8 [H, W, 3]), each with a file's name and a title.

    Returns:
        The model with the released weights, the figures, and where the release is.

    Raises:
        InputError: data, settings and net do not fit, or as `training.loop.train`.
    """
    check_fit(model, training, config)
    with scope(strategy):
        cells = yolo_cells.by_cells(model) if config.cell_epochs else None
    folder, data = pathlib.Path(folder), run.summary(training, validation)
    first = folder / "cells" if config.cell_epochs else folder
    run.check_data(first, data, config)
    trained = run.trained_before(first, data, config, model)
    freeze(model, config, trained)
    say(f"{freezing.described(model)}.")
    batches = pipeline.batches(
        training,
        size=config.train_size,
        batch_size=config.batch_size,
        augment=config.augment or "detection",
        seed=config.seed,
        resize=config.resize,
        longest=config.longest,
        threads=config.threads,
    )
    show(first_batch(batches, training.classes), "first_batch", "The first batch as it enters the net")
    own = one_stage.OWN_LAYERS if model.name == "one_stage" else yolo.OWN_LAYERS

    def fit(net, folder, config, what):
        measure = Validation(SingleShot([net]), validation, config)
        with scope(strategy):
            trainee = SingleShotTrainee(net, config, measure)
        result = run.fit(
            trainee,
            batches,
            config,
            folder,
            best="map_11",
            what=what,
            multiplier=rates(net, config, trained, own),
            data=data,
            readers=[batches, measure],
            strategy=strategy,
            stop=stop,
            progress=progress,
            say=say,
        )
        return result, measure

    more = {}
    if cells:
        say(f"first {config.cell_epochs:g} epochs in which the cells share the dense layers' weights")
        stage = dataclasses.replace(
            config, steps=None, epochs=config.cell_epochs, learning_rate=config.cell_rate
        )
        more["cell_metrics"] = fit(cells, first, stage, "cells")[0].metrics
        yolo_cells.write_dense(cells, model)
    result, measure = fit(model, folder, config, "training")
    path, card = run.release(
        model,
        folder,
        result,
        config,
        kind=model.name,
        training=training,
        validation=measure.dataset,
        card=card,
        flags=flags,
        metrics=dict(result.metrics),
        image_size=config.test_size,
        resize=config.resize,
        longest=config.longest,
        category_ids=training.category_ids,
        **more,
    )
    return run.Trained(model, result, path, card, run.unreadable([batches, measure]))


def check_fit(model: keras.Model, training: Dataset, config: SingleShotConfig) -> None:
    """Sees before any work that data, settings and net fit one another.

    Raises:
        InputError: they do not.
    """
    output = SingleShot([model]).nets[0].output
    if not any(len(record.boxes) for record in training.examples):
        raise InputError(f"The {training.name} data set has no boxes: a detector cannot learn from it")
    if output.classes != len(training.classes):
        raise InputError(
            f"The model has {output.classes} classes, and the data set {training.name} has {len(training.classes)}"
        )
    fixed = getattr(output, "size", None)
    if fixed and (config.resize == "fit" or {config.train_size, config.test_size} != {fixed}):
        raise InputError(
            f"YOLO's dense layers were made for {fixed} x {fixed} pixels: the pictures of training and of the release "
            "must have that size, stretched or in bars"
        )


class SingleShotTrainee:
    """What the training loop trains: network, losses, validation.

    Args:
        model: of `yolo.yolo` or `one_stage.one_stage`.
        config: the settings.
        validation: measures the model; None for no validation.
    """

    def __init__(self, model: keras.Model, config: SingleShotConfig, validation: Validation | None = None):
        self.networks = {"detector": model}
        self.config, self.output = config, model.layers[-1]
        *raw, _ = self.output.input
        self._net = backbones.folded_in_training(keras.Model(model.inputs[0], raw, name="raw"))
        self.validate = validation or dict
        if validation is not None:
            self.pictures = validation.drawn

    def losses(self, batch: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        """The terms of the loss, summed over the batch's pictures.

        Args:
            batch: image float32 [N, H, W, 3], boxes float32 [N, M, 4], labels int32 [N, M] (-1 is padding), difficult
                and crowd bool [N, M]: neither found nor background; seed int32 [2] or int64 [N, 2].
        """
        image, boxes = batch["image"], batch["boxes"]
        ignore, overlap = batch["difficult"] | batch["crowd"], self.config.ignore_overlap
        labels = tf.where(ignore, -1, batch["labels"])
        raw = [tf.cast(x, tf.float32) for x in tf.nest.flatten(self._net(image, training=True))]
        if isinstance(self.output, CellDetections):
            terms = one_stage.one_stage_losses(
                raw, boxes, labels, self.config.loss, ignore, overlap, self.output.strides
            )
        else:  # of several objects in a cell a random one is answered for, as darknet shuffles them
            order = tf.argsort(draws.uniform(tf.shape(labels), batch["seed"]), axis=1)
            height, width = tf.shape(image)[1], tf.shape(image)[2]
            terms = yolo.yolo_losses(
                raw[0],
                box_ops.to_unit(tf.gather(boxes, order, batch_dims=1), height, width),
                tf.gather(labels, order, batch_dims=1),
                grid=self.output.grid,
                boxes=self.output.boxes,
                classes=self.output.classes,
                lambda_coord=self.config.lambda_coord,
                lambda_noobj=self.config.lambda_noobj,
                ignore=tf.gather(ignore, order, batch_dims=1),
                ignore_overlap=overlap,
            )
        return {name: tf.reduce_sum(term) for name, term in terms.items()}
