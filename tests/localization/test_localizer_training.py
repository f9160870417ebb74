"""Training of a localizer: losses by hand, the steps, and a handful of shapes learned to the end."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_localizer import SIDE, Fixed, fixed

from tfcnn import backbones, datasets
from tfcnn.datasets import shapes
from tfcnn.errors import InputError
from tfcnn.localization import LocalizerConfig, train_localizer, with_box_head
from tfcnn.localization.localizer_data import Source
from tfcnn.localization.localizer_training import LocalizerTrainee, Validation
from tfcnn.localization.targets import largest_objects
from tfcnn.training.team import Team

BOX, OTHER = [0.25, 0.5, 0.5, 1.0], [0.0, 0.0, 0.5, 0.5]
CONFIG = LocalizerConfig(tensorboard=False, validate_epochs=0, batch_size=16)


def losses(model, unit_boxes, label, **options):
    config = dataclasses.replace(CONFIG, **options)
    batch = {
        "image": np.zeros((len(label), SIDE, SIDE, 3), np.float32),
        "label": np.int32(label),
        "unit_boxes": np.float32(unit_boxes),
    }
    found = LocalizerTrainee(model, model, config).losses(batch)
    return {name: pytest.approx(float(value), abs=1e-5) for name, value in found.items()}


def test_one_box_and_two_pictures():
    """The second has no object: its loss is nothing. (.25, 0, .25, 0) squared is .125."""
    truth = [[[0.0, 0.5, 0.25, 1.0]], [[0, 0, 0, 0]]]
    assert losses(fixed("agnostic", BOX), truth, [0, 1]) == {"box": 2 * 0.25**2}
    assert losses(fixed("agnostic", BOX), truth, [0, 1], loss="iou") == {"box": 1.0}


def test_of_a_box_for_each_class_only_that_of_the_ground_truth_class_counts():
    model = fixed("per_class", [OTHER, BOX, OTHER])
    assert losses(model, [[BOX]], [1]) == {"box": 0.0}
    assert losses(model, [[BOX]], [0]) == {"box": 0.25**2 + 0.5**2 + 0.5**2}


def test_two_objects_in_fixed_and_in_matched_order():
    model = fixed("objects", [OTHER, BOX])
    assert losses(model, [[BOX, OTHER]], [0]) == {"box": 2 * (0.25**2 + 0.5**2 + 0.5**2)}
    assert losses(model, [[BOX, OTHER]], [0], order="matched") == {"box": 0.0}


def test_fine_tuning_learns_the_classes_too():
    found = losses(fixed("agnostic", BOX, scores=(2.0, 1.0, 0.0)), [[BOX]], [0], fine_tune=True)
    assert found == {"box": 0.0, "softmax": -np.log(0.66524)}


def only(dataset, count):
    """The first pictures with one shape each."""
    examples = [record for record in dataset.examples if len(record.boxes) == 1][:count]
    return dataclasses.replace(dataset, examples=examples)


def test_figures_by_hand():
    """Two pictures of 96 pixels; the net always answers circle, with a box that is right in the first alone."""
    data = only(shapes.read(split="val", count=60, side=96), 2)
    first, second = data.examples
    image = keras.Input((SIDE, SIDE, 3))
    scores = Fixed(np.eye(5)[first.labels[0]])(image)
    boxes = keras.layers.Reshape((4,), name="box_agnostic")(Fixed(first.boxes[0] / 96)(image))
    model = keras.Model(image, {"logits": scores, "scores": scores, "boxes": boxes})
    second.boxes, second.labels = np.float32([[0, 0, 1, 1]]), np.int32([(first.labels[0] + 1) % 5])
    figures = Validation(model, largest_objects(data, 1), CONFIG)()
    assert figures == pytest.approx(
        {"top1_cls": 0.5, "top5_cls": 0, "top1_loc": 0.5, "top5_loc": 0.5, "mean_iou": 0.5}, abs=1e-3
    )


def test_the_mirror_images_features_go_with_mirrored_boxes(tmp_path):
    """The body's features are the picture itself: where it is mirrored, so is the box."""
    data = largest_objects(only(shapes.read(count=60, side=64), 8), 1)
    image = keras.Input((SIDE, SIDE, 3))
    classes = keras.layers.Dense(5)(keras.layers.Flatten()(keras.layers.Conv2D(3, 1)(image)))
    model = with_box_head(keras.Model(image, classes), hidden=())
    model.get_layer(
        "conv2d" if "conv2d" in [x.name for x in model.layers] else model.layers[1].name
    ).set_weights([np.eye(3, dtype=np.float32)[None, None], np.zeros(3, np.float32)])
    told = {"stop": None, "progress": None, "say": lambda sentence: None}
    source = Source(model, set(), data, data, CONFIG, tmp_path, told, Team(tf.distribute.get_strategy()))
    _, batches, _ = source.of({"box_numbers"}, validates=False)
    batch, mirrored = batches.batch(0), 0
    by_id = {record.image_id: record for record in data.examples}
    for features, box, name in zip(batch["features"], batch["unit_boxes"], batch["image_id"], strict=True):
        record = by_id[name]
        x1, y1, x2, y2 = record.boxes[0] / 64
        if np.allclose(features, record.image(), atol=1):
            assert box[0] == pytest.approx([x1, y1, x2, y2], abs=1e-5)
        else:
            assert np.allclose(features, record.image()[:, ::-1], atol=1)
            assert box[0] == pytest.approx([1 - x2, y1, 1 - x1, y2], abs=1e-5)
            mirrored += 1
    assert 0 < mirrored < len(batch["image_id"])


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A localizer of 32 shapes, the net that it started from, and what was said."""
    data, said = only(shapes.read(count=200, side=96), 32), []
    keras.utils.set_random_seed(0)
    classifier = backbones.classifier("efficientnet_lite0", classes=5, size=96)
    before = {layer.name: layer.get_weights() for layer in classifier.layers if layer.weights}
    model = with_box_head(classifier)
    config = dataclasses.replace(CONFIG, steps=150, average=0.9, classifier_epochs=20)
    folder = tmp_path_factory.mktemp("learned")
    return train_localizer(model, data, data, config, folder, say=said.append), before, said


def test_a_handful_of_shapes_is_learned_to_the_end(learned):
    trained, _, _ = learned
    figures = trained.metrics["last"]
    assert figures["mean_iou"] > 0.7 and figures["top5_loc"] < 0.1, figures
    assert trained.card["classifier_metrics"]["last"]["top1"] > 0.75


def test_only_the_random_layers_and_the_box_head_were_trained(learned):
    trained, before, said = learned
    changed = {
        name
        for name, weights in before.items()
        if any(
            (a != b).any() for a, b in zip(weights, trained.model.get_layer(name).get_weights(), strict=True)
        )
    }
    assert changed == {"logits"}
    assert "first the classifier: 1 layers are random and learn the classes" in said


def test_the_release_answers_by_its_kind(learned):
    import tfcnn

    trained, _, _ = learned
    predictor = tfcnn.localizer(trained.release)
    assert predictor.names == datasets.open("shapes").classes and predictor.image_size == 96
    record = only(shapes.read(count=200, side=96), 1).examples[0]
    (guesses,) = predictor([record.image()])
    box, truth = guesses.boxes[0], record.boxes[0]
    low, high = np.maximum(box[:2], truth[:2]), np.minimum(box[2:], truth[2:])
    shared = np.prod(high - low)
    assert shared / (np.prod(box[2:] - box[:2]) + np.prod(truth[2:] - truth[:2]) - shared) > 0.5


def test_fine_tuning_moves_the_backbone_but_no_batch_norm(tmp_path):
    data = only(shapes.read(count=60, side=64), 4)
    model = with_box_head(backbones.classifier("tiny", None, classes=5, size=64))
    batch_norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    first = next(x for x in model.layers if isinstance(x, keras.layers.Conv2D))
    config = dataclasses.replace(CONFIG, steps=3, batch_size=4, fine_tune=True, classifier_epochs=0)
    before, means = first.get_weights()[0].copy(), [x.get_weights()[2].copy() for x in batch_norms]
    train_localizer(model, data, data, config, tmp_path, say=lambda sentence: None)
    assert (first.get_weights()[0] != before).any()
    assert all((x.get_weights()[2] == mean).all() for x, mean in zip(batch_norms, means, strict=True))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"loss": "l3"}, "loss"),
        ({"order": "sorted"}, "order"),
        ({"resize": "crop"}, "resize='crop'"),
    ],
)
def test_settings_that_cannot_be_are_said(options, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(CONFIG, **options)


def test_a_net_of_other_classes_or_size_is_refused(tmp_path):
    data = shapes.read(count=4, side=64)
    with pytest.raises(InputError, match="The model has 3 classes, and the data set shapes has 5"):
        train_localizer(
            with_box_head(backbones.classifier("tiny", None, 3, 64)), data, data, CONFIG, tmp_path
        )
    config = dataclasses.replace(CONFIG, image_size=96)
    with pytest.raises(InputError, match="the model takes pictures of 64 pixels"):
        train_localizer(
            with_box_head(backbones.classifier("tiny", None, 5, 64)), data, data, config, tmp_path
        )
