"""What every trained method answers to: `tfcnn.detector` on pictures of any size, and what it refuses."""

import io
import json
import shutil
import time

import keras
import numpy as np
import pytest
from PIL import Image

import tfcnn
from tfcnn import backbones, images, kinds
from tfcnn.cards import card_of, releases
from tfcnn.datasets import Record
from tfcnn.detection.faster_rcnn import faster_rcnn
from tfcnn.errors import InputError
from tfcnn.predictor import Predictor, fastest


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    small = {"channels": 8, "units": 16, "bin_channels": 2, "proposals": 12, "score_threshold": 0.0}
    return faster_rcnn(backbones.backbone("tiny", None), 3, **small)


@pytest.fixture(scope="module")
def release():
    return tfcnn.detector("faster_rcnn_voc")


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def test_a_release_is_called_on_pictures_and_answers_with_names(release, tmp_path):
    cat = images.read(images.packaged()[0])
    Image.fromarray(cat).save(tmp_path / "cat.png")
    by_array, by_path, strip = release([cat, tmp_path / "cat.png", np.zeros((9, 400, 3), np.uint8)])
    assert by_array.names[by_array.labels[0]] == "cat" and by_array.scores[0] > 0.9
    np.testing.assert_allclose(by_array.boxes, by_path.boxes, atol=1e-3)
    assert len(strip) <= 100
    drawn = by_array.draw(cat)
    assert drawn.shape == cat.shape and drawn.dtype == np.uint8 and (drawn != cat).any()
    (x1, y1, x2, y2), (height, width) = by_array.boxes[0], cat.shape[:2]
    assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height


def test_what_a_release_says_of_itself(release):
    assert release.names[:2] == ["aeroplane", "bicycle"] and release.category_ids == list(range(1, 21))
    assert (release.image_size, release.resize) == (384, "stretch")
    assert release.card["kind"] == "faster_rcnn"


def test_a_release_of_before_kinds_still_opens(tmp_path):
    folder = shutil.copytree(releases()["faster_rcnn_bccd"], tmp_path / "old")
    card = json.loads((folder / "card.json").read_text())
    del card["kind"]
    (folder / "card.json").write_text(json.dumps(card))
    assert tfcnn.detector(folder).names == ["Platelets", "RBC", "WBC"]


def test_without_a_card_classes_are_numbers_or_what_labels_says(model, tmp_path):
    assert tfcnn.detector(model).names == ["0", "1", "2"]
    assert tfcnn.detector(model).category_ids == [1, 2, 3]
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    named = tfcnn.detector(model, labels=tmp_path / "names.txt", image_size=64, max_detections=1)
    assert named([picture(50, 60)])[0].names == ("a", "b", "c")
    with pytest.raises(InputError, match="2 labels, and the model has 3 classes"):
        tfcnn.detector(model, labels=["a", "b"])


def test_labels_that_cannot_be_read_are_said_before_a_model_is_opened(monkeypatch, tmp_path):
    monkeypatch.setattr(kinds, "load_model", lambda *_, **__: pytest.fail("the model was opened"))
    with pytest.raises(InputError, match="missing.txt"):
        tfcnn.detector("faster_rcnn_voc", labels=tmp_path / "missing.txt")


@pytest.mark.parametrize("name", ["all_cnn_cifar10", "digits"])
def test_a_release_of_another_kind_is_said_before_it_is_opened(monkeypatch, name):
    monkeypatch.setattr(kinds, "load_model", lambda *_, **__: pytest.fail("the model was opened"))
    with pytest.raises(InputError, match=f"{name} is a classifier, no detector"):
        tfcnn.detector(name)


@pytest.mark.parametrize("options", [{"image_size": 384}, {"resize": "fit"}, {"scales": [320, 384]}])
def test_a_size_that_dense_layers_fix_is_said_when_a_model_is_opened(options):
    with pytest.raises(InputError, match="fast_yolo_voc takes pictures of 320 x 320 pixels alone"):
        tfcnn.detector("fast_yolo_voc", **options)


