"""What a step of the loop costs over a bare compiled step, with Keras' train_on_batch beside it.

All three train EfficientNet-Lite0 at 224 px, batch norm frozen (and once live, whose statistics a skipped step
takes back), with SGD and momentum, then AdamW, on the same batch; a round gives each of them a step, in turn.
The ratio to the bare step is the median of the rounds', in seconds and, since that is steadier where other
programs run, in seconds of the processor. The loop does all that it does in a run: input, finite check, clipping,
averaging, reading the losses, log and progress; only checkpoints are left out.

    python benchmarks/training.py            # about three minutes on two cores
    python benchmarks/training.py --quick    # a net whose steps take three milliseconds: the worst case
"""

import argparse
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

from tfcnn.backbones import backbone
from tfcnn.training import freezing
from tfcnn.training.loop import train
from tfcnn.training.optimizers import SGD, AdamW
from tfcnn.training.schedules import constant


class Trainee:
    """A classifier of 20 classes on a backbone's last endpoint."""

    def __init__(self, net):
        self.networks = {"net": net}

    def losses(self, batch):
        return {"softmax": summed(batch["label"], self.networks["net"](batch["image"], training=True))}


def summed(labels, logits):
    return tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def make_net(quick, live=False):
    keras.utils.set_random_seed(0)
    if quick:
        image = keras.Input((32, 32, 3))
        x = keras.layers.Conv2D(16, 3, strides=2, activation="relu")(image)
        x = keras.layers.BatchNormalization()(x) if live else x
        top = keras.layers.Conv2D(32, 3, strides=2, activation="relu")(x)
    else:
        body = backbone("efficientnet_lite0", weights=None)
        if not live:
            freezing.freeze_batch_norm(body)
        image, top = body.input, list(body.output.values())[-1]
    x = keras.layers.GlobalAveragePooling2D()(top)
    return keras.Model(image, keras.layers.Dense(20)(x))


def bare(net, optimizer, batch):
    optimizer.build(net.trainable_variables)

    @tf.function
    def step(batch):
        with tf.GradientTape() as tape:
            loss = summed(batch["label"], net(batch["image"], training=True)) / len(batch["label"])
        optimizer.apply(tape.gradient(loss, net.trainable_variables), net.trainable_variables)
        return loss

    return lambda: float(step(batch))


def by_keras(net, optimizer, batch):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(optimizer, loss, jit_compile=False)
    return lambda: net.train_on_batch(batch["image"], batch["label"])


class Rounds:
    """Lets the peers make a step each after every step of the loop, and takes all times."""

    def __init__(self, peers):
        self.peers, self.times, self.began = peers, {name: [] for name in ["loop", *peers]}, None

    def __call__(self, step, numbers):
        if self.began is not None:
            self.times["loop"].append(clocks() - self.began)
        for name, peer in self.peers.items():
            began = clocks()
            peer()
            self.times[name].append(clocks() - began)
        self.began = clocks()


def clocks():
    """Seconds on the wall and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def measure(name, ours, theirs, quick, rounds, live=False, **settings):
    side, count = (32, 32) if quick else (224, 4)
    rng = np.random.default_rng(0)
    batch = {
        "image": tf.constant(rng.uniform(0, 255, (count, side, side, 3)), tf.float32),
        "label": tf.constant(rng.integers(0, 20, count), tf.int32),
    }
    peers = {
        "bare": bare(make_net(quick, live), theirs(), batch),
        "train_on_batch": by_keras(make_net(quick, live), theirs(), batch),
    }
    times = Rounds(peers)
    with tempfile.TemporaryDirectory() as folder:
        train(
            Trainee(make_net(quick, live)),
            lambda start: tf.data.Dataset.from_tensors(batch).repeat(),
            steps=rounds + 3,
            folder=folder,
            schedule=constant(1e-4),
            optimizer=ours,
            tensorboard=False,
            progress=times,
            **settings,
        )
    warm = {peer: np.array(seconds[2:][: rounds - 1]) for peer, seconds in times.times.items()}
    for peer, seconds in warm.items():
        wall, processor = np.median(seconds / warm["bare"], axis=0)
        ms = 1000 * np.median(seconds[:, 0])
        print(f"{name:26} {peer:15} {ms:8.2f} ms  {wall:5.3f} x bare  {processor:5.3f} x its processor time")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    arguments = parser.parse_args()
    quick, rounds = arguments.quick, arguments.rounds or (300 if arguments.quick else 40)

    def momentum():
        return keras.optimizers.SGD(1e-4, momentum=0.9)

    def adamw():
        return keras.optimizers.AdamW(1e-4, weight_decay=0.02)

    def clipped_averaged():
        extras = {"global_clipnorm": 10.0, "use_ema": True, "ema_momentum": 0.998}
        return keras.optimizers.AdamW(1e-4, weight_decay=0.02, **extras)

    ours = AdamW(weight_decay=0.02)
    measure("momentum", SGD(), momentum, quick, rounds)
    measure("momentum, live batch norm", SGD(), momentum, quick, rounds, live=True)
    measure("adamw", ours, adamw, quick, rounds)
    extras = {"clip_norm": 10.0, "average": 0.998}
    measure("adamw, clipped, averaged", ours, clipped_averaged, quick, rounds, **extras)


if __name__ == "__main__":
    main()
