"""R-CNN: warp each proposal to the net's size, describe it by the net's features, score these by a linear SVM a class,
regress the box.

Letters: N images, R regions of an image, K classes, S the side of a warped region, D numbers of a region's code, B of
what its box is regressed from.

Source: Girshick, Donahue, Darrell, Malik, "Rich feature hierarchies", 2014; constants of the authors' program
(rbgirshick/rcnn). For regions pooled from one map: He, Zhang, Ren, Sun, "Spatial pyramid pooling", 2014; the layers
behind them are convolutions: He, Zhang, Ren, Sun, "Deep residual learning", 2015, section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tfcnn import backbones
from tfcnn.backbones.convert import copied
from tfcnn.backbones.graph import made_by
from tfcnn.detection import outputs
from tfcnn.detection.endpoints import strides
from tfcnn.detection.fast_rcnn import RegionPool, dense_head, per_image
from tfcnn.detection.options import PLAIN, DetectorOptions
from tfcnn.detection.warping import WarpRegions, WithContext
from tfcnn.errors import InputError, unknown
from tfcnn.export import litert
from tfcnn.ops import boxes as box_ops
from tfcnn.ops import coders

CODE, PLACE = "region_code", "region_place"  # layers: what the SVMs see, and what boxes are regressed from
REGION_LAYERS = "region_"  # how names of the layers begin that warp or pool regions
SLOPE = 2.0  # from an SVM's margin to a score between 0 and 1: margins of -1 and 1 become 0.12 and 0.88
NEW_LAYERS = ("class_logits",)  # how names of layers begin that fine-tuning starts anew
CHUNK, LITERT_CHUNK = 50, 10  # regions computed at once, by TensorFlow and by LiteRT


@keras.saving.register_keras_serializable(package="tfcnn")
class SvmDetections(outputs.DetectionLayer):
    """From margins and box deltas to detections; boxes in pixels of the image.

    Call it on [margins [N R, K], deltas [N R, 4 K], regions [N, R, 4], image [N, H, W, 3]]. A region of zeros is
    padding. The score is the logistic function of SLOPE times the margin, which leaves every order as it is.

    Args: as `outputs.DetectionLayer`; the authors keep boxes up to an IoU of 0.3.
    """

    def __init__(
        self,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.3,
        max_detections: int = 100,
        **kwargs: Any,
    ):
        super().__init__(score_threshold, nms_threshold, max_detections, **kwargs)

    def decode(
        self, raw: list[tf.Tensor], height: tf.Tensor, width: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Boxes float32 [N, R, K, 4], clipped to the picture of these sides (of all, or [N]), and scores [N, R, K]."""
        margins, deltas, regions = raw
        margins, deltas = per_image(margins, regions), per_image(deltas, regions)
        shape = tf.concat([tf.shape(deltas)[:-1], [deltas.shape[-1] // 4, 4]], axis=0)
        boxes = coders.decode(tf.reshape(deltas, shape), regions[:, :, None, :])
        boxes = box_ops.clip(boxes, *(tf.reshape(side, [-1, 1, 1]) for side in (height, width)))
        real = box_ops.area(regions) > 0
        return boxes, tf.where(real[..., None], tf.sigmoid(SLOPE * margins), 0.0)


def described_regions(
    backbone: keras.Model,
    classes: int,
    method: str = "warp",
    side: int = 128,
    context: float = 16.0,
    head: str = "average",
) -> keras.Model:
    """The net that describes regions, with the layer that fine-tunes it.

    Args:
        backbone: of the factory, all of its endpoints.
        classes: K.
        method: "warp", the paper's, each region through the net by itself; "spp", the net once over the picture up to
            the last map before its largest stride, regions pooled from that (RoIAlign), and the rest of the net on
            each.
        side: S; of "spp" a region has S / stride cells on a side, about as many as the map of a warped one.
        context: pixels of S that surround the region on each side (the paper's 16 of 227).
        head: what a region's code is: "average", of the last map over its locations; "dense", the paper's: the second
            of a classifier's two layers of 4096 units, which `fast_rcnn.copy_dense` brings from it, and the box is
            regressed from the last map.

    Returns:
        A flat model of image [N, H, W, 3] and regions [N, R, 4] in its pixels to class logits [N R, K + 1], column 0
        the background. The layers CODE and PLACE give what `features` keeps of a region.

    Raises:
        InputError: an unknown method or head, a backbone with one stride, a context that leaves nothing of the
            square, or a square that is too small for the backbone.
    """
    if method not in ("warp", "spp"):
        raise unknown("features", method, ("warp", "spp"))
    if head not in ("average", "dense"):
        raise unknown("head", head, ("average", "dense"))
    if not 0 <= 2 * context < side:
        raise InputError(f"A context of {context:g} pixels on each side leaves nothing of {side}.")
    image = keras.Input((None, None, 3), name="image")
    regions = keras.Input((None, 4), name="regions")
    known = strides(backbone)
    deepest = max(known.values())
    if method == "spp":
        shared = next((end for end in reversed(known) if known[end] < deepest), None)
        if shared is None:
            raise InputError(
                f"The backbone {backbone.name} has one stride, {deepest}: no map to pool regions from before it."
            )
        pool = RegionPool([known[shared]], max(2, side // known[shared]), "align", name="region_pool")
        wide = WithContext(side, context, name="region_context")(regions)
        cut = pool([wide, _run_on(backbone, [shared], image)[shared]])
    else:
        shared = None
        warp = WarpRegions(side, context, backbones.zero_rgb(backbone), name="region_warp")
        cut = warp([regions, image])
    last = list(known)[-1]
    small = min(
        (end for end in known if known[end] == deepest), key=lambda end: backbone.output[end].shape[-1]
    )
    too_small = InputError(f"Regions of {side} pixels a side are too small for {backbone.name}.")
    try:
        chosen = _run_on(backbone, [small, last], cut, shared)
    except ValueError as error:
        if "Computed output size" not in str(error):  # Keras' words for a map without a location
            raise
        raise too_small from error
    if min(chosen[name].shape[axis] for name in (small, last) for axis in (1, 2)) < 1:
        raise too_small
    if head == "dense":
        code = layers.Identity(name=CODE)(dense_head(chosen[last]))
        place = layers.Flatten(name=PLACE)(chosen[last])
    else:
        code, place = layers.GlobalAveragePooling2D(name=CODE)(chosen[last]), chosen[small]
        cells = max(1, place.shape[1] // 2)
        place = layers.AveragePooling2D(cells, name="region_quarters")(place)
        place = layers.Flatten(name=PLACE)(place)
    normal = keras.initializers.RandomNormal(stddev=0.01)
    logits = layers.Dense(classes + 1, kernel_initializer=normal, dtype="float32", name="class_logits")(code)
    model = keras.Model([image, regions], {"logits": logits, "place": place}, name="rcnn_finetune")
    model.zero_rgb = backbones.zero_rgb(backbone)
    if method == "spp":  # what freeze_stride counts; a warped region has no stride in the picture
        seen = list(known)[: list(known).index(shared) + 1]
        model.endpoints = {name: made_by(backbone.output[name]).operation.name for name in seen}
    return model


def _run_on(backbone, endpoints, tensor, begin=None):
    """Copies of the backbone's layers on a tensor: {endpoint: map}.

    Layers above the last endpoint are left out, and those up to the endpoint `begin`, whose place the tensor takes.
    """
    made = {}

    def call(layer, *arguments, **options):
        made[layer.name] = result = layer(*arguments, **options)
        return result

    part = backbones.tap(backbone, dict.fromkeys(endpoints))
    names = {name: made_by(part.output[name]).operation.name for name in endpoints}
    if begin:
        part = keras.Model(backbone.output[begin], part.output, name=backbone.name)
    backbones.rebuilt(part, copied, call=call, inputs=tensor)
    return {name: made[own] for name, own in names.items()}


def feature_model(model: keras.Model) -> keras.Model:
    """The same net from image and regions to {"code": [N R, D], "place": [N R, B]}.

    Raises:
        InputError: the model describes no regions.
    """
    known = {layer.name: layer for layer in model.layers}
    if not {CODE, PLACE} <= known.keys():
        raise InputError(f"The model {model.name} describes no regions: it has no layer {CODE}.")
    inputs = dict(zip(("image", "regions"), _inputs(model), strict=True))
    found = {"code": known[CODE].output, "place": known[PLACE].output}
    return keras.Model(list(inputs.values()), found, name="region_features")


def rcnn(
    model: keras.Model,
    svm: tuple[np.ndarray, np.ndarray],
    regressor: tuple[np.ndarray, np.ndarray],
    nms_threshold: float = 0.3,
) -> keras.Model:
    """The whole detector: net, SVMs, box regression and suppression in one model.

    Args:
        model: of `described_regions`, fine-tuned.
        svm: weights [D, K] and biases [K] of the SVMs, on the code as the net gives it.
        regressor: weights [B, 4 K] and biases [4 K] of the boxes' deltas, as `coders.decode` takes them.
        nms_threshold: IoU above which the lower of two boxes of a class goes.

    Returns:
        A flat model of image [N, H, W, 3] and regions [N, R, 4], rows of zeros being padding, to the dict of
        `outputs.best_of_each_class`.
    """
    features = feature_model(model)
    image, regions = features.inputs
    code, place = features.output["code"], features.output["place"]
    margins = layers.Dense(svm[0].shape[1], dtype="float32", name="svm")
    deltas = layers.Dense(regressor[0].shape[1], dtype="float32", name="box_deltas")
    found = SvmDetections(nms_threshold=nms_threshold, name="detections")(
        [margins(code), deltas(place), regions, image]
    )
    margins.set_weights([np.float32(part) for part in svm])
    deltas.set_weights([np.float32(part) for part in regressor])
    return keras.Model([image, regions], found, name="rcnn")


def _inputs(model):
    """(image, regions)."""
    named = {tensor.name: tensor for tensor in model.inputs}
    return named["image"], named["regions"]


class Describer:
    """Computes what a net knows of regions, a picture at a time and some regions at once, so that memory is bounded.

    Args:
        model: of image and regions to {name: tensor [N R, width]}.
        runtime: "tf"; "litert", warped regions through the net by LiteRT, which is faster; "litert_int8", that in
            whole numbers of 8 bits.
        threads: of LiteRT.
        calibration: of "litert_int8", pictures uint8 [H, W, 3] by which its ranges are found.

    Attributes:
        outputs: {name: width}.

    Raises:
        InputError: no such runtime, LiteRT is not installed, or regions that are pooled from a picture's map are to be
            computed by it.
    """

    def __init__(
        self,
        model: keras.Model,
        runtime: str = "tf",
        threads: int = 1,
        calibration: Sequence[np.ndarray] = (),
    ):
        litert.check(runtime, calibration)
        self.outputs = {name: tensor.shape[-1] for name, tensor in model.output.items()}
        self._shared: Callable = lambda image: image  # what all regions of a picture are computed from
        known = {type(layer): layer for layer in model.layers}
        pool, warp = known.get(RegionPool), known.get(WarpRegions)
        if runtime == "tf":
            self._count = CHUNK
            if pool is None:
                self._compute = _traced(model, CHUNK)
            else:
                image, regions = _inputs(model)
                shared = pool.input[1]
                signature = [tf.TensorSpec([1, None, None, 3], tf.float32)]
                trunk = keras.Model(image, shared)
                self._shared = tf.function(lambda image: trunk(image, training=False), signature)
                self._compute = _traced(keras.Model([shared, regions], model.output), CHUNK)
            return
        if warp is None:
            raise InputError(
                f"{model.name} pools its regions from one map: it has no runtime={runtime!r}, take 'tf'."
            )
        shape = [LITERT_CHUNK, warp.side, warp.side, 3]
        seen = _lots(calibration, shape) if runtime == "litert_int8" else None
        program = litert.Program(keras.Model(warp.output, model.output), shape, threads, seen)
        warped = _traced(keras.Model(model.inputs, warp.output), LITERT_CHUNK)
        self._count = LITERT_CHUNK
        self._compute = lambda image, regions: program(warped(image, regions).numpy())

    def __call__(self, image: np.ndarray, regions: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs float32 [R, width] of one picture uint8 [H, W, 3] with its regions [R, 4]."""
        found = {name: np.zeros((len(regions), width), np.float32) for name, width in self.outputs.items()}
        shared = self._shared(tf.constant(image[None], tf.float32))
        for first in range(0, len(regions), self._count):
            own = regions[first : first + self._count]
            padded = np.zeros((1, self._count, 4), np.float32)
            padded[0, : len(own)] = own
            for name, values in self._compute(shared, padded).items():
                found[name][first : first + len(own)] = values[: len(own)]
        return found


def _traced(model, count):
    """A model of a picture, or of its map, and of `count` regions, compiled."""
    first = model.inputs[0]
    signature = [tf.TensorSpec([1, *first.shape[1:]], first.dtype), tf.TensorSpec([1, count, 4], tf.float32)]
    return tf.function(
        lambda image, regions: model([image, regions], training=False), input_signature=signature
    )


def _lots(pictures, shape):
    """Pictures as batches float32 of a program's shape, stretched; the last lot is filled with the first pictures."""
    rows = np.concatenate(litert.rows(pictures, *shape[1:3]))
    count = -(-len(rows) // shape[0])
    return list(np.resize(rows, (count, *shape)))


class Rcnn:
    """An R-CNN at work: the part of a `tfcnn.predictor.Predictor` that is its own.

    Args:
        models: one, of `rcnn`.
        options: the thresholds, `proposals`, most regions of a picture, and the runtime; others belong to later
            detectors.

    Attributes:
        classes: K.
        zero_rgb: the colour that the network sees as zero.

    Raises:
        InputError: an option that it does not have, or a model that is no R-CNN.
    """

    needs_proposals = True

    def __init__(self, models: Sequence[keras.Model], options: DetectorOptions = PLAIN):
        if len(models) > 1:
            raise InputError("An R-CNN forms no ensemble: give one model.")
        options.only("An R-CNN", "proposals", "runtime")
        (model,) = models
        output = {layer.name: layer for layer in model.layers}.get("detections")
        if not isinstance(output, SvmDetections):
            raise InputError(f"The model {model.name} is no R-CNN: its last layer is other.")
        self._describe = Describer(
            feature_model(model), options.runtime, options.threads, options.calibration
        )
        self._svm, self._regressor = model.get_layer("svm"), model.get_layer("box_deltas")
        self.output, self.proposals = output, options.proposals
        self.classes, self.zero_rgb = self._svm.units, backbones.zero_rgb(model)
        self._thresholds = options.thresholds(output)

    def __call__(
        self,
        pictures: list[np.ndarray],
        sizes: list[np.ndarray],
        shapes: np.ndarray,
        proposals: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Detections of a batch, as `tfcnn.predictor.Method` says."""
        rows = []
        for image, (height, width), regions in zip(pictures[0], sizes[0], proposals, strict=True):
            regions = regions[box_ops.area(regions).numpy() > 0][: self.proposals]
            regions = regions if len(regions) else np.zeros((1, 4), np.float32)  # padding, which has no score
            found = self._describe(image[:height, :width], regions)
            raw = [self._svm(found["code"]), self._regressor(found["place"]), tf.constant(regions[None])]
            boxes, scores = self.output.decode(raw, tf.constant(height), tf.constant(width))
            rows.append(outputs.best_of_each_class(scores, boxes, *self._thresholds))
        return {name: np.concatenate([row[name].numpy() for row in rows]) for name in rows[0]}
