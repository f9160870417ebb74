"""Training as a function: what is frozen, at which rates, what is told, both trainings, pictures of any shape."""

import dataclasses
import json
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcnn
from tfcnn import backbones, datasets, detection, images
from tfcnn.datasets import pipeline
from tfcnn.datasets.proposals import Proposals
from tfcnn.detection import detector_training, faster_rcnn_training, rpn
from tfcnn.detection.detector import FasterRCNN
from tfcnn.detection.detector_training import Validation
from tfcnn.detection.endpoints import endpoint_strides
from tfcnn.detection.faster_rcnn import OWN_LAYERS, faster_rcnn
from tfcnn.detection.faster_rcnn_trainee import FasterRCNNTrainee
from tfcnn.errors import InputError
from tfcnn.evaluation import proposals as coverage
from tfcnn.evaluation.proposal_recall import ground_truth
from tfcnn.predictor import Predictor
from tfcnn.training import freezing

SMALL = {"steps": 2, "batch_size": 2, "image_size": 96, "train_proposals": 40, "regions": 16, "threads": 1}
SMALL |= {"tensorboard": False, "validate_epochs": 0.0, "validate_images": 2}


def build(classes=5, weights=None, **options):
    keras.utils.set_random_seed(1)
    small = {"channels": 16, "units": 32, "proposals": 20}
    return faster_rcnn(backbones.backbone("tiny", weights), classes, **small | options)


def config(**options):
    return detection.FasterRCNNConfig(**SMALL | options)


@pytest.fixture(scope="module")
def shapes():
    """Training and validation: a few pictures of shapes, two of them made wide and high."""
    parts = []
    for split in ("train", "val"):
        part = datasets.open("shapes", None, split)
        part.examples = [widened(record, size) for record, size in zip(part.examples, SIZES, strict=False)]
        parts.append(part)
    return parts


SIZES = [(60, 120), (120, 60), (90, 90), (70, 100)]


def widened(record, size):
    """The record at another size, its annotation with it."""
    picture, at = images.resize(record.image(), size)
    boxes = at.from_file(record.boxes)
    height, width = size
    return dataclasses.replace(record, source=lambda: picture, boxes=boxes, width=width, height=height)


def as_trained(body):
    """Gives a random backbone the looks of a trained one: vectors that are not all equal."""
    rng = np.random.default_rng(0)
    for layer in body.layers:
        layer.set_weights(
            [w + rng.uniform(0, 0.01, w.shape) if w.ndim == 1 else w for w in layer.get_weights()]
        )


def test_a_random_backbone_is_trained_whole_and_at_the_full_rate():
    model = build()
    trained = freezing.trained_layers(model)
    assert detector_training.freeze(model, config(), trained) == []
    assert all(layer.trainable for layer in model.layers if layer.weights)
    rate = detector_training.rates(model, config(backbone_rate=0.3), trained, OWN_LAYERS)
    assert {rate(weight) for weight in model.trainable_weights} == {1.0}


def test_a_layer_that_is_named_stays_as_it_is_though_it_is_random():
    model = build()
    assert detector_training.freeze(model, config(freeze=("rpn_conv",)), freezing.trained_layers(model)) == [
        "rpn_conv"
    ]
    assert not model.get_layer("rpn_conv").trainable


def test_of_a_trained_backbone_early_layers_and_batch_norm_stay_and_the_rest_is_slow():
    body = backbones.backbone("tiny", None)
    as_trained(body)
    model = faster_rcnn(body, 5, channels=16, units=32, proposals=20)
    settings = config(backbone_rate=0.3, bias_rate=2.0)
    trained = freezing.trained_layers(model)
    rate = detector_training.rates(model, settings, trained, OWN_LAYERS)
    frozen = detector_training.freeze(model, settings, trained)
    norms = {layer.name for layer in body.layers if isinstance(layer, keras.layers.BatchNormalization)}
    early = {layer.name for layer in keras.Model(body.inputs, body.output["conv2"]).layers if layer.weights}
    assert set(frozen) == norms | early
    assert {rate(w) for w in model.get_layer("rpn_score").trainable_weights} == {1.0, 2.0}
    live = [layer for layer in body.layers if layer.trainable and layer.weights and layer.name not in norms]
    assert live and {rate(layer.kernel) for layer in live} == {0.3}


def test_endpoints_of_the_backbone_are_known_in_the_detector():
    found = endpoint_strides(build(neck="none", head="light"))
    assert {name: stride for name, (_, stride) in found.items()} == {
        "conv1": 2,
        "conv2": 4,
        "conv3": 8,
        "conv4": 16,
    }
    model = build()
    assert all(model.get_layer(layer).output is not None for layer, _ in endpoint_strides(model).values())