def test_every_release_says_its_kind():
    assert all(card_of(name).get("kind") for name in releases())


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        (picture(20, 30), "a list of pictures"),
        ("cat.jpg", "a list of pictures"),
        ([picture(20, 30) / 255], "uint8"),
        ([picture(20, 30)[..., 0]], r"not uint8 \[20, 30\]"),
        (["nowhere.jpg"], "nowhere.jpg"),
    ],
)
def test_what_is_no_list_of_pictures(model, pictures, words):
    with pytest.raises(InputError, match=words):
        tfcnn.detector(model)(pictures)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resize": "crop"}, "'crop' is none of"),
        ({"runtime": "onnx"}, "'onnx' is none of"),
        ({"image_size": 0}, "from 1 on"),
        ({"scales": [64, -1]}, "from 1 on"),
    ],
)
def test_arguments_that_are_none(model, options, words):
    with pytest.raises(InputError, match=words):
        tfcnn.detector(model, **options)


def test_a_cards_longest_side_grows_with_the_size_that_is_asked_for():
    for size, shape in ((None, (240, 320)), (640, (480, 640))):
        prepared = tfcnn.detector("hog_voc", image_size=size).prepare(picture(375, 500))
        assert prepared.pictures[0].shape[:2] == shape


def test_fit_keeps_each_pictures_shape_and_pads_a_batch_to_its_largest(model):
    predictor = tfcnn.detector(model, image_size=60, longest=100, resize="fit", scales=[60, 120])
    prepared = [predictor.prepare(picture(*shape)) for shape in ((120, 130), (300, 30), (40, 44))]
    arrays, sizes, shapes = predictor.stack(prepared)
    assert shapes.tolist() == [[120, 130], [300, 30], [40, 44]]
    assert sizes[0].tolist() == [[60, 65], [100, 10], [60, 66]]
    assert sizes[1].tolist() == [[120, 130], [200, 20], [120, 132]]
    assert [a.shape for a in arrays] == [(3, 128, 96, 3), (3, 224, 160, 3)]
    zero = np.rint(model.zero_rgb if hasattr(model, "zero_rgb") else backbones.zero_rgb(model))
    assert (arrays[0][0, 60:] == zero).all() and (arrays[0][1, :, 10:] == zero).all()
    np.testing.assert_array_equal(arrays[0][2, :60, :66], prepared[2].pictures[0])


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param(
            {"scales": [60, 96], "flip": True, "refine": 1, "box_voting": True}, marks=pytest.mark.slow
        ),
    ],
)
def test_the_padding_of_a_batch_has_no_boxes(model, options):
    predictor = tfcnn.detector(model, image_size=60, longest=100, resize="fit", **options)
    shapes = [(120, 130), (300, 30), (40, 90)]
    prepared = [predictor.prepare(picture(*shape)) for shape in shapes]
    arrays, sizes, real_shapes = predictor.stack(prepared)
    found = predictor.method(arrays, sizes, real_shapes)
    assert found["count"].min() > 0
    for boxes, (height, width), count in zip(found["boxes"], sizes[0], found["count"], strict=True):
        assert (boxes >= 0).all() and (boxes <= [width, height, width, height]).all()
        real = boxes[:count]
        assert (real[:, 2] > real[:, 0]).mean() > 0.5  # not merely squeezed against the edge
    for answer, (height, width) in zip(predictor.predict(prepared), shapes, strict=True):
        assert answer.boxes[:, 2].max() <= width and answer.boxes[:, 3].max() <= height
        assert answer.boxes[:, 2].max() > 0.8 * width  # in the file's pixels


