"""YOLO's flagfiles: every constant against the paper and darknet, and a step of training with them on a small net."""

import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPES = ("yolo_paper", "fast_yolo_paper")
# Parses both recipes as the app does and prints what they say; trains YOLO's head on a small backbone for a step.
READ = """
import json, sys
root, *names = sys.argv[1:]
from absl import flags
from absl.testing import flagsaver
from apps import train_detector as app
from tfcnn.cli import grid_flags, training_flags
flags.FLAGS.set_default("batch_size", 16)
import dataclasses
import tensorflow as tf
from tfcnn import backbones
from tfcnn.datasets import augment
from tfcnn.detection.single_shot_training import SingleShotConfig, SingleShotTrainee
from tfcnn.training import run

found = {}
for name in names:
    with flagsaver.flagsaver():
        flags.FLAGS(["train_detector", f"--flagfile={root}/recipes/{name}.txt"])
        config = training_flags.config(SingleShotConfig)
        options = grid_flags.architecture(app.DETECTOR.value, config.train_size, app.NMS_THRESHOLD.value)
        course = run.schedule(config, config.steps)
        found[name] = {
            "config": dataclasses.asdict(config),
            "net": flags.FLAGS.net,
            "weights": flags.FLAGS.weights,
            "grid": dict(options),
            "augment": dataclasses.asdict(augment.PRESETS[config.augment]),
            "optimizer": repr(run.optimizer(config)),
            "course": [course(step) for step in (0, 350, 699, 19_999, 20_000, 29_999, 30_000, 39_999)],
        }
        options |= {"size": 64, "hidden": [[16, activation] for _, activation in options["hidden"]]}
        model = app.builder()(backbones.backbone("tiny", None), 20, **options)
batch = {
    "image": tf.random.uniform((2, 64, 64, 3), 0, 255),
    "boxes": tf.constant([[[4.0, 4, 40, 30]], [[20.0, 8, 60, 60]]]),
    "labels": tf.constant([[3], [19]]),
    "difficult": tf.zeros((2, 1), bool),
    "crowd": tf.zeros((2, 1), bool),
    "seed": tf.constant([0, 1]),
}
trainee = SingleShotTrainee(model, config)
with tf.GradientTape() as tape:
    losses = trainee.losses(batch)
    total = sum(losses.values())
gradients = tape.gradient(total, model.trainable_weights)
found["losses"] = {k: float(v) for k, v in losses.items()}
found["without"] = [w.path for w, g in zip(model.trainable_weights, gradients) if g is None]
print(json.dumps(found, default=str))
"""


@pytest.fixture(scope="module")
def found(run_source):
    done = run_source(READ, ROOT, *RECIPES)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_opens_with_its_figure_its_time_and_its_command(name):
    lines = (ROOT / "recipes" / f"{name}.txt").read_text().splitlines()
    head = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    assert f"--flagfile=recipes/{name}.txt" in head and "mAP" in head and " ms a picture" in head
    assert all(line.startswith(("#", "--")) for line in lines if line)


@pytest.mark.parametrize("name", RECIPES)
def test_pictures_are_of_448_px_and_changed_as_published(found, name):
    config, how = found[name]["config"], found[name]["augment"]
    assert (config["resize"], config["image_size"], config["test_image_size"]) == ("stretch", 448, None)
    assert (how["sides"], how["exposure"], how["flip"]) == (0.2, 0.5, 0.5)
    assert how["window"] == [1, 1]
    others = ("aspect", "rotation", "brightness", "contrast", "saturation", "hue", "mosaic")
    assert not any(how[other] for other in others)


@pytest.mark.parametrize("name", RECIPES)
def test_steps_are_the_authors(found, name):
    config = found[name]["config"]
    assert found[name]["optimizer"] == "SGD(momentum=0.9, nesterov=False, weight_decay=0.0005)"
    assert config["batch_size"] * config["accumulate"] == 64 and config["steps"] == 40_000
    assert config["clip_norm"] == config["average"] == config["freeze_stride"] == 0
    assert config["bias_rate"] == config["backbone_rate"] == 1 and not config["freeze"]
    assert (config["lambda_coord"], config["lambda_noobj"], config["ignore_overlap"]) == (5, 0.5, 1)
    first, middle, *course = found[name]["course"]
    assert 0.001 < first < 0.00102 and middle == pytest.approx(0.0055, rel=0.01)  # raised slowly
    assert course == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001])


@pytest.mark.parametrize(
    ("name", "net", "hidden"),
    [
        ("yolo_paper", "yolo", [[4096, "leaky"]]),
        ("fast_yolo_paper", "fast_yolo", [[256, "linear"], [4096, "leaky"]]),
    ],
)
def test_the_networks_are_the_papers(found, name, net, hidden):
    assert found[name]["net"] == net and found[name]["weights"] == "none"
    assert found[name]["grid"] == {
        "size": 448,
        "grid": 7,
        "boxes": 2,
        "endpoint": None,
        "passthrough": 0,
        "convolutions": [],
        "channels": None,
        "resample": False,
        "hidden": hidden,
        "dropout": 0.5,
        "nms_threshold": 0.5,
    }


def test_a_step_reaches_every_weight(found):
    assert set(found["losses"]) == {"xy", "wh", "object", "no_object", "class"}
    assert all(0 < value < 1e4 for value in found["losses"].values()) and found["without"] == []