def test_a_validation_without_objects_has_no_figures(shapes):
    nothing = {
        "boxes": np.zeros((0, 4), np.float32),
        "labels": None,
        "difficult": None,
        "crowd": None,
        "truth": None,
    }
    bare = [dataclasses.replace(r, truncated=None, area=None, **nothing) for r in shapes[1].examples[:2]]
    data = dataclasses.replace(shapes[1], examples=bare)
    assert Validation(FasterRCNN([build()]), data, config())() == {"map_11": None, "map_area": None}


def test_recall_by_hand():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 40, 40], [100, 100, 300, 300]], np.float32)
    regions = np.array([[0, 0, 10, 6], [0, 0, 40, 30], [0, 0, 0, 0]], np.float32)
    found = coverage.recall([(regions, boxes), (regions[:0], boxes[:1]), (regions, boxes[:0])])
    assert found == {
        "all": {"boxes": 4, "0.5": 0.5, "0.7": 0.25},
        "small": {"boxes": 2, "0.5": 0.5, "0.7": 0.0},
        "medium": {"boxes": 1, "0.5": 1.0, "0.7": 1.0},
        "large": {"boxes": 1, "0.5": 0.0, "0.7": 0.0},
    }
    assert coverage.in_words(coverage.recall([])) == ""


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "fit"])
def test_ground_truth_of_recall_lies_where_training_sees_it(shapes, resize):
    record = shapes[0].examples[0]
    batch = pipeline.batches(
        shapes[0], size=96, batch_size=1, resize=resize, longest=150, shuffle=False
    ).batch(0)
    (height, width), at = images.placed((record.height, record.width), 96, resize, 150)
    seen = batch["boxes"][0][batch["labels"][0] >= 0]
    np.testing.assert_allclose(ground_truth(record, at), seen, atol=1e-3)
    assert batch["size"][0].tolist() == [height, width]


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "fit"])
def test_proposals_that_are_the_objects_have_a_recall_of_one(shapes, resize):
    """The pipeline of training says where the objects lie in the net's picture, and a method proposes just these."""
    data = dataclasses.replace(shapes[0], examples=shapes[0].examples[:4])
    batches = pipeline.batches(data, size=96, batch_size=4, resize=resize, longest=150, shuffle=False)

    class Method:
        classes, needs_proposals, zero_rgb = len(data.classes), False, (0, 0, 0)

        def propose(self, pictures, sizes, shapes):
            return batches.batch(0)["boxes"]

    predictor = Predictor(
        Method(), names=data.classes, image_size=96, resize=resize, longest=150, batch_size=4
    )
    measure = types.SimpleNamespace(predictor=predictor, dataset=data)
    found = coverage.recall(faster_rcnn_training._proposed(measure))
    assert found["all"]["boxes"] > 4 and found["all"]["0.7"] == 1.0


@pytest.mark.parametrize("resize", [pytest.param("letterbox", marks=pytest.mark.slow), "fit"])
def test_a_detector_is_trained_on_pictures_that_keep_their_shape(shapes, tmp_path, resize):
    told, shown = [], []
    settings = config(resize=resize, longest=150, test_image_size=64)
    trained = detection.train_faster_rcnn(
        build(),
        *shapes,
        settings,
        tmp_path,
        card={"licence": "none"},
        say=told.append,
        show=lambda image, name, title: shown.append((name, image.dtype)),
    )
    assert trained.result.step == 2 and shown == [("first_batch", np.uint8)]
    assert "no layer with kernels is frozen" in told[0]
    counted = sum(len(ground_truth(record)) for record in shapes[0].examples)
    assert trained.reach["anchors"]["all"]["boxes"] == counted
    assert trained.reach["proposals"]["count"] == trained.metrics["proposals"]["count"] == 20
    card = json.loads((trained.release / "card.json").read_text())
    assert (card["kind"], card["image_size"], card["resize"], card["longest"]) == (
        "faster_rcnn",
        64,
        resize,
        150,
    )
    assert card["metrics"] == trained.metrics and card["classes"] == shapes[0].classes
    detector = tfcnn.detector(trained.release)
    assert (detector.resize, detector.longest, detector.image_size) == (resize, 150, 64)
    found = detector([record.image() for record in shapes[1].examples])
    assert len(found) == len(shapes[1].examples)


