"""Training of YOLO and the one-stage detector as a function: it learns, goes on, and says what does not fit."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcnn
from tfcnn import backbones, datasets, detection
from tfcnn.datasets import pipeline
from tfcnn.detection.one_stage import OneStageLoss, one_stage
from tfcnn.detection.single_shot_training import SingleShotTrainee
from tfcnn.detection.yolo import yolo
from tfcnn.errors import InputError

SIDE = 96
SMALL = {"batch_size": 8, "image_size": SIDE, "threads": 1, "tensorboard": False, "validate_epochs": 0.0}
SMALL |= {"augment": "none", "average": 0.0, "warmup": 10}


def build(kind, **options):
    keras.utils.set_random_seed(1)
    body = backbones.backbone("tiny", None)
    if kind == "one_stage":
        return one_stage(body, 5, channels=32, tower=1, **options)
    return yolo(body, 5, size=SIDE, grid=6, channels=32, hidden=((256, "leaky"),), dropout=0.0)


@pytest.fixture(scope="module")
def shapes():
    """Eight pictures of shapes, to be trained and measured on."""
    found = datasets.open("shapes", split="train")
    found.examples = found.examples[:8]
    return found


@pytest.mark.parametrize("kind", ["yolo", "one_stage"])
def test_eight_pictures_are_learned_to_the_end_and_the_release_finds_their_objects(kind, shapes, tmp_path):
    config = detection.SingleShotConfig(steps=100, learning_rate=3e-3, **SMALL)
    trained = detection.train_single_shot(build(kind), shapes, shapes, config, tmp_path, say=lambda _: None)
    assert trained.metrics["last"]["map_11"] > 0.9
    card = json.loads((trained.release / "card.json").read_text())
    assert card["kind"] == kind and card["image_size"] == SIDE
    record = shapes.examples[0]
    (found,) = tfcnn.detector(trained.release)([record.image()])
    best = found.top(len(record.boxes))
    assert sorted(best.labels) == sorted(record.labels) and np.all(best.scores > 0.2)


@pytest.mark.parametrize(
    ("options", "why"),
    [({"image_size": 64}, "96 x 96"), ({"test_image_size": 128}, "96 x 96"), ({"resize": "fit"}, "96 x 96")],
)
def test_a_size_that_the_dense_layers_do_not_have_is_one_line(options, why, shapes, tmp_path):
    config = detection.SingleShotConfig(steps=1, **SMALL | options)
    with pytest.raises(InputError, match=why):
        detection.train_single_shot(build("yolo"), shapes, shapes, config, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("loss", "strides"),
    [
        (OneStageLoss(assignment="center", box="ciou"), (8, 16, 32)),
        (OneStageLoss(focal=2.0), (8, 16, 32)),
        (OneStageLoss(), (16,)),
        (OneStageLoss(assignment="center", box="l1"), (16, 32)),
    ],
    ids=lambda value: (
        str(value) if isinstance(value, tuple) else f"{value.assignment}-{value.box}-{value.focal}"
    ),
)
def test_every_option_of_the_one_stage_detector_reaches_every_weight(loss, strides, shapes):
    model = build("one_stage", strides=strides)
    trainee = SingleShotTrainee(model, detection.SingleShotConfig(steps=1, loss=loss, **SMALL))
    batch = {
        k: v for k, v in pipeline.batches(shapes, size=SIDE, batch_size=8).batch(0).items() if k != "image_id"
    }
    with tf.GradientTape() as tape:
        total = sum(trainee.losses(batch | {"seed": tf.constant([0, 0])}).values())
    gradients = tape.gradient(total, model.trainable_weights)
    assert np.isfinite(total)
    assert [w.path for w, g in zip(model.trainable_weights, gradients, strict=True) if g is None] == []
