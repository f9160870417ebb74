"""Trains the small net on one device and on two logical ones, and prints how far their weights are apart.

Run by test_training_replicas.py in a process of its own: logical devices are set before TensorFlow starts.
"""

import json
import sys
import tempfile

import numpy as np
import small_training as small
import tensorflow as tf

from tfcnn.training import freezing
from tfcnn.training.loop import train
from tfcnn.training.optimizers import SGD, AdamW
from tfcnn.training.schedules import constant

STEPS = 20


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
    json.dump(apart, sys.stdout)


if __name__ == "__main__":
    main()
