"""Faster R-CNN in training: four losses, and the four-step alternation of the paper.

Training runs in stages, so that only sampled regions are pooled: the features with the region proposal network; then
proposals, suppression and sampling, through which no gradient passes; then the regions.

Letters: N images, A anchors, R proposals, S sampled regions, M padded true boxes, K classes.
"""

import dataclasses

import tensorflow as tf

from tfcnn.detection import fast_rcnn, rpn
from tfcnn.detection.stages import Stages


@dataclasses.dataclass
class Recipe:
    """The constants of training; the defaults are the release's, PAPER the paper's.

    Attributes:
        anchors, positive_anchors, negative_anchors, border: of `rpn.rpn_targets`.
        proposals: kept of each image, before the true boxes join.
        before_nms: best anchors that enter suppression.
        regions, positive_share, background, hardest: of `fast_rcnn.sample_regions` and `region_losses`.
        box_weight: factor of the two box losses.
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


PAPER = Recipe(border=0.0, proposals=2000, before_nms=12000, regions=128, background=(0.1, 0.5))


class FasterRCNNTrainee:
    """What the training loop trains: networks, losses, validation.

    Args:
        model: of `faster_rcnn`.
        recipe: the constants.
        parts: "rpn", "regions" or both: the losses that count.
        proposer: another model whose proposals are taken (step 2 of the alternation); the model's own when None.
        validate: a function without arguments that gives figures, or None.
    """

    def __init__(self, model, recipe, *, parts=("rpn", "regions"), proposer=None, validate=None):
        self.networks = {"detector": model}
        self.stages = Stages(model)
        self.recipe, self.parts = recipe, parts
        self.proposer = Stages(proposer) if proposer is not None else None
        self.validate = validate or dict

    def losses(self, batch):
        """The four losses, summed over the batch's images.

        Args:
            batch: image float32 [N, H, W, 3], boxes float32 [N, M, 4], labels int32 [N, M] (-1 is padding), difficult
                and crowd bool [N, M]: these objects are left out; seed int32 [2].

        Returns:
            {"objectness", "rpn_box", "class", "box"}: scalars; only those of `parts`.
        """
        recipe, image, boxes = self.recipe, batch["image"], batch["boxes"]
        labels = tf.where(batch["difficult"] | batch["crowd"], -1, batch["labels"])
        height, width = tf.shape(image)[1], tf.shape(image)[2]
        seed = batch["seed"]
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
                positive=recipe.positive_anchors,
                negative=recipe.negative_anchors,
                count=recipe.anchors,
                border=recipe.border,
            )
            objectness, box = rpn.rpn_losses(first["objectness"], first["deltas"], *drawn)
            losses |= {"objectness": objectness, "rpn_box": recipe.box_weight * box}
        if "regions" in self.parts:
            proposals = self.propose(image, first)
            regions, columns, matched = fast_rcnn.sample_regions(
                proposals,
                boxes,
                labels,
                seed + 1,
                count=recipe.regions,
                positive_share=recipe.positive_share,
                negative=recipe.background,
            )
            logits, deltas = self.stages.regions(regions, first["pool_maps"], training=True)
            name, box = fast_rcnn.region_losses(
                logits, deltas, regions, columns, matched, hardest=recipe.hardest
            )
            losses |= {"class": name, "box": recipe.box_weight * box}
        return {name: tf.reduce_sum(value) for name, value in losses.items()}

    def propose(self, image, first):
        """Proposals of a step, float32 [N, R, 4]; no gradient passes."""
        stages = self.proposer or self.stages
        if self.proposer is not None:
            first = stages.first(image)
        boxes, _ = stages.propose(first, image, self.recipe.proposals, self.recipe.before_nms)
        return boxes
