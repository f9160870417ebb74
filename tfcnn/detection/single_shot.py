"""Detectors of one network at work (YOLO, one-stage): the part of a `tfcnn.predictor.Predictor` that is theirs.

Letters: N images, P boxes of a picture before suppression, K classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn import backbones
from tfcnn.detection import test_time
from tfcnn.detection.one_stage import CellDetections
from tfcnn.detection.options import PLAIN, DetectorOptions
from tfcnn.detection.yolo import GridDetections
from tfcnn.errors import InputError
from tfcnn.export import litert
from tfcnn.ops import nms


class SingleShot:
    """One or several models of `yolo` or `one_stage`, with what is done at test time.

    The boxes of several views of a picture, or of several models, are put together before suppression.

    Args:
        models: of the same classes; several are an ensemble. Weights may be trained on between two calls.
        options: what is done at test time; there are no regions to propose or to refine.

    Attributes:
        classes: K.
        zero_rgb: the colour that the network sees as zero.
        size: side of the pictures that the first model takes, pixels; None: any.

    Raises:
        InputError: a model is neither, the models have different classes, LiteRT is not installed, or regions are
            asked for.
    """

    needs_proposals = False

    def __init__(self, models: Sequence[keras.Model], options: DetectorOptions = PLAIN):
        options.only("YOLO or a one-stage detector", "scales", "flip", "box_voting", "runtime")
        litert.check(options.runtime, options.calibration)
        seen = options.calibration if options.runtime == "litert_int8" else None
        threads = None if options.runtime == "tf" else options.threads
        self.nets = [Network(model, threads, seen) for model in models]
        if len({net.output.classes for net in self.nets}) > 1:
            counts = ", ".join(str(net.output.classes) for net in self.nets)
            raise InputError(f"The models of an ensemble need the same classes, but have {counts} of them.")
        output = self.nets[0].output
        self.classes, self.zero_rgb = output.classes, backbones.zero_rgb(models[0])
        self.size = getattr(output, "size", None)
        score, overlap, most = options.thresholds(output)
        views = list(
            itertools.product(self.nets, range(options.scales), (False, True) if options.flip else (False,))
        )

        def find(pictures, sizes):
            all_boxes, all_scores = [], []
            for net, index, mirrored in views:
                picture, size = tf.cast(pictures[index], tf.float32), sizes[index]
                if mirrored:  # the real picture is mirrored, the padding stays at its right
                    picture = tf.reverse_sequence(picture, size[:, 1], seq_axis=2, batch_axis=0)
                boxes, scores = net.output.decode(net(picture), *tf.unstack(tf.shape(picture)[1:3]))
                all_boxes.append(test_time.between(boxes, size, sizes[0], mirrored))
                all_scores.append(scores)
            boxes, scores = tf.concat(all_boxes, axis=1), tf.concat(all_scores, axis=1)
            boxes, scores_kept, labels, count = nms.class_nms(boxes, scores, overlap, most, score)
            if options.box_voting:
                boxes = test_time.vote(boxes, labels, tf.concat(all_boxes, axis=1)[:, :, None], scores)
            return {"boxes": boxes, "scores": scores_kept, "labels": labels, "count": count}

        self._find = tf.function(find, reduce_retracing=True, autograph=False)

    def __call__(
        self,
        pictures: list[np.ndarray],
        sizes: list[np.ndarray],
        shapes: np.ndarray,
        proposals: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Detections of a batch, as `tfcnn.predictor.Method` says."""
        for net, picture in itertools.product(self.nets, pictures):
            net.make_ready(*picture.shape[1:3])
        arrays = tf.nest.map_structure(tf.constant, (pictures, sizes))
        return {name: value.numpy() for name, value in self._find(*arrays).items()}


class Network:
    """A model before its last layer, from a picture to that layer's inputs, by TensorFlow or by LiteRT.

    Args:
        model: of `yolo` or `one_stage`.
        threads: of LiteRT; None computes with TensorFlow.
        calibration: pictures uint8 [H, W, 3] of any size, by which LiteRT's program becomes int8; None: float.

    Attributes:
        output: the model's last layer, which decodes.

    Raises:
        InputError: the model is neither.
    """

    def __init__(
        self, model: keras.Model, threads: int | None, calibration: Sequence[np.ndarray] | None = None
    ):
        self.output = model.layers[-1]
        if not isinstance(self.output, GridDetections | CellDetections):
            raise InputError(
                f"The model {model.name} is no detector of one network: its last layer is other."
            )
        *raw, _ = self.output.input
        self._names = [f"raw{index:02}" for index in range(len(raw))]
        self._net = keras.Model(model.inputs[0], dict(zip(self._names, raw, strict=True)), name=model.name)
        self._channels = [x.shape[1:] for x in raw]
        self._threads, self._calibration, self._programs = threads, calibration, {}

    def make_ready(self, height: int, width: int) -> None:
        """Checks that the network takes pictures of this size; for LiteRT makes its program, once a size, in seconds.

        Raises:
            InputError: its dense layers fix another size.
        """
        fixed = getattr(self.output, "size", None)
        if fixed and (height, width) != (fixed, fixed):
            raise InputError(
                f"This YOLO takes pictures of {fixed} x {fixed} pixels, not {width} x {height}: its dense layers fix "
                "the size."
            )
        if self._threads is not None and (height, width) not in self._programs:
            seen = None if self._calibration is None else litert.rows(self._calibration, height, width)
            program = litert.Program(self._net, [1, height, width, 3], self._threads, seen)
            self._programs[height, width] = program

    def __call__(self, picture: tf.Tensor) -> list[tf.Tensor]:
        """The inputs of the last layer for pictures float32 [N, H, W, 3]."""
        if self._threads is None:
            answer = self._net(picture, training=False)
            return [tf.cast(answer[name], tf.float32) for name in self._names]

        def run(rows):
            answer = self._programs[rows.shape[1:3]](rows)
            return [answer[name] for name in self._names]

        outputs = tf.numpy_function(run, [picture], [tf.float32] * len(self._names))
        for output, shape in zip(outputs, self._channels, strict=True):
            output.set_shape([None, *[None] * (len(shape) - 1), shape[-1]])
        return outputs
