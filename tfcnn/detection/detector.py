"""Faster R-CNN, Fast R-CNN and Mask R-CNN at work: the part of a `tfcnn.predictor.Predictor` that is theirs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn import backbones
from tfcnn.datasets import Record
from tfcnn.detection import test_time
from tfcnn.detection.options import PLAIN, DetectorOptions
from tfcnn.detection.stages import LiteStages, Stages
from tfcnn.errors import InputError
from tfcnn.export import litert
from tfcnn.predictor import Predictor, Prepared


class FasterRCNN:
    """One or several Faster R-CNN, Fast R-CNN or Mask R-CNN models with everything that is done at test time.

    Args:
        models: of `faster_rcnn.faster_rcnn` or `mask_rcnn.mask_rcnn`; several of the same classes are an ensemble.
            Weights may be trained on between two calls.
        options: what is done at test time; of the networks LiteRT computes the convolutions.

    Attributes:
        classes: K.
        zero_rgb: the colour that the network sees as zero.
        needs_proposals: it is a Fast R-CNN.
        proposal_count: R; 0 of a Fast R-CNN.
        has_masks: whether detections come with masks: one of the models has them.

    Raises:
        InputError: a model is no Faster R-CNN, the models have different classes, LiteRT is not installed, or a Fast
            R-CNN is asked for proposals.
    """

    def __init__(self, models: Sequence[keras.Model], options: DetectorOptions = PLAIN):
        litert.check(options.runtime, options.calibration)
        proposals = options.proposals
        if options.runtime == "tf":
            stages = [Stages(model) for model in models]
        else:
            seen = options.calibration if options.runtime == "litert_int8" else None
            stages = [LiteStages(model, options.threads, proposals, seen) for model in models]
        if len({each.classes for each in stages}) > 1:
            counts = ", ".join(str(each.classes) for each in stages)
            raise InputError(f"The models of an ensemble need the same classes, but have {counts} of them.")
        self.stages, first, output = stages, stages[0], stages[0].output
        self.classes, self.zero_rgb = first.classes, backbones.zero_rgb(models[0])
        if proposals and not first.proposals:
            raise InputError("A Fast R-CNN takes the proposals that it is given: it makes none.")
        self.proposal_count = (proposals or first.proposals.count) if first.proposals else 0
        self.needs_proposals = not self.proposal_count
        self.has_masks = any(each.mask_head is not None for each in stages)
        score, overlap, most = options.thresholds(output)
        mirrored = (False, True) if options.flip else (False,)
        views = [test_time.View(*view) for view in itertools.product(stages, range(options.scales), mirrored)]

        def find(pictures, sizes, shapes, precomputed):
            pictures = [tf.cast(picture, tf.float32) for picture in pictures]
            return test_time.find(
                views,
                pictures,
                sizes,
                shapes,
                precomputed,
                refine=options.refine,
                box_voting=options.box_voting,
                proposals=self.proposal_count,
                score_threshold=score,
                nms_threshold=overlap,
                max_detections=most,
            )

        def propose(picture, size, shapes):
            return test_time.propose(first, tf.cast(picture, tf.float32), size, shapes, self.proposal_count)

        self._find = tf.function(find, reduce_retracing=True, autograph=False)
        self._propose = tf.function(propose, reduce_retracing=True, autograph=False)

    def __call__(
        self,
        pictures: list[np.ndarray],
        sizes: list[np.ndarray],
        shapes: np.ndarray,
        proposals: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Detections of a batch, as `tfcnn.predictor.Method` says."""
        self._convert(pictures)
        arrays = tf.nest.map_structure(tf.constant, (pictures, sizes, shapes))
        return {name: value.numpy() for name, value in self._find(*arrays, proposals).items()}

    def propose(self, picture: np.ndarray, size: np.ndarray, shapes: np.ndarray) -> np.ndarray:
        """The first network's proposals.

        Args:
            picture: uint8 [N, H, W, 3].
            size: int32 [N, 2], of the real pictures inside.
            shapes: int32 [N, 2], of their files.

        Returns:
            float32 [N, R, 4], pixels of `picture`, padded with zeros.
        """
        self._convert([picture])
        return self._propose(*map(tf.constant, (picture, size, shapes))).numpy()

    def _convert(self, pictures):
        for stages, picture in itertools.product(self.stages, pictures):
            if isinstance(stages, LiteStages):
                stages.convert(*picture.shape[1:3])


def proposals_of(
    predictor: Predictor, records: Sequence[Record]
) -> Iterator[tuple[Record, Prepared, np.ndarray]]:
    """The proposals of a data set's pictures.

    Args:
        predictor: of a Faster R-CNN.
        records: of a tfcnn.datasets Dataset.

    Yields:
        (the record, the picture as the network sees it, float32 [R, 4] in pixels of that) of each that can be read.
    """
    for batch in predictor.read(records):
        ready = [(record, prepared) for record, prepared, _ in batch if prepared]
        if ready:
            pictures, sizes, shapes = predictor.stack([prepared for _, prepared in ready])
            boxes = predictor.method.propose(pictures[0], sizes[0], shapes)
            yield from ((*pair, own) for pair, own in zip(ready, boxes, strict=True))
