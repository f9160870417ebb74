"""What neural style costs: a step against the plain one, L-BFGS against Adam, memory at 1024 and 4096 px.

    python benchmarks/style.py                 # a step at 512 px, and the losses after 200 evaluations
    python benchmarks/style.py --memory 4096   # peak memory at that longer side

Plain is one tf.function of forward, tape and Adam update on the same net, losses, picture and precision, with
the Gram matrix as everybody writes it. Rounds are paired: plain, ours, plain, ours; the median ratio is
printed, and the spread. Pictures are noise with a shape: neither a step's time nor its memory looks at them.
"""

import argparse
import os
import pathlib
import resource
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from tfcnn.art.style import LAYERS, StyleProblem
from tfcnn.backbones import backbone
from tfcnn.imageopt import lbfgs, minimize

NET = "efficientnet_lite0"
RATE = 4.0


def picture(height, width, seed):
    """Clouds of all sizes, float32 [1, height, width, 3]."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for cells in (2, 5, 12, 30, 80):
        total += tf.image.resize(random.normal(size=(cells, cells, 3)), [height, width]).numpy() * 40.0
    return np.clip(total + 127.0, 0, 255)[None]


def prepared(height, width, tile=0):
    layers = LAYERS[NET]
    net = backbone(NET, endpoints=list(dict.fromkeys(layers.content + layers.style)))
    problem = StyleProblem(net, layers, tile=tile, learning_rate=RATE)
    content = picture(height, width, 0)
    problem.set_content(content)
    problem.set_styles([picture(height, width, 1)])
    return net, layers, problem, content


def plain_step(net, layers, problem):
    """One step as it is usually written; its targets are the problem's."""
    grams = {name: tf.constant(value) for name, value in problem.grams.items()}
    wanted = {name: tf.constant(value) for name, value in problem.contents.items()}
    gram_sizes = {name: tf.reduce_mean(tf.square(value)) for name, value in grams.items()}
    wanted_sizes = {name: tf.reduce_mean(tf.square(value)) for name, value in wanted.items()}

    def gram_matrix(features):
        _, height, width, channels = features.shape
        rows = tf.reshape(features, [-1, channels])
        return tf.matmul(rows, rows, transpose_a=True)[None] / (height * width * channels)

    @tf.function
    def step(x, m, v, t):
        with tf.GradientTape() as tape:
            tape.watch(x)
            features = net(x, training=False)
            loss = 0.0
            for name, gram in grams.items():
                difference = tf.reduce_mean(tf.square(gram_matrix(features[name]) - gram))
                loss += 100.0 / len(grams) * difference / gram_sizes[name]
            for name, target in wanted.items():
                difference = tf.reduce_mean(tf.square(features[name] - target))
                loss += 5.0 * difference / wanted_sizes[name]
            right, below = x[:, :, 1:] - x[:, :, :-1], x[:, 1:] - x[:, :-1]
            loss += 1e-3 * (tf.reduce_mean(tf.square(right)) + tf.reduce_mean(tf.square(below)))
        g = tape.gradient(loss, x)
        count = tf.cast(t, tf.float32) + 1.0
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * tf.square(g)
        x -= RATE / (1.0 - 0.9**count) * m / (tf.sqrt(v / (1.0 - 0.999**count)) + 1e-8)
        return tf.clip_by_value(x, 0.0, 255.0), m, v, loss

    return step


def step_ratio(side=512, rounds=15, steps=2):
    net, layers, problem, content = prepared(side * 3 // 4, side)
    plain, x = plain_step(net, layers, problem), tf.constant(content)
    zero = tf.zeros_like(x)

    def run_plain():
        state = (x, zero, zero)
        for t in range(steps):
            *state, loss = plain(*state, tf.constant(t))
        return loss.numpy()

    def run_ours():
        return minimize(problem, x, steps).value[-1, 0]

    print(f"loss of the last of {steps} steps: plain {run_plain():.4f}, ours {run_ours():.4f}")
    ratios, plains = [], []
    for _ in range(rounds):
        times = []
        for run in (run_plain, run_ours):
            begun = time.perf_counter()
            run()
            times.append((time.perf_counter() - begun) / steps)
        ratios.append(times[1] / times[0])
        plains.append(times[0])
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    print(
        f"style step at {side} px: {middle:.2f} times the plain step (quarters {low:.2f} to {high:.2f}), "
        f"plain {1000 * np.median(plains):.0f} ms"
    )


def optimizers(side=256, evaluations=200):
    _, _, problem, content = prepared(side * 3 // 4, side)
    adam = minimize(problem, content, evaluations)
    quick = lbfgs(problem, content, evaluations, bounds=(0.0, 255.0))
    print(f"after {evaluations} evaluations at {side} px: Adam {adam.final_entry()['value']:.4f}, ", end="")
    print(f"L-BFGS {quick.final_entry()['value']:.4f}")


def memory(side, tile, optimizer):
    _, _, problem, content = prepared(side * 3 // 4, side, tile)
    begun = time.perf_counter()
    run, steps = (minimize, 1) if optimizer == "adam" else (lbfgs, 4)
    run(problem, content, steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = (time.perf_counter() - begun) / steps
    print(
        f"{side} px, tiles of {tile or side}, {optimizer}: peak {peak:.2f} GB; {seconds:.0f} s a step, compiling in"
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", type=int, help="longer side in pixels")
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--optimizer", default="adam", choices=["adam", "lbfgs"])
    flags = parser.parse_args()
    if flags.memory:
        memory(flags.memory, flags.tile, flags.optimizer)
    else:
        step_ratio()
        optimizers()


if __name__ == "__main__":
    main()
