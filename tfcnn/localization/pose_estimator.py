"""A pose net at work: the part of a `tfcnn.predictor.Predictor` that is its own, and the pose that it gives.

N persons of a batch, J joints, T stages, P the side of the net's picture.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn import backbones, draw, images
from tfcnn.errors import InputError, NotFinite
from tfcnn.localization import persons, pose
from tfcnn.predictor import Predictor, Prepared

LEFT, RIGHT, MIDDLE = (66, 133, 244), (244, 140, 40), (90, 200, 90)  # the person's own left and right


@dataclasses.dataclass(frozen=True, eq=False)
class Pose:
    """The joints of one person.

    Attributes:
        stages: float64 [T, J, 2], x and y in continuous pixels of the file, after each stage.
        box: float64 [4], the person's box.
        names: of the J joints.
        skeleton: the pairs of joints that are connected in a drawing.
    """

    stages: np.ndarray
    box: np.ndarray
    names: Sequence[str] = ()
    skeleton: Sequence[tuple[int, int]] = ()

    @property
    def joints(self) -> np.ndarray:
        """float64 [J, 2], after the last stage."""
        return self.stages[-1]

    def draw(self, image: np.ndarray, stage: int = -1) -> np.ndarray:
        """The picture with the skeleton: the person's left side blue, the right one orange.

        Args:
            image: uint8 [H, W, 3].
            stage: index of the stage, the last one by default.

        Returns:
            uint8 [H, W, 3].
        """
        sides = [name.partition("_")[0] for name in self.names] or [""] * len(self.joints)
        by_side = {"left": LEFT, "right": RIGHT}
        lines = [by_side.get(sides[a] if sides[a] == sides[b] else "", MIDDLE) for a, b in self.skeleton]
        points = [by_side.get(side, MIDDLE) for side in sides]
        return draw.skeleton(image, self.stages[stage], self.skeleton, lines, points)

    def moved(self, x: float, y: float, box: np.ndarray) -> Pose:
        """The pose of a crop in the picture that it was cut from.

        Args:
            x, y: the crop's corner, pixels.
            box: [4], the person's box there.
        """
        return dataclasses.replace(self, stages=self.stages + [x, y], box=np.asarray(box, np.float64))

    def to_file(self, placement: images.Placement) -> Pose:
        """The pose in the pixels that a placement leads from."""
        return dataclasses.replace(
            self, stages=_to_file(placement, self.stages), box=placement.to_file(self.box)
        )

    def fields(self) -> dict:
        """What results.json says of a person: `box` [4], `joints` [J, 2] and `stages` [T, J, 2], plain numbers."""
        return {"box": self.box.tolist(), "joints": self.joints.tolist(), "stages": self.stages.tolist()}

    def to_coco(self, image_id: Hashable) -> list[dict]:
        """The entry of a COCO results list of keypoints: [{"image_id", "category_id", "keypoints", "score"}]."""
        points = np.column_stack([self.joints, np.ones(len(self.joints))])
        keypoints = points.reshape(-1).tolist()
        return [{"image_id": image_id, "category_id": 1, "keypoints": keypoints, "score": 1.0}]


class PoseEstimator:
    """One pose net, or several whose joints are averaged after each stage.

    Args:
        models: of `tfcnn.localization.pose_net`, all of one form. Weights may be trained on between two calls.
        mirror: int [J], the joint that each joint becomes in a mirror; given, each picture is looked at mirrored, too,
            and the joints of both views are averaged, stage by stage.

    Attributes:
        classes: J, the joints.
        zero_rgb: the colour that the network sees as zero.
        needs_proposals: False.
        form: T, J and P.

    Raises:
        InputError: a model is no pose net, or the models differ in form.
    """

    needs_proposals = False

    def __init__(self, models: Sequence[keras.Model], mirror: Sequence[int] | None = None):
        forms = {pose.form(model) for model in models}
        if len(forms) > 1:
            raise InputError("The pose nets of an ensemble need the same joints, stages and size.")
        (self.form,) = forms
        self.classes, self.zero_rgb = self.form.joints, backbones.zero_rgb(models[0])

        def stages(pictures: tf.Tensor) -> tf.Tensor:
            pictures = tf.cast(pictures, tf.float32)
            return tf.add_n([model(pictures, training=False)["stages"] for model in models]) / len(models)

        def both_views(pictures: tf.Tensor) -> tf.Tensor:
            mirrored = tf.gather(stages(pictures[:, :, ::-1]), mirror, axis=2) * [-1.0, 1.0]
            return (stages(pictures) + mirrored) / 2

        self._stages = tf.function(stages if mirror is None else both_views, reduce_retracing=True)

    def __call__(
        self,
        pictures: list[np.ndarray],
        sizes: list[np.ndarray],
        shapes: np.ndarray,
        proposals: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Joints of a batch, as `tfcnn.predictor.Method` says: `stages` [N, T, J, 2] in pixels of the picture."""
        (picture,) = pictures
        return self.decode({"stages": self._stages(tf.constant(picture)).numpy()}, picture.shape[1:3])

    def decode(self, found: dict[str, np.ndarray], sides: tuple[int, int]) -> dict[str, np.ndarray]:
        """Joints from the net's numbers, of these models or of a program that was exported.

        Args:
            found: `stages` float32 [N, T, J, 2], parts of the picture's side, 0 at its middle.
            sides: height and width of the pictures as the net sees them.

        Returns:
            What a call gives.
        """
        stages = found["stages"]
        if not np.isfinite(stages).all():
            raise NotFinite
        return {"stages": (stages.astype(np.float64) + 0.5) * np.float64(sides[::-1])}


def result(
    skeleton: Sequence[tuple[int, int]],
) -> Callable[[dict[str, np.ndarray], Prepared, Sequence[str]], Pose]:
    """The `result` of a Predictor of poses: makes a picture's arrays a Pose in the file's pixels."""

    def of(row: dict[str, np.ndarray], prepared: Prepared, names: Sequence[str]) -> Pose:
        height, width = prepared.shape
        stages = _to_file(prepared.placement, row["stages"])
        return Pose(stages, np.array([0, 0, width, height], np.float64), tuple(names), skeleton)

    return of


def in_boxes(
    estimator: Predictor, pictures: Iterable[tuple[np.ndarray, np.ndarray]], margin: float = persons.MARGIN
) -> list[list[Pose]]:
    """Estimates the poses of several persons of pictures.

    Args:
        estimator: of `tfcnn.pose_estimator`.
        pictures: pairs of an image uint8 [H, W, 3] and the boxes [n, 4] of its persons, in its pixels, tight round
            each.
        margin: by which a box is enlarged, as in training.

    Returns:
        The poses of each picture, in its pixels and in the order of its boxes.
    """
    cuts, found = [], []
    for image, boxes in pictures:
        places = [persons.square(box, margin).tolist() for box in boxes]
        cuts.append((places, boxes))
        found += [estimator.prepare(persons.crop(image, *place)) for place in places]
    answers = itertools.chain.from_iterable(
        estimator.predict(found[first : first + estimator.batch_size])
        for first in range(0, len(found), estimator.batch_size)
    )
    return [
        [next(answers).moved(left, top, box) for (left, top, _), box in zip(places, boxes, strict=True)]
        for places, boxes in cuts
    ]


def _to_file(placement: images.Placement, points: np.ndarray) -> np.ndarray:
    """Points [..., 2] of a resized picture in the file's pixels, float64."""
    return placement.to_file(np.concatenate([points, points], axis=-1))[..., :2].astype(np.float64)
