"""Training of Faster R-CNN, Fast R-CNN and Mask R-CNN, as a function: jointly, or by the four-step alternation.

Source: Ren, He, Girshick, Sun, "Faster R-CNN", 2015, section 3.2; constants of py-faster-rcnn.
"""

import contextlib
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from tfcnn import images
from tfcnn.datasets import pipeline
from tfcnn.datasets.example import Dataset
from tfcnn.datasets.proposals import Proposals
from tfcnn.detection.detector import FasterRCNN, proposals_of
from tfcnn.detection.detector_training import Validation, first_batch, freeze, rates, scope
from tfcnn.detection.faster_rcnn import OWN_LAYERS
from tfcnn.detection.faster_rcnn_trainee import FasterRCNNConfig, FasterRCNNTrainee
from tfcnn.detection.stages import Stages
from tfcnn.errors import InputError
from tfcnn.evaluation import proposals as coverage
from tfcnn.evaluation.proposal_recall import ground_truth
from tfcnn.runtime import Stop
from tfcnn.training import freezing, run

# The paper's 80k, 40k, 80k and 40k iterations, as shares of the run.
ALTERNATION = (1 / 3, 1 / 6, 1 / 3, 1 / 6)


@dataclasses.dataclass
class TrainedDetector(run.Trained):
    """What came of a training.

    Attributes:
        reach: {"anchors", "proposals"}: `evaluation.proposals.recall` of the training's anchors or precomputed
            proposals, and of the trained network's proposals on the validation pictures with their "count".
    """

    reach: dict[str, dict] = dataclasses.field(default_factory=dict)

    @property
    def metrics(self) -> dict:
        """{"last", "best"} of the validations, and of a Faster R-CNN what its "proposals" reach in validation."""
        return self.card["metrics"]


def train_faster_rcnn(
    model: keras.Model,
    training: Dataset,
    validation: Dataset,
    config: FasterRCNNConfig,
    folder: str | pathlib.Path,
    *,
    proposals: Proposals | None = None,
    card: Mapping | None = None,
    flags: str | None = None,
    strategy: tf.distribute.Strategy | None = None,
    stop: Stop | None = None,
    progress: Callable[[int, dict], None] | None = None,
    show: Callable[[np.ndarray, str, str], None] = run.ignore,
    say: Callable[[str], None] = lambda sentence: print(sentence, file=sys.stderr),
) -> TrainedDetector:
    """Trains a Faster R-CNN, Fast R-CNN or Mask R-CNN on pictures with boxes (and masks), and writes a release.

    Args:
        model: of `faster_rcnn` or `mask_rcnn`, made in the strategy's scope. Of its backbone, batch norm and layers up
            to `config.freeze_stride` stay as they are where they have been trained before; what else has been trained
            learns at `config.backbone_rate` times the rate.
        training, validation: data sets of the same K classes.
        config: the settings.
        folder: takes checkpoints, logs and the release; the same call goes on where it was killed.
        proposals: of Fast R-CNN: those of every picture.
        card, flags: as `training.run.release`.
        strategy, stop, progress, say: as `training.run.fit`.
        show: called with pictures of the run (uint8 [H, W, 3]), each with a file's name and a title.

    Returns:
        The model with the released weights, the figures, and where the release is.

    Raises:
        InputError: data, settings and net do not fit, or as `training.loop.train`.
    """
    check_fit(model, training, validation, config, proposals)
    folder, data = pathlib.Path(folder), run.summary(training, validation)
    first = folder / "step1" if config.training == "alternating" else folder
    run.check_data(first, data, config)
    trained, has_masks = run.trained_before(first, data, config, model), Stages(model).mask_head is not None
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
        masks=has_masks,
        proposals=proposals,
        threads=config.threads,
    )
    bare = (
        sum(1 for record in training.examples if len(record.boxes) and not record.masks) if has_masks else 0
    )
    if bare:
        say(f"{bare} of {len(training)} pictures have objects and no masks: their boxes alone are learnt")
    measure = Validation(FasterRCNN([model]), validation, config, proposals)
    readers = [batches, measure]
    reach = {"proposals" if proposals else "anchors": _reach(model, training, config, proposals)}
    for what, shares in reach.items():
        say(f"ground-truth boxes with one of the {what} at IoU 0.5 (0.7): {coverage.in_words(shares)}")
    show(first_batch(batches, training.classes), "first_batch", "The first batch as it enters the net")

    told = {"strategy": strategy, "stop": stop, "progress": progress, "say": say}
    told |= {"data": data, "readers": readers}
    if config.training == "joint":
        with scope(strategy):
            trainee = FasterRCNNTrainee(model, config, validation=measure)
        multiplier = rates(model, config, trained, OWN_LAYERS)
        best = "segm_AP50" if has_masks else "map_11"
        result = run.fit(trainee, batches, config, folder, best=best, multiplier=multiplier, **told)
    else:
        result = _alternate(model, config, batches, measure, folder, trained, told)

    figures = dict(result.metrics)
    if not proposals:
        count = measure.predictor.method.proposal_count
        shares = coverage.recall(_proposed(measure))
        if shares["all"]["boxes"]:
            say(
                f"ground-truth boxes with one of {count} proposals in validation: {coverage.in_words(shares)}"
            )
        reach["proposals"] = figures["proposals"] = {"count": count, **shares}
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
        metrics=figures,
        image_size=config.test_size,
        resize=config.resize,
        longest=config.longest,
        category_ids=training.category_ids,
    )
    return TrainedDetector(model, result, path, card, run.unreadable(readers), reach)


