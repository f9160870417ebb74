"""Detection: Faster, Fast and Mask R-CNN, YOLO and a one-stage detector, HOG windows and deformable parts, and their
training as functions.

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
    from tfcnn.detection.dpm_net import Dpm
    from tfcnn.detection.dpm_training import DpmConfig, train_dpm
    from tfcnn.detection.faster_rcnn_training import FasterRCNNConfig, TrainedDetector, train_faster_rcnn
    from tfcnn.detection.hog_objects import HogSvmConfig
    from tfcnn.detection.hog_svm import HogSvm
    from tfcnn.detection.hog_svm_training import train_hog_svm
    from tfcnn.detection.rcnn_svm import SvmConfig, train_regressor, train_svms
    from tfcnn.detection.rcnn_training import RcnnConfig, finetune_rcnn
    from tfcnn.detection.single_shot import SingleShot
    from tfcnn.detection.single_shot_training import SingleShotConfig, train_single_shot
    from tfcnn.detection.stages import LiteStages, Stages

__all__ = [
    "Dpm",
    "DpmConfig",
    "FasterRCNN",
    "FasterRCNNConfig",
    "HogSvm",
    "HogSvmConfig",
    "LiteStages",
    "RcnnConfig",
    "SingleShot",
    "SingleShotConfig",
    "Stages",
    "SvmConfig",
    "TrainedDetector",
    "finetune_rcnn",
    "train_dpm",
    "train_faster_rcnn",
    "train_hog_svm",
    "train_regressor",
    "train_single_shot",
    "train_svms",
]

_HOME = {
    "Dpm": "dpm_net",
    "DpmConfig": "dpm_training",
    "FasterRCNN": "detector",
    "FasterRCNNConfig": "faster_rcnn_training",
    "HogSvm": "hog_svm",
    "HogSvmConfig": "hog_objects",
    "LiteStages": "stages",
    "RcnnConfig": "rcnn_training",
    "SingleShot": "single_shot",
    "SingleShotConfig": "single_shot_training",
    "Stages": "stages",
    "SvmConfig": "rcnn_svm",
    "TrainedDetector": "faster_rcnn_training",
    "finetune_rcnn": "rcnn_training",
    "train_dpm": "dpm_training",
    "train_faster_rcnn": "faster_rcnn_training",
    "train_hog_svm": "hog_svm_training",
    "train_regressor": "rcnn_svm",
    "train_single_shot": "single_shot_training",
    "train_svms": "rcnn_svm",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
