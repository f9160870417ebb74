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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfcnn.detection.faster_rcnn_training import FasterRCNNConfig, TrainedDetector, train_faster_rcnn

__all__ = ["FasterRCNNConfig", "TrainedDetector", "train_faster_rcnn"]


def __getattr__(name: str):
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.faster_rcnn_training"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
