"""HOG windows: where they lie, that their scores are one convolution, and that hard negatives find what is planted."""

import dataclasses

import numpy as np
import pytest

import tfcnn
from tfcnn import datasets
from tfcnn.datasets.classes import restricted
from tfcnn.detection import hog_objects, hog_svm_training, hog_templates, pyramid
from tfcnn.detection.hog_svm import HogSvm, hog_svm
from tfcnn.detection.hog_svm_training import HogSvmConfig, mine, train_hog_svm
from tfcnn.detection.hog_templates import Template
from tfcnn.detection.options import DetectorOptions
from tfcnn.errors import InputError
from tfcnn.evaluation import voc
from tfcnn.ops import hog
from tfcnn.predictor import Predictor


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


def test_the_levels_halve_in_an_octave():
    sides = pyramid.Pyramid(largest=1.5, per_octave=2, cell=8, least=6).sides(160)
    assert sides == [240, 168, 120, 88, 64]  # 30, 21, 15, 11 and 8 cells; 5 would be too few


@pytest.mark.parametrize("features", ["felzenszwalb", "dalal_triggs"])
def test_the_score_of_a_window_is_the_product_of_its_features_and_the_template(picture, features):
    model = hog_svm(2, {(4, 3): [1, 0]}, features=features, margin=0, pad=1, largest=1.0, per_octave=1)
    layer = model.get_layer("templates_4x3")
    rng = np.random.default_rng(1)
    kernel, bias = (rng.normal(size=each.shape).astype(np.float32) for each in layer.get_weights())
    layer.set_weights([kernel, bias])
    method = HogSvm([model])
    (level, *_) = method.on_pyramid(picture)
    cells, scores = level.maps
    for row, column in ((0, 0), (2, 3), (4, 5)):
        window = method.output.window_features(cells, 0, row, column)
        expected = (window[..., None] * kernel).sum((0, 1, 2)) + bias
        np.testing.assert_allclose(scores[row, column], expected, rtol=1e-3, atol=1e-4)


def test_the_boxes_of_windows():
    model = hog_svm(1, {(6, 4): [0]}, margin=1, pad=3, cell=8)
    boxes = model.layers[-1].windows(0, np.array([3, 2]), np.array([3, 4]), 2.0)
    # The window at the padding's end begins at the picture's corner: its object lies one cell inside, 2 x 4 cells.
    np.testing.assert_allclose(boxes, [[4, 4, 12, 20], [8, 0, 16, 16]])


def test_a_mirror_image_has_the_mirrored_box():
    output = hog_svm(1, {(4, 3): [0, 0]}, margin=0, mirrored=True).layers[-1]
    rng = np.random.default_rng(0)
    for weight in output.box_weights + output.box_constants:
        assert weight.shape[0] == 1
        weight.assign(0.01 * rng.normal(size=weight.shape))
    features, box = rng.normal(size=(4, 3, 32)), np.float64([10, 20, 40, 50])
    one = output.regressed(0, 0, features, box)
    other = output.regressed(0, 1, hog.mirrored(features), np.float64([60, 20, 90, 50]))
    np.testing.assert_allclose(other[[0, 2]], 100 - one[[2, 0]])
    np.testing.assert_allclose(other[[1, 3]], one[[1, 3]], rtol=1e-6)
    assert np.abs(one - box).max() > 0.1


def test_the_pairs_of_a_mirror_image_are_mirrored(picture):
    """What a template learns of boxes from a picture, its mirror image learns from the mirrored picture."""
    model = hog_svm(1, {(4, 3): [0, 0]}, margin=0, pad=0, largest=1.0, per_octave=1, mirrored=True)
    method, pairs = HogSvm([model]), []
    box = np.float64([10, 6, 34, 36])
    for mirror, own in ((False, picture), (True, picture[:, ::-1].copy())):
        levels = method.on_pyramid(own)
        _, places, windows = hog_svm_training._flat(levels, method.output, 0)
        seen = np.float64([56 - box[2], box[1], 56 - box[0], box[3]]) if mirror else box
        iou = pyramid.overlaps(windows, seen[None])
        template = Template(0, 0, 0, np.zeros((0, 4 * 3 * 32)))
        hog_svm_training._near(
            template, levels, method.output, windows, places, iou[:, 0], iou, seen[None], mirror, most=1
        )
        pairs += template.pairs
    (features, deltas), (other, others) = pairs
    # A gradient between two orientations may fall to the other one in the mirror: a few features differ.
    unmirrored = hog.mirrored(other.reshape(4, 3, 32)).ravel()
    assert np.abs(features - other).mean() < 0.01 < 0.03 < np.abs(features - unmirrored).mean()
    np.testing.assert_allclose(deltas, others, atol=1e-6)
    assert np.abs(deltas).max() > 0.01


