"""What a picture costs a detector: by part, by runtime, and beside other programs' detectors.

    python benchmarks/detectors.py [--model=faster_rcnn_voc] [--size=320] [--rounds=15]

Without a model the network of `train_detector`'s defaults is measured with random heads. All rows run compiled, in one
process, in turn; a time is the median over the rounds, the ratio the median of the rounds' ratios to the whole model.
KerasHub's RetinaNet-50 and torchvision's Faster R-CNN (MobileNetV3) stand beside it where they are installed, with
random weights and without post-processing: a forward pass of the network.
"""

import argparse
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from tfcnn import backbones, load_model  # noqa: E402
from tfcnn.detection.faster_rcnn import faster_rcnn  # noqa: E402
from tfcnn.detection.faster_rcnn_trainee import FasterRCNNConfig, FasterRCNNTrainee  # noqa: E402
from tfcnn.detection.stages import LiteStages, Stages  # noqa: E402
from tfcnn.errors import InputError  # noqa: E402
from tfcnn.training import freezing  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--step_rounds", type=int, default=5)
    options = parser.parse_args()
    tf.get_logger().setLevel("ERROR")  # no warning that the rows' functions are traced one by one
    size = options.size
    model = load_model(options.model) if options.model else default_model()
    picture = tf.constant(np.random.default_rng(0).uniform(0, 255, (1, size, size, 3)), tf.float32)
    print(f"one picture of {size} px, {os.cpu_count()} cores, {model.count_params():,} weights")
    report(parts(model, picture) | peers(picture), options.rounds)
    print("\na training step of 16 pictures")
    report(steps(size), options.step_rounds, per=16)


def default_model():
    return faster_rcnn(backbones.backbone("efficientnet_lite0"), 20)


def parts(model, picture):
    """{row: a call}: the model as the apps run it, its parts in order, as its file has it, and through LiteRT."""
    plain, model = model, backbones.folded(model)
    stages = Stages(model)
    first = stages.first(picture)
    size = picture.shape[1:3]
    regions, _ = stages.propose(first, *size)
    pooled = stages.pool([regions, *first["pool_maps"]])
    logits, deltas = stages.regions(regions, first["pool_maps"])

    def head(pooled):
        return stages.head([pooled, regions] if stages.pool.context else [pooled])

    rows = {
        "the whole model": (lambda: model(picture, training=False)),
        "backbone, neck and region proposal net": (lambda: stages.first(picture)),
        "proposals: top scores, boxes, suppression": (lambda: stages.propose(first, *size)),
        "pooling of the regions": (lambda: stages.pool([regions, *first["pool_maps"]])),
        "head of the regions": (lambda: head(pooled)),
        "scores, boxes, suppression a class": (
            lambda: stages.output([logits[0], deltas[0], regions, picture])
        ),
        "the whole model, batch norm as layers of its own": (lambda: plain(picture, training=False)),
    }
    calls = {name: tf.function(call) for name, call in rows.items()}
    try:
        lite = LiteStages(model, 2)
        lite.convert(*size)
    except InputError as error:
        print(f"(no LiteRT: {error})")
        return calls

    @tf.function
    def whole():
        first = lite.first(picture)
        regions, _ = lite.propose(first, *size)
        logits, deltas = lite.regions(regions, first["pool_maps"])
        return stages.output([logits[0], deltas[0], regions, picture])

    return calls | {
        "LiteRT, 2 threads: the whole": whole,
        "LiteRT, 2 threads: backbone, neck and region proposal net": tf.function(lambda: lite.first(picture)),
    }


def peers(picture):
    """{row: a call} of the other programs that are installed."""
    calls = {}
    try:
        import keras_hub

        backbone = keras_hub.models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 128, 256, 512],
            stackwise_num_blocks=[3, 4, 6, 3],
            stackwise_num_strides=[1, 2, 2, 2],
            block_type="bottleneck_block",
        )
        pyramid = keras_hub.models.RetinaNetBackbone(
            image_encoder=backbone, min_level=3, max_level=5, use_p5=False
        )
        net = keras_hub.models.RetinaNetObjectDetector(
            backbone=pyramid,
            anchor_generator=keras_hub.layers.AnchorGenerator(
                bounding_box_format="xyxy",
                min_level=3,
                max_level=7,
                num_scales=3,
                aspect_ratios=[0.5, 1.0, 2.0],
                anchor_size=4.0,
            ),
            num_classes=20,
            bounding_box_format="xyxy",
        )
        calls["KerasHub RetinaNet-50, forward"] = tf.function(lambda: net(picture, training=False))
    except ImportError:
        print("(KerasHub is not installed)")
    try:
        import torch
        import torchvision

        net = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
            weights=None, weights_backbone=None, num_classes=21
        ).eval()
        image = [torch.from_numpy(picture.numpy()[0].transpose(2, 0, 1) / 255)]

        def forward():
            with torch.no_grad():
                return net(image)

        calls["torchvision Faster R-CNN MobileNetV3-320, whole"] = forward
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        print(f"(torchvision is not installed, or does not load: {error})")
    return calls


def steps(size, count=16, boxes=3):
    """{row: a call}: forward, tape and gradients of the four losses, and of the backbone alone."""
    rng = np.random.default_rng(1)
    low = rng.uniform(0, size - 130, (count, boxes, 2))
    box = np.concatenate([low, low + rng.uniform(30, 130, (count, boxes, 2))], axis=-1)
    batch = {
        "image": tf.constant(rng.uniform(0, 255, (count, size, size, 3)), tf.float32),
        "size": tf.fill((count, 2), size),
        "scale": tf.ones((count, 2)),
        "boxes": tf.constant(box, tf.float32),
        "labels": tf.constant(rng.integers(0, 20, (count, boxes)), tf.int32),
        "difficult": tf.zeros((count, boxes), bool),
        "crowd": tf.zeros((count, boxes), bool),
        "seed": tf.constant([0, 1]),
    }
    calls = {}
    for name, frozen in (
        ("everything trained", None),
        ("frozen to stride 4", "stage2"),
        ("first half frozen", "stage4"),
    ):
        calls[name] = _gradients(_learner(frozen), batch)
    plain = _learner()
    plain.stages = Stages(plain.networks["detector"])
    calls["everything trained, batch norm as layers of its own"] = _gradients(plain, batch)
    keras.config.set_dtype_policy("mixed_bfloat16")
    calls["everything trained, mixed_bfloat16"] = _gradients(_learner(), batch)
    keras.config.set_dtype_policy("float32")
    return calls


def _learner(frozen=None):
    body = backbones.backbone("efficientnet_lite0")
    freezing.freeze_batch_norm(body)
    if frozen:
        freezing.freeze(body, [frozen])
    return FasterRCNNTrainee(faster_rcnn(body, 20), FasterRCNNConfig())


def _gradients(learner, batch):
    weights = learner.networks["detector"].trainable_weights

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            total = sum(learner.losses(batch).values())
        return tape.gradient(total, weights)

    return step


def report(calls, rounds, per=1):
    """Prints each row's median and its ratio to the first row."""
    times = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    whole = np.array(next(iter(times.values())))
    for name, values in times.items():
        seconds = float(np.median(values))
        print(
            f"{name:58} {1000 * seconds / per:8.1f} ms an image {per / seconds:8.1f} images/s "
            f"{float(np.median(np.array(values) / whole)):6.2f}"
        )


if __name__ == "__main__":
    main()
