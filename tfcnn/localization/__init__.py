"""Localization: what is in a picture, and where, by a classifier and a box head; the joints of a person.

    from tfcnn import backbones, datasets, localization
    model = localization.with_box_head(backbones.classifier("efficientnet_lite0", classes=5, size=128))
    trained = localization.train_localizer(model, datasets.open("shapes"), datasets.open("shapes", split="val"),
                                           localization.LocalizerConfig(epochs=20), "out/shapes")

TensorFlow is imported by the first function that is asked for.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfcnn.localization.class_rpn import with_class_rpn
    from tfcnn.localization.heads import with_box_head
    from tfcnn.localization.localizer_training import LocalizerConfig, train_localizer
    from tfcnn.localization.pose import pose_net
    from tfcnn.localization.pose_training import PoseConfig, train_pose

__all__ = [
    "LocalizerConfig",
    "PoseConfig",
    "pose_net",
    "train_localizer",
    "train_pose",
    "with_box_head",
    "with_class_rpn",
]

_HOME = {
    "with_box_head": "heads",
    "with_class_rpn": "class_rpn",
    "LocalizerConfig": "localizer_training",
    "train_localizer": "localizer_training",
    "PoseConfig": "pose_training",
    "pose_net": "pose",
    "train_pose": "pose_training",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