@pytest.mark.parametrize("neck", ["none", "top_down"])  # the latter takes the mean of the whole map
def test_pictures_of_a_batch_do_not_see_each_other(neck):
    keras.utils.set_random_seed(1)
    options = {"neck": neck, "head": "light", "units": 16, "proposals": 12, "score_threshold": 0.0}
    net = faster_rcnn(backbones.backbone("tiny", None), 3, **options)
    predictor = tfcnn.detector(net, image_size=64, resize="fit", max_detections=5)
    pictures = [picture(64, 96, 1), picture(128, 64, 2), picture(64, 96, 3)]
    for together, picture_ in zip(predictor(pictures), pictures, strict=True):
        (alone,) = predictor([picture_])
        np.testing.assert_allclose(together.scores, alone.scores, atol=1e-4)
        np.testing.assert_allclose(together.boxes, alone.boxes, atol=0.05)


def test_results_keep_the_order_of_the_pictures_over_batches(model):
    predictor = tfcnn.detector(model, image_size=64, batch_size=2, threads=3)
    pictures = [picture(40 + i, 50, i) for i in range(5)]
    for answer, picture_ in zip(predictor(pictures), pictures, strict=True):
        np.testing.assert_allclose(answer.scores[:3], predictor([picture_])[0].scores[:3], atol=1e-5)
    assert predictor([]) == []


class ByHand:
    """A method that finds the middle of each picture it is given."""

    classes, zero_rgb, needs_proposals = 1, (0, 0, 0), False

    def __call__(self, pictures, sizes, shapes, proposals):
        height, width = sizes[0].T
        boxes = np.stack([width / 4, height / 4, width / 2, height / 2], axis=1)[:, None]
        count = len(boxes)
        scores, labels = np.ones((count, 1)), np.zeros((count, 1), np.int32)
        return {"boxes": boxes, "scores": scores, "labels": labels, "count": np.ones(count, int)}


@pytest.mark.parametrize("resize", ["stretch", "fit"])
def test_detections_of_a_data_set_are_in_the_pixels_of_its_annotations(resize, tmp_path):
    predictor = Predictor(ByHand(), names=["thing"], image_size=64, resize=resize)
    pixels = picture(60, 80)
    records = [Record(0, "same", 80, 60, lambda: pixels), Record(1, "halved", 160, 120, lambda: pixels)]
    turned = io.BytesIO()  # stored as 80 x 60, seen as 60 x 80; annotated as it is stored
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(turned, "JPEG", exif=exif)
    records += [
        Record(2, "turned", 80, 60, turned.getvalue),
        Record(3, "broken", 9, 9, lambda: b"no picture"),
    ]
    found, unreadable = predictor.over_records(records)
    np.testing.assert_allclose(found[0].boxes, [[20, 15, 40, 30]], atol=1e-3)
    np.testing.assert_allclose(found[1].boxes, [[40, 30, 80, 60]], atol=1e-3)
    # What a person sees at x 15..30 of 60 and y 20..40 of 80 is stored at x 20..40 and, from below, y 15..30.
    np.testing.assert_allclose(found[2].boxes, [[20, 30, 40, 45]], atol=1e-3)
    assert list(unreadable) == ["broken"] and found[1].names == ("thing",)


def test_the_fastest_is_measured_and_said_and_one_that_is_not_here_is_left_out():
    class Slow(ByHand):
        def __call__(self, *arrays):
            time.sleep(0.02)
            return super().__call__(*arrays)

    methods = {"slow": Slow(), "quick": ByHand()}

    def make(name):
        if name not in methods:
            raise InputError("It is not installed.")
        return Predictor(methods[name], names=["thing"], image_size=64, runtime=name)

    said = []
    best = fastest(("slow", "absent", "quick"), make, [picture(60, 80)] * 3, said.append)
    assert best.runtime == "quick" and best.method is methods["quick"]
    (sentence,) = said
    assert sentence.startswith("runtime quick: slow takes ") and "absent not at all: It is not" in sentence
    with pytest.raises(InputError, match="not installed"):  # the first one has to work
        fastest(("absent", "quick"), make, [picture(60, 80)])