def check_fit(
    model: keras.Model,
    training: Dataset,
    validation: Dataset,
    config: FasterRCNNConfig,
    proposals: Proposals | None = None,
) -> None:
    """Sees before any work that data, settings and net fit one another.

    Raises:
        InputError: they do not.
    """
    stages = Stages(model)
    if not any(len(record.boxes) for record in training.examples):
        raise InputError(f"The {training.name} data set has no boxes: a detector cannot learn from it")
    if stages.classes != len(training.classes):
        raise InputError(
            f"The model has {stages.classes} classes, and the data set {training.name} has {len(training.classes)}"
        )
    if (stages.proposals is None) != (proposals is not None):
        need = "needs precomputed proposals" if proposals is None else "makes proposals of its own"
        raise InputError(f"The model {model.name} {need}")
    if stages.mask_head is not None:
        if config.training == "alternating":
            raise InputError(
                "A Mask R-CNN is trained jointly, not in alternation: its masks have no step there"
            )
        for dataset in (training, validation):
            if not any(record.masks for record in dataset.examples):
                raise InputError(
                    f"The {dataset.name} data set has no masks: a Mask R-CNN cannot learn from it"
                )
    if config.training == "alternating" and proposals is not None:
        raise InputError("An alternating training trains proposals too: it takes no precomputed ones")
    for record in validation.examples if proposals else ():
        proposals.of(record.file)


def with_proposals(
    dataset: Dataset, proposals: Proposals
) -> Iterator[tuple[tuple[int, int], np.ndarray, np.ndarray, np.ndarray]]:
    """Every picture that can be read with its precomputed proposals and the objects that are to be found.

    Yields:
        ((height, width), proposals float32 [R, 4], boxes float32 [M, 4], labels int32 [M]), all in the picture's
        pixels.
    """
    for record in dataset.examples:
        with contextlib.suppress(InputError):  # named where it is trained on
            sample = pipeline.whole_sample(record, proposals=proposals)
            wanted = ~(sample.columns["difficult"] | sample.columns["crowd"])
            boxes, labels = sample.boxes[wanted], sample.columns["labels"][wanted]
            yield sample.image.shape[:2], sample.proposals, boxes, labels


