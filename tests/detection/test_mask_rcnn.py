"""Mask R-CNN: the branch, its targets and loss by hand, views at test time, and learning on shapes."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcnn
import tfcnn.layers  # noqa: F401  (registers the layers for keras.models.load_model)
from tfcnn import backbones, datasets, detection, masks
from tfcnn.datasets import pipeline
from tfcnn.detection import mask_rcnn
from tfcnn.detection.detector import FasterRCNN
from tfcnn.detection.detector_training import Validation
from tfcnn.detection.faster_rcnn import faster_rcnn
from tfcnn.detection.faster_rcnn_trainee import FasterRCNNConfig, FasterRCNNTrainee
from tfcnn.detection.stages import Stages
from tfcnn.errors import InputError
from tfcnn.training import freezing, loop, optimizers, schedules

SMALL = {"channels": 16, "units": 32, "proposals": 20, "score_threshold": 0.01, "mask_channels": 8}
CONFIG = FasterRCNNConfig(rpn_batch=64, train_proposals=40, train_before_nms=200, regions=16)


def build(**options):
    keras.utils.set_random_seed(1)
    body = backbones.backbone("tiny", None)
    freezing.freeze_batch_norm(body)
    return mask_rcnn.mask_rcnn(body, 5, **SMALL | options)


@pytest.fixture(scope="module")
def model():
    """With masks that are not all one half."""
    made = build()
    layer = made.get_layer("mask_logits")
    layer.kernel.assign(tf.random.stateless_normal(layer.kernel.shape, [1, 2]))
    return made


@pytest.fixture(scope="module")
def image():
    return datasets.open("shapes", split="val").examples[1].image()[:70, :110]


BOXES = {
    name: value for name, value in SMALL.items() if name != "mask_channels"
}  # of a detector without masks


def batch(count=2, size=96):
    """Two boxes a picture, the masks of which are their left halves."""
    rng = np.random.default_rng(0)
    low = rng.integers(0, size - 40, (count, 2, 2))
    boxes = np.concatenate([low, low + rng.integers(16, 40, (count, 2, 2))], axis=-1)
    shown = np.zeros((count, 2, size, size), bool)
    for picture, object_ in np.ndindex(count, 2):
        x1, y1, x2, y2 = boxes[picture, object_]
        shown[picture, object_, y1:y2, x1 : (x1 + x2) // 2] = True
    flags = tf.zeros((count, 2), bool)
    return {
        "image": tf.constant(rng.uniform(0, 255, (count, size, size, 3)), tf.float32),
        "size": tf.fill((count, 2), size),
        "scale": tf.ones((count, 2)),
        "boxes": tf.constant(boxes, tf.float32),
        "labels": tf.constant(rng.integers(0, 5, (count, 2)), tf.int32),
        "difficult": flags,
        "crowd": flags,
        "masks": tf.constant(shown),
        "void": tf.zeros((count, size, size), bool),
        "seed": tf.constant([0, 7]),
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"neck": "pyramid", "head": "light", "context": True},
        pytest.param({"neck": "none", "head": "backbone"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_masks_for_detections_and_every_weight_of_the_branch_learns(options, tmp_path):
    net = build(**options)
    for shape in [(2, 96, 96, 3), (1, 64, 110, 3)]:
        found = net(tf.random.stateless_uniform(shape, [1, 2], 0, 255))
        shown, count = found["masks"].numpy(), found["count"].numpy()
        assert shown.shape == (shape[0], 100, 28, 28) and count.max() > 0
        for row in range(shape[0]):
            assert (shown[row, : count[row]] > 0).all() and not shown[row, count[row] :].any()
    with tf.GradientTape() as tape:
        losses = FasterRCNNTrainee(net, CONFIG).losses(batch())
        total = sum(losses.values())
    assert set(losses) == {"objectness", "rpn_box", "class", "box", "mask"}
    for weight, gradient in zip(
        net.trainable_weights, tape.gradient(total, net.trainable_weights), strict=True
    ):
        assert gradient is not None and np.abs(gradient).sum() > 0, weight.path
    assert not [layer for layer in net.layers if isinstance(layer, keras.Model)]  # flat
    net.save(tmp_path / "net.keras")
    again = keras.models.load_model(tmp_path / "net.keras")
    for name, value in net(batch()["image"]).items():
        np.testing.assert_array_equal(value, again(batch()["image"])[name])


def test_the_branch_is_the_papers():
    net = mask_rcnn.mask_rcnn(backbones.backbone("tiny", None), 5, neck="pyramid", head="light")
    stages = Stages(net)
    assert stages.mask_head.output.shape[1:] == (28, 28, 5) and stages.mask_head.input.shape[1:] == (
        14,
        14,
        128,
    )
    convolutions = [net.get_layer(f"mask_conv{i}") for i in (1, 2, 3, 4)]
    assert {(each.filters, each.kernel_size) for each in convolutions} == {(256, (3, 3))}
    assert (net.get_layer("mask_up").filters, net.get_layer("mask_up").strides) == (256, (2, 2))
    assert stages.mask_pool.levels and stages.mask_pool.strides == (8, 16, 32)
    with pytest.raises(InputError, match="makes its own proposals"):
        build(proposals=0)


def test_regions_scores_keep_their_maps_and_masks_pool_the_necks(model):
    stages = Stages(model)
    first = stages.first(batch()["image"])
    assert [x.shape[-1] for x in first["pool_maps"]] == [49 * 8] * 2
    assert [tuple(x.shape[1:]) for x in first["mask_maps"]] == [(12, 12, 16), (6, 6, 16)]


# ------------------------------------------------------------------------------------ targets


def test_targets_are_the_masks_cut_out_by_their_regions():
    shown = np.zeros((1, 2, 40, 40), bool)
    shown[0, 1, 10:30, 8:20] = True  # the object's left part
    void = np.zeros((1, 40, 40), bool)
    void[0, :11] = True
    regions = tf.constant([[[8.0, 10, 32, 30], [0, 0, 40, 40], [8, 10, 32, 30]]])
    targets, weights = mask_rcnn.mask_targets(
        tf.constant(shown), tf.constant(void), regions, tf.constant([[1, 1, 0]]), size=4
    )
    # A region from x = 8 to 32 in four cells of 6: the object covers the first two.
    assert targets[0, 0].numpy().tolist() == [[1, 1, 0, 0]] * 4
    # The whole picture in cells of 10: columns 8 to 20 cover a fifth of the first cell and all of the second.
    assert targets[0, 1].numpy().tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    # Rows of 5 from 10 on: one of five is void, which is less than half. Of the whole picture the first row is void.
    assert weights[0, 0].numpy().min() == 1 and weights[0, 1].numpy().tolist() == [[0] * 4, *[[1] * 4] * 3]
    assert not weights[0, 2].numpy().any()  # its object has no mask


def test_a_target_is_pasted_back_to_the_mask():
    rng = np.random.default_rng(0)
    for _ in range(5):
        shown = np.zeros((1, 1, 60, 60), bool)
        x1, y1, x2, y2 = box = [*rng.integers(0, 20, 2), *rng.integers(35, 60, 2)]
        ys, xs = np.mgrid[:60, :60]
        shown[0, 0] = ((xs - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((ys - (y1 + y2) / 2) / (y2 - y1)) ** 2 < 0.2
        regions, none = tf.constant([[box]], tf.float32), tf.zeros((1, 60, 60), bool)
        target, _ = mask_rcnn.mask_targets(tf.constant(shown), none, regions, tf.constant([[0]]))
        back = masks.paste(target[0, 0].numpy(), box, 60, 60)
        assert (back & shown[0, 0]).sum() / (back | shown[0, 0]).sum() > 0.95


def test_the_loss_counts_the_true_class_alone_and_what_is_not_void():
    logits = np.zeros((3, 2, 2, 2), np.float32)  # three regions of one image, two classes
    logits[0, ..., 1], logits[1, ..., 0] = 50.0, -50.0  # sure of the classes that are not asked for
    own = mask_rcnn.of_class(tf.constant(logits), tf.constant([[0, 1, 1]]))
    targets, weights = np.ones((1, 3, 2, 2), np.float32), np.ones((1, 3, 2, 2), np.float32)
    weights[0, 2] = 0  # no foreground
    assert mask_rcnn.mask_loss(own, targets, weights).numpy().tolist() == pytest.approx([np.log(2)])
    own = own.numpy()
    own[0, 0, 0] = 100.0  # right in a half; now the half that is wrong is void
    own[0, 0, 1], weights[0, 0, 1] = -100.0, 0
    assert mask_rcnn.mask_loss(own, targets, weights).numpy().tolist() == pytest.approx([np.log(2) / 2])
    assert mask_rcnn.mask_loss(own, targets, 0 * weights).numpy().tolist() == [0.0]


def test_void_difficult_and_padding_change_no_mask_loss(model):
    learner = FasterRCNNTrainee(model, dataclasses.replace(CONFIG, regions=80, rpn_batch=2000))
    plain = batch()
    expected = float(learner.losses(plain)["mask"])
    assert expected > 0
    for name in ("difficult", "crowd"):
        own = learner.losses({**plain, name: tf.ones((2, 2), bool)})
        assert float(own["mask"]) == 0.0
    assert float(learner.losses({**plain, "void": tf.ones((2, 96, 96), bool)})["mask"]) == 0.0
    padded = {**plain, "boxes": tf.pad(plain["boxes"], [[0, 0], [0, 3], [0, 0]])}
    padded["labels"] = tf.pad(plain["labels"], [[0, 0], [0, 3]], constant_values=-1)
    padded["masks"] = tf.pad(plain["masks"], [[0, 0], [0, 3], [0, 0], [0, 0]])
    padded |= {name: tf.zeros((2, 5), bool) for name in ("difficult", "crowd")}
    assert float(learner.losses(padded)["mask"]) == pytest.approx(expected, rel=1e-4)
    bare = learner.losses({**plain, "masks": tf.zeros((2, 2, 96, 96), bool)})
    assert float(bare["mask"]) == 0.0 and float(bare["class"]) > 0


# ------------------------------------------------------------------------------------ at work


def opened(net, **options):
    """Called on pictures of 110 x 70."""
    return tfcnn.detector(net, image_size=96, score_threshold=0.01, max_detections=8, **options)


@pytest.fixture(scope="module")
def plain(model, image):
    (found,) = opened(model)([image])
    return found


def differing(ours, theirs):
    """The shares of pixels in which masks differ."""
    return [(a != b).mean() for a, b in zip(ours, theirs, strict=True)]


def test_the_predictors_masks_are_the_models_own(model, image, plain):
    small, _ = tfcnn.images.resize(image, 96, "stretch")
    direct = model(small[None].astype(np.float32))
    boxes = direct["boxes"][0, : len(plain)].numpy() * np.array([110 / 96, 70 / 96, 110 / 96, 70 / 96])
    own = [
        masks.paste(each, box, 70, 110) for each, box in zip(direct["masks"][0].numpy(), boxes, strict=False)
    ]
    assert len(plain) and max(differing(plain.bitmaps(), own)) < 0.01
    assert 0 < max(mask.mean() for mask in plain.bitmaps()) < 1


def test_a_mirrored_picture_gets_mirrored_masks(model, image, plain):
    both, mirrored = opened(model, flip=True)([image, image[:, ::-1].copy()])
    np.testing.assert_allclose(both.scores[:5], mirrored.scores[:5], atol=1e-3)
    back = [mask[:, ::-1] for mask in mirrored.bitmaps()]
    assert max(differing(list(both.bitmaps())[:5], back[:5])) < 0.01
    assert (
        max((a != b).sum() for a, b in zip(both.bitmaps(), plain.bitmaps(), strict=False)) > 0
    )  # both views count


def test_masks_lie_in_their_boxes_whatever_the_views(model, image):
    """Boxes refined and averaged, pictures padded, and beside the model one without masks."""
    keras.utils.set_random_seed(5)
    other = faster_rcnn(backbones.backbone("tiny", None), 5, **BOXES)
    more = {"refine": 1, "box_voting": True, "resize": "fit"}
    (answer,) = opened([model, other], **more)([image])
    assert len(answer)
    for box, mask in zip(answer.boxes, answer.bitmaps(), strict=True):
        (x1, y1), (x2, y2) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
        outside = mask.copy()
        outside[y1:y2, x1:x2] = False
        assert not outside.any()


def test_litert_has_masks_too(model, image, plain):
    pytest.importorskip("ai_edge_litert")
    (lite,) = opened(model, runtime="litert")([image])
    np.testing.assert_allclose(plain.scores, lite.scores, atol=1e-4)
    assert max(differing(list(plain.bitmaps())[:5], list(lite.bitmaps())[:5])) < 0.01


@pytest.mark.slow
def test_int8_has_masks_too(model, image):
    pytest.importorskip("ai_edge_litert")
    (lite,) = opened(model, runtime="litert_int8", calibration=[image])([image])
    assert len(lite) and any(mask.any() for mask in lite.bitmaps())


# ------------------------------------------------------------------------------------ training


def test_shapes_are_learnt_with_their_masks(tmp_path):
    data = datasets.open("shapes", None, "train")
    data.examples = data.examples[1:5]
    keras.utils.set_random_seed(0)
    net = build(channels=24, units=48, proposals=30, nms_threshold=0.3, mask_channels=24)
    batches = pipeline.batches(data, size=96, batch_size=4, shuffle=False, masks=True)
    config = dataclasses.replace(CONFIG, regions=32, image_size=96)
    learner = FasterRCNNTrainee(net, config, validation=Validation(FasterRCNN([net]), data, config))
    result = loop.train(
        learner,
        batches,
        steps=90,
        folder=tmp_path,
        schedule=schedules.cosine(4e-3, 90, 10),
        optimizer=optimizers.AdamW(),
        clip_norm=10.0,
        validate_steps=0,
        tensorboard=False,
    )
    assert result.last["map_11"] > 0.9
    # whole boxes as masks reach 0.5-0.75 and 0.13-0.15 here; the masks 1.0 and 0.38-0.51, by processor and seed
    assert result.last["segm_AP50"] > 0.85 and result.last["segm_AP"] > 0.25


def test_a_release_is_written_and_data_without_masks_is_refused(tmp_path):
    parts = [datasets.open("shapes", None, split) for split in ("train", "val")]
    for part in parts:
        part.examples = part.examples[:4]
    small = {"steps": 1, "batch_size": 2, "image_size": 64, "train_proposals": 20, "regions": 8, "threads": 1}
    config = detection.FasterRCNNConfig(
        **small, tensorboard=False, validate_epochs=0.0, augment="detection_mosaic"
    )
    bare = dataclasses.replace(parts[0].examples[1], masks=None)
    assert len(bare.boxes)
    parts[0].examples[1] = bare
    shown, told = [], []
    trained = detection.train_faster_rcnn(
        build(), *parts, config, tmp_path, show=lambda *sheet: shown.append(sheet), say=told.append
    )
    assert trained.card["kind"] == "mask_rcnn" and {"segm_AP50", "segm_AP"} < set(trained.metrics["last"])
    assert shown[0][1] == "first_batch"
    assert "1 of 4 pictures have objects and no masks: their boxes alone are learnt" in told
    again = tfcnn.detector(trained.release)
    assert again.method.has_masks and again.names == parts[0].classes
    with pytest.raises(InputError, match="trained jointly, not in alternation"):
        alternating = dataclasses.replace(config, training="alternating")
        detection.train_faster_rcnn(build(), *parts, alternating, tmp_path / "b")
    parts[1].examples = [dataclasses.replace(record, masks=None) for record in parts[1].examples]
    with pytest.raises(InputError, match="The shapes data set has no masks"):
        detection.train_faster_rcnn(build(), *parts, config, tmp_path / "c")


def test_a_detector_of_boxes_is_where_masks_start():
    source = faster_rcnn(backbones.backbone("tiny", None), 5, **BOXES)
    target = build()
    fresh = backbones.copy_weights(source, target)
    assert fresh == [*(f"mask_conv{i}" for i in (1, 2, 3, 4)), "mask_up", "mask_logits"]
    np.testing.assert_array_equal(source.get_layer("rpn_score").kernel, target.get_layer("rpn_score").kernel)
