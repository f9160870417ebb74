"""What the training loop trains of a Faster R-CNN, Fast R-CNN or Mask R-CNN: its settings, its losses, its validation.

The networks run in parts, so that only sampled regions are pooled: the features with the region proposal network; then
proposals, suppression and sampling, through which no gradient passes; then the regions.

Letters: N images, A anchors, R proposals, S sampled regions, M padded ground-truth boxes, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from tfcnn import backbones
from tfcnn.detection import fast_rcnn_training, mask_rcnn, rpn
from tfcnn.detection.detector_training import DetectorConfig, Validation
from tfcnn.detection.stages import Stages
from tfcnn.errors import InputError


@dataclasses.dataclass(frozen=True)
class FasterRCNNConfig(DetectorConfig):
    """Settings of `train_faster_rcnn`; the defaults are the releases', the papers' stand in recipes/.

    Attributes:
        training: "joint" (all four losses at once) or "alternating" (the paper's four steps).
        rpn_batch: anchors of a picture in a step (the paper's 256).
        positive_anchors, negative_anchors: of `rpn.rpn_targets` (the paper's 0.7 and 0.3).
        inside_anchors: train on anchors inside the picture alone (the paper), not on all.
        train_proposals: kept of each picture (the paper's 2000), before the ground-truth boxes join.
        train_before_nms: best boxes that enter suppression (py-faster-rcnn's 12000).
        regions: of a picture in a step (the paper's 128, or 64 of each of two pictures).
        positive_share: at most this share of them is foreground (the paper's 0.25).
        background_low: least IoU of a background region (Fast R-CNN's 0.1, py-faster-rcnn's 0).
        hardest: learn from so many regions of the greatest loss; 0: from all.
        box_weight: factor of the two box losses (the paper's lambda, normalised as py-faster-rcnn does).
        mask_weight: factor of Mask R-CNN's loss of masks (its paper's 1).
        ignore_overlap: share of a region inside a crowd or a difficult object above which it is no background.
    """

    training: str = "joint"
    rpn_batch: int = 256
    positive_anchors: float = 0.7
    negative_anchors: float = 0.3
    inside_anchors: bool = False
    train_proposals: int = 200
    train_before_nms: int = 1000
    regions: int = 64
    positive_share: float = 0.25
    background_low: float = 0.0
    hardest: int = 0
    box_weight: float = 1.0
    mask_weight: float = 1.0
    ignore_overlap: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.training not in ("joint", "alternating"):
            raise InputError(f"training is {self.training!r}, and must be joint or alternating")
        if self.hardest > self.regions:
            raise InputError(f"hardest is {self.hardest}, more than the {self.regions} regions of a picture")


class FasterRCNNTrainee:
    """What the training loop trains: networks, losses, validation.

    Args:
        model: of `faster_rcnn` or `mask_rcnn`.
        config: the settings.
        parts: "rpn", "regions" or both: the losses that count; Fast R-CNN has the regions alone.
        proposer: another model whose proposals are taken (step 2 of the alternation); the model's own when None.
        validation: measures the model; None for no validation.
    """

    def __init__(
        self,
        model: keras.Model,
        config: FasterRCNNConfig,
        *,
        parts: Sequence[str] = ("rpn", "regions"),
        proposer: keras.Model | None = None,
        validation: Validation | None = None,
    ):
        self.networks = {"detector": model}
        self.stages = Stages(model)
        self.stages.features = backbones.folded_in_training(self.stages.features)
        self.config = config
        self.parts = parts if self.stages.proposals else ("regions",)
        self.proposer = Stages(proposer) if proposer is not None else None
        self.validate: Callable[[], dict[str, float]] = validation or dict
        if validation is not None:
            self.pictures = validation.drawn

    def losses(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The four losses, of Mask R-CNN five, summed over the batch's images.

        Args:
            batch: of `tfcnn.datasets.pipeline.batches`: image float32 [N, H, W, 3], size int32 [N, 2] of the real
                pictures in it, scale float32 [N, 2], boxes float32 [N, M, 4], labels int32 [N, M] (-1 is padding),
                difficult and crowd bool [N, M] (these objects are ignored); of Fast R-CNN proposals float32
                [N, R, 4]; of Mask R-CNN masks bool [N, M, H, W] and void bool [N, H, W]; and seed int32 [2] or
                int64 [N, 2].

        Returns:
            {"objectness", "rpn_box", "class", "box", "mask"}: scalars; only those of `parts` and of the model.
        """
        config, boxes, labels, seed = self.config, batch["boxes"], batch["labels"], batch["seed"]
        ignore = {"ignore": batch["difficult"] | batch["crowd"], "ignore_overlap": config.ignore_overlap}
        first = self.stages.first(batch["image"], training=True)
        losses = {}
        if "rpn" in self.parts:
            drawn = rpn.rpn_targets(
                self.stages.proposals.anchors(first["proposal_maps"]),
                boxes,
                labels,
                *tf.unstack(batch["size"], axis=1),
                seed,
                positive=config.positive_anchors,
                negative=config.negative_anchors,
                count=config.rpn_batch,
                border=0.0 if config.inside_anchors else None,
                **ignore,
            )
            objectness, box = rpn.rpn_losses(first["objectness"], first["deltas"], *drawn)
            losses |= {"objectness": objectness, "rpn_box": config.box_weight * box}
        if "regions" in self.parts:
            regions, columns, matched = fast_rcnn_training.sample_regions(
                self.propose(batch, first),
                boxes,
                labels,
                seed + 1,
                count=config.regions,
                positive_share=config.positive_share,
                negative=(config.background_low, 0.5),
                **ignore,
            )
            logits, deltas = self.stages.regions(regions, first["pool_maps"], training=True)
            output, truth = self.stages.output, rpn.rows(boxes, matched)
            entropy, box = fast_rcnn_training.region_losses(
                logits, deltas, regions, columns, truth, config.hardest, output.means, output.stds
            )
            losses |= {"class": entropy, "box": config.box_weight * box}
            if self.stages.mask_head is not None:
                most = round(config.regions * config.positive_share)  # foreground comes first
                sampled = (each[:, :most] for each in (regions, columns, matched))
                losses["mask"] = config.mask_weight * self.mask_loss(batch, first["mask_maps"], *sampled)
        return {name: tf.reduce_sum(value) for name, value in losses.items()}

    def mask_loss(
        self,
        batch: Mapping[str, tf.Tensor],
        mask_maps: list[tf.Tensor],
        regions: tf.Tensor,
        columns: tf.Tensor,
        matched: tf.Tensor,
    ) -> tf.Tensor:
        """The loss of the masks of foreground regions, float32 [N].

        Args:
            batch: of `losses`.
            mask_maps: of `Stages.first`.
            regions, columns, matched: of `fast_rcnn_training.sample_regions`; what is no foreground counts nothing.
        """
        logits = self.stages.masks(regions, tf.maximum(columns - 1, 0), mask_maps, training=True)
        targets, weights = mask_rcnn.mask_targets(batch["masks"], batch["void"], regions, matched)
        weights *= tf.cast(columns >= 1, tf.float32)[..., None, None]
        return mask_rcnn.mask_loss(logits, targets, weights)

    def propose(self, batch: Mapping[str, tf.Tensor], first: dict) -> tf.Tensor:
        """Proposals of a step, float32 [N, R, 4]; no gradient passes.

        Args:
            batch: of `losses`.
            first: of `Stages.first`.
        """
        if self.stages.proposals is None:
            return batch["proposals"]
        stages = self.proposer or self.stages
        if self.proposer is not None:
            first = stages.first(batch["image"])
        boxes, _ = stages.propose(
            first,
            *tf.unstack(batch["size"], axis=1),
            self.config.train_proposals,
            self.config.train_before_nms,
            scale=tf.reduce_min(batch["scale"], axis=1),
        )
        return boxes
