"""Faster R-CNN in training: four losses, and the four-step alternation of the paper.

Training runs in stages, so that only sampled regions are pooled: the features with the region proposal network; then
proposals, suppression and sampling, through which no gradient passes; then the regions.

Letters: N images, A anchors, R proposals, S sampled regions, M padded true boxes, K classes.
"""

import dataclasses

import tensorflow as tf

from tfcnn import backbones
from tfcnn.detection import fast_rcnn_training, rpn
from tfcnn.detection.detector import FasterRCNN
from tfcnn.detection.stages import Stages
from tfcnn.evaluation import voc
from tfcnn.predictor import Predictor


@dataclasses.dataclass
class Recipe:
    """The constants of training; the defaults are the release's, PAPER the paper's.

    Attributes:
        anchors, positive_anchors, negative_anchors, border: of `rpn.rpn_targets`.
        proposals: kept of each image, before the true boxes join.
        before_nms: best anchors that enter suppression.
        regions, positive_share, background, hardest: of `fast_rcnn_training.sample_regions` and `region_losses`.
        box_weight: factor of the two box losses.
        ignore_overlap: of `rpn.inside_ignored`.
    """

    anchors: int = 256
    positive_anchors: float = 0.7
    negative_anchors: float = 0.3
    border: float | None = None
    proposals: int = 200
    before_nms: int = 1000
    regions: int = 64
    positive_share: float = 0.25
    background: tuple = (0.0, 0.5)
    hardest: int = 0
    box_weight: float = 1.0
    ignore_overlap: float = 0.7


PAPER = Recipe(border=0.0, proposals=2000, before_nms=12000, regions=128, background=(0.1, 0.5))


class FasterRCNNTrainee:
    """What the training loop trains: networks, losses, validation.

    Args:
        model: of `faster_rcnn`.
        recipe: the constants.
        parts: "rpn", "regions" or both: the losses that count.
        proposer: another model whose proposals are taken (step 2 of the alternation); the model's own when None.
        check: a `Check`, or None for no validation.
        what: the training in words.
    """

    def __init__(self, model, recipe, *, parts=("rpn", "regions"), proposer=None, check=None, what=""):
        self.networks = {"detector": model}
        self.stages = Stages(model)
        self.stages.features = backbones.folded_in_training(self.stages.features)
        self.recipe, self.parts, self.what = recipe, parts, what
        self.proposer = Stages(proposer) if proposer is not None else None
        if self.stages.proposals is None:
            self.parts = ("regions",)
        self.validate = check or dict
        if check is not None:
            self.pictures = check.drawn

    def losses(self, batch):
        """The four losses, summed over the batch's images.

        Args:
            batch: image float32 [N, H, W, 3], boxes float32 [N, M, 4], labels int32 [N, M] (-1 is padding), difficult
                and crowd bool [N, M]: these objects are left out; seed int32 [2]; of Fast R-CNN proposals float32
                [N, R, 4].

        Returns:
            {"objectness", "rpn_box", "class", "box"}: scalars; only those of `parts`.
        """
        recipe, image, boxes = self.recipe, batch["image"], batch["boxes"]
        labels, ignore = batch["labels"], batch["difficult"] | batch["crowd"]
        height, width = tf.shape(image)[1], tf.shape(image)[2]
        seed = batch["seed"]
        given = batch["proposals"] if self.stages.proposals is None else None
        first = self.stages.first(image, training=True)
        losses = {}
        if "rpn" in self.parts:
            drawn = rpn.rpn_targets(
                self.stages.proposals.anchors(first["proposal_maps"]),
                boxes,
                labels,
                height,
                width,
                seed,
                ignore=ignore,
                positive=recipe.positive_anchors,
                negative=recipe.negative_anchors,
                count=recipe.anchors,
                border=recipe.border,
                ignore_overlap=recipe.ignore_overlap,
            )
            objectness, box = rpn.rpn_losses(first["objectness"], first["deltas"], *drawn)
            losses |= {"objectness": objectness, "rpn_box": recipe.box_weight * box}
        if "regions" in self.parts:
            proposals = given if given is not None else self.propose(image, first)
            regions, columns, matched = fast_rcnn_training.sample_regions(
                proposals,
                boxes,
                labels,
                seed + 1,
                ignore=ignore,
                count=recipe.regions,
                positive_share=recipe.positive_share,
                negative=recipe.background,
                ignore_overlap=recipe.ignore_overlap,
            )
            logits, deltas = self.stages.regions(regions, first["pool_maps"], training=True)
            name, box = fast_rcnn_training.region_losses(
                logits, deltas, regions, columns, matched, hardest=recipe.hardest
            )
            losses |= {"class": name, "box": recipe.box_weight * box}
        return {name: tf.reduce_sum(value) for name, value in losses.items()}

    def propose(self, image, first):
        """Proposals of a step, float32 [N, R, 4]; no gradient passes."""
        stages = self.proposer or self.stages
        if self.proposer is not None:
            first = stages.first(image)
        height, width = tf.shape(image)[1], tf.shape(image)[2]
        boxes, _ = stages.propose(first, height, width, self.recipe.proposals, self.recipe.before_nms)
        return boxes


