"""ResNet's localizer: a region proposal network for each class, on a classifier's last map.

N pictures, C classes, h w the map, k anchors at a location, A = h w k anchors of a picture, S the side of the net's
picture. The classifier says the class; of that class's network the best anchor, moved by its offsets, is the box.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", arXiv 1512.03385, appendix C.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcnn import images
from tfcnn.backbones.convert import fully_convolutional
from tfcnn.backbones.graph import made_by, zero_rgb
from tfcnn.backbones.heads import with_logits
from tfcnn.detection import rpn
from tfcnn.errors import InputError, NotFinite
from tfcnn.localization import heads
from tfcnn.localization.overfeat import Windows
from tfcnn.ops import anchors as anchor_ops
from tfcnn.ops import boxes as box_ops
from tfcnn.ops import coders

SIZES = (
    0.3,
    0.55,
    0.85,
)  # of anchors, in sides of the net's picture: objects of a localization set fill much of it
RATIOS = (0.5, 1.0, 2.0)
DRAWN = 8  # anchors of a picture in a step, the paper's; half of them positive where there are so many


@keras.saving.register_keras_serializable(package="tfcnn")
class BestAnchors(keras.layers.Layer):
    """Gives the best anchor of each class, moved by its offsets, as a unit box.

    Call it on [objectness [N, h, w, k C], offsets [N, h, w, 4 k C]]; it gives float32 [N, C, 4].

    Args:
        classes: C.
        sizes: of anchors, in pixels.
        ratios: their height over width.
        size: S.
        stride: pixels from one location to the next.
    """

    def __init__(
        self,
        classes: int,
        sizes: Sequence[float],
        ratios: Sequence[float],
        size: int,
        stride: float,
        **options,
    ):
        super().__init__(**options)
        self.classes, self.sizes, self.ratios = classes, tuple(sizes), tuple(ratios)
        self.size, self.stride = size, stride

    def anchors(self, height: int | tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
        """The anchors of a map of h x w: float32 [A, 4], pixels."""
        return anchor_ops.grid(height, width, self.stride, anchor_ops.base_anchors(self.sizes, self.ratios))

    def by_class(self, objectness: tf.Tensor, offsets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Takes the maps apart.

        Returns:
            (objectness logits [N, A, C], offsets [N, A, C, 4], anchors [A, 4]).
        """
        shape = tf.shape(objectness)
        logits = tf.reshape(objectness, [shape[0], -1, self.classes])
        deltas = tf.reshape(offsets, [shape[0], -1, self.classes, 4])
        return tf.cast(logits, tf.float32), tf.cast(deltas, tf.float32), self.anchors(shape[1], shape[2])

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        logits, deltas, anchors = self.by_class(*inputs)
        best = tf.argmax(logits, axis=1, output_type=tf.int32)  # [N, C]
        deltas = tf.gather(tf.transpose(deltas, [0, 2, 1, 3]), best, batch_dims=2)
        return coders.decode(deltas, tf.gather(anchors, best)) / self.size

    def compute_output_spec(self, inputs: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        return keras.KerasTensor((inputs[0].shape[0], self.classes, 4), "float32")

    def get_config(self) -> dict[str, Any]:
        names = ("classes", "sizes", "ratios", "size", "stride")
        return super().get_config() | {name: getattr(self, name) for name in names}


def with_class_rpn(
    classifier: keras.Model,
    *,
    channels: int = 256,
    sizes: Sequence[float] = SIZES,
    ratios: Sequence[float] = RATIOS,
) -> keras.Model:
    """Attaches a region proposal network with an output for each class to a classifier.

    Args:
        classifier: as `localization.with_box_head` takes it.
        channels: of the hidden 3x3 convolution.
        sizes: of anchors, in sides of the net's picture.
        ratios: their height over width.

    Returns:
        A flat model from pictures [N, S, S, 3] to {"logits": [N, C], "scores": [N, C], "boxes": unit_boxes [N, C, 4],
        "objectness": [N, h, w, k C], "offsets": [N, h, w, 4 k C]}; its new layers begin with "box_".

    Raises:
        InputError: a net of no square size.
    """
    classifier = with_logits(classifier)
    size = classifier.input_shape[1]
    if not size or size != classifier.input_shape[2]:
        raise InputError(f"{classifier.name} takes pictures of no one square size, which anchors need")
    outputs = {name: classifier.output[name] for name in ("logits", "scores")}
    features = heads.last_map(heads.class_layer(outputs["logits"]).inputs[0])
    count, k = outputs["logits"].shape[-1], len(sizes) * len(ratios)
    small = keras.initializers.RandomNormal(stddev=0.01)

    def conv(filters, kernel, name, **options):
        return keras.layers.Conv2D(
            filters, kernel, padding="same", kernel_initializer=small, name=name, **options
        )

    x = conv(channels, 3, "box_conv", activation="relu")(features)
    outputs["objectness"] = conv(k * count, 1, "box_objectness", dtype="float32")(x)
    outputs["offsets"] = conv(4 * k * count, 1, "box_offsets", dtype="float32")(x)
    best = BestAnchors(
        count,
        [size * each for each in sizes],
        ratios,
        size,
        size / features.shape[1],
        name=heads.FORMS["rpn"],
        dtype="float32",
    )
    outputs["boxes"] = best([outputs["objectness"], outputs["offsets"]])
    model = keras.Model(classifier.inputs[0], outputs, name="localizer")
    model.zero_rgb = zero_rgb(model)
    return model


def losses(
    layer: BestAnchors,
    found: Mapping[str, tf.Tensor],
    truth: tf.Tensor,
    present: tf.Tensor,
    label: tf.Tensor,
    seed: tf.Tensor,
) -> tf.Tensor:
    """The losses of the network of each picture's class, objectness and boxes together.

    Args:
        layer: of the model.
        found: `objectness` and `offsets` of the model.
        truth: unit_boxes float32 [N, M, 4].
        present: bool [N, M].
        label: int32 [N], the pictures' classes.
        seed: int32 [2], of the draw of anchors, or int64 [N, 2], of each picture's.

    Returns:
        float [N]; 0 of a picture without an object.
    """
    logits, deltas, anchors = layer.by_class(found["objectness"], found["offsets"])
    own = tf.maximum(label, 0)
    logits = tf.gather(tf.transpose(logits, [0, 2, 1]), own, batch_dims=1)  # [N, A]
    deltas = tf.gather(tf.transpose(deltas, [0, 2, 1, 3]), own, batch_dims=1)
    boxes = truth * layer.size
    index, drawn, target = rpn.rpn_targets(
        anchors,
        boxes,
        tf.where(present, 0, -1),
        layer.size,
        layer.size,
        seed,
        positive=0.6,
        count=DRAWN,
        border=None,
    )
    objectness, box = rpn.rpn_losses(logits, deltas, index, drawn, target)
    return tf.where(tf.reduce_any(present, axis=1), objectness + box, 0.0)


class AnchorWindow:
    """A localizer of `with_class_rpn` on pictures of any size: its anchors in the place of windows.

    Args:
        model: of `with_class_rpn`.

    Attributes:
        window: S, in pixels.
        step: pixels from one location to the next.
        classes: C.

    Raises:
        InputError: the model is none, or has a layer without a convolutional form.
    """

    def __init__(self, model: keras.Model):
        form = heads.form(model)
        if form.kind != "rpn":
            raise InputError(f"{model.name} has no region proposal network")
        self.window, self.classes = model.input_shape[1], form.classes
        self.layer = made_by(model.output["boxes"]).operation
        self.step = round(self.layer.stride)
        outputs = {name: model.output[name] for name in ("scores", "objectness", "offsets")}
        net = fully_convolutional(keras.Model(model.inputs[0], outputs, name=model.name))

        def answers(picture: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            found = net(picture, training=False)
            logits, deltas, anchors = self.layer.by_class(found["objectness"], found["offsets"])
            classes = tf.reduce_max(found["scores"], axis=[1, 2])  # the best window of each class
            boxes = coders.decode(deltas, anchors[:, None])
            boxes = box_ops.clip(
                boxes, *(tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(picture)[1:3]))
            )
            return tf.sigmoid(logits) * classes[:, None], boxes

        self._answers = tf.function(answers, reduce_retracing=True)

    def __call__(self, image: np.ndarray, shorter: int, flip: bool = False) -> Windows:
        """Looks at a picture at one scale; `Windows` of A rows and one column.

        Args:
            image: uint8 [H, W, 3].
            shorter: its shorter side as the net sees it, in pixels; both become multiples of the step.
            flip: look at its mirror image, and mirror what is found.

        Raises:
            InputError: a number is not finite, or as `images.check_pixels`.
        """
        height, width = image.shape[:2]
        scale = max(shorter, self.window) / min(height, width)
        size = tuple(
            max(self.window, round(side * scale / self.step) * self.step) for side in (height, width)
        )
        images.check_pixels(size, height, width)
        picture, at = images.resize(image, size)
        picture = picture[:, ::-1] if flip else picture
        scores, boxes = (
            each.numpy()[0] for each in self._answers(tf.constant(picture[None].astype(np.float32)))
        )
        if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
            raise NotFinite
        if flip:
            x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
            boxes = np.stack([size[1] - x2, y1, size[1] - x1, y2], axis=-1)
        boxes = at.to_file(boxes)[:, None]  # [A, 1, C, 4]
        return Windows(boxes[:, :, 0], scores[:, None], boxes, size)
