"""Detection: Faster R-CNN and Fast R-CNN, YOLO and a one-stage detector, and their training as functions.

    from tfcnn import backbones, datasets, detection
    from tfcnn.detection.faster_rcnn import faster_rcnn
    model = faster_rcnn(backbones.backbone("efficientnet_lite0"), 20)
    trained = detection.train_faster_rcnn(model, datasets.open("voc", "VOC2007", "trainval"),
                                          datasets.open("voc", "VOC2007", "test"),
                                          detection.FasterRCNNConfig(epochs=20), "out/voc")

TensorFlow is imported by the first name that is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfcnn.detection.detector import FasterRCNN
    from tfcnn.detection.faster_rcnn_training import FasterRCNNConfig, TrainedDetector, train_faster_rcnn
    from tfcnn.detection.single_shot import SingleShot
    from tfcnn.detection.single_shot_training import SingleShotConfig, train_single_shot
    from tfcnn.detection.stages import LiteStages, Stages

__all__ = [
    "FasterRCNN",
    "FasterRCNNConfig",
    "LiteStages",
    "SingleShot",
    "SingleShotConfig",
    "Stages",
    "TrainedDetector",
    "train_faster_rcnn",
    "train_single_shot",
]

_HOME = {
    "FasterRCNN": "detector",
    "FasterRCNNConfig": "faster_rcnn_training",
    "LiteStages": "stages",
    "SingleShot": "single_shot",
    "SingleShotConfig": "single_shot_training",
    "Stages": "stages",
    "TrainedDetector": "faster_rcnn_training",
    "train_faster_rcnn": "faster_rcnn_training",
    "train_single_shot": "single_shot_training",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
