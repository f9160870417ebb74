"""The end of every detector: a threshold, suppression within each class, the best of all classes.

Letters: N images, Q candidates, K classes, D detections of an image at most.
"""

from typing import Any

import keras
import tensorflow as tf

from tfcnn.export import suppression
from tfcnn.ops import nms


def best_of_each_class(
    scores: tf.Tensor, boxes: tf.Tensor, score_threshold: float, nms_threshold: float, max_detections: int
) -> dict[str, tf.Tensor]:
    """Detections among the candidates: a threshold, suppression within each class, the best of all classes.

    Args:
        scores: float32 [N, Q, K].
        boxes: float32 [N, Q, 4] or [N, Q, 1, 4], or [N, Q, K, 4] where each class has its own.
        score_threshold: least score.
        nms_threshold: IoU above which the lower of two boxes of a class goes.
        max_detections: D.

    Returns:
        {boxes float32 [N, D, 4], scores [N, D], labels int32 [N, D] with -1 for padding, count int32 [N]}.
    """
    found = nms.class_nms(boxes, scores, nms_threshold, max_detections, score_threshold)
    return dict(zip(("boxes", "scores", "labels", "count"), found, strict=True))


class DetectionLayer(keras.layers.Layer):
    """What the last layers of all detectors share: a subclass decodes, and this suppresses.

    Call it on [what the network gives, ..., image [N, H, W, 3]]; it gives `best_of_each_class`, boxes in pixels of
    the image.

    Args:
        score_threshold: scores must be above this.
        nms_threshold: IoU above which the lower of two boxes of a class is dropped.
        max_detections: of a picture, over all classes.
    """

    def __init__(
        self,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.max_detections = max_detections
        self.supports_jit = False  # suppression is a kernel of its own

    def decode(
        self, raw: list[tf.Tensor], height: tf.Tensor, width: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Gives the boxes and the scores of all candidates before suppression, as `best_of_each_class` takes them.

        Args:
            raw: what the network gives.
            height, width: of the picture, pixels.
        """
        raise NotImplementedError

    def call(self, inputs: list[tf.Tensor]) -> dict[str, tf.Tensor]:
        *raw, image = inputs
        boxes, scores = self.decode(raw, tf.shape(image)[1], tf.shape(image)[2])
        return best_of_each_class(
            scores, boxes, self.score_threshold, self.nms_threshold, self.max_detections
        )

    def call_in_litert(self, inputs: list[tf.Tensor]) -> dict[str, tf.Tensor]:
        """`call` for one picture of known size, in operations that LiteRT has."""
        *raw, image = inputs
        boxes, scores = self.decode(raw, *image.shape[1:3])
        return suppression.best_of(
            boxes[0], scores[0], self.nms_threshold, self.max_detections, self.score_threshold
        )

    def compute_output_spec(self, inputs: list[keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
        batch, most = inputs[-1].shape[0], self.max_detections
        return {
            "boxes": keras.KerasTensor((batch, most, 4), "float32"),
            "scores": keras.KerasTensor((batch, most), "float32"),
            "labels": keras.KerasTensor((batch, most), "int32"),
            "count": keras.KerasTensor((batch,), "int32"),
        }

    def get_config(self) -> dict[str, Any]:
        names = ("score_threshold", "nms_threshold", "max_detections")
        return super().get_config() | {name: getattr(self, name) for name in names}
