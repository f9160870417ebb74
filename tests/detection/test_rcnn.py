"""R-CNN: warped regions, features on the disk, SVMs with hard negatives, box regression, the whole as one model."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcnn import backbones, datasets
from tfcnn.datasets.proposals import Proposals
from tfcnn.detection import rcnn, rcnn_features, rcnn_svm, rcnn_training
from tfcnn.detection.endpoints import endpoint_strides
from tfcnn.detection.options import DetectorOptions
from tfcnn.detection.warping import WarpRegions
from tfcnn.errors import InputError
from tfcnn.ops import roi
from tfcnn.predictor import Predictor

SIZE = 64


def warped(image, region, side=8, context=0.0, fill=(0, 0, 0)):
    layer = WarpRegions(side, context, fill)
    return layer([tf.constant([[region]], tf.float32), tf.constant(image[None], tf.float32)])[0].numpy()


def ramp():
    """A picture whose channels are the x and the y of a pixel's middle."""
    y, x = np.mgrid[:20, :30].astype(np.float32) + 0.5
    return np.stack([x, y, np.full_like(x, 7)], axis=-1)


def test_a_warped_region_samples_the_middles_of_its_cells():
    found = warped(ramp(), [4, 2, 20, 10])  # cells of 2 x 1 pixels
    assert found[0, :, 0] == pytest.approx(4 + 2 * (np.arange(8) + 0.5), abs=1e-4)
    assert found[:, 0, 1] == pytest.approx(2 + np.arange(8) + 0.5, abs=1e-4)


def test_context_is_so_many_pixels_of_the_square_on_each_side():
    found = warped(ramp(), [10, 6, 14, 10], side=8, context=2)  # 4 pixels become 4, with 2 around them
    assert found[0, :, 0] == pytest.approx(8 + np.arange(8) + 0.5, abs=1e-4)
    assert found[:, 0, 1] == pytest.approx(4 + np.arange(8) + 0.5, abs=1e-4)


def test_beside_the_picture_is_the_colour_that_the_net_sees_as_zero():
    found = warped(ramp(), [-8, 0, 8, 16], fill=(50, 60, 70))
    assert (found[:, :4] == (50, 60, 70)).all() and found[0, 5, 0] == pytest.approx(3)


# ------------------------------------------------------------------------------------- the pipeline


def boxes_around(record, random):
    """Proposals near and far from a picture's objects."""
    near = np.repeat(record.boxes, 4, axis=0) + random.normal(0, 3, (4 * len(record.boxes), 4))
    corner = random.uniform(0, 40, (6, 2))
    far = np.concatenate([corner, corner + random.uniform(8, 20, (6, 2))], axis=1)
    boxes = np.concatenate([near, far]).clip(0, SIZE)
    return boxes[(boxes[:, 2:] - boxes[:, :2] > 2).all(axis=1)]


def proposals_file(path, dataset, seed=0):
    random = np.random.default_rng(seed)
    images = []
    for record in dataset.examples:
        rows = [[*map(float, box), 1 - i / 1000] for i, box in enumerate(boxes_around(record, random))]
        images.append({"file": record.file, "proposals": rows})
    path.write_text(json.dumps({"images": images}))
    return Proposals(path)


@pytest.fixture(scope="module")
def shapes():
    whole = datasets.open("shapes", split="train")
    return dataclasses.replace(whole, examples=whole.examples[:8])


@pytest.fixture(scope="module")
def given(shapes, tmp_path_factory):
    return proposals_file(tmp_path_factory.mktemp("proposals") / "results.json", shapes)


@pytest.fixture(scope="module")
def net(shapes):
    keras.utils.set_random_seed(1)
    return rcnn.described_regions(backbones.backbone("tiny", None), len(shapes.classes), side=32, context=4)