def test_each_template_has_a_regression_of_its_own():
    model = hog_svm(2, {(2, 2): [0, 0, 1, 1]}, margin=0, mirrored=True)
    rng = np.random.default_rng(0)
    templates = [Template(label, 0, 2 * label, np.zeros((0, 128))) for label in (0, 1)]
    for label, template in enumerate(templates):
        template.pairs = [
            (rng.normal(size=128).astype(np.float16), np.full(4, 0.1 + label)) for _ in range(40)
        ]
    hog_templates.regress(model, templates, HogSvmConfig(mirrored=True))
    (constants,) = model.layers[-1].box_constants
    np.testing.assert_allclose(constants.numpy()[:, 0], [0.1, 1.1], atol=1e-3)


def test_beside_the_picture_there_is_no_gradient_but_the_truncation_feature(picture):
    layer = pyramid.HogCells(pad=(2, 2))
    image = picture[None].astype(np.float32)
    cells = layer(image).numpy()[0]
    assert cells.shape == (9, 11, 32)
    assert not cells[:2, :, :27].any() and (cells[:2, :, 31] == 1).all() and not cells[2:-2, 2:-2, 31].any()
    beside = np.full([1, 40, 80, 3], pyramid.BESIDE, np.float32)
    beside[:, :, :56] = image
    np.testing.assert_allclose(layer(beside).numpy()[0, :, :8], cells[:, :8], atol=1e-5)


def test_what_is_cut_out_beside_the_picture_is_marked(picture):
    part = pyramid.cut(picture, [-8, 32, 8, 48], 16, 16)
    assert (part[:, :8] == pyramid.BESIDE).all() and (part[8:] == pyramid.BESIDE).all()
    np.testing.assert_array_equal(part[:8, 8:], picture[32:40, :8])


def test_overlaps_by_hand():
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 2]])
    np.testing.assert_allclose(pyramid.overlaps(boxes, boxes), [[1, 1 / 3], [1 / 3, 1]])


def test_the_best_of_each_class():
    margins, labels = np.array([1.0, 5, 3, 2, 4]), np.array([0, 1, 0, 0, 1])
    assert sorted(pyramid.best_indices(margins, labels, 2)) == [1, 2, 3, 4]


def test_suppression_is_within_a_class():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10]])
    kept = pyramid.suppressed(boxes, np.array([1.0, 3, 2]), np.array([0, 0, 1]), 0.5, 10)
    assert kept.tolist() == [1, 2]


def test_objects_of_both_facings_are_turned_to_one():
    rng = np.random.default_rng(0)
    one = rng.random([6, 5, 32]).astype(np.float32)
    noise = 0.1 * rng.random([8, 6, 5, 32]).astype(np.float32)
    examples = one + noise
    examples[::2] = hog_objects.hog.mirrored(examples[::2])
    turned = hog_objects.facing(examples).reshape(8, -1)
    assert np.abs(turned - turned[0]).max() < 0.2


def test_templates_take_the_nearest_shape():
    assert hog_objects.shape_of(2.0, 40, 0) == (8, 5) and hog_objects.shape_of(0.3, 40, 1) == (6, 12)


def test_a_given_window_learns_from_objects_of_its_shape():
    config = HogSvmConfig(window=(16, 8), margin=2)  # 12 x 4 cells: three times as high as wide
    sides = [(30, 90), (30, 61), (30, 134), (30, 59), (30, 136), (90, 30)]
    found = [hog_objects.has_shape(np.float32([5, 5, 5 + w, 5 + h]), config) for w, h in sides]
    assert found == [True, True, True, False, False, False]
    assert all(hog_objects.has_shape(np.float32([0, 0, *each]), HogSvmConfig()) for each in sides)


