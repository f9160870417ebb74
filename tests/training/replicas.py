"""Trains the small net on one device and on two logical ones, and prints how far their weights are apart.

Run by test_training_replicas.py in a fork of its own: logical devices are set before TensorFlow computes.
"""

import json
import sys
import tempfile

import keras
import numpy as np
import small_training as small
import tensorflow as tf

from tfcnn import backbones
from tfcnn.datasets.example import Dataset, Record
from tfcnn.training import ClassifierConfig, freezing, train_classifier
from tfcnn.training.loop import train
from tfcnn.training.optimizers import SGD, AdamW
from tfcnn.training.schedules import constant

STEPS = 7  # the fifth batch is the short one


def run(strategy, optimizer, norm, **settings):
    with strategy.scope():
        net = small.small_net(batch_norm=norm != "absent")
        if norm == "frozen":
            freezing.freeze_batch_norm(net)
        if norm == "synchronized":
            freezing.synchronize_batch_norm(net)
        trainee = small.SmallTrainee(net)
    with tempfile.TemporaryDirectory() as folder:
        train(
            trainee,
            small.batches(8),  # 37 examples: every fifth batch has 5, so 3 and 2
            steps=STEPS,
            folder=folder,
            schedule=constant(1e-3 if isinstance(optimizer, AdamW) else 1e-2),
            optimizer=optimizer,
            strategy=strategy,
            tensorboard=False,
            **settings,
        )
    return net.get_weights()


def classifier(strategy):
    """Trains the factory's smallest net on eight grey pictures with frozen batch norm, and gives its weights."""
    records = [
        Record(k, f"{k}.png", 32, 32, lambda k=k: np.full((32, 32, 3), 30 * k, np.uint8), label=k % 2)
        for k in range(8)
    ]
    data = Dataset("greys", ["even", "odd"], [1, 2], records)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = backbones.classifier("tiny", None, classes=2, size=32)
    settings = {"batch_size": 5, "steps": 6, "warmup": 0, "learning_rate": 1e-4, "freeze_batch_norm": True}
    config = ClassifierConfig(**settings, augment="none", validate_epochs=0, tensorboard=False, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        train_classifier(model, data, data, config, folder, strategy=strategy, say=lambda text: None)
    return model.get_weights()


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one = tf.distribute.get_strategy()
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    cases = {
        "momentum absent": (SGD(), "absent", {"clip_norm": 0.5}),
        "momentum frozen": (SGD(), "frozen", {"average": 0.9}),
        "adam absent": (AdamW(), "absent", {"clip_norm": 0.5, "accumulate": 2}),
        "adam frozen": (AdamW(), "frozen", {}),
        "momentum synchronized": (SGD(), "synchronized", {}),
        "momentum live": (SGD(), "live", {}),
    }
    apart = {}
    for name, (optimizer, norm, settings) in cases.items():
        pairs = zip(run(one, optimizer, norm, **settings), run(two, optimizer, norm, **settings), strict=True)
        apart[name] = max(float(np.abs(a - b).max()) for a, b in pairs)
    pairs = zip(classifier(one), classifier(two), strict=True)
    apart["classifier"] = max(float(np.abs(a - b).max()) for a, b in pairs)
    json.dump(apart, sys.stdout)


if __name__ == "__main__":
    main()
