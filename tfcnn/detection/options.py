"""What detectors do at test time beyond their networks' own work, in one place for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from tfcnn.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class DetectorOptions:
    """How a detector looks at pictures, and what it does with what it finds.

    Attributes:
        scales: at how many sizes each picture is looked at.
        flip: look at each picture mirrored, too.
        refine: so many times the boxes found become regions that are classified and regressed again.
        box_voting: average each box with those of its class around it.
        proposals: regions of a picture that are classified; None takes the first model's own.
        score_threshold: least score of a detection, 0..1; None takes the first model's own, like the two that follow.
        nms_threshold: IoU, 0..1, above which the lower of two detections of a class goes.
        max_detections: of a picture.
        runtime: one of `tfcnn.export.litert.RUNTIMES`; all but "tf" compute one picture after the other.
        threads: of LiteRT.
        calibration: for "litert_int8", pictures uint8 [H, W, 3] by which int8's ranges are found.
    """

    scales: int = 1
    flip: bool = False
    refine: int = 0
    box_voting: bool = False
    proposals: int | None = None
    score_threshold: float | None = None
    nms_threshold: float | None = None
    max_detections: int | None = None
    runtime: str = "tf"
    threads: int = 1
    calibration: Sequence[np.ndarray] = ()

    def thresholds(self, output: keras.layers.Layer) -> tuple[float, float, int]:
        """score_threshold, nms_threshold and max_detections: those asked for, else those of a model's last layer."""
        names = ("score_threshold", "nms_threshold", "max_detections")
        asked = {name: getattr(self, name) for name in names}
        return tuple(getattr(output, name) if value is None else value for name, value in asked.items())

    def only(self, what: str, *allowed: str) -> None:
        """Refuses what a kind of detector does not have.

        Args:
            what: such a detector in words, for the sentence.
            allowed: names of options that it has, beside the thresholds.

        Raises:
            InputError: another option is on.
        """
        own = (*allowed, "score_threshold", "nms_threshold", "max_detections", "threads", "calibration")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in own and value != field.default:
                raise InputError(f"{what} has no {field.name}: leave {field.name}={value!r} out.")


PLAIN = DetectorOptions()
