"""DeepPose: the joints of a person by regression, refined stage by stage.

N persons of a batch, J joints, T stages, P the side of the net's picture and p that of a sub-image, in pixels.
The net's picture shows the person's box b, a square. Joints are normalised by it, N(y; b) = (y - centre) / side, so
that the picture's corners are (-0.5, -0.5) and (0.5, 0.5).

Source: Toshev and Szegedy, "DeepPose: Human Pose Estimation via Deep Neural Networks", CVPR 2014.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfcnn.backbones.convert import copied, rebuilt
from tfcnn.backbones.graph import zero_rgb
from tfcnn.errors import InputError
from tfcnn.export import pooling
from tfcnn.localization.heads import convolved

TORSO = ("left_shoulder", "right_hip")  # their distance is the paper's diam(y)
DIAMETER = 0.3  # of the box's side, where a torso's ends are not known: the median over LSP extended
SMALLEST = 0.15  # of the box's side: a torso seen from its end still has sub-images that hold its limbs
FILL = 127.0  # grey level of what lies beyond the picture, as in images.resize


@dataclasses.dataclass(frozen=True)
class Form:
    """What a pose net gives.

    Attributes:
        joints: J.
        stages: T.
        size: P.
    """

    joints: int
    stages: int
    size: int


@keras.saving.register_keras_serializable(package="tfcnn")
class SubImages(keras.layers.Layer):
    """Cuts a square sub-image round each joint, of the side sigma * diam(y).

    Args:
        size: p.
        sigma: side of a sub-image in torso diameters (the paper: 1.0 on FLIC, 2.0 on LSP).
        torso: the two joints, 0..J-1, whose distance is diam(y); None: it is always DIAMETER.

    Source: section 3.2.
    """

    def __init__(self, size: int, sigma: float = 2.0, torso: Sequence[int] | None = None, **options):
        super().__init__(**options)
        self.size, self.sigma, self.torso = size, sigma, None if torso is None else tuple(torso)

    def sides(self, joints: tf.Tensor, known: tf.Tensor | None = None) -> tf.Tensor:
        """Gives the side of each person's sub-images.

        Args:
            joints: float32 [N, J, 2], normalised.
            known: bool [N, J], the joints that can be relied on; None: all.

        Returns:
            float32 [N], in sides of the person's box.
        """
        if self.torso is None:
            return tf.fill([tf.shape(joints)[0]], DIAMETER * self.sigma)
        a, b = self.torso
        diameter = tf.maximum(tf.norm(joints[:, a] - joints[:, b], axis=-1), SMALLEST)
        if known is not None:
            diameter = tf.where(known[:, a] & known[:, b], diameter, DIAMETER)
        return self.sigma * diameter

    def cut(self, image: tf.Tensor, joints: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
        """Cuts the sub-images, sampled at the centres of their pixels; grey beyond the picture.

        Args:
            image: float32 [N, P, P, 3], 0..255.
            joints: float32 [N, J, 2], normalised: the sub-images' centres.
            sides: float32 [N], of `sides`.

        Returns:
            float32 [N * J, p, p, 3].
        """
        corners = self._corners(joints, sides, tf.cast(tf.shape(image)[1], tf.float32))
        index = tf.repeat(tf.range(tf.shape(joints)[0]), tf.shape(joints)[1])
        return tf.image.crop_and_resize(
            image, corners, index, [self.size, self.size], extrapolation_value=FILL
        )

    def _corners(self, joints, sides, last):
        """(y, x) of the first and the last sample of each sub-image [N * J, 4], in shares of the side less a pixel."""
        centre = (joints[..., ::-1] + 0.5) * last - 0.5  # (y, x) of pixels whose centres are whole numbers
        half = (sides * last)[:, None, None] * (0.5 - 0.5 / self.size)  # the outermost samples
        return tf.reshape(tf.concat([centre - half, centre + half], axis=-1) / (last - 1), [-1, 4])

    def call(self, inputs: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """[image [N, P, P, 3], joints [N, J, 2]] -> (sub-images [N * J, p, p, 3], sides [N])."""
        image, joints = tf.cast(inputs[0], tf.float32), tf.stop_gradient(tf.cast(inputs[1], tf.float32))
        sides = self.sides(joints)
        return self.cut(image, joints, sides), sides

    def call_in_litert(self, inputs: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """`call` for one picture of known size, in operations that LiteRT has."""
        image, joints = inputs
        sides = self.sides(joints)
        corners = self._corners(joints, sides, float(image.shape[1]))
        return pooling.crops(image, corners, self.size, FILL), sides

    def compute_output_spec(
        self, inputs: Sequence[keras.KerasTensor]
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        parts = keras.KerasTensor((None, self.size, self.size, 3), "float32")
        return parts, keras.KerasTensor((inputs[0].shape[0],), "float32")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"size": self.size, "sigma": self.sigma, "torso": self.torso}


@keras.saving.register_keras_serializable(package="tfcnn")
class Refined(keras.layers.Layer):
    """Moves each joint by what the stage says of the joint's own sub-image.

    y_i^s = y_i^(s-1) + N^-1(psi_i(N(x; b_i); theta_s); b_i), section 3.2, equation 7.
    """

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """[joints [N, J, 2], numbers [N * J, 2 J] of `own`, sides [N]] -> joints [N, J, 2]."""
        joints, numbers, sides = (tf.cast(each, tf.float32) for each in inputs)
        return joints + own(numbers) * sides[:, None, None]

    def compute_output_spec(self, inputs: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        return keras.KerasTensor(inputs[0].shape, "float32")


def own(numbers: tf.Tensor) -> tf.Tensor:
    """The displacement that each sub-image's net says of that sub-image's joint, of the J that it knows.

    Args:
        numbers: float [N * J, 2 J], of the J sub-images of each person.

    Returns:
        float [N, J, 2], in sides of the sub-images.
    """
    count = numbers.shape[-1] // 2
    pairs = tf.reshape(numbers, [-1, count * count, 2])  # sub-image by joint
    return pairs[:, :: count + 1]  # the diagonal


def pose_net(
    stages: Sequence[keras.Model],
    joints: Sequence[str],
    *,
    size: int = 224,
    part_size: int = 64,
    sigma: float = 2.0,
    convolutions: Sequence[int] = (),
    channels: int = 64,
    hidden: Sequence[int] = (512,),
    dropout: float = 0.0,
) -> keras.Model:
    """Builds a cascade of regressors, with the same layers in each stage and weights of its own.

    Args:
        stages: T backbones, the first for whole persons, the others for sub-images; of each the last endpoint is
            read. Their weights are copied.
        joints: names of the J joints.
        size: P.
        part_size: p.
        sigma: of `SubImages`.
        convolutions: channels of separable 3x3 convolutions on a backbone's map, each with a ReLU, of each stage.
        channels: of a 1x1 convolution before the dense layers; 0: none (the paper's net).
        hidden: units of each stage's hidden dense layers ((4096, 4096) is the paper's).
        dropout: share of the hidden units that is dropped in training (the paper's 0.6).

    Returns:
        A flat model from pictures [N, P, P, 3] to {"joints": [N, J, 2], "stages": [N, T, J, 2]}, normalised joints of
        the last and of every stage.

    Raises:
        InputError: no stage or no joint, or a size or sigma that is none.
    """
    if not stages or not joints:
        raise InputError("A pose net needs at least one stage and one joint.")
    if min(size, part_size) < 8 or not sigma > 0:
        raise InputError(
            f"size={size}, part_size={part_size} and sigma={sigma}: sizes are 8 pixels or more, sigma above 0."
        )
    count, torso = len(joints), None
    if all(name in joints for name in TORSO):
        torso = [list(joints).index(name) for name in TORSO]
    image = keras.Input((size, size, 3), name="image")

    def regressed(backbone, stage, pictures):
        def renamed(layer):
            return copied(layer, name=f"stage{stage}_{layer.name}")

        x = keras.tree.flatten(rebuilt(backbone, renamed).call(pictures))[-1]
        x = convolved(x, convolutions, f"stage{stage}_separable")
        if channels:
            x = keras.layers.Conv2D(channels, 1, activation="relu", name=f"stage{stage}_reduce")(x)
        x = keras.layers.Flatten(name=f"stage{stage}_flatten")(x)
        for number, units in enumerate(hidden, 1):
            x = keras.layers.Dense(units, activation="relu", name=f"stage{stage}_fc{number}")(x)
            if dropout:
                x = keras.layers.Dropout(dropout, name=f"stage{stage}_dropout{number}")(x)
        near_zero = keras.initializers.RandomNormal(stddev=0.01)
        return keras.layers.Dense(
            2 * count, kernel_initializer=near_zero, name=f"stage{stage}_numbers", dtype="float32"
        )(x)

    found = []
    for stage, backbone in enumerate(stages, 1):
        if stage == 1:
            y = keras.layers.Reshape((count, 2), name="stage1_joints", dtype="float32")(
                regressed(backbone, 1, image)
            )
        else:
            cut = SubImages(part_size, sigma, torso, name=f"stage{stage}_parts", dtype="float32")
            parts, sides = cut([image, y])
            numbers = regressed(backbone, stage, parts)
            y = Refined(name=f"stage{stage}_joints", dtype="float32")([y, numbers, sides])
        found.append(keras.layers.Reshape((1, count, 2), name=f"stage{stage}_row", dtype="float32")(y))
    rows = (
        found[0]
        if len(found) == 1
        else keras.layers.Concatenate(axis=1, name="stages", dtype="float32")(found)
    )
    model = keras.Model(image, {"joints": y, "stages": rows}, name="pose")
    model.zero_rgb = zero_rgb(model)
    return model


def form(model: keras.Model) -> Form:
    """Gives the form of a pose net.

    Raises:
        InputError: the model is none.
    """
    output = model.output if isinstance(model.output, dict) else {}
    if not {"joints", "stages"} <= output.keys() or len(output["stages"].shape) != 4:
        raise InputError(f"{model.name} is no pose net: it gives no joints of stages")
    _, stages, joints, _ = output["stages"].shape
    return Form(joints, stages, model.input_shape[1])


def stage_net(model: keras.Model, stage: int) -> keras.Model:
    """Gives the net of one stage alone, which shares the model's layers.

    Args:
        model: of `pose_net`.
        stage: 1..T.

    Returns:
        Stage 1: from pictures [N, P, P, 3] to joints [N, J, 2]; later ones: from sub-images [N * J, p, p, 3] to
        numbers [N * J, 2 J] of `own`.
    """
    if stage == 1:
        return keras.Model(model.inputs[0], model.get_layer("stage1_joints").output, name="stage1")
    parts, _ = model.get_layer(f"stage{stage}_parts").output
    return keras.Model(parts, model.get_layer(f"stage{stage}_numbers").output, name=f"stage{stage}")


def stage_layers(model: keras.Model, stage: int) -> list[keras.layers.Layer]:
    """Lists the layers of one stage."""
    return [layer for layer in model.layers if layer.name.startswith(f"stage{stage}_")]
