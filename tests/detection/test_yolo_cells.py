"""YOLO's dense layers as convolutions of the cells, and written out again."""

import keras
import numpy as np
import pytest

from tfcnn import backbones, datasets, detection
from tfcnn.detection import one_stage, yolo, yolo_cells
from tfcnn.errors import InputError


def build(**options):
    keras.utils.set_random_seed(0)
    options = {"size": 96, "grid": 5, "channels": 6, "resample": True, "hidden": [[50, "leaky"]]} | options
    return yolo.yolo(backbones.backbone("tiny", None), 5, **options)


def numbers(model, pictures):
    return keras.Model(model.inputs[0], model.layers[-1].input[0])(pictures).numpy()


@pytest.mark.parametrize(
    "options",
    [
        {"hidden": []},
        {"hidden": [[50, "leaky"]]},
        {"hidden": [[25, "linear"], [75, "leaky"]]},
        {"hidden": [[18, "leaky"]], "grid": 3, "resample": False},
    ],
)
def test_the_dense_layers_compute_what_the_convolutions_did(options):
    model = build(**options)
    cells = yolo_cells.by_cells(model)
    for layer in cells.layers:
        if layer.name.endswith("_cells"):
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, np.random.default_rng(0).normal(size=bias.shape)])
    pictures = np.random.default_rng(1).uniform(0, 255, (2, 96, 96, 3)).astype("float32")
    before, expected = numbers(model, pictures), numbers(cells, pictures)
    yolo_cells.write_dense(cells, model)
    assert expected.shape == (2, options.get("grid", 5) ** 2 * 15) and not np.allclose(
        before, expected, atol=0.1
    )
    np.testing.assert_allclose(numbers(model, pictures), expected, atol=1e-5)
    found = model(pictures)
    np.testing.assert_allclose(found["boxes"], cells(pictures)["boxes"], atol=1e-2)


def test_a_cell_sees_its_own_place_alone():
    model = build()
    cells = yolo_cells.by_cells(model)
    yolo_cells.write_dense(cells, model)
    head = keras.Model(model.get_layer("flatten").input, model.layers[-1].input[0])
    map_ = np.random.default_rng(0).normal(size=(1, 5, 5, 6)).astype("float32")
    other = map_.copy()
    other[0, 2, 3] += 1
    for before, after in zip(*(yolo.split(head(x), 5, 2, 5) for x in (map_, other)), strict=True):
        changed = np.abs(after - before).reshape(25, -1).max(axis=1)
        assert changed[2 * 5 + 3] > 0 and np.count_nonzero(changed) == 1


@pytest.mark.parametrize(
    ("options", "why"),
    [({"resample": False}, "it has 3 x 3"), ({"hidden": [[32, "leaky"]]}, "as 25 do; fc1 has 32")],
)
def test_what_cannot_be_convolutions_is_one_line(options, why):
    with pytest.raises(InputError, match=why):
        yolo_cells.by_cells(build(**options))


def test_a_one_stage_detector_has_no_dense_layers():
    with pytest.raises(InputError, match="no YOLO|Only YOLO"):
        yolo_cells.by_cells(one_stage.one_stage(backbones.backbone("tiny", None), 5, channels=8, tower=1))


def test_training_begins_with_the_cells_and_goes_on_with_the_dense_layers(tmp_path):
    shapes = datasets.open("shapes", split="train")
    shapes.examples = shapes.examples[:8]
    config = detection.SingleShotConfig(
        cell_epochs=40.0,
        cell_rate=3e-3,
        epochs=2.0,
        learning_rate=1e-4,
        batch_size=8,
        image_size=96,
        threads=1,
        tensorboard=False,
        validate_epochs=0.0,
        augment="none",
        average=0.0,
        warmup=5,
    )
    model = build(grid=6, channels=32, hidden=[[36 * 32, "leaky"]], dropout=0.0)
    said = []
    trained = detection.train_single_shot(model, shapes, shapes, config, tmp_path, say=said.append)
    assert any("40 epochs in which the cells share" in sentence for sentence in said)
    assert trained.card["cell_metrics"]["last"]["map_11"] > 0.3
    assert trained.metrics["last"]["map_11"] >= trained.card["cell_metrics"]["last"]["map_11"] - 0.1
    kernel = model.get_layer("fc1").get_weights()[0].reshape(36, 32, 36, 32)
    assert np.abs(kernel[0, :, 1]).max() > 0  # weights between cells have moved