def alternation(
    proposer: keras.Model, model: keras.Model, config: FasterRCNNConfig, validation: Validation | None = None
) -> Iterator[tuple[str, FasterRCNNTrainee]]:
    """The paper's four-step alternating training, a trainee a step; train each to its end before taking the next.

    1. The region proposal network of `proposer`, from ImageNet.
    2. The region head of `model`, from ImageNet, on the proposals of step 1; nothing is shared yet.
    3. The region proposal network of `model`, its shared layers fixed as step 2 left them.
    4. The region head of `model`, shared layers still fixed, on the proposals of step 3.

    Args:
        proposer, model: two of `faster_rcnn`, with the same weights and the same layers frozen.
        config: the settings.
        validation: of step 4.

    Yields:
        (the step in words, its trainee).

    Source: Ren et al. 2015, section 3.2.
    """
    stages = Stages(model)
    rpn_layers, region_layers = stages.rpn_layers(), stages.region_layers()
    live = {layer.name for layer in model.layers if layer.trainable and layer.weights}

    def train_only(net: keras.Model, names: set[str]) -> None:
        for layer in net.layers:
            layer.trainable = layer.name in names & live

    train_only(proposer, live - region_layers)
    yield "proposals, from the backbone's weights", FasterRCNNTrainee(proposer, config, parts=("rpn",))
    train_only(model, live - rpn_layers)
    trainee = FasterRCNNTrainee(model, config, parts=("regions",), proposer=proposer)
    yield "regions, from the backbone's weights", trainee
    train_only(model, rpn_layers)
    yield "proposals, shared layers fixed", FasterRCNNTrainee(model, config, parts=("rpn",))
    train_only(model, region_layers)
    trainee = FasterRCNNTrainee(model, config, parts=("regions",), validation=validation)
    yield "regions, shared layers fixed", trainee


def _alternate(model, config, batches, measure, folder, trained, told):
    """The four steps, each with a folder of its own in which it resumes; the result of the last."""
    total = config.total_steps(batches.steps_per_epoch)
    with scope(told["strategy"]):
        proposer = keras.models.clone_model(model)
        proposer.set_weights(model.get_weights())
    live = {layer.name: layer.trainable for layer in model.layers}
    for number, (what, trainee) in enumerate(alternation(proposer, model, config, measure), 1):
        share = ALTERNATION[number - 1]
        drops = tuple(round(step * share) for step in config.rate_drops)
        told["say"](f"step {number} of 4: {what}")
        result = run.fit(
            trainee,
            batches,
            dataclasses.replace(config, rate_drops=drops),
            folder / f"step{number}",
            steps=max(1, round(total * share)),
            best="map_11" if number == 4 else None,
            what=f"step {number} of 4",
            multiplier=rates(trainee.networks["detector"], config, trained, OWN_LAYERS),
            **told,
        )
    for layer in model.layers:
        layer.trainable = live[layer.name]
    return result


def _reach(model, training, config, proposals):
    """`recall` of the model's anchors, or of precomputed proposals, on the training pictures unaugmented."""
    anchors = functools.lru_cache(Stages(model).anchors_at)

    def pictures():
        if proposals:
            for shape, regions, boxes, _ in with_proposals(training, proposals):
                _, at = images.placed(shape, config.train_size, config.resize, config.longest)
                yield at.from_file(regions), at.from_file(boxes)
            return
        for record in training.examples:
            if record.width:  # as its annotation says: no picture is read
                shape = (record.height, record.width)
                size, at = images.placed(shape, config.train_size, config.resize, config.longest)
                yield anchors(*size), ground_truth(record, at)

    return coverage.recall(pictures())


def _proposed(measure):
    """Of each validation picture that can be read its proposals and its boxes, in pixels of the net's picture."""
    for record, prepared, boxes in proposals_of(measure.predictor, measure.dataset.examples):
        in_file = record.placement(prepared.shape).from_file(ground_truth(record))
        yield boxes, prepared.placement.from_file(in_file)
