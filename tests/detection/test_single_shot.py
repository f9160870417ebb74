"""YOLO and the one-stage detector as predictors: the model's own answer in the file's pixels, views, LiteRT."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcnn
from tfcnn import backbones
from tfcnn.detection import one_stage, yolo
from tfcnn.detection.options import DetectorOptions
from tfcnn.detection.single_shot import SingleShot
from tfcnn.errors import InputError

SIDE = 64


def small_yolo():
    body = backbones.backbone("tiny", None)
    model = yolo.yolo(body, 3, size=SIDE, grid=5, channels=4, hidden=((16, "leaky"),), score_threshold=0.0)
    # Boxes in the middle of their cells, a quarter of the picture wide and high: none is empty.
    bias = np.zeros(25 * 13, np.float32)
    bias[25 * 5 :] = 0.5
    model.get_layer("output").bias.assign(bias)
    return model


def small_one_stage():
    return one_stage.one_stage(backbones.backbone("tiny", None), 3, channels=16, tower=1, score_threshold=0.0)


MODELS = {"yolo": small_yolo, "one_stage": small_one_stage}


@pytest.fixture(scope="module", params=list(MODELS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    keras.utils.set_random_seed(0)
    return MODELS[kind]()


def released(model, kind, folder, **card):
    files = pytest.importorskip("tfcnn.files")
    model.save(folder / "model.keras")
    content = {"kind": kind, "classes": ["a", "b", "c"], "image_size": SIDE, "resize": "stretch", **card}
    files.write_text(folder / "card.json", files.to_json(content))
    return folder


@pytest.fixture(scope="module")
def folder(model, kind, tmp_path_factory):
    return released(model, kind, tmp_path_factory.mktemp(kind))


def pictures():
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 255, (96, 128, 3), dtype=np.uint8),
        rng.integers(0, 255, (64, 64, 3), dtype=np.uint8),
    ]


def test_the_models_own_answer_comes_in_the_files_pixels(model, folder):
    first, second = tfcnn.detector(folder)(pictures())
    assert list(first.names) == ["a", "b", "c"]
    own = {name: value.numpy() for name, value in model(pictures()[1][None].astype(np.float32)).items()}
    count = own["count"][0]
    assert count == len(second) > 0
    np.testing.assert_allclose(second.scores, own["scores"][0, :count], atol=1e-5)
    np.testing.assert_allclose(second.boxes, own["boxes"][0, :count], atol=1e-2)
    assert first.boxes[:, 2].max() > 64 and first.boxes.max() <= 128


def test_a_mirrored_picture_has_mirrored_detections_when_both_are_looked_at(folder):
    detector = tfcnn.detector(folder, flip=True)
    (picture,) = pictures()[1:]
    one, other = detector([picture, picture[:, ::-1].copy()])
    top = one.top(3).boxes
    mirrored = np.stack([64 - top[:, 2], top[:, 1], 64 - top[:, 0], top[:, 3]], axis=1)
    np.testing.assert_allclose(other.top(3).boxes, mirrored, atol=0.05)


def test_an_ensemble_of_a_model_with_itself_finds_the_same(folder):
    one, two = tfcnn.detector(folder)(pictures()[1:]), tfcnn.detector([folder, folder])(pictures()[1:])
    np.testing.assert_allclose(two[0].top(3).scores, one[0].top(3).scores, atol=1e-6)


def test_litert_finds_what_tensorflow_finds(folder):
    pytest.importorskip("ai_edge_litert", reason="the extra litert is not installed")
    plain, lite = tfcnn.detector(folder)(pictures()), tfcnn.detector(folder, runtime="litert")(pictures())
    for a, b in zip(plain, lite, strict=True):
        np.testing.assert_allclose(a.top(5).scores, b.top(5).scores, atol=1e-4)
        np.testing.assert_allclose(a.top(5).boxes, b.top(5).boxes, atol=0.1)


def test_int8_is_near_what_tensorflow_computes(model, folder):
    pytest.importorskip("ai_edge_litert", reason="the extra litert is not installed")
    plain, lite = (
        SingleShot([model], DetectorOptions(runtime=runtime, calibration=pictures())).nets[0]
        for runtime in ("tf", "litert_int8")
    )
    lite.make_ready(SIDE, SIDE)
    rows = pictures()[1][None].astype(np.float32)
    (program,) = lite._programs.values()
    assert len(program.data) < sum(w.numpy().nbytes for w in model.weights) / 2  # a byte a weight
    for a, b in zip(tf.nest.flatten(plain(rows)), program(rows).values(), strict=True):
        error, span = np.abs(a - b), max(np.max(a), 0) - min(np.min(a), 0)  # a range of int8 has 0 in it
        assert a.shape == b.shape and 0 < error.mean() < 0.15 * span, (error.mean(), span)
    with pytest.raises(InputError, match="give calibration"):
        SingleShot([model], DetectorOptions(runtime="litert_int8"))
    with pytest.raises(InputError, match="belongs to runtime='litert_int8'"):
        tfcnn.detector(folder, calibration=pictures())


def test_auto_takes_one_of_the_two_that_find_the_same(folder):
    said = []
    detector = tfcnn.detector(folder, runtime="auto", say=said.append)
    assert detector.runtime in ("tf", "litert") and said[0].startswith(
        f"runtime {detector.runtime}: tf takes "
    )
    np.testing.assert_allclose(
        detector(pictures())[0].top(3).scores, tfcnn.detector(folder)(pictures())[0].top(3).scores, atol=1e-4
    )


def test_a_model_without_a_card_is_known_by_its_name(kind, folder, tmp_path):
    model = MODELS[kind]()
    model.save(tmp_path / "mine.keras")
    for source in (model, tmp_path / "mine.keras"):
        (found,) = tfcnn.detector(source, image_size=SIDE)(pictures()[:1])
        assert found.names[0] in ("0", "1", "2")


def test_what_cannot_be_done_is_one_line(kind, folder, tmp_path):
    for given in ({"refine": 1}, {"proposals": 9}):
        with pytest.raises(InputError, match="YOLO or a one-stage detector has no"):
            tfcnn.detector(folder, **given)
    with pytest.raises(InputError, match="one kind"):
        tfcnn.detector([folder, released(small_yolo(), "faster_rcnn", tmp_path)])
    if kind == "yolo":
        with pytest.raises(InputError, match="takes pictures of 64 x 64"):
            tfcnn.detector(folder, image_size=96)
    else:
        assert len(tfcnn.detector(folder, image_size=96)(pictures())) == 2


def test_box_voting_moves_boxes_and_keeps_scores(folder):
    plain, voted = (tfcnn.detector(folder, box_voting=v)(pictures()[1:])[0] for v in (False, True))
    np.testing.assert_array_equal(plain.scores, voted.scores)
    assert plain.boxes.shape == voted.boxes.shape
