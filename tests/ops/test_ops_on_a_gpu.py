"""Every gradient that is taken here, traced: no op in it refuses to run on a GPU under op determinism.

No GPU is needed: the graph names its ops, and where each was put.
"""

import ast
import contextlib
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config

from tfcnn import backbones
from tfcnn.art import style_problem
from tfcnn.detection import mask_rcnn, one_stage, rcnn, rcnn_training, yolo
from tfcnn.detection.faster_rcnn import faster_rcnn
from tfcnn.detection.faster_rcnn_trainee import FasterRCNNConfig, FasterRCNNTrainee
from tfcnn.detection.single_shot_training import SingleShotConfig, SingleShotTrainee
from tfcnn.fooling.defence import RobustClassifier, RobustConfig
from tfcnn.imageopt import Problem, objectives, parameters, transforms
from tfcnn.localization import with_box_head, with_class_rpn
from tfcnn.localization.localizer_training import LocalizerConfig, LocalizerTrainee
from tfcnn.localization.pose import pose_net
from tfcnn.localization.pose_training import PoseConfig, PoseTrainee
from tfcnn.ops import position_sensitive, roi
from tfcnn.training import classifier, freezing
from tfcnn.training.optimizers import AdamW
from tfcnn.training.step import Step
from tfcnn.visualization import gradients

# Ops whose kernels for GPUs answer Unimplemented once tf.config.experimental.enable_op_determinism was called: those
# that name themselves so in TensorFlow 2.21 (`strings libtensorflow_cc.so.2 | grep -i determinis`, and the sources of
# these messages in tensorflow/core/kernels). Sums by segments, scatters into resource variables, bilinear resizing,
# depthwise convolution and softmax with cross-entropy have kernels, or forms in Python, that are deterministic since
# TensorFlow 2.7 to 2.10: github.com/NVIDIA/framework-reproducibility, doc/d9m/tensorflow_status.md.
REFUSED = {
    "AdjustContrast",
    "AdjustContrastv2",
    "Bincount",
    "CropAndResizeGradBoxes",
    "CropAndResizeGradImage",
    "DebugNumericSummaryV2",
    "DenseBincount",
    "Dilation2DBackpropFilter",
    "Dilation2DBackpropInput",
    "FakeQuantWithMinMaxVarsGradient",
    "FakeQuantWithMinMaxVarsPerChannelGradient",
    "MaxPoolGradWithArgmax",
    "RaggedBincount",
    "ResizeNearestNeighborGrad",
    "ScatterAdd",
    "ScatterNdAdd",
    "ScatterNdSub",
    "ScatterNdUpdate",
    "ScatterSub",
    "ScatterUpdate",
    "SoftmaxCrossEntropyWithLogits",
    "SparseBincount",
    "SparseSoftmaxCrossEntropyWithLogits",
    "SparseTensorDenseMatMul",
    "Timestamp",
}
FROZEN = {
    "FusedBatchNormGrad",
    "FusedBatchNormGradV2",
    "FusedBatchNormGradV3",
}  # refused with is_training=False


@contextlib.contextmanager
def deterministic():
    before = config.is_op_determinism_enabled()
    config.enable_op_determinism()
    try:
        yield
    finally:
        if not before:
            config.disable_op_determinism()


def refused(function, *arguments):
    """The refused ops of a function's graph and of the functions that it calls, those put on the CPU left out."""
    with deterministic():
        return found(tf.function(function).get_concrete_function(*arguments))


def refused_in_training(trainee, batch):
    """The same of the whole step with all that it can do: clipping, averages, the optimizer's slots."""
    step = Step(trainee, AdamW(), clip_norm=10.0, average=0.99)
    with deterministic():
        step.compile(batch)
        return found(step.move.get_concrete_function())


def found(concrete):
    graph = concrete.graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    assert len(nodes) > 5
    return {
        node.op
        for node in nodes
        if "CPU" not in node.device
        and (node.op in REFUSED or node.op in FROZEN and not node.attr["is_training"].b)
    }


def gradient(function):
    """A function of tensors that gives the gradient of the function's sum at the first."""

    def run(x, *others):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(function(x, *others))
        return tape.gradient(value, x)

    return run