@pytest.mark.parametrize(("upright", "kept"), [(20, 20), (19, 40)])
def test_other_shapes_are_learned_from_where_there_are_few(shapes, upright, kept):
    def record(number):
        width = 20 if number < upright else 60
        whole = np.float32([[0, 0, width, 60]])
        unclear = {"difficult": None, "truncated": None, "crowd": None}
        return dataclasses.replace(shapes.examples[0], boxes=whole, labels=np.zeros(1, int), **unclear)

    training = dataclasses.replace(shapes, examples=[record(number) for number in range(40)])
    ((shape, _, objects),) = hog_objects.grouped(training, HogSvmConfig(window=(16, 8), margin=2))
    assert shape == (16, 8) and len(objects) == kept


@pytest.fixture(scope="module")
def shapes():
    return restricted(datasets.open("shapes", split="train"), ["ring"])


@pytest.fixture(scope="module")
def trained(shapes):
    config = HogSvmConfig(
        image_size=96, largest=1.5, per_octave=2, rounds=1, pictures=10, aspects=1, negatives=300
    )
    training = dataclasses.replace(shapes, examples=shapes.examples[:40])
    return train_hog_svm(training, config)


def test_hard_negatives_find_the_planted_object(trained, shapes):
    """Rings among circles, squares and stars, in pictures that were not trained on."""
    others = shapes.examples[40:56]
    predictor = Predictor(HogSvm([trained]), names=["ring"], image_size=96, longest=96, resize="fit")
    found, refused = predictor.over_records(others)
    figures = voc.evaluate(others, found, ["ring"])
    assert not refused and figures["map_11"] > 0.5


def covered(record, crowd):
    """The record's picture with one ring over all of it and beyond, or a crowd of rings."""
    whole = np.float32([[-record.width, -record.height, 3 * record.width, 3 * record.height]])
    return dataclasses.replace(
        record, boxes=whole, labels=np.zeros(1, int), difficult=None, truncated=None, crowd=np.array([crowd])
    )


def test_windows_inside_a_crowd_are_no_background_and_a_crowd_is_no_object(trained, shapes):
    config, counts = HogSvmConfig(image_size=96), {}
    for crowd in (False, True):
        template = Template(label=0, shape=0, column=0, positives=np.zeros((0, 1), np.float32))
        record = covered(shapes.examples[41], crowd)
        counts[crowd] = mine(HogSvm([trained]), [template], record, config, np.random.default_rng(0))
    assert counts[False] > 3 and counts[True] == 0
    crowds = dataclasses.replace(shapes, examples=[covered(shapes.examples[41], True)])
    with pytest.raises(InputError, match="ring has no object"):
        hog_objects.grouped(crowds, config)


def test_a_saved_detector_finds_the_same(trained, shapes, tmp_path):
    trained.save(tmp_path / "model.keras")
    (tmp_path / "card.json").write_text(
        '{"kind": "hog_svm", "image_size": 96, "longest": 96, "resize": "fit"}'
    )
    opened = tfcnn.detector(tmp_path, labels=["ring"])
    image = shapes.examples[41].image()
    one, other = (
        opened([image])[0],
        Predictor(HogSvm([trained]), names=["ring"], image_size=96, longest=96, resize="fit")([image])[0],
    )
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)
    assert len(one) and one.scores.max() <= 1


def test_what_a_pyramid_does_not_have_is_said(trained):
    for options, words in (
        ({"runtime": "litert"}, "runtime='litert'"),
        ({"scales": 2}, "scales"),
        ({"flip": True}, "flip"),
    ):
        with pytest.raises(InputError, match=words):
            HogSvm([trained], DetectorOptions(**options))
    with pytest.raises(InputError, match="ensemble"):
        HogSvm([trained, trained])


def test_a_class_without_objects_is_one_clear_line(shapes):
    empty = dataclasses.replace(shapes, classes=["ring", "unicorn"])
    with pytest.raises(InputError, match="unicorn has no object to learn from"):
        hog_objects.grouped(empty, HogSvmConfig())


def test_only_some_classes_of_a_data_set():
    whole = datasets.open("shapes", split="val")
    part = restricted(whole, ["star", "circle"])
    for one, other in zip(whole.examples[:20], part.examples[:20], strict=True):
        names = [whole.classes[label] for label in one.labels]
        kept = [name in ("star", "circle") for name in names]
        np.testing.assert_array_equal(other.boxes, one.boxes[kept])
        assert [part.classes[label] for label in other.labels] == [
            n for n, k in zip(names, kept, strict=True) if k
        ]
        assert len(other.truth.labels) == sum(kept)
    with pytest.raises(InputError, match="unicorn"):
        restricted(whole, ["unicorn"])
