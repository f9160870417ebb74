"""A Faster R-CNN model cut where training, refinement and testing on several scales enter it.

Letters: N images, A anchors, R regions of an image, K classes.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn.detection import fast_rcnn, mask_rcnn
from tfcnn.errors import InputError
from tfcnn.export import litert


class Stages:
    """A Faster R-CNN model cut into features with region proposals, pooling, and the head of the regions.

    The cuts share every layer with the model, so a weight trained here is trained there.

    Args:
        model: of `tfcnn.detection.faster_rcnn.faster_rcnn`.

    Attributes:
        model: the whole, image to detections.
        features: image to what `first` gives. head: pooled regions to logits and deltas.
        proposals, pool, output: the layers between the cuts and after; Fast R-CNN has no proposals (None).
        mask_pool, mask_head: Mask R-CNN's pooling, and its branch from pooled regions to logits of masks; else None.

    Raises:
        InputError: the model is no Faster R-CNN.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        layers = {layer.name: layer for layer in model.layers}
        if "region_pool" not in layers or "detections" not in layers:
            raise InputError(
                f"The model {model.name} is no Faster R-CNN of tfcnn: it has no layer region_pool."
            )
        self.proposals, self.pool, self.output = map(layers.get, ("proposals", "region_pool", "detections"))
        regions, *pool_maps = self.pool.input
        named = {f"pool_map{i}": x for i, x in enumerate(pool_maps)}
        if self.proposals:
            objectness, deltas, _, *proposal_maps = self.proposals.input
            named |= {"objectness": objectness, "deltas": deltas}
            named |= {f"proposal_map{i}": x for i, x in enumerate(proposal_maps)}
        self.mask_pool, self.mask_head = layers.get("mask_pool"), None
        if self.mask_pool:
            named |= {f"mask_map{i}": x for i, x in enumerate(self.mask_pool.input[1:])}
            self.mask_head = keras.Model(self.mask_pool.output, layers["masks"].input[0], name="mask_branch")
        self.features = keras.Model(model.inputs[0], named, name="features")
        logits, box_deltas, *_ = self.output.input
        inputs = [self.pool.output, regions] if self.pool.context else [self.pool.output]
        self.head = keras.Model(inputs, {"logits": logits, "deltas": box_deltas}, name="regions")

    @property
    def classes(self) -> int:
        """K."""
        return self.head.output["logits"].shape[-1] - 1

    def anchors_at(self, height: int, width: int) -> tf.Tensor:
        """The anchors of a picture of this size, float32 [A, 4]."""
        maps = self.features.compute_output_shape((1, height, width, 3))
        shapes = [maps[name][1:3] for name in sorted(maps) if name.startswith("proposal_map")]
        return self.proposals.grid.boxes(shapes)

    def first(self, image: tf.Tensor, training: bool = False) -> dict:
        """Everything before proposals.

        Args:
            image: float32 [N, H, W, 3].
            training: for dropout and live batch norm.

        Returns:
            {objectness float32 [N, A], deltas float32 [N, A, 4], proposal_maps, pool_maps, mask_maps: lists of
            [N, h, w, C]}.
        """
        return self.grouped(self.features(image, training=training))

    def propose(
        self,
        first: dict,
        height: int | tf.Tensor,
        width: int | tf.Tensor,
        count: int | None = None,
        before_nms: int | None = None,
        scale: float | tf.Tensor = 1.0,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Proposals, through which no gradient passes.

        Args:
            first: of `first`.
            height, width: of the pictures, pixels: of all, or [N].
            count: R; None takes the model's own.
            before_nms: boxes that enter suppression; None takes the model's own.
            scale: pixels of the picture for one of its file, of all or [N].

        Returns:
            (boxes float32 [N, R, 4] in the image's pixels, objectness logits [N, R]); padding is zeros and -inf.
        """
        maps = first["proposal_maps"]
        return self.proposals.propose(
            first["objectness"], first["deltas"], maps, height, width, count, before_nms, scale
        )

    def regions(
        self, regions: tf.Tensor, pool_maps: list[tf.Tensor], training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The head's answer for regions [N, R, 4]: (logits float32 [N, R, K + 1], deltas float32 [N, R, 4 or 4 K])."""
        inputs = [self.pool([regions, *pool_maps])] + [regions] * self.pool.context
        answer = self.head(inputs, training=training)
        return tuple(fast_rcnn.per_image(answer[name], regions) for name in ("logits", "deltas"))

    def masks(
        self, regions: tf.Tensor, labels: tf.Tensor, mask_maps: list[tf.Tensor], training: bool = False
    ) -> tf.Tensor:
        """The masks of regions [N, R, 4], each of its class in `labels` int32 [N, R]: logits float32 [N, R, 28, 28]."""
        logits = self.mask_head(self.mask_pool([regions, *mask_maps]), training=training)
        return mask_rcnn.of_class(logits, labels)

    def rpn_layers(self) -> set[str]:
        """Names of the layers that only the region proposal network has."""
        return {layer.name for layer in self.features.layers if layer.name.startswith("rpn_")}

    def region_layers(self) -> set[str]:
        """Names of the layers that only the regions pass."""
        shared = {layer.name for layer in self.features.layers} - self.position_layers()
        return {layer.name for layer in self.head.layers} - shared | self.position_layers()

    def position_layers(self) -> set[str]:
        """Names of the convolutions that make position-sensitive maps: the regions' own, before pooling."""
        return {layer.name for layer in self.features.layers if layer.name.startswith("position_map")}

    @staticmethod
    def grouped(answer: dict[str, tf.Tensor]) -> dict:
        """The features' outputs by name, gathered as `first` gives them."""
        return {
            name: tf.cast(answer[name], tf.float32) for name in ("objectness", "deltas") if name in answer
        } | {
            "proposal_maps": [answer[n] for n in sorted(answer) if n.startswith("proposal_map")],
            "pool_maps": [answer[n] for n in sorted(answer) if n.startswith("pool_map")],
            "mask_maps": [answer[n] for n in sorted(answer) if n.startswith("mask_map")],
        }


class LiteStages(Stages):
    """`Stages` whose two networks run as LiteRT programs, one picture after the other; for inference alone.

    Args:
        model: as of `Stages`.
        threads: of LiteRT.
        count: R, the regions that the head's program takes; None: the model's own proposals.
        calibration: pictures uint8 [H, W, 3] of any size, by which the first network becomes int8; the regions' head
            stays float. None: both are float.

    Raises:
        InputError: LiteRT is not installed, or the model has an operation that it lacks.
    """

    def __init__(
        self,
        model: keras.Model,
        threads: int = 1,
        count: int | None = None,
        calibration: Sequence[np.ndarray] | None = None,
    ):
        super().__init__(model)
        self._threads, self._calibration = threads, calibration
        self._features: dict[tuple, litert.Program] = {}
        self._count, self._head = count or (self.proposals.count if self.proposals else 0), None
        if self.proposals and not self.pool.context:
            rows = [self._count, *self.pool.output.shape[1:]]
            self._head = litert.Program(self.head, rows, threads)

    def convert(self, height: int, width: int) -> None:
        """Makes the program for pictures of this size, unless there is one; seconds."""
        if (height, width) not in self._features:
            seen = None if self._calibration is None else litert.rows(self._calibration, height, width)
            program = litert.Program(self.features, [1, height, width, 3], self._threads, seen)
            self._features[height, width] = program

    def first(self, image: tf.Tensor, training: bool = False) -> dict:
        return self.grouped(self._run(self._program_for, image, self.features.output))

    def regions(
        self, regions: tf.Tensor, pool_maps: list[tf.Tensor], training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        # A program knows one number of rows.
        if self._head is None or regions.shape[1] != self._count:
            return super().regions(regions, pool_maps)
        answer = self._run(lambda rows: self._head, self.pool([regions, *pool_maps]), self.head.output)
        return tuple(fast_rcnn.per_image(answer[name], regions) for name in ("logits", "deltas"))

    def _program_for(self, image: np.ndarray) -> litert.Program:
        return self._features[image.shape[1:3]]

    @staticmethod
    def _run(program_for, inputs, specs):
        names = sorted(specs)

        def run(rows):
            answer = program_for(rows)(rows)
            return [answer[name] for name in names]

        outputs = tf.numpy_function(run, [inputs], [tf.float32] * len(names))
        for name, output in zip(names, outputs, strict=True):
            output.set_shape([None] * (len(specs[name].shape) - 1) + [specs[name].shape[-1]])
        return dict(zip(names, outputs, strict=True))