def test_padding_of_a_fitted_batch_holds_no_proposal_and_no_inside_anchor(shapes):
    model = build()
    everything = config(rpn_batch=3000, train_proposals=20, regions=80, inside_anchors=True)
    trainee = FasterRCNNTrainee(model, everything)
    batch = pipeline.batches(shapes[0], size=64, batch_size=1, resize="fit", shuffle=False).batch(0)
    batch = {name: tf.constant(v) for name, v in batch.items() if v.dtype != object} | {
        "seed": tf.constant([1, 2])
    }
    height, width = batch["size"].numpy()[0]
    assert (height, width) == (64, 128)
    first = trainee.stages.first(batch["image"])
    proposals = trainee.propose(batch, first).numpy()
    assert proposals[..., 2].max() <= width and proposals[..., 3].max() <= height
    wide = batch | {"image": tf.pad(batch["image"], [[0, 0], [0, 64], [0, 64], [0, 0]])}
    proposals = trainee.propose(wide, trainee.stages.first(wide["image"])).numpy()
    assert proposals[..., 2].max() <= width and proposals[..., 3].max() <= height
    anchors = trainee.stages.proposals.anchors(trainee.stages.first(wide["image"])["proposal_maps"])
    size = tf.unstack(wide["size"], axis=1)
    index, label, _ = rpn.rpn_targets(anchors, wide["boxes"], wide["labels"], *size, wide["seed"], count=3000)
    drawn = anchors.numpy()[index.numpy()[label.numpy() >= 0]]
    assert len(drawn) and drawn[:, 2].max() <= width and drawn[:, 3].max() <= height


def test_the_alternation_shares_the_steps_as_the_paper_does_and_resumes(shapes, tmp_path):
    told, steps = [], {}
    settings = config(steps=6, training="alternating", schedule="steps", rate_drops=(3,))

    def progress(done, numbers):
        steps[numbers["what"]] = (done, numbers["steps"])

    model = build()
    trained = detection.train_faster_rcnn(
        model, *shapes, settings, tmp_path, progress=progress, say=told.append
    )
    assert list(steps.values()) == [(2, 2), (1, 1), (2, 2), (1, 1)]
    assert sum(sentence.startswith("step ") for sentence in told) == 4
    assert all(layer.trainable for layer in model.layers if layer.weights)  # as it was before
    again = detection.train_faster_rcnn(build(), *shapes, settings, tmp_path, say=told.append)
    assert again.result.trained == 0
    for one, other in zip(trained.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_fast_rcnn_is_trained_on_precomputed_proposals(shapes, tmp_path):
    rng = np.random.default_rng(0)
    entries = []
    for record in [*shapes[0].examples, *shapes[1].examples]:
        boxes = np.concatenate([record.boxes + rng.normal(0, 2, record.boxes.shape), [[0, 0, 50, 50]]])
        rows = np.column_stack([boxes, rng.uniform(size=len(boxes))]).tolist()
        entries.append({"file": record.file, "proposals": rows})
    (tmp_path / "proposals.json").write_text(json.dumps({"images": entries}))
    given = Proposals(tmp_path / "proposals.json")
    model = build(proposals=0)
    told = []
    trained = detection.train_faster_rcnn(
        model, *shapes, config(), tmp_path / "run", proposals=given, say=told.append
    )
    assert trained.card["kind"] == "fast_rcnn" and set(trained.reach) == {"proposals"}
    assert trained.reach["proposals"]["all"]["0.5"] > 0.8
    with pytest.raises(InputError, match="needs precomputed proposals"):
        detection.train_faster_rcnn(model, *shapes, config(), tmp_path / "run")
    with pytest.raises(InputError, match="proposals of its own"):
        detection.train_faster_rcnn(build(), *shapes, config(), tmp_path / "run", proposals=given)


def test_data_without_boxes_or_of_other_classes_are_refused(shapes, tmp_path):
    digits = datasets.open("digits")
    with pytest.raises(InputError, match="has no boxes"):
        detection.train_faster_rcnn(build(), digits, digits, config(), tmp_path)
    with pytest.raises(InputError, match="3 classes.*has 5"):
        detection.train_faster_rcnn(build(classes=3), *shapes, config(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"training": "both"}, "joint or alternating"),
        ({"resize": "crop"}, "cut objects off"),
        ({"hardest": 17}, "more than the 16 regions"),
    ],
)
def test_a_wrong_setting_is_named(options, words):
    with pytest.raises(InputError, match=words):
        config(**options)


def test_validation_looks_at_so_many_pictures(shapes):
    found = Validation(FasterRCNN([build()]), shapes[1], config(validate_images=2))
    assert [r.file for r in found.dataset.examples] == [r.file for r in shapes[1].examples[::2]]
    assert len(Validation(FasterRCNN([build()]), shapes[1], config(validate_images=0)).dataset) == len(SIZES)
