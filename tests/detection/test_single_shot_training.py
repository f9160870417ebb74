"""Training of YOLO and the one-stage detector as a function: it learns, goes on, and says what does not fit."""

import json

import keras
import numpy as np
import pytest

import tfcnn
from tfcnn import backbones, datasets, detection
from tfcnn.detection.one_stage import OneStageLoss, one_stage
from tfcnn.detection.yolo import yolo
from tfcnn.errors import InputError

SIDE = 96
SMALL = {"batch_size": 8, "image_size": SIDE, "threads": 1, "tensorboard": False, "validate_epochs": 0.0}
SMALL |= {"augment": "none", "average": 0.0, "warmup": 10}


def build(kind):
    keras.utils.set_random_seed(1)
    body = backbones.backbone("tiny", None)
    if kind == "one_stage":
        return one_stage(body, 5, channels=32, tower=1)
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
    again = detection.train_single_shot(build(kind), shapes, shapes, config, tmp_path, say=lambda _: None)
    assert again.result.trained == 0
    for one, other in zip(again.model.get_weights(), trained.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "why"),
    [({"image_size": 64}, "96 x 96"), ({"test_image_size": 128}, "96 x 96"), ({"resize": "fit"}, "96 x 96")],
)
def test_a_size_that_the_dense_layers_do_not_have_is_one_line(options, why, shapes, tmp_path):
    config = detection.SingleShotConfig(steps=1, **SMALL | options)
    with pytest.raises(InputError, match=why):
        detection.train_single_shot(build("yolo"), shapes, shapes, config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_option_of_the_one_stage_loss_trains(shapes, tmp_path):
    for number, loss in enumerate(
        [OneStageLoss(assignment="center", box="ciou"), OneStageLoss(focal=2.0), OneStageLoss()]
    ):
        config = detection.SingleShotConfig(steps=2, loss=loss, validate_images=1, **SMALL)
        trained = detection.train_single_shot(
            build("one_stage"), shapes, shapes, config, tmp_path / str(number), say=lambda _: None
        )
        assert trained.result.step == 2
