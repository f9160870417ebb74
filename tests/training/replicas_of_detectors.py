"""Trains detectors on one device and on two logical ones, and prints how far weights moved and are apart.

Run by test_training_replicas.py in a process of its own: `replicas_of_detectors.py NAME ...`.
"""

import json
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

from tfcnn import backbones, datasets, detection
from tfcnn.datasets import pipeline
from tfcnn.detection.faster_rcnn import faster_rcnn
from tfcnn.detection.faster_rcnn_trainee import FasterRCNNTrainee
from tfcnn.detection.mask_rcnn import mask_rcnn
from tfcnn.detection.one_stage import one_stage
from tfcnn.detection.single_shot_training import SingleShotTrainee
from tfcnn.detection.yolo import yolo
from tfcnn.training import freezing
from tfcnn.training.loop import train
from tfcnn.training.optimizers import SGD
from tfcnn.training.schedules import constant

STEPS, SIDE = 3, 64
SMALL = {"channels": 16, "units": 32, "proposals": 20}
REGIONS = {"train_proposals": 40, "regions": 12, "rpn_batch": 32}  # fewer than there are: drawn by chance


def trainee_of(kind):
    keras.utils.set_random_seed(1)
    body = backbones.backbone("tiny", None)
    if kind == "yolo":  # all objects of a picture are in one cell, and one of them is drawn
        model = yolo(body, 5, size=SIDE, grid=1, channels=16, hidden=((32, "leaky"),), dropout=0.0)
    elif kind == "one_stage":
        model = one_stage(body, 5, channels=16, tower=1)
    else:
        model = {"faster_rcnn": faster_rcnn, "mask_rcnn": mask_rcnn}[kind](body, 5, **SMALL)
    freezing.freeze_batch_norm(model)
    if kind in ("yolo", "one_stage"):
        return SingleShotTrainee(model, detection.SingleShotConfig(image_size=SIDE))
    return FasterRCNNTrainee(model, detection.FasterRCNNConfig(image_size=SIDE, **REGIONS))


def run(kind, strategy):
    """Gives the trained weights, and how far the one that moved most is from its start."""
    data = datasets.open("shapes", split="train")
    source = pipeline.batches(
        data, size=SIDE, batch_size=5, augment="flip", masks=kind == "mask_rcnn", threads=1
    )
    with strategy.scope():
        trainee = trainee_of(kind)
    net = trainee.networks["detector"]
    before = net.get_weights()
    with tempfile.TemporaryDirectory() as folder:
        settings = {"steps": STEPS, "schedule": constant(0.003), "optimizer": SGD(), "tensorboard": False}
        train(trainee, source, folder=folder, strategy=strategy, **settings)
    return net.get_weights(), apart(before, net.get_weights())


def apart(first, second):
    return max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    alone = tf.distribute.get_strategy()
    strategy, found = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), {}
    for kind in sys.argv[1:]:
        one, moved = run(kind, alone)
        two, _ = run(kind, strategy)
        found[kind] = {"moved": moved, "apart": apart(one, two)}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
