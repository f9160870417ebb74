"""The whole network: every choice of parts, gradients, files, training to the end, the four steps."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcnn.layers  # noqa: F401  (registers the layers for keras.models.load_model)
from tfcnn import backbones, datasets
from tfcnn.datasets import pipeline
from tfcnn.detection.detector import FasterRCNN
from tfcnn.detection.detector_training import Validation
from tfcnn.detection.endpoints import strides
from tfcnn.detection.faster_rcnn import faster_rcnn
from tfcnn.detection.faster_rcnn_trainee import FasterRCNNConfig, FasterRCNNTrainee
from tfcnn.detection.faster_rcnn_training import alternation
from tfcnn.detection.stages import Stages
from tfcnn.errors import InputError
from tfcnn.training import freezing, loop, optimizers, schedules

CONFIG = FasterRCNNConfig(rpn_batch=64, train_proposals=40, train_before_nms=200, regions=16)
ALL = dataclasses.replace(
    CONFIG, rpn_batch=2000, regions=80
)  # draws all there are: nothing is left to chance
PARTS = [
    {},
    {"context": True, "class_agnostic": False},
    {"head": "light", "neck": "pyramid"},
    {"head": "dense", "neck": "none", "pooling": "max"},
    {"head": "backbone", "neck": "none"},
    {"head": "mlp", "neck": "fpn"},
]


def build(**options):
    keras.utils.set_random_seed(1)
    small = {
        "classes": 5,
        "sizes": None,
        "channels": 16,
        "units": 32,
        "proposals": 20,
        "score_threshold": 0.01,
    }
    body = backbones.backbone("tiny", None)
    freezing.freeze_batch_norm(body)
    return faster_rcnn(body, **{**small, **options})


def batch(count=2, size=96, objects=2, seed=0):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, size - 40, (count, 3, 2))
    boxes = np.concatenate([low, low + rng.uniform(12, 40, (count, 3, 2))], axis=-1).astype(np.float32)
    labels = rng.integers(0, 5, (count, 3)).astype(np.int32)
    boxes[:, objects:], labels[:, objects:] = 0, -1
    return {
        "image": tf.constant(rng.uniform(0, 255, (count, size, size, 3)), tf.float32),
        "size": tf.fill((count, 2), size),
        "scale": tf.ones((count, 2)),
        "boxes": tf.constant(boxes),
        "labels": tf.constant(labels),
        "difficult": tf.zeros((count, 3), bool),
        "crowd": tf.zeros((count, 3), bool),
        "seed": tf.constant([0, 7]),
    }


@pytest.mark.parametrize("options", PARTS, ids=lambda o: "-".join(map(str, o.values())) or "default")
def test_any_size_in_detections_out_and_every_weight_learns(options, tmp_path):
    if options.get("head") == "dense":
        options = {**options, "units": None}
    model = build(**options)
    for shape in [(2, 96, 96, 3), (1, 64, 110, 3)]:
        found = model(tf.random.stateless_uniform(shape, [1, 2], 0, 255))
        count = found["count"].numpy()
        for row in range(shape[0]):
            boxes, labels = found["boxes"][row].numpy(), found["labels"][row].numpy()
            assert np.isfinite(boxes).all() and (labels[count[row] :] == -1).all()
            assert (boxes[:, 2] <= shape[2]).all() and (boxes[:, 3] <= shape[1]).all() and (boxes >= 0).all()
    with tf.GradientTape() as tape:
        losses = FasterRCNNTrainee(model, CONFIG).losses(batch())
        total = sum(losses.values())
    assert set(losses) == {"objectness", "rpn_box", "class", "box"}
    for weight, gradient in zip(
        model.trainable_weights, tape.gradient(total, model.trainable_weights), strict=True
    ):
        assert gradient is not None and np.abs(gradient).sum() > 0, weight.path
    assert not [layer for layer in model.layers if isinstance(layer, keras.Model)]  # flat

    model.save(tmp_path / "net.keras")
    again = keras.models.load_model(tmp_path / "net.keras")
    image = tf.random.stateless_uniform((1, 96, 96, 3), [3, 4], 0, 255)
    for name, value in model(image).items():
        np.testing.assert_array_equal(value, again(image)[name])


@pytest.mark.parametrize("options", [{}, {"head": "light"}])
def test_boxes_stay_float32_where_the_net_is_bfloat16(options):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build(**options)
    finally:
        keras.config.set_dtype_policy("float32")
    stages = Stages(model)
    image = batch(count=1)["image"]
    first = stages.first(image)
    regions, _ = stages.propose(first, 96, 96, 20)
    assert regions.dtype == tf.float32 and (regions.numpy() % 1).any()
    pooled = stages.pool([regions, *first["pool_maps"]])
    assert pooled.dtype == first["pool_maps"][0].dtype == tf.bfloat16
    shifted = stages.pool([regions + 0.05, *first["pool_maps"]])  # less than bfloat16 tells apart beyond 16
    assert (pooled.numpy() != shifted.numpy()).any()
    losses = FasterRCNNTrainee(model, CONFIG).losses(batch())
    assert all(loss.dtype == tf.float32 and np.isfinite(float(loss)) for loss in losses.values())


def test_a_batch_without_objects_has_box_losses_of_exactly_zero():
    losses = FasterRCNNTrainee(build(), CONFIG).losses(batch(objects=0))
    assert float(losses["rpn_box"]) == 0.0 and float(losses["box"]) == 0.0
    assert float(losses["objectness"]) > 0 and float(losses["class"]) > 0


def test_padding_and_objects_left_out_change_nothing():
    model = FasterRCNNTrainee(build(), dataclasses.replace(ALL, ignore_overlap=1.0))
    plain = batch()
    padded = {**plain, "boxes": tf.pad(plain["boxes"], [[0, 0], [0, 9], [0, 0]])}
    padded["labels"] = tf.pad(plain["labels"], [[0, 0], [0, 9]], constant_values=-1)
    for name in ("difficult", "crowd"):
        padded[name] = tf.zeros((2, 12), bool)
    difficult = {**plain, "boxes": tf.tensor_scatter_nd_update(plain["boxes"], [[0, 2]], [[1.0, 1, 50, 50]])}
    difficult["labels"] = tf.tensor_scatter_nd_update(plain["labels"], [[0, 2]], [3])
    difficult["difficult"] = tf.tensor_scatter_nd_update(plain["difficult"], [[0, 2]], [True])
    expected = {name: float(value) for name, value in model.losses(plain).items()}
    for other in (padded, difficult):
        for name, value in model.losses(other).items():
            assert float(value) == pytest.approx(expected[name], rel=1e-4), name


def test_losses_of_a_batch_are_sums_of_those_of_its_pictures():
    model = FasterRCNNTrainee(build(), ALL)
    both = model.losses(batch())
    single = [
        model.losses({k: v if k == "seed" else v[i : i + 1] for k, v in batch().items()}) for i in range(2)
    ]
    for name in both:
        assert float(both[name]) == pytest.approx(sum(float(s[name]) for s in single), rel=1e-4)


def test_the_stages_are_the_model(tmp_path):
    model = build(score_threshold=0.0)
    stages = Stages(model)
    image = tf.random.stateless_uniform((1, 96, 96, 3), [5, 6], 0, 255)
    first = stages.first(image)
    regions, _ = stages.propose(first, 96, 96, 20)
    logits, deltas = stages.regions(regions, first["pool_maps"])
    found = stages.output([logits[0], deltas[0], regions, image])
    for name, value in model(image).items():
        np.testing.assert_allclose(value, found[name], atol=1e-5)
    assert stages.classes == 5
    assert stages.anchors_at(96, 64).shape == (6 * 4 * 18, 4)


def test_validation_goes_on_without_a_picture_that_cannot_be_read():
    data = datasets.open("shapes", None, "val")
    data.examples = [dataclasses.replace(data.examples[0], source=lambda: b"no picture"), data.examples[1]]
    validation = Validation(FasterRCNN([build()]), data, dataclasses.replace(CONFIG, image_size=96))
    assert 0 <= validation()["map_11"] <= 1
    assert list(validation.refused) == [data.examples[0].file] and validation.refused[data.examples[0].file]


def test_eight_pictures_are_learnt_to_the_end(tmp_path):
    data = datasets.open("shapes", None, "train")
    data.examples = data.examples[:8]
    keras.utils.set_random_seed(0)
    model = build(channels=32, units=64, proposals=50, nms_threshold=0.3)
    batches = pipeline.batches(data, size=128, batch_size=8, shuffle=False)
    config = dataclasses.replace(CONFIG, regions=32, image_size=128)
    learner = FasterRCNNTrainee(model, config, validation=Validation(FasterRCNN([model]), data, config))
    lines = []
    result = loop.train(
        learner,
        batches,
        steps=160,
        folder=tmp_path,
        schedule=schedules.cosine(3e-3, 160, 10),
        optimizer=optimizers.AdamW(),
        clip_norm=10.0,
        validate_steps=0,
        tensorboard=False,
        progress=lambda step, numbers: lines.append(numbers["losses"]),
    )
    assert result.last["map_11"] == pytest.approx(1.0)
    for name in lines[0]:
        means = np.mean(np.reshape([line[name] for line in lines], (-1, 10)), axis=1)
        assert means[-1] < 0.7 * means.max(), (
            name
        )  # few regions are foreground at first, so `box` climbs before it falls


def shared_layers(net):
    stages = Stages(net)
    return {layer.name for layer in net.layers} - stages.rpn_layers() - stages.region_layers()


def test_the_four_steps_train_what_they_should_and_fix_the_rest():
    model, proposer = build(), build()
    backbones.copy_weights(model, proposer)
    rpn_layers, region_layers = Stages(model).rpn_layers(), Stages(model).region_layers()
    steps = []
    for _, learner in alternation(proposer, model, CONFIG):
        net = learner.networks["detector"]
        with tf.GradientTape() as tape:
            total = sum(learner.losses(batch()).values())
        gradients = tape.gradient(total, net.trainable_weights)
        reached = {
            w.path.split("/")[0]
            for w, g in zip(net.trainable_weights, gradients, strict=True)
            if g is not None
        }
        assert (rpn_layers if "rpn" in learner.parts else region_layers) >= reached - shared_layers(net)
        assert len(reached) >= 3
        steps.append((net is model, learner.parts, {w.path.split("/")[0] for w in net.trainable_weights}))
    (first, second, third, fourth) = steps
    shared = {layer.name for layer in model.layers if layer.weights and not layer.name.startswith("norm")}
    shared -= rpn_layers | region_layers
    assert (
        not first[0]
        and first[1] == ("rpn",)
        and first[2] == shared | {n for n in rpn_layers if n in first[2]}
    )
    assert not first[2] & region_layers
    assert second[0] and second[1] == ("regions",) and shared <= second[2] and not second[2] & rpn_layers
    assert third[1] == ("rpn",) and third[2] and third[2] <= rpn_layers
    assert fourth[1] == ("regions",) and fourth[2] and fourth[2] <= region_layers


def test_step_two_takes_the_proposals_of_step_one():
    model, proposer = build(), build()
    learner = FasterRCNNTrainee(model, CONFIG, parts=("regions",), proposer=proposer)
    image = batch()["image"]
    own = Stages(proposer)
    expected, _ = own.propose(
        own.first(image), *image.shape[1:3], CONFIG.train_proposals, CONFIG.train_before_nms
    )
    np.testing.assert_array_equal(learner.propose(batch(), None), expected)


def test_weights_go_over_to_a_detector_of_other_classes():
    source, target = build(), build(classes=3)
    fresh = backbones.copy_weights(source, target)
    assert fresh == ["class_logits"]
    np.testing.assert_array_equal(source.get_layer("rpn_score").kernel, target.get_layer("rpn_score").kernel)


def test_strides_are_measured():
    assert strides(backbones.backbone("tiny", None)) == {
        "conv1": 2,
        "conv2": 4,
        "conv3": 8,
        "conv4": 16,
        "conv5": 32,
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"neck": "top"}, "top_down"),
        ({"head": "backbone"}, "neck='none'"),
        ({"pooling": "mean"}, "max, align"),
    ],
)
def test_a_wrong_choice_is_named(options, words):
    with pytest.raises(InputError, match=words):
        build(**options)


def test_a_backbone_without_the_stride_is_named():
    body = backbones.backbone("tiny", None, endpoints=["conv3"])
    with pytest.raises(InputError, match="stride 16"):
        faster_rcnn(body, 3)


@pytest.mark.slow
@pytest.mark.parametrize("net", [n for n, row in backbones.table.NETS.items() if n != "tiny"])
def test_every_backbone_of_the_factory_carries_a_detector(net):
    body = backbones.backbone(net, None)
    kept = {stride: name for name, stride in strides(body).items()}
    if 16 not in kept:
        with pytest.raises(InputError, match="stride 16"):
            faster_rcnn(body, 20, neck="none", head="light")
        return
    neck = "top_down" if {8, 16, 32} <= set(kept) else "none"
    model = faster_rcnn(body, 20, neck=neck, head="light", units=32, channels=16)
    with tf.GradientTape() as tape:
        total = sum(FasterRCNNTrainee(model, CONFIG).losses(batch(count=1, size=160)).values())
    assert np.isfinite(float(total))
    assert all(np.isfinite(g).all() for g in tape.gradient(total, model.trainable_weights) if g is not None)


@pytest.mark.slow
def test_resnet101_takes_a_training_step_and_comes_back_from_its_file(tmp_path):
    body = backbones.backbone("resnet101", None)
    freezing.freeze_batch_norm(body)
    model = faster_rcnn(body, 20, neck="none", head="backbone", context=True, class_agnostic=False)
    before = model.get_layer("class_logits").get_weights()[0].copy()
    learner = FasterRCNNTrainee(model, dataclasses.replace(CONFIG, regions=8))
    with tf.GradientTape() as tape:
        total = sum(learner.losses(batch(count=1, size=128)).values())
    keras.optimizers.SGD(0.01).apply_gradients(
        zip(tape.gradient(total, model.trainable_weights), model.trainable_weights, strict=True)
    )
    assert np.isfinite(float(total)) and (model.get_layer("class_logits").get_weights()[0] != before).any()
    model.save(tmp_path / "net.keras")
    again = keras.models.load_model(tmp_path / "net.keras")
    image = batch(count=1, size=128)["image"]
    for name, value in model(image).items():
        np.testing.assert_array_equal(value, again(image)[name])
