"""Whether a flag of an app that makes pictures does anything: how far it moves the picture of a small net."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]

PROGRAM = """
import sys
import keras
import numpy as np
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver
from tfcnn.cli.models import Net
from apps import {app}

keras.utils.set_random_seed(0)
image = keras.Input((24, 24, 3))
x = keras.layers.Rescaling(1 / 60, -2)(image)
x = keras.layers.Conv2D(8, 3, strides=2, bias_initializer="random_normal", name="stem")(x)
x = keras.layers.ReLU(negative_slope=0.1, name="map")(keras.layers.BatchNormalization()(x))
strong = keras.initializers.RandomNormal(stddev=300.0)  # else a weight on the picture outweighs the score
logits = keras.layers.Dense(4, kernel_initializer=strong, name="logits")(keras.layers.GlobalAveragePooling2D()(x))
model = keras.Model(image, {{"logits": logits, "scores": keras.layers.Softmax()(logits)}})
net = Net("small", model, 24, [("", str(index)) for index in range(4)])

{make}

@flagsaver.flagsaver()
def picture(line):
    flags.FLAGS(["{app}", "--steps=6", *line.split()])
    {app}.check_command()
    return make()

for line in sys.argv[1:]:
    base, flag = line.split("|")
    print(np.abs(picture(base) - picture(base + flag)).max())
"""


def changes(warm, folder, app, make, lines):
    """By how many grey levels at most a flag changes the picture.

    Args:
        warm: the fixture.
        folder: for the program.
        app: module of apps.
        make: source of `make()`, which gives the picture that the flags describe; it sees `net` and the app.
        lines: flags that both runs have, a bar, and the flags that only the second has.

    Returns:
        {line: grey levels}.
    """
    (folder / "changing.py").write_text(PROGRAM.format(app=app, make=make))
    done = warm.run("changing", lines, folder, {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return dict(zip(lines, map(float, done.stdout.split()), strict=True))
