"""Detection: Faster R-CNN and Fast R-CNN, and their training as a function.

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
    from tfcnn.detection.stages import LiteStages, Stages

__all__ = [
    "FasterRCNN",
    "FasterRCNNConfig",
    "LiteStages",
    "Stages",
    "TrainedDetector",
    "train_faster_rcnn",
]

_HOME = {
    "FasterRCNN": "detector",
    "FasterRCNNConfig": "faster_rcnn_training",
    "LiteStages": "stages",
    "Stages": "stages",
    "TrainedDetector": "faster_rcnn_training",
    "train_faster_rcnn": "faster_rcnn_training",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
