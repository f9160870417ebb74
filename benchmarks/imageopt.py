"""What a step of the image loop costs beside a plain compiled step on the same net and picture.

    python benchmarks/imageopt.py [rounds]

Plain is one tf.function of forward, tape and update on a tf.Variable, as one writes it for one purpose: a class
score raised by Adam, and a layer's code matched under total variation. The steps are timed in turn, round after
round, in this one process; the table shows median milliseconds a step and the median over rounds of the ratio to the
plain step. The last rows say what the Fourier way costs beside pixels, and what a first call costs.
"""

import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tfcnn import runtime  # noqa: E402

STEPS = 5  # a round times so many steps of each program
LAYER = "stage5"


def plain_step(loss, start):
    """A compiled step of Adam on a variable: a function of nothing that makes STEPS steps."""
    import keras
    import tensorflow as tf

    x = tf.Variable(start)
    optimizer = keras.optimizers.Adam(1.0)
    optimizer.build([x])

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = loss(x)
        optimizer.apply([tape.gradient(value, x)], [x])
        x.assign(tf.clip_by_value(x, 0.0, 255.0))
        return value

    return lambda: [step() for _ in range(STEPS)][-1].numpy()


def loop_step(problem, picture, optimize):
    """The same of a problem by `minimize` or `maximize`, each time from where the last ended."""
    now = {"image": picture}

    def run():
        result = optimize(problem, now["image"], STEPS)
        now["image"] = result.image
        return result.value[-1]

    return run


def programs(net, picture):
    """Pairs of programs with the same work: {title: (plain, tfcnn)}, each STEPS steps."""
    import tensorflow as tf

    from tfcnn.backbones import tap
    from tfcnn.imageopt import Problem, constraints, maximize, minimize, objectives, optimizers

    features = tap(net, [LAYER])
    code = features(picture)[LAYER] * 0.5

    def class_loss(x):
        return -net(x, training=False)["logits"][0, 130]

    def code_loss(x):
        match = tf.reduce_mean(tf.math.squared_difference(features(x, training=False)[LAYER], code))
        right, below = x[:, :-1, 1:] - x[:, :-1, :-1], x[:, 1:, :-1] - x[:, :-1, :-1]
        return match + 1e-4 * tf.reduce_mean(right**2 + below**2)

    climb = Problem(
        net, objectives.logit(130), optimizer=optimizers.Adam(1.0), constraint=constraints.in_range()
    )
    matching = objectives.feature_match(LAYER, code) + 1e-4 * objectives.total_variation()
    match = Problem(net, matching, optimizer=optimizers.Adam(1.0), constraint=constraints.in_range())
    return {
        "class score": (plain_step(class_loss, picture), loop_step(climb, picture, maximize)),
        f"code of {LAYER}": (plain_step(code_loss, picture), loop_step(match, picture, minimize)),
    }


def row(title, seconds, others=None):
    ratio = statistics.median(a / b for a, b in zip(seconds, others or seconds, strict=True))
    print(f"{title:44}{1000 * statistics.median(seconds) / STEPS:9.1f}{ratio:8.2f}", flush=True)


def main(rounds=30):
    runtime.start()
    import numpy as np

    from tfcnn import images
    from tfcnn.backbones import classifier, zero_rgb
    from tfcnn.imageopt import objectives
    from tfcnn.visualization import class_model

    net = classifier("efficientnet_lite0")
    picture = images.resize(images.read(images.packaged()[0]), 224, "crop")[0][None].astype(np.float32)
    print(f"EfficientNet-Lite0 at 224 px, {rounds} rounds of {STEPS} steps, one picture")
    print(f"{'':44}{'ms/step':>9}{'ratio':>8}")

    def timed(*runs):
        begun = time.perf_counter()
        for run in runs:
            run()
        first = time.perf_counter() - begun
        seconds = [[] for _ in runs]
        for _ in range(rounds):
            for run, times in zip(runs, seconds, strict=True):
                begun = time.perf_counter()
                run()
                times.append(time.perf_counter() - begun)
        return first, seconds

    for title, (plain, ours) in programs(net, picture).items():
        _, (bare, loop) = timed(plain, ours)
        row(f"{title}: plain", bare)
        row(f"{title}: tfcnn", loop, bare)

    pixels = class_model.simonyan(net, objectives.logit(130), 224, zero_rgb(net)).phases[0].problem
    waves = class_model.fourier(net, objectives.logit(130), 224, statistics=0.0).phases[-1].problem
    natural = class_model.fourier(net, objectives.logit(130), 224).phases[-1].problem
    first, (bare, fourier, held) = timed(
        *(loop_step(problem, picture, -1) for problem in (pixels, waves, natural))
    )
    row("class model: simonyan", bare)
    row("class model: fourier, transforms and noise", fourier, bare)
    row("the same with layer statistics", held, bare)
    print(f"first calls of the last three, with their traces: {first / 3:.1f} s each")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
