"""Every registered layer: import this, and keras.models.load_model reads any model that tfcnn saved."""

from tfcnn.backbones import layers as backbones  # noqa: F401
from tfcnn.detection import dpm_layers, fast_rcnn, faster_rcnn, hog_svm, mask_rcnn, one_stage, rpn, yolo  # noqa: F401
from tfcnn.localization import class_rpn, pose  # noqa: F401