def alternation(proposer, model, recipe, check=None):
    """The paper's four-step alternating training, a trainee a step; train each to its end before taking the next.

    1. The region proposal network of `proposer`, from ImageNet.
    2. The region head of `model`, from ImageNet, on the proposals of step 1; nothing is shared yet.
    3. The region proposal network of `model`, its shared layers fixed as step 2 left them.
    4. The region head of `model`, shared layers still fixed, on the proposals of step 3.

    Args:
        proposer, model: two of `faster_rcnn`, with the same weights.
        recipe: the constants.
        check: validates step 4.

    Yields:
        FasterRCNNTrainee.

    Source: Ren et al. 2015, section 3.2.
    """
    stages = Stages(model)
    rpn_layers, region_layers = stages.rpn_layers(), stages.region_layers()
    given = {layer.name for layer in model.layers if layer.trainable and layer.weights}

    def trained(net, names):
        for layer in net.layers:
            layer.trainable = layer.name in names & given

    trained(proposer, given - region_layers)
    yield FasterRCNNTrainee(proposer, recipe, parts=("rpn",), what="proposals, from the backbone's weights")
    trained(model, given - rpn_layers)
    yield FasterRCNNTrainee(
        model, recipe, parts=("regions",), proposer=proposer, what="regions, from the backbone's weights"
    )
    trained(model, rpn_layers)
    yield FasterRCNNTrainee(model, recipe, parts=("rpn",), what="proposals, shared layers fixed")
    trained(model, region_layers)
    yield FasterRCNNTrainee(
        model, recipe, parts=("regions",), check=check, what="regions, shared layers fixed"
    )


class Check:
    """Validation: mean AP on a data set.

    Args:
        model: of `faster_rcnn`.
        validation: tfcnn.datasets Dataset.
        size, resize, longest: how a picture enters the net.
        threads: for reading.
        proposals: for Fast R-CNN, a `tfcnn.datasets.proposals.Proposals`.

    Attributes:
        predictor: the model at work.
        pictures: how many; classes: K.
        refused: {file: why} of pictures that could not be read.
    """

    def __init__(self, model, validation, size, resize="stretch", longest=None, threads=2, proposals=None):
        self.predictor = Predictor(
            FasterRCNN([model]),
            names=validation.classes,
            image_size=size,
            longest=longest,
            resize=resize,
            threads=threads,
        )
        self.validation, self.proposals = validation, proposals
        self.pictures, self.classes = len(validation), len(validation.classes)
        self.refused = {}

    def __call__(self):
        """Mean AP at IoU 0.5 by both rules of VOC: {"map_11", "map_area"}."""
        found, refused = self.predictor.over_records(self.validation.examples, self.proposals)
        self.refused |= refused
        figures = voc.evaluate(self.validation.examples, found, self.validation.classes)
        return {name: figures[name] for name in ("map_11", "map_area")}

    def drawn(self, count=8):
        """Some pictures with what is found in them, evenly spread: list of uint8 [H, W, 3]."""
        records = self.validation.examples[:: max(1, self.pictures // count)][:count]
        found, _ = self.predictor.over_records(records, self.proposals)
        return [
            found[record.image_id].top(10).draw(record.image())
            for record in records
            if record.image_id in found
        ]
