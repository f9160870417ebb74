"""Nets and detectors in ONNX, run by onnxruntime: equal to the Keras model, and what ONNX lacks is said in one line."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcnn import backbones
from tfcnn.detection.faster_rcnn import faster_rcnn
from tfcnn.detection.mask_rcnn import mask_rcnn
from tfcnn.detection.one_stage import one_stage
from tfcnn.detection.yolo import yolo
from tfcnn.errors import InputError
from tfcnn.export import exported

pytestmark = pytest.mark.extras
pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

SIDE = 64
RANDOM = np.random.default_rng(0)
PICTURES = [RANDOM.uniform(0, 255, (1, SIDE, SIDE, 3)).astype(np.float32) for _ in range(3)]
SMALL = {"channels": 16, "units": 32, "proposals": 20, "max_detections": 20, "score_threshold": 0.1}
OUTPUTS = ("class_logits", "box_deltas", "rpn_score", "rpn_offset", "head_class", "head_box", "output")


def spread(model):
    """The same model, the weights of its last layers far from uniform."""
    random = np.random.default_rng(2)
    for layer in model.layers:
        if layer.name in OUTPUTS:
            layer.set_weights([random.normal(0, 0.3, value.shape) for value in layer.get_weights()])
    return model


def regions(build=faster_rcnn, neck="none", **options):
    sizes = ((12.0, 20.0),) * 3 if neck == "pyramid" else (12.0, 20.0, 32.0)
    model = build(backbones.backbone("tiny", None), 3, sizes=sizes, neck=neck, **{**SMALL, **options})
    return spread(model)


DETECTORS = {
    "one stage": lambda: spread(one_stage(backbones.backbone("tiny", None), 3, channels=16, tower=1)),
    "yolo": lambda: spread(
        yolo(backbones.backbone("tiny", None), 3, size=SIDE, grid=4, hidden=[(16, "relu")])
    ),
    "aligned": lambda: regions(),
    "boxes of each class": lambda: regions(neck="pyramid", head="light", class_agnostic=False),
    "max": lambda: regions(head="light", pooling="max"),
    "max, boxes of each class": lambda: regions(head="light", pooling="max", class_agnostic=False),
    "masks": lambda: regions(mask_rcnn, mask_channels=8, head="light"),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_goes_with_its_suppression(tmp_path, name):
    keras.utils.set_random_seed(1)
    model = DETECTORS[name]()
    run, written = exported.keras_answer(model), exported.export(model, tmp_path, "onnx", size=SIDE)
    assert written.files == ["model.onnx"] == [path.name for path in tmp_path.iterdir()]
    batch = np.concatenate(PICTURES)
    for pictures in (*PICTURES, batch)[: len(PICTURES) if "boxes of each class" in name else None]:
        own, other = run(pictures), written.answer(pictures)
        assert set(own) == set(other) >= exported.DETECTIONS and own["count"].min() > 2
        for output in ("count", "labels"):
            np.testing.assert_array_equal(own[output], other[output])
        np.testing.assert_allclose(own["scores"], other["scores"], atol=1e-4)
        np.testing.assert_allclose(own["boxes"], other["boxes"], atol=1e-2)
        if "masks" in own:
            np.testing.assert_allclose(own["masks"], other["masks"], atol=1e-4)


def test_a_detector_in_float16_goes_too(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = regions()
    finally:
        keras.config.set_dtype_policy("float32")
    own, other = exported.keras_answer(model), exported.export(model, tmp_path, "onnx", size=SIDE)
    np.testing.assert_allclose(
        own(PICTURES[0])["scores"][:, :3], other.answer(PICTURES[0])["scores"][:, :3], atol=0.02
    )


def test_keras_first_line_is_not_the_reason():
    said = "Exception encountered when calling Instead.call().\n\n\x1b[1mcannot compute Mul\x1b[0m\n\nArguments ..."
    assert exported._why(RuntimeError(said)) == "cannot compute Mul"
    assert exported._why(ValueError("no\nmore")) == "no" and exported._why(ValueError()) == "ValueError"


def test_a_net_of_open_size_stays_open(tmp_path):
    model = backbones.backbone("tiny", None)
    written = exported.export(model, tmp_path, "onnx")
    run = exported.keras_answer(model)
    for shape in ((2, 40, 56, 3), (1, 64, 33, 3)):
        pictures = RANDOM.uniform(0, 255, shape).astype(np.float32)
        own, other = run(pictures), written.answer(pictures)
        assert set(own) == set(other)
        for output in own:
            np.testing.assert_allclose(own[output], other[output], atol=1e-3, rtol=1e-4)


@keras.saving.register_keras_serializable(package="test")
class Lacking(layers.Layer):
    """An operation that neither ONNX nor tf2onnx has."""

    def call(self, pictures):
        return tf.raw_ops.ExtractGlimpse(
            input=pictures, size=[4, 4], offsets=tf.zeros_like(pictures[:, 0, 0, :2]), centered=True
        )


def test_an_operation_that_onnx_lacks_is_named_in_one_line_and_the_converter_is_silent(tmp_path, capfd):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, Lacking()(image), name="glimpse")
    with pytest.raises(InputError, match="^ONNX lacks the operation ExtractGlimpse of glimpse") as caught:
        exported.export(model, tmp_path, "onnx")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
    assert capfd.readouterr().err == "" and not list(tmp_path.iterdir())
