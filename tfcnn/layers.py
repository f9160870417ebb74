"""Every registered layer: import this, and keras.models.load_model reads any model that tfcnn saved."""

from tfcnn.backbones import layers as backbones  # noqa: F401
from tfcnn.detection import (  # noqa: F401
    dpm_layers,
    fast_rcnn,
    faster_rcnn,
    hog_svm,
    mask_rcnn,
    one_stage,
    rcnn,
    rpn,
    yolo,
)
from tfcnn.localization import class_rpn, places, pose  # noqa: F401
