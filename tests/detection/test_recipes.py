"""The papers' flagfiles: every constant against the paper and the authors' program, and a training step of each."""

import json
import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("fast*_rcnn_*.txt"))
# Parses a recipe as the app does, builds the model with random weights and prints what was built.
BUILT = """
import json, sys
from absl import flags
from apps import train_detector as app
from tfcnn.cli import region_flags, training_flags
flags.FLAGS.set_default("batch_size", 16)
flags.FLAGS(["train_detector", *sys.argv[1:]])
import dataclasses
import keras
import numpy as np
import tensorflow as tf
from tfcnn import backbones, datasets
from tfcnn.datasets import augment, pipeline
from tfcnn.detection import detector_training as training
from tfcnn.detection.faster_rcnn import OWN_LAYERS, faster_rcnn
from tfcnn.detection.faster_rcnn_trainee import FasterRCNNConfig, FasterRCNNTrainee
from tfcnn.detection.stages import Stages
from tfcnn.training import freezing, optimizers, run

config = training_flags.config(FasterRCNNConfig)
body = backbones.backbone(flags.FLAGS.net, None)
for layer in body.layers:  # the looks of trained weights: what is frozen is what has been trained
    if "_conv" in layer.name:
        layer.bias.assign(np.linspace(0, 1e-3, layer.bias.shape[0]))
model = faster_rcnn(body, 20, **region_flags.architecture(app.DETECTOR.value, app.NMS_THRESHOLD.value))
stages = Stages(model)
trained = freezing.trained_layers(model)
rate = training.rates(model, config, trained, OWN_LAYERS)
frozen = training.freeze(model, config, trained)
found = {"config": {k: v for k, v in dataclasses.asdict(config).items()}}
found["frozen"] = frozen
found["augment"] = dataclasses.asdict(augment.PRESETS[config.augment])
found["optimizer"] = repr(run.optimizer(config))
found["decay"] = sorted(w.path for w in model.trainable_weights if optimizers.decays(w))
found["rates"] = {w.path: rate(w) for w in model.trainable_weights}
course, (drop,) = run.schedule(config, config.steps), config.rate_drops
found["course"] = [course(step) for step in (0, drop - 1, drop, config.steps - 1)]
found["layers"] = {layer.name: layer.get_config() for layer in model.layers if layer.name in (
    "region_pool", "region_fc6", "region_fc7", "region_drop6", "region_drop7", "class_logits", "box_deltas",
    "rpn_conv", "rpn_score", "rpn_offset", "detections", "proposals")}
found["pooled_from"] = [layer.name for layer in body.layers if layer.output is stages.pool.input[1]]
if stages.proposals:
    found["anchors"] = stages.proposals.grid.boxes([(1, 1)]).numpy().tolist()
    found["least_side"] = float(stages.proposals.least_side(1.6))

rng = np.random.default_rng(0)
data = datasets.open("shapes", None, "train")
data.examples = data.examples[: config.batch_size]
data.classes += [f"class {i}" for i in range(15)]
batches = pipeline.batches(
    data, size=160, resize=config.resize, longest=256, batch_size=config.batch_size, augment=config.augment)
batch = {k: tf.constant(v) for k, v in batches.batch(0).items() if v.dtype != object} | {"seed": tf.constant([0, 1])}
low = rng.uniform(0, 110, (config.batch_size, 300, 2))
batch["proposals"] = tf.constant(np.concatenate([low, low + rng.uniform(8, 36, low.shape)], -1), tf.float32)
trainee = FasterRCNNTrainee(model, config)
weights = [w for w in model.trainable_weights if w.path.startswith(("block3_conv1", "rpn_conv", "class_logits"))]
before = [w.numpy() for w in weights]
with tf.GradientTape(watch_accessed_variables=False) as tape:
    tape.watch([w.value for w in weights])
    losses = trainee.losses(batch)
    total = sum(losses.values())
for weight, gradient in zip(weights, tape.gradient(total, [w.value for w in weights])):
    weight.assign_sub(1e-3 * gradient)
found["losses"] = {k: float(v) for k, v in losses.items()}
found["moved"] = [bool((a != w.numpy()).any()) for a, w in zip(before, weights)]
# Not getrusage's peak: that begins at the peak of the process that started this one.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
found["gigabytes"] = int(peak.split()[1]) / 2**20
print(json.dumps(found, default=str))
"""


@pytest.fixture(scope="module")
def built(run_source):
    def build(name, *more):
        done = run_source(BUILT, f"--flagfile={ROOT / 'recipes' / name}", *more)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return build


@pytest.fixture(scope="module")
def faster(built):
    return built("faster_rcnn_paper.txt")


@pytest.fixture(scope="module")
def fast(built):
    return built("fast_rcnn_paper.txt", "--box_targets=fixed")  # there is nothing to measure


@pytest.fixture(params=["faster_rcnn_paper.txt", "fast_rcnn_paper.txt"])
def either(request, faster, fast):
    return {"faster_rcnn_paper.txt": faster, "fast_rcnn_paper.txt": fast}[request.param]


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_opens_with_its_figure_its_time_and_its_command(file):
    lines = file.read_text().splitlines()
    head = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    assert f"--flagfile=recipes/{file.name}" in head and "mAP" in head
    assert "hours" in head or " ms a picture" in head
    assert all(line.startswith(("#", "--")) for line in lines if line)


