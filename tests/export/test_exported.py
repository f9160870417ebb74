"""Models in other formats: equal to the Keras model on pictures, and for TensorFlow 1.15 nothing newer than it."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.core.framework import graph_pb2

from tfcnn import backbones
from tfcnn.detection.one_stage import one_stage
from tfcnn.errors import InputError
from tfcnn.export import exported, suppression, tf1_graph
from tfcnn.ops import nms

SIDE = 32
RANDOM = np.random.default_rng(0)
PICTURES = [RANDOM.uniform(0, 255, (SIDE, SIDE, 3)).astype(np.float32) for _ in range(8)]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return backbones.classifier("tiny", None, classes=7, size=SIDE)


@pytest.fixture(scope="module")
def answers(model):
    run = exported.keras_answer(model)
    return [run(picture[None]) for picture in PICTURES]


def made(model, folder, kind):
    return exported.export(model, folder, kind, size=SIDE, calibration=PICTURES)


@pytest.mark.parametrize(
    "kind,difference",
    [("saved_model", 1e-5), ("tf1_graph", 1e-5), ("litert", 1e-5), ("litert_float16", 1e-2)]
    + [pytest.param("onnx", 1e-5, marks=pytest.mark.extras)],
)
def test_every_format_answers_as_keras(model, answers, tmp_path, kind, difference):
    if kind.startswith("litert"):
        pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    if kind == "onnx":
        pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
    written = made(model, tmp_path, kind)
    found = [written.answer(picture[None]) for picture in PICTURES]
    assert set(found[0]) == {"logits", "scores"}
    compared = exported.compare(answers, found)
    assert compared["difference"] <= difference and compared["agreement"] == 1.0
    assert written.bytes == sum((tmp_path / name).stat().st_size for name in written.files) > 0


def test_int8_is_a_quarter_of_the_size_and_near(model, answers, tmp_path):
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    (tmp_path / "8").mkdir()
    whole, small = made(model, tmp_path, "litert"), made(model, tmp_path / "8", "litert_int8")
    assert small.bytes < 0.35 * whole.bytes
    compared = exported.compare(answers, [small.answer(picture[None]) for picture in PICTURES])
    assert 0 < compared["difference"] < 0.1
    with pytest.raises(InputError, match="calibration pictures"):
        exported.export(model, tmp_path, "litert_int8", size=SIDE)


def test_a_saved_model_needs_no_tfcnn(model, tmp_path):
    written = made(model, tmp_path, "saved_model")
    signature = tf.saved_model.load(str(tmp_path / "saved_model")).signatures["serving_default"]
    assert set(signature.structured_outputs) == {"logits", "scores"}
    assert "saved_model/saved_model.pb" in written.files


def test_a_graph_holds_nothing_newer_than_tensorflow_1_15(model, tmp_path):
    made(model, tmp_path, "tf1_graph")
    graph = graph_pb2.GraphDef.FromString((tmp_path / "graph.pb").read_bytes())
    known = tf1_graph.known()
    assert len(graph.node) > 20 and graph.versions.producer <= 134 and not graph.library.function
    for node in graph.node:
        assert set(node.attr) <= set(known[node.op]), node.name
    assert {"Placeholder", "Const", "Conv2D", "Identity"} <= {node.op for node in graph.node}
    assert not any("Variable" in node.op for node in graph.node)


def test_the_list_is_that_of_1_15():
    known = tf1_graph.known()
    assert len(known) > 1000
    assert {"AddV2", "CombinedNonMaxSuppression", "FusedBatchNormV3", "BatchMatMulV2"} <= set(known)
    assert not {"BatchMatMulV3", "XlaConvV2", "StatelessRandomGetAlg", "GeluGrad"} & set(known)
    assert (
        "exponential_avg_factor" not in known["FusedBatchNormV3"] and "epsilon" in known["FusedBatchNormV3"]
    )
    assert known["Conv2D"]["T"] == {"half", "bfloat16", "float", "double"}
    assert "explicit_paddings" in known["Conv2D"] and "explicit_paddings" not in known["MaxPool"]


def test_what_1_15_lacks_is_named(tmp_path):
    image = keras.Input((8, 8, 3))

    @keras.saving.register_keras_serializable(package="test")
    class Newer(layers.Layer):
        def call(self, x):
            return tf.raw_ops.BatchMatMulV3(x=x, y=x, Tout=tf.float32)

    model = keras.Model(image, Newer()(keras.layers.Conv2D(8, 1)(image)), name="newer")
    with pytest.raises(InputError, match="1.15 cannot run newer, which needs the operation BatchMatMulV3"):
        exported.export(model, tmp_path, "tf1_graph")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["saved_model", "tf1_graph", "litert"])
def test_a_detector_goes_with_its_suppression(tmp_path, kind):
    keras.utils.set_random_seed(1)
    detector = one_stage(backbones.backbone("tiny", None), classes=3, channels=16, tower=1)
    side = 64
    pictures = [RANDOM.uniform(0, 255, (1, side, side, 3)).astype(np.float32) for _ in range(2)]
    run = exported.keras_answer(detector)
    wanted = [run(picture) for picture in pictures]
    written = exported.export(detector, tmp_path, kind, size=side)
    found = [written.answer(picture) for picture in pictures]
    for own, other in zip(wanted, found, strict=True):
        assert set(own) == set(other) >= exported.DETECTIONS
        np.testing.assert_array_equal(own["count"], other["count"])
        np.testing.assert_allclose(own["scores"], other["scores"], atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_boxes_moved_apart_are_suppressed_as_class_by_class(seed):
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 60, (80, 2))
    boxes = np.concatenate([corner, corner + random.uniform(5, 40, (80, 2))], axis=1).astype(np.float32)
    scores = random.uniform(size=(80, 4)).astype(np.float32)
    found = suppression.best_of(tf.constant(boxes), tf.constant(scores), 0.45, 30, 0.2)
    wanted = nms.class_nms(boxes[None], scores[None], 0.45, 30, 0.2)
    for own, other in zip(
        (found[name] for name in ("boxes", "scores", "labels", "count")), wanted, strict=True
    ):
        np.testing.assert_allclose(own, other, atol=1e-4)
    none = suppression.best_of(tf.constant(boxes), tf.constant(scores * 0.1), 0.45, 30, 0.2)
    assert none["count"][0] == 0 and set(none["labels"][0].numpy()) == {-1}


def test_onnx_says_what_to_install(model, tmp_path):
    if all(importlib.util.find_spec(name) for name in ("tf2onnx", "onnx", "onnxruntime")):
        pytest.skip("the packages are installed")
    with pytest.raises(InputError, match=r"pip install 'tfcnn\[onnx\]'"):
        made(model, tmp_path, "onnx")
    with pytest.raises(InputError, match="none of saved_model"):
        made(model, tmp_path, "coreml")


def test_detections_are_compared_by_class_and_place():
    def detections(boxes, scores, labels):
        return {
            "boxes": np.array([boxes], np.float32),
            "scores": np.array([scores], np.float32),
            "labels": np.array([labels], np.int32),
            "count": np.array([len(boxes)], np.int32),
        }

    first = detections([[0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 9, 9]], [0.9, 0.8, 0.1], [1, 2, 1])
    near = detections([[21, 20, 30, 30], [0, 0, 10, 9]], [0.75, 0.85], [2, 1])
    assert exported.compare([first], [near]) == {
        "difference": pytest.approx(0.05, abs=1e-6),
        "agreement": 1.0,
        "pixels": 1.0,
    }
    other = detections([[0, 0, 10, 10]], [0.9], [2])
    assert exported.compare([first], [other])["agreement"] == 0.0
    none = detections(np.zeros((0, 4)), [], [])
    assert exported.compare([first], [none])["agreement"] == 0.0
    assert exported.compare([none], [first]) == {"difference": None, "agreement": None, "pixels": None}


def test_an_operation_that_litert_lacks_is_named_and_the_converter_is_silent(tmp_path, capfd):
    picture = keras.Input((8, 8, 3))
    model = keras.Model(picture, keras.layers.Lambda(crops, output_shape=(4, 4, 3))(picture), name="crops")
    with pytest.raises(
        InputError, match="LiteRT lacks the operation CropAndResize of crops; TensorFlow runs it"
    ):
        exported.export(model, tmp_path, "litert", size=8)
    assert capfd.readouterr().err == ""


def test_half_floats_are_said_to_be_what_litert_lacks(tmp_path):
    picture = keras.Input((8, 8, 3))
    halves = layers.Conv2D(4, 3, dtype=keras.DTypePolicy("mixed_float16"), name="halves")(picture)
    model = keras.Model(picture, layers.GlobalAveragePooling2D(dtype="float32")(halves), name="mixed")
    with pytest.raises(InputError, match="Conv2D.* of mixed in float16: save it in float32, as import_model"):
        exported.export(model, tmp_path, "litert", size=8)


def crops(pictures):
    return tf.image.crop_and_resize(pictures, [[0.0, 0, 1, 1]], [0], [4, 4])


def test_times_are_medians_of_paired_rounds():
    calls = []
    answers = {name: lambda picture, name=name: calls.append(name) for name in ("a", "b")}
    taken = exported.paired_milliseconds(answers, PICTURES[0][None], rounds=3)
    assert calls == ["a", "b"] * 4 and set(taken) == {"a", "b"}
    assert pathlib.Path(exported.__file__).with_name("tf1_ops.txt").exists()