@pytest.fixture(scope="module")
def written(net, shapes, given, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features") / "features"
    said = []
    assert rcnn_features.write(folder, net, shapes, given, 128, say=said.append) == {}
    return folder, said


@pytest.fixture(scope="module")
def features(written, net, shapes, given):
    return rcnn_features.Features(written[0], net, shapes, given, 128)


def test_features_are_the_nets_of_each_region_objects_first(features, net, shapes, given, written):
    pictures = list(features)
    assert [p.record.image_id for p in pictures] == [r.image_id for r in shapes.examples]
    first = pictures[0]
    boxes, _ = rcnn_features.truths(first.record)
    assert first.truths == len(boxes) and first.regions[: first.truths].tolist() == boxes.tolist()
    assert len(first.regions) == first.truths + len(given.of(first.record.file))
    image = first.record.image()
    scale = 128 / max(image.shape[:2])
    from tfcnn import images

    seen, at = images.resize(image, 128, "letterbox")
    assert at.scale_x == pytest.approx(scale, abs=0.01)
    model = rcnn.feature_model(net)
    answer = model([seen[None].astype(np.float32), at.from_file(first.regions)[None]])
    np.testing.assert_allclose(first.code, answer["code"].numpy(), rtol=2e-2, atol=2e-2)
    np.testing.assert_allclose(first.place, answer["place"].numpy(), rtol=2e-2, atol=2e-2)
    rows = sum(len(p.regions) for p in pictures)
    megabytes = rows * (2 * (features.code + features.place) + 16) / 1e6
    assert f"{rows:,} regions of 8 pictures" in written[1][0] and f"{megabytes:,.1f} MB" in written[1][0]


def test_features_of_another_net_other_proposals_or_pictures_are_refused(
    written, net, shapes, given, tmp_path
):
    folder, _ = written
    other = rcnn.described_regions(backbones.backbone("tiny", None), len(shapes.classes), side=32, context=4)
    fewer = dataclasses.replace(shapes, examples=shapes.examples[:7])
    moved = proposals_file(tmp_path / "results.json", shapes, seed=1)
    for arguments, what in (
        ((other, shapes, given, 128), "other net"),
        ((net, shapes, moved, 128), "other proposals"),
        ((net, fewer, given, 128), "other pictures"),
        ((net, shapes, given, 96), "other size"),
    ):
        with pytest.raises(InputError, match=what):
            rcnn_features.Features(folder, *arguments)
        with pytest.raises(InputError, match=what):
            rcnn_features.write(folder, *arguments, say=lambda line: None)


@pytest.mark.parametrize("changed", [{"side": 40}, {"context": 2}])
def test_features_of_the_same_weights_on_regions_warped_otherwise_are_refused(
    written, net, shapes, given, changed
):
    backbone = backbones.backbone("tiny", None)
    other = rcnn.described_regions(backbone, len(shapes.classes), **{"side": 32, "context": 4, **changed})
    other.set_weights(net.get_weights())
    with pytest.raises(InputError, match="other net"):
        rcnn_features.Features(written[0], other, shapes, given, 128)


def test_a_saved_net_has_the_same_features(written, net, shapes, given, tmp_path):
    net.save(tmp_path / "net.keras")
    same = keras.models.load_model(tmp_path / "net.keras")
    assert len(list(rcnn_features.Features(written[0], same, shapes, given, 128))) == len(shapes)


def test_features_of_an_older_format_are_refused(written, net, shapes, given, tmp_path):
    index = json.loads((written[0] / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(index | {"format": 1}))
    with pytest.raises(InputError, match="another format"):
        rcnn_features.Features(tmp_path, net, shapes, given, 128)


def test_litert_gives_the_same_features_and_int8_nearly(net, shapes, given, features, tmp_path):
    sure = list(features)
    for runtime, least in (("litert", 0.99999), ("litert_int8", 0.95)):
        rcnn_features.write(tmp_path / runtime, net, shapes, given, 128, runtime=runtime, say=str)
        found = list(rcnn_features.Features(tmp_path / runtime, net, shapes, given, 128, runtime))
        for name in ("code", "place"):
            one, other = (np.concatenate([getattr(p, name) for p in held]) for held in (sure, found))
            assert one.shape == other.shape
            assert np.corrcoef(one.ravel().astype(float), other.ravel().astype(float))[0, 1] > least
    with pytest.raises(InputError, match="other precision"):
        rcnn_features.Features(tmp_path / "litert_int8", net, shapes, given, 128)
    with pytest.raises(InputError, match="other precision"):
        rcnn_features.Features(tmp_path / "litert", net, shapes, given, 128, "litert_int8")


def test_pooled_regions_have_no_litert(shapes):
    model = rcnn.described_regions(backbones.backbone("tiny", None), len(shapes.classes), "spp")
    with pytest.raises(InputError, match="pools its regions from one map"):
        rcnn.Describer(rcnn.feature_model(model), "litert")


def test_features_beyond_float16_are_kept_whole_and_said(net, shapes, given, tmp_path, monkeypatch):
    class Large(rcnn.Describer):
        def __call__(self, image, regions):
            found = super().__call__(image, regions)
            return found | {"code": 1e5 + found["code"]}

    monkeypatch.setattr(rcnn_features, "Describer", Large)
    said = []
    rcnn_features.write(tmp_path / "f", net, shapes, given, 128, say=said.append)
    picture = next(iter(rcnn_features.Features(tmp_path / "f", net, shapes, given, 128)))
    assert picture.code.min() >= 1e5 and picture.code.dtype == np.float32
    assert picture.place.dtype == np.float16
    assert any("features code of part 0 pass float16's range" in line for line in said)


def test_a_damaged_part_is_named(net, shapes, given, tmp_path):
    rcnn_features.write(tmp_path / "f", net, shapes, given, 128, say=lambda line: None)
    part = tmp_path / "f" / "part_00000.npz"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(InputError, match="part_00000.npz is damaged"):
        list(rcnn_features.Features(tmp_path / "f", net, shapes, given, 128))


def test_a_run_that_was_cut_off_goes_on_after_its_last_part(net, shapes, given, tmp_path, monkeypatch):
    monkeypatch.setattr(rcnn_features, "PART", 3)
    done = []

    def stop_after_two(count):
        done.append(count)
        if sum(done) >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rcnn_features.write(tmp_path, net, shapes, given, 128, say=str, progress=stop_after_two)
    with pytest.raises(InputError, match="not complete"):
        rcnn_features.Features(tmp_path, net, shapes, given, 128)
    said, done = [], []
    rcnn_features.write(tmp_path, net, shapes, given, 128, say=said.append, progress=done.append)
    assert "2 of 3 parts are there" in said[0] and done == [6, 2]
    assert len(list(rcnn_features.Features(tmp_path, net, shapes, given, 128))) == 8


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(
    net, shapes, given, tmp_path, monkeypatch
):
    usage = rcnn_features.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(rcnn_features.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError, match="GB left"):
        rcnn_features.write(tmp_path / "f", net, shapes, given, 128, say=lambda line: None)
    assert not (tmp_path / "f").exists()


def test_a_region_inside_a_crowd_is_no_background_of_its_class(features):
    picture = next(iter(features))
    boxes = np.float32([[0, 0, 40, 40], [50, 0, 60, 10]])
    record = dataclasses.replace(
        picture.record,
        boxes=boxes,
        labels=np.array([1, 0]),
        difficult=None,
        truncated=None,
        crowd=np.array([True, False]),
    )
    regions = np.float32([[10, 10, 20, 20], [50, 0, 60, 10], [30, 30, 60, 60]])
    per_class, best, _ = rcnn_features.overlaps(
        dataclasses.replace(picture, record=record, regions=regions), 2
    )
    assert per_class[0].tolist() == [0, 1] and per_class[1].tolist() == [1, 0]
    assert 0 < per_class[2, 1] < 0.3 and best.tolist() == [0, 1, 0]


def separable(features, shapes):
    """The same pictures with codes that say the class: column k is large for regions of class k."""
    for picture in features:
        per_class, best, index = rcnn_features.overlaps(picture, len(shapes.classes))
        code = np.random.default_rng(0).normal(0, 0.1, picture.code.shape)
        code[:, : len(shapes.classes)] += 3 * (per_class >= 0.5)
        yield dataclasses.replace(picture, code=code.astype(np.float16))


class Held(list):
    """Pictures with the widths that `Features` tells."""

    def __init__(self, pictures, code, place):
        super().__init__(pictures)
        self.code, self.place = code, place


def test_svms_score_the_objects_of_their_class_above_all_others(features, shapes):
    held = Held(separable(features, shapes), features.code, features.place)
    names = [*shapes.classes, "unicorn"]
    said = []
    weights, biases, empty = rcnn_svm.train_svms(held, names, rcnn_svm.SvmConfig(svm_c=1.0), say=said.append)
    seen = {int(label) for record in shapes.examples for label in record.labels}
    assert "unicorn" in empty and any("no object of unicorn" in line for line in said)
    assert biases[-1] == rcnn_svm.NEVER and not weights[:, -1].any()
    for label in seen - {names.index(name) for name in empty}:
        inside, outside = [], []
        for picture in held:
            per_class, _, _ = rcnn_features.overlaps(picture, len(shapes.classes))
            margins = picture.code.astype(np.float32) @ weights[:, label] + biases[label]
            _, labels = rcnn_features.truths(picture.record)
            inside += [*margins[: picture.truths][labels == label]]
            outside += [*margins[per_class[:, label] < 0.3]]
        assert min(inside) > max(outside)


@pytest.mark.parametrize("retrain", [5, 10**6])
def test_every_region_is_a_negative_once(features, shapes, retrain):
    """Where every region counts as hard and none is easy, the negatives are all regions that overlap no object."""
    everything = {"hard": -1e9, "evict": -1e9, "most": 10**6}
    said = []
    config = rcnn_svm.SvmConfig(**everything, retrain=retrain)
    _, _, empty = rcnn_svm.train_svms(features, shapes.classes, config, say=said.append)
    trained = [label for label, name in enumerate(shapes.classes) if name not in empty]
    tables = [rcnn_features.overlaps(picture, len(shapes.classes))[0] for picture in features]
    far = sum(int((table[:, trained] < config.negative).sum()) for table in tables)
    assert f" and {far:,} negatives" in said[-1]


def test_svms_are_read_for_their_own_features_alone(features, tmp_path):
    weights, biases = np.ones((3, 2), np.float32), np.zeros(2, np.float32)
    path = tmp_path / "svm.npz"
    path.write_bytes(rcnn_svm.svm_file(weights, biases, features.fingerprint, 0.001))
    for svm_c in (None, 0.001):
        found = rcnn_svm.read_svms(path, features.fingerprint, svm_c)
        assert (found[0] == weights).all() and (found[1] == biases).all()
    with pytest.raises(InputError, match=r"svm_c=0.001, not 0.01: run the svm step again"):
        rcnn_svm.read_svms(path, features.fingerprint, 0.01)
    with pytest.raises(InputError, match="of other net and precision"):
        rcnn_svm.read_svms(path, features.fingerprint | {"net": "0", "precision": "int8"})
    for content in (path.read_bytes()[:-30], b"", b"nothing"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not there or damaged"):
            rcnn_svm.read_svms(path, features.fingerprint)
    np.savez(path, weights=weights, biases=biases)
    with pytest.raises(InputError, match="which features"):
        rcnn_svm.read_svms(path, features.fingerprint)


def test_ridge_is_least_squares_where_nothing_is_penalised():
    random = np.random.default_rng(0)
    rows, true = random.normal(size=(200, 6)), random.normal(size=(6, 4))
    targets = rows @ true + (1, -2, 0.5, 3)
    weights, biases = rcnn_svm.ridge(rows, targets, 1e-9)
    np.testing.assert_allclose(weights, true, atol=1e-6)
    np.testing.assert_allclose(biases, (1, -2, 0.5, 3), atol=1e-6)
    weights, biases = rcnn_svm.ridge(rows, targets, 1e12)  # nothing is learned: the mean is answered
    assert np.abs(weights).max() < 1e-6 and biases == pytest.approx(targets.mean(axis=0), abs=1e-6)


def test_regressed_boxes_are_nearer_to_the_objects(features, shapes):
    """From codes that hold the deltas themselves, the regression finds the boxes."""
    from tfcnn.ops import coders

    pictures = []
    for picture in features:
        boxes, _ = rcnn_features.truths(picture.record)
        _, _, index = rcnn_features.overlaps(picture, len(shapes.classes))
        place = np.zeros((len(picture.regions), features.place), np.float16)
        place[:, :4] = coders.encode(boxes[index], picture.regions).numpy()
        pictures.append(dataclasses.replace(picture, place=place))
    config = rcnn_svm.SvmConfig(ridge=1e-3)
    weights, biases = rcnn_svm.train_regressor(
        Held(pictures, features.code, features.place), len(shapes.classes), config
    )
    found = 0
    for picture in pictures:
        boxes, labels = rcnn_features.truths(picture.record)
        _, best, index = rcnn_features.overlaps(picture, len(shapes.classes))
        for row in np.flatnonzero(best[picture.truths :] >= 0.6) + picture.truths:
            own = slice(4 * labels[index[row]], 4 * labels[index[row]] + 4)
            deltas = picture.place[row].astype(np.float32) @ weights[:, own] + biases[own]
            moved = coders.decode(tf.constant(deltas), tf.constant(picture.regions[row])).numpy()
            assert np.abs(moved - boxes[index[row]]).max() < 1.0
            found += 1
    assert found > 5


def test_the_whole_is_one_model_that_a_predictor_runs(net, shapes, tmp_path):
    random = np.random.default_rng(0)
    features = rcnn.feature_model(net)
    width, place = (features.output[name].shape[-1] for name in ("code", "place"))
    classes = len(shapes.classes)
    svm = random.normal(0, 0.3, (width, classes)), random.normal(0, 0.1, classes)
    regressor = np.zeros((place, 4 * classes)), np.zeros(4 * classes)
    model = rcnn.rcnn(net, svm, regressor)
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    image = random.integers(0, 256, (100, 128, 3)).astype(np.uint8)
    corner = random.uniform(0, 60, (70, 2))
    regions = np.float32(np.concatenate([corner, corner + random.uniform(10, 38, (70, 2))], axis=1))
    predictor = Predictor(
        rcnn.Rcnn([model], DetectorOptions(score_threshold=0.3)),
        names=shapes.classes,
        image_size=128,
        resize="letterbox",
        batch_size=2,
    )
    found, none = predictor([image, image], [regions, np.zeros((0, 4), np.float32)])
    assert len(found) > 3 and len(none) == 0
    own = {tuple(np.round(region, 2)) for region in regions.tolist()}
    assert all(tuple(np.round(box, 2)) in own for box in found.boxes.tolist())  # not regressed
    again = Predictor(
        rcnn.Rcnn([model], DetectorOptions(score_threshold=0.3, runtime="litert")),
        names=shapes.classes,
        image_size=128,
        resize="letterbox",
    )
    (same,) = again([image], [regions])
    np.testing.assert_allclose(same.scores, found.scores, atol=1e-4)
    with pytest.raises(InputError, match="flip"):
        rcnn.Rcnn([model], DetectorOptions(flip=True))


def test_pooled_regions_have_the_codes_of_the_rest_of_the_net(shapes):
    body = backbones.backbone("tiny", None)
    model = rcnn.feature_model(rcnn.described_regions(body, len(shapes.classes), "spp", side=64, context=0))
    warped = rcnn.feature_model(rcnn.described_regions(body, len(shapes.classes), side=64, context=0))
    sizes = [{name: tensor.shape[-1] for name, tensor in each.output.items()} for each in (model, warped)]
    assert sizes[0] == sizes[1]
    image = np.random.default_rng(0).uniform(0, 255, (1, 96, 96, 3)).astype(np.float32)
    regions = np.float32([[[0, 0, 96, 96], [16, 8, 80, 72]]])
    found = model([image, regions])["code"].numpy()
    conv4 = backbones.tap(body, ["conv4"])
    cells = roi.roi_align(conv4(image)["conv4"], regions, 16, 4)[0]
    rest = keras.Model(body.output["conv4"], list(body.output.values())[-1])
    np.testing.assert_allclose(found, rest(cells).numpy().mean(axis=(1, 2)), atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_pooled_regions_are_as_much_larger_as_warped_ones():
    body = backbones.backbone("tiny", None)
    narrow, wide = (rcnn.described_regions(body, 3, "spp", side=64, context=context) for context in (0, 16))
    wide.set_weights(narrow.get_weights())
    image = np.random.default_rng(0).uniform(0, 255, (1, 96, 96, 3)).astype(np.float32)
    found = wide([image, np.float32([[[32, 40, 48, 56]]])])["logits"]
    np.testing.assert_allclose(found, narrow([image, np.float32([[[24, 32, 56, 64]]])])["logits"], atol=1e-5)


def test_a_describer_gives_all_regions_of_a_picture_what_the_net_does():
    body = backbones.backbone("tiny", None)
    model = rcnn.feature_model(rcnn.described_regions(body, 3, "spp", side=64))
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (2 * rcnn.CHUNK + 3, 2))
    regions = np.concatenate([corners, corners + rng.uniform(8, 36, corners.shape)], axis=1).astype(
        np.float32
    )
    image = rng.integers(0, 256, (96, 112, 3), np.uint8)
    found = rcnn.Describer(model)(image, regions)
    for name, own in model([image[None].astype(np.float32), regions[None]]).items():
        np.testing.assert_allclose(found[name], own, atol=1e-4)


@pytest.mark.parametrize(
    ("net", "method", "side"),
    [("inception_v3", "spp", 33), ("inception_v3", "warp", 64), ("alexnet", "warp", 33)],
)
def test_a_side_that_leaves_no_map_is_refused(net, method, side):
    with pytest.raises(InputError, match=f"{side} pixels a side are too small for {net}"):
        rcnn.described_regions(backbones.backbone(net, None), 3, method, side=side)


@pytest.mark.parametrize(
    "net", ["mobilenet_v2", "resnet50", "efficientnet_lite0", "vgg16", "alexnet", "inception_v3"]
)
def test_regions_are_pooled_from_any_nets_map(net):
    body = backbones.backbone(net, None)
    head = "dense" if net == "vgg16" else "average"
    model = rcnn.described_regions(body, 3, "spp", side=224 if net == "vgg16" else 64, head=head)
    answer = model([np.zeros((1, 256, 288, 3), np.float32), np.float32([[[0, 0, 99, 99], [9, 9, 200, 240]]])])
    assert answer["logits"].shape == (2, 4)
    assert endpoint_strides(model), "freeze_stride finds the layers before the pooling"


def test_finetuning_learns_the_classes_of_regions(shapes, given, tmp_path):
    keras.utils.set_random_seed(0)
    model = rcnn.described_regions(backbones.backbone("tiny", None), len(shapes.classes), side=32, context=4)
    config = rcnn_training.RcnnConfig(
        steps=40,
        batch_size=4,
        regions=16,
        image_size=SIZE,
        learning_rate=3e-3,
        average=0.0,
        tensorboard=False,
    )
    losses = []
    rcnn_training.finetune_rcnn(
        model,
        shapes,
        given,
        config,
        tmp_path,
        progress=lambda step, numbers: losses.append(numbers.get("losses", {}).get("class")),
        say=lambda line: None,
    )
    losses = [loss for loss in losses if loss is not None]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])
    assert (tmp_path / "release" / "model.keras").exists()


def test_a_net_of_other_classes_is_refused(net, shapes, given):
    other = dataclasses.replace(shapes, classes=shapes.classes[:2])
    with pytest.raises(InputError, match="classes"):
        rcnn_training.check_fit(net, other, given)