def test_pictures_are_600_by_at_most_1000_and_mirrored_at_most(either):
    config = either["config"]
    assert (config["resize"], config["image_size"], config["longest"]) == ("fit", 600, 1000)
    assert config["test_image_size"] is None
    still = {"flip": 0.5, "window": [1.0, 1.0], "aspect": 0.0, "rotation": 0.0, "mosaic": 0.0}
    still |= dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    assert {name: either["augment"][name] for name in still} == still


def test_the_optimizer_is_the_authors(either):
    assert either["optimizer"] == "SGD(momentum=0.9, nesterov=False, weight_decay=0.0005)"
    config = either["config"]
    assert config["clip_norm"] == config["average"] == config["warmup"] == 0
    assert all(rate == (2.0 if path.endswith("/bias") else 1.0) for path, rate in either["rates"].items())
    assert either["decay"] == sorted(path for path in either["rates"] if path.endswith("/kernel"))
    np.testing.assert_allclose(either["course"], [1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-6)


def test_conv1_and_conv2_stay(either):
    assert either["frozen"] == ["block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2"]
    assert "block3_conv1/kernel" in either["rates"]


def test_the_region_head_is_vggs_with_roi_max_pooling(either):
    layers = either["layers"]
    assert either["pooled_from"] == ["block5_conv3"]
    assert layers["region_pool"]["strides"] == [16] and layers["region_pool"]["size"] == 7
    assert layers["region_pool"]["method"] == "max" and not layers["region_pool"]["context"]
    assert layers["region_fc6"]["units"] == layers["region_fc7"]["units"] == 4096
    assert layers["region_drop6"]["rate"] == layers["region_drop7"]["rate"] == 0.5
    assert layers["class_logits"]["units"] == 21 and layers["box_deltas"]["units"] == 80
    for name, deviation in (("class_logits", 0.01), ("box_deltas", 0.001)):
        initializer = layers[name]["kernel_initializer"]
        assert initializer["class_name"] == "RandomNormal" and initializer["config"]["stddev"] == deviation
    output = layers["detections"]
    assert (output["score_threshold"], output["nms_threshold"], output["max_detections"]) == (0.05, 0.3, 100)
    assert output["means"] == [0, 0, 0, 0] and output["stds"] == [0.1, 0.1, 0.2, 0.2]


def test_regions_are_sampled_as_published(faster, fast):
    for found, batch, regions, low in ((faster, 1, 128, 0.0), (fast, 2, 64, 0.1)):
        config = found["config"]
        assert (config["batch_size"], config["regions"], config["background_low"]) == (batch, regions, low)
        assert config["positive_share"] == 0.25 and config["hardest"] == 0 and config["box_weight"] == 1
        assert config["ignore_overlap"] == 1  # difficult objects are dropped, and background
    assert faster["config"]["accumulate"] == 2 and fast["config"]["accumulate"] == 1
    assert (faster["config"]["steps"], faster["config"]["rate_drops"]) == (70_000, [50_000])
    assert (fast["config"]["steps"], fast["config"]["rate_drops"]) == (40_000, [30_000])


def test_anchors_and_proposals_are_the_authors(faster):
    corners = [
        [-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199],
        [-56, -56, 71, 71], [-120, -120, 135, 135], [-248, -248, 263, 263],
        [-36, -80, 51, 95], [-80, -168, 95, 183], [-168, -344, 183, 359],
    ]  # fmt: skip
    continuous = np.array(corners) + [0, 0, 1, 1]  # inclusive pixels end one later
    np.testing.assert_array_equal(faster["anchors"], continuous)
    config, layer = faster["config"], faster["layers"]["proposals"]
    assert (config["train_before_nms"], config["train_proposals"]) == (12_000, 2_000)
    assert (layer["before_nms"], layer["count"], layer["nms_threshold"]) == (6_000, 300, 0.7)
    assert faster["least_side"] == pytest.approx(16 * 1.6)
    assert (config["positive_anchors"], config["negative_anchors"], config["rpn_batch"]) == (0.7, 0.3, 256)
    assert config["inside_anchors"] is True
    layers = faster["layers"]
    assert layers["rpn_conv"]["filters"] == 512 and layers["rpn_conv"]["kernel_size"] == [3, 3]
    assert (layers["rpn_score"]["filters"], layers["rpn_offset"]["filters"]) == (9, 36)
    for name in ("rpn_conv", "rpn_score", "rpn_offset"):
        assert layers[name]["kernel_initializer"]["config"]["stddev"] == 0.01


def test_a_training_step_runs_in_4_gb(either):
    names = {"class", "box"} | ({"objectness", "rpn_box"} if "anchors" in either else set())
    assert set(either["losses"]) == names and all(np.isfinite(list(either["losses"].values())))
    assert all(either["moved"]) and either["gigabytes"] < 4


def test_fast_rcnn_measures_its_box_targets():
    text = (ROOT / "recipes" / "fast_rcnn_paper.txt").read_text()
    assert "--box_targets=measured\n" in text and "--class_agnostic=false\n" in text