MAPS, BOXES = tf.TensorSpec([None, None, None, 98]), tf.TensorSpec([None, None, 4])
OBJECTS = {  # a batch of pictures with objects
    "image": tf.TensorSpec([None, 96, 96, 3]),
    "size": tf.TensorSpec([None, 2], tf.int32),
    "scale": tf.TensorSpec([None, 2]),
    "boxes": BOXES,
    "labels": tf.TensorSpec([None, None], tf.int32),
    "difficult": tf.TensorSpec([None, None], tf.bool),
    "crowd": tf.TensorSpec([None, None], tf.bool),
    "proposals": BOXES,
    "seed": tf.TensorSpec([2], tf.int32),
}


def test_the_list_and_the_walk_find_what_is_refused():
    def nearest(x):
        return tf.raw_ops.ResizeNearestNeighbor(images=x, size=[8, 8])

    def frozen(x):
        return tf.compat.v1.nn.fused_batch_norm(x, *[tf.ones([98])] * 4, is_training=False)[0]

    def inner(x):
        return tf.map_fn(lambda row: nearest(row[None])[0], x)

    assert refused(gradient(nearest), MAPS) == refused(gradient(inner), MAPS) == {"ResizeNearestNeighborGrad"}
    assert refused(gradient(frozen), MAPS) == {"FusedBatchNormGradV3"}
    assert refused(lambda x: tf.math.bincount(x, axis=-1), tf.TensorSpec([2, 3], tf.int32)) == {
        "DenseBincount"
    }


@pytest.mark.parametrize("pool", ["roi_align", "roi_max_pool", "ps_roi_align"])
def test_features_of_regions(pool):
    function = getattr(position_sensitive if pool == "ps_roi_align" else roi, pool)
    assert refused(gradient(lambda maps, boxes: function(maps, boxes, 0.5)), MAPS, BOXES) == set()


@pytest.mark.parametrize(("precision", "frozen"), [("float32", False), ("mixed_float16", True)])
def test_the_classifiers_step(precision, frozen):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        net = backbones.classifier("tiny", None)
    finally:
        keras.config.set_dtype_policy(before)
    if frozen:
        freezing.freeze_batch_norm(net)
    trainee = classifier.Classifier(net, None, ["a"] * net.output["logits"].shape[-1])
    batch = {"image": tf.TensorSpec([None, 64, 64, 3]), "label": tf.TensorSpec([None], tf.int32)}
    assert refused_in_training(trainee, batch) == set()


@pytest.mark.parametrize(
    ("parts", "frozen"),
    [
        ({"context": True, "class_agnostic": False}, False),
        ({"head": "light", "neck": "pyramid"}, True),
        ({"head": "backbone", "neck": "none"}, True),
        ({"head": "dense", "neck": "none", "pooling": "max", "proposals": 0}, False),  # Fast R-CNN
    ],
)
def test_the_detectors_step(parts, frozen):
    body = backbones.backbone("tiny", None)
    if frozen:
        freezing.freeze_batch_norm(body)
    small = {"sizes": None, "channels": 16, "units": 32, "proposals": 20, "score_threshold": 0.01}
    config = FasterRCNNConfig(hardest=8 if frozen else 0)
    trainee = FasterRCNNTrainee(faster_rcnn(body, 5, **small | parts), config)
    assert refused_in_training(trainee, OBJECTS) == set()


@pytest.mark.parametrize("parts", [{}, {"neck": "pyramid", "head": "light"}])
def test_the_step_of_a_detector_with_masks(parts):
    net = mask_rcnn.mask_rcnn(backbones.backbone("tiny", None), 5, sizes=None, proposals=20, **parts)
    batch = OBJECTS | {"masks": tf.TensorSpec([None, None, 96, 96], tf.bool)}
    batch["void"] = tf.TensorSpec([None, 96, 96], tf.bool)
    assert refused_in_training(FasterRCNNTrainee(net, FasterRCNNConfig()), batch) == set()


@pytest.mark.parametrize("box", ["giou", "ciou", "l1"])
@pytest.mark.parametrize("assignment", ["dynamic", "center"])
def test_the_one_stage_detectors_step(assignment, box):
    net = one_stage.one_stage(backbones.backbone("tiny", None), 5, channels=16, tower=1)
    config = SingleShotConfig(loss=one_stage.OneStageLoss(assignment=assignment, box=box, focal=2.0))
    assert refused_in_training(SingleShotTrainee(net, config), OBJECTS) == set()


def test_yolos_step():
    net = yolo.yolo(backbones.backbone("tiny", None), 5, size=96, grid=6, channels=4, hidden=((16, "leaky"),))
    assert refused_in_training(SingleShotTrainee(net, SingleShotConfig()), OBJECTS) == set()


