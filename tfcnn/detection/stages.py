"""A Faster R-CNN model cut where training, refinement and testing on several scales enter it.

Letters: N images, A anchors, R regions of an image, K classes.
"""

import keras
import tensorflow as tf

from tfcnn.detection import rpn
from tfcnn.errors import InputError
from tfcnn.export import litert


class Stages:
    """A Faster R-CNN model cut into features with region proposals, pooling, and the head of the regions.

    The cuts share every layer with the model, so a weight trained here is trained there.

    Attributes:
        model: the whole, image to detections.
        proposals, pool, output: the layers between the cuts and after; Fast R-CNN has no proposals (None).

    Raises:
        InputError: the model is no Faster R-CNN.
    """

    def __init__(self, model):
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
        self.features = keras.Model(model.inputs[0], named, name="features")
        logits, box_deltas, *_ = self.output.input
        inputs = [self.pool.output, regions] if self.pool.context else [self.pool.output]
        self.head = keras.Model(inputs, {"logits": logits, "deltas": box_deltas}, name="regions")

    @property
    def classes(self):
        """K."""
        return self.head.output["logits"].shape[-1] - 1

    def anchors_at(self, size):
        """The anchors of a square picture of this side, float32 [A, 4]."""
        maps = self.features.compute_output_shape((1, size, size, 3))
        shapes = [maps[name][1:3] for name in sorted(maps) if name.startswith("proposal_map")]
        return self.proposals.grid.boxes(shapes)

    def first(self, image, training=False):
        """Everything before proposals.

        Args:
            image: float32 [N, H, W, 3].
            training: for dropout and live batch norm.

        Returns:
            {objectness float32 [N, A], deltas float32 [N, A, 4], proposal_maps, pool_maps: lists of [N, h, w, C]}.
        """
        return self.grouped(self.features(image, training=training))

    def propose(self, first, image, count, before_nms=None):
        """Proposals: boxes float32 [N, R, 4] in the image's pixels, objectness [N, R]; no gradient passes."""
        return rpn.propose(
            tf.stop_gradient(first["objectness"]),
            tf.stop_gradient(first["deltas"]),
            self.proposals.anchors(first["proposal_maps"]),
            tf.shape(image)[1],
            tf.shape(image)[2],
            count=count,
            before_nms=before_nms or self.proposals.before_nms,
            nms_threshold=self.proposals.nms_threshold,
        )

    def regions(self, regions, pool_maps, training=False):
        """The head's answer for regions [N, R, 4]: (logits float32 [N, R, K + 1], deltas float32 [N, R, 4 or 4 K])."""
        inputs = [self.pool([regions, *pool_maps])] + [regions] * self.pool.context
        answer = self.head(inputs, training=training)
        rows = tf.shape(regions)[1]
        return [
            tf.cast(tf.reshape(answer[name], [-1, rows, answer[name].shape[-1]]), tf.float32)
            for name in ("logits", "deltas")
        ]

    def rpn_layers(self):
        """Names of the layers that only the region proposal network has."""
        return {layer.name for layer in self.features.layers if layer.name.startswith("rpn_")}

    def region_layers(self):
        """Names of the layers that only the regions pass."""
        shared = {layer.name for layer in self.features.layers} - self.position_layers()
        return {layer.name for layer in self.head.layers} - shared | self.position_layers()

    def position_layers(self):
        """Names of the convolutions that make position-sensitive maps: the regions' own, before pooling."""
        return {layer.name for layer in self.features.layers if layer.name.startswith("position_map")}

    @staticmethod
    def grouped(answer):
        """The features' outputs by name, gathered as `first` gives them."""
        return {
            name: tf.cast(answer[name], tf.float32) for name in ("objectness", "deltas") if name in answer
        } | {
            "proposal_maps": [answer[n] for n in sorted(answer) if n.startswith("proposal_map")],
            "pool_maps": [answer[n] for n in sorted(answer) if n.startswith("pool_map")],
        }


class LiteStages(Stages):
    """`Stages` whose two networks run as LiteRT programs, one picture after the other; for inference alone.

    Args:
        stages: the cuts of a model.
        size: side of the square pictures.
        threads: of LiteRT.

    Raises:
        InputError: LiteRT is not installed, or the model has an operation that it lacks.
    """

    def __init__(self, stages, size, threads):
        super().__init__(stages.model)
        self._features = litert.Program(self.features, [1, size, size, 3], threads)
        self._head = None
        if self.proposals and not self.pool.context:
            self._head = litert.Program(
                self.head, [self.proposals.count, *self.pool.output.shape[1:]], threads
            )

    def first(self, image, training=False):
        return self.grouped(self._run(self._features, image, self.features.output))

    def regions(self, regions, pool_maps, training=False):
        if (
            self._head is None or regions.shape[1] != self.proposals.count
        ):  # a program knows one number of rows
            return super().regions(regions, pool_maps)
        answer = self._run(self._head, self.pool([regions, *pool_maps]), self.head.output)
        rows = tf.shape(regions)[1]
        return [tf.reshape(answer[name], [-1, rows, answer[name].shape[-1]]) for name in ("logits", "deltas")]

    @staticmethod
    def _run(program, inputs, specs):
        names = sorted(specs)

        def run(rows):
            answer = program(rows)
            return [answer[name] for name in names]

        outputs = tf.numpy_function(run, [inputs], [tf.float32] * len(names))
        for name, output in zip(names, outputs, strict=True):
            output.set_shape([None] * (len(specs[name].shape) - 1) + [specs[name].shape[-1]])
        return dict(zip(names, outputs, strict=True))
