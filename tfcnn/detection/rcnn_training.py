"""R-CNN's second step, fine-tuning the net on warped regions of 20 + 1 classes, as a function.

N images, R proposals of an image, S sampled regions of an image, K classes.

Source: Girshick, Donahue, Darrell, Malik, "Rich feature hierarchies", 2014, section 2.3; constants of the prototxt.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from tfcnn.datasets import pipeline
from tfcnn.datasets.example import Dataset
from tfcnn.datasets.proposals import Proposals
from tfcnn.detection.detector_training import DetectorConfig, first_batch, freeze, rates, scope
from tfcnn.detection.fast_rcnn_training import sample_regions
from tfcnn.detection.rcnn import NEW_LAYERS
from tfcnn.errors import InputError
from tfcnn.runtime import Stop
from tfcnn.training import freezing, run


@dataclasses.dataclass(frozen=True)
class RcnnConfig(DetectorConfig):
    """Settings of `finetune_rcnn`.

    Attributes:
        regions: of a picture in a step; with batch_size pictures they make the batch (the paper: 128 of all).
        positive_share: at most this share of them is foreground (the paper: 32 of 128).
    """

    epochs: float = 3.0
    batch_size: int = 4
    freeze_stride: int = 0
    regions: int = 32
    positive_share: float = 0.25
    resize: str = "letterbox"


def finetune_rcnn(
    model: keras.Model,
    training: Dataset,
    proposals: Proposals,
    config: RcnnConfig,
    folder: str | pathlib.Path,
    *,
    kept: Mapping | None = None,
    card: Mapping | None = None,
    flags: str | None = None,
    strategy: tf.distribute.Strategy | None = None,
    stop: Stop | None = None,
    progress: Callable[[int, dict], None] | None = None,
    show: Callable[[np.ndarray, str, str], None] = run.ignore,
    say: Callable[[str], None] = lambda sentence: print(sentence, file=sys.stderr),
) -> run.Trained:
    """Fine-tunes the net that describes regions as their classifier, and writes it as a release.

    A region is of the class of its best object at an IoU of 0.5 or more, else background. Of a backbone that was
    trained before, batch norm stays as it is and the rest learns at `config.backbone_rate` times the rate.

    Args:
        model: of `rcnn.described_regions`, made in the strategy's scope.
        training: the data set of K classes.
        proposals: of its pictures.
        config: the settings.
        folder: takes checkpoints, logs and the release; the same call goes on where it was killed.
        kept: what checkpoints keep beside the data's summary, for a caller that compares it before it resumes.
        card, flags: as `training.run.release`.
        strategy, stop, progress, say: as `training.run.fit`.
        show: called with pictures of the run (uint8 [H, W, 3]), each with a file's name and a title.

    Returns:
        The model with the released weights, and where the release is.

    Raises:
        InputError: data, settings and net do not fit, or as `training.loop.train`.
    """
    check_fit(model, training, proposals)
    folder, data = pathlib.Path(folder), run.summary(training, training) | dict(kept or {})
    run.check_data(folder, data, config)
    trained = run.trained_before(folder, data, config, model)
    freeze(model, config, trained)
    say(f"{freezing.described(model)}.")
    batches = pipeline.batches(
        training,
        size=config.train_size,
        batch_size=config.batch_size,
        augment=config.augment or "flip",
        seed=config.seed,
        resize=config.resize,
        longest=config.longest,
        proposals=proposals,
        threads=config.threads,
    )
    show(first_batch(batches, training.classes), "first_batch", "The first batch as it enters the net")
    with scope(strategy):
        trainee = RegionTrainee(model, config)
    result = run.fit(
        trainee,
        batches,
        config,
        folder,
        what="fine-tuning",
        multiplier=rates(model, config, trained, NEW_LAYERS),
        data=data,
        readers=[batches],
        strategy=strategy,
        stop=stop,
        progress=progress,
        say=say,
    )
    path, card = run.release(
        model,
        folder,
        result,
        config,
        kind="rcnn_finetuned",
        training=training,
        validation=training,
        card=card,
        flags=flags,
        category_ids=training.category_ids,
        image_size=config.train_size,
        resize=config.resize,
    )
    return run.Trained(model, result, path, card, run.unreadable([batches]))


def check_fit(model: keras.Model, training: Dataset, proposals: Proposals) -> None:
    """Sees before any work that net, data and proposals fit one another.

    Raises:
        InputError: they do not.
    """
    if not any(len(record.boxes) for record in training.examples):
        raise InputError(f"The {training.name} data set has no boxes: a detector cannot learn from it")
    width = model.output["logits"].shape[-1]
    if width != len(training.classes) + 1:
        raise InputError(
            f"The model has {width - 1} classes, and the data set {training.name} has {len(training.classes)}"
        )
    for record in training.examples:
        proposals.of(record.file)


class RegionTrainee:
    """What the training loop trains: the net of regions, by their cross-entropy.

    Args:
        model: of `rcnn.described_regions`.
        config: the settings.
    """

    def __init__(self, model: keras.Model, config: RcnnConfig):
        self.networks = {"detector": model}
        self.config = config
        inputs = {tensor.name: tensor for tensor in model.inputs}
        self._net = keras.Model([inputs["image"], inputs["regions"]], model.output["logits"], name="regions")
        self.validate = dict

    def losses(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Cross-entropy of the sampled regions, a mean over each picture's, summed over the pictures.

        Args:
            batch: image float32 [N, H, W, 3], boxes float32 [N, M, 4], labels int32 [N, M] (-1 is padding), difficult
                and crowd bool [N, M], proposals float32 [N, R, 4], seed int32 [2] or int64 [N, 2].
        """
        regions, columns, _ = sample_regions(
            batch["proposals"],
            batch["boxes"],
            batch["labels"],
            batch["seed"],
            ignore=batch["difficult"] | batch["crowd"],
            count=self.config.regions,
            positive_share=self.config.positive_share,
            negative=(0.0, 0.5),
        )
        logits = self._net([batch["image"], regions], training=True)
        logits = tf.reshape(tf.cast(logits, tf.float32), tf.concat([tf.shape(columns), [-1]], axis=0))
        counts = tf.cast(columns >= 0, tf.float32)
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(columns, 0), logits)
        total = tf.maximum(tf.reduce_sum(counts, axis=1), 1.0)
        return {"class": tf.reduce_sum(tf.reduce_sum(entropy * counts, axis=1) / total)}