@pytest.mark.parametrize("features", ["warp", "spp"])
def test_the_step_of_r_cnns_fine_tuning(features):
    net = rcnn.described_regions(backbones.backbone("tiny", None), 5, features, side=32, context=4)
    assert refused_in_training(rcnn_training.RegionTrainee(net, rcnn_training.RcnnConfig()), OBJECTS) == set()


LABELS, SEED = tf.TensorSpec([None], tf.int32), tf.TensorSpec([2], tf.int32)


@pytest.mark.parametrize("form", ["agnostic", "per_class", "objects", "rpn"])
def test_the_localizers_step(form):
    body = backbones.classifier("tiny", None, classes=5, size=64)
    options = {"per_class": {"per_class": True}, "objects": {"objects": 3}}.get(form, {})
    net = with_class_rpn(body, channels=8) if form == "rpn" else with_box_head(body, **options)
    config = LocalizerConfig(fine_tune=True, loss="giou", order="matched")
    boxes = tf.TensorSpec([None, 3 if form == "objects" else 1, 4])
    batch = {"image": tf.TensorSpec([None, 64, 64, 3]), "label": LABELS, "unit_boxes": boxes, "seed": SEED}
    assert refused_in_training(LocalizerTrainee(net, net, config), batch) == set()


@pytest.mark.parametrize("stage", [1, 2])
def test_the_step_of_a_poses_stage(stage):
    joints = ["left_hand", "right_hand", "head"]
    net = pose_net([backbones.backbone("tiny", None) for _ in (1, 2)], joints, size=64, part_size=32)
    spread = (np.zeros((3, 2), np.float32), np.ones((3, 2), np.float32)) if stage == 2 else None
    trainee = PoseTrainee(net, stage, PoseConfig(loss="smooth_l1"), spread=spread)
    batch = {"image": tf.TensorSpec([None, 64, 64, 3]), "joints": tf.TensorSpec([None, 3, 3]), "seed": SEED}
    assert refused_in_training(trainee, batch) == set()


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_the_step_of_a_robust_classifier(attack):
    net = backbones.classifier("tiny", None, classes=5, size=64)
    trainee = RobustClassifier(net, None, list("abcde"), config=RobustConfig(attack=attack, eps=2.0))
    batch = {"image": tf.TensorSpec([None, 64, 64, 3]), "label": LABELS, "seed": SEED}
    assert refused_in_training(trainee, batch) == set()


def test_every_trainee_of_the_project_is_traced_here():
    """A class with `losses` is what the training loop trains; a new one has to stand in this file."""
    here = pathlib.Path(__file__)
    named = {word for word in here.read_text().replace("(", " ").replace(".", " ").split()}
    for path in (here.parents[2] / "tfcnn").rglob("*.py"):
        for each in ast.parse(path.read_text()).body:
            if isinstance(each, ast.ClassDef) and each.bases != ["Protocol"]:
                methods = {f.name for f in each.body if isinstance(f, ast.FunctionDef)}
                if {"losses", "__init__"} <= methods:
                    assert each.name in named, f"{path.name}: {each.name}"


PICTURE = tf.TensorSpec([1, 96, 96, 3])


def test_a_pictures_step():
    net = backbones.backbone("tiny", None)
    what = objectives.mean_square(next(iter(net.output))) + 0.1 * objectives.total_variation()
    moved = transforms.compose(
        transforms.jitter(8),
        transforms.pad(4),
        transforms.scale([0.9, 1.1]),
        transforms.rotate([-5, 5]),
        transforms.noise(2.0),
    )
    problem = Problem(net, what, transform=moved, parameters=parameters.Fourier(96, 96))
    spectrum = problem.parameters.from_image(problem.parameters.noise([0]))
    assert refused(problem.value_and_gradient, spectrum, SEED) == set()


def test_a_paintings_step():
    net = backbones.backbone("tiny", None)
    first, *_, last = net.output
    problem = style_problem.StyleProblem(net, style_problem.Layers((last,), (first,)), tile=0)
    assert refused(problem.value_and_gradient, PICTURE, SEED) == set()


def test_a_saliency_maps_step():
    net = backbones.classifier("tiny", None)
    maps = gradients.class_gradients(net)
    assert refused(maps, tf.TensorSpec([None, 64, 64, 3]), tf.TensorSpec([None], tf.int32)) == set()
