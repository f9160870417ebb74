"""Detectors whole in one LiteRT file: pooling and suppression in its operations, equal to the Keras model's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcnn import backbones, datasets, images
from tfcnn.detection.faster_rcnn import faster_rcnn
from tfcnn.detection.mask_rcnn import mask_rcnn
from tfcnn.errors import InputError
from tfcnn.evaluation import voc
from tfcnn.export import exported, pooling, suppression
from tfcnn.ops import nms, position_sensitive, roi
from tfcnn.predictor import Predictor

SIDE = 64
RANDOM = np.random.default_rng(0)
PICTURES = [RANDOM.uniform(0, 255, (1, SIDE, SIDE, 3)).astype(np.float32) for _ in range(3)]
# inside, across two edges of the picture, outside, without extent, padding
BOXES = np.float32([[[3, 5, 40, 22], [-20, 30, 90, 200], [100, 100, 130, 120], [9, 9, 9, 30], [0, 0, 0, 0]]])


def tiny(build=faster_rcnn, **options):
    """A detector on the smallest net, whose last layers are far from uniform."""
    keras.utils.set_random_seed(1)
    sizes = ((12.0, 20.0),) * 3 if options.get("neck") == "pyramid" else (12.0, 20.0, 32.0)
    small = {"channels": 16, "units": 32, "proposals": 20, "max_detections": 20, "score_threshold": 0.2}
    model = build(backbones.backbone("tiny", None), 3, sizes=sizes, **{**small, **options})
    random = np.random.default_rng(2)
    for layer in model.layers:
        if layer.name in ("class_logits", "box_deltas", "rpn_score", "rpn_offset"):
            layer.set_weights([random.normal(0, 0.3, value.shape) for value in layer.get_weights()])
    return model


def differences(own, other):
    """The largest of boxes (pixels), of scores, and of masks where there are any."""
    np.testing.assert_array_equal(own["count"], other["count"])
    np.testing.assert_array_equal(own["labels"], other["labels"])
    return [
        float(np.abs(own[name] - other[name]).max()) for name in ("boxes", "scores", "masks") if name in own
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"neck": "pyramid", "head": "light", "class_agnostic": False},
        {"neck": "none", "head": "backbone", "context": True, "score_threshold": 0.1},
        {"build": mask_rcnn, "mask_channels": 8, "head": "light"},
    ],
    ids=["position", "pyramid", "context", "masks"],
)
def test_a_detector_of_regions_is_one_file(tmp_path, options):
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    model = tiny(**options)
    run, written = exported.keras_answer(model), exported.export(model, tmp_path, "litert", size=SIDE)
    assert written.files == ["model.tflite"]
    for picture in PICTURES:
        own, other = run(picture), written.answer(picture)
        assert own["count"][0] > 2 and set(own) == set(other)
        pixels, *shares = differences(own, other)
        assert pixels < 1e-2 and max(shares) < 1e-4


def test_int8_keeps_coordinates_in_float32(tmp_path):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed")
    model, seen = tiny(), [picture[0] for picture in PICTURES]
    written = exported.export(model, tmp_path, "litert_int8", size=SIDE, calibration=seen)
    tensors = interpreter.Interpreter(str(tmp_path / "model.tflite")).get_tensor_details()
    inside = [t for t in tensors if all(suppression.FLOAT in part for part in t["name"].split(";"))]
    rounded = [tensor["name"] for tensor in inside if tensor["dtype"] is np.int8]
    # what comes into the scope as int8, and scores, to 1/256; no coordinate
    assert len(inside) > 200 and len(rounded) < 8, rounded
    assert not any(word in name for name in rounded for word in ("unstack", "imum", "truediv", "sub")), (
        rounded
    )
    assert sum(tensor["dtype"] is np.int8 for tensor in tensors) > 20
    whole = exported.export(model, tmp_path, "litert", size=SIDE)
    assert written.bytes < 0.75 * whole.bytes
    found = written.answer(PICTURES[0])
    assert found["count"][0] > 3 and (found["boxes"][0, :3, 2:] > found["boxes"][0, :3, :2]).all()


def test_max_pooling_is_refused_by_name(tmp_path):
    model = tiny(neck="none", head="light", pooling="max")
    with pytest.raises(InputError, match="region_pool.*pooling='align'"):
        exported.export(model, tmp_path, "litert", size=SIDE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size,samples,dtype", [(7, 2, "float32"), (3, 1, "float32"), (3, 2, "float16")])
def test_pooled_regions_are_those_of_the_kernel(size, samples, dtype):
    features = RANDOM.normal(size=(1, 6, 9, 2 * size**2)).astype(dtype)
    for plain, ours, more in (
        (roi.roi_align, pooling.roi_align, [samples]),
        (position_sensitive.ps_roi_align, pooling.ps_roi_align, []),
    ):
        wanted, found = (pool(features, BOXES, 8.0, size, *more).numpy() for pool in (plain, ours))
        assert found.dtype == dtype
        np.testing.assert_allclose(found, wanted, atol=1e-5 if dtype == "float32" else 2e-3)


@pytest.mark.parametrize("op", ["roi_align", "ps_roi_align"])
def test_regions_of_several_pictures_of_unknown_size_are_pooled(op):
    features = RANDOM.normal(size=(2, 6, 9, 2 * 9)).astype(np.float32)
    boxes = np.concatenate([BOXES, BOXES[:, ::-1] + np.float32([0, 0, 4, 6])])
    unknown = [tf.TensorSpec([None, None, None, 18]), tf.TensorSpec([None, None, 4])]
    ours = tf.function(lambda x, y: getattr(pooling, op)(x, y, 8.0, 3), input_signature=unknown)
    plain = {"roi_align": roi.roi_align, "ps_roi_align": position_sensitive.ps_roi_align}[op]
    np.testing.assert_allclose(ours(features, boxes), plain(features, boxes, 8.0, 3), atol=1e-5)


def test_crops_are_those_of_the_kernel_within_and_beyond_the_picture():
    image = RANDOM.normal(size=(1, 9, 12, 3)).astype(np.float32)
    corners = np.float32([[0.1, 0.2, 0.9, 0.7], [-0.5, 0.5, 0.5, 1.5], [0, 0, 1, 1], [1.2, 1.2, 1.6, 1.4]])
    wanted = tf.image.crop_and_resize(image, corners, [0] * 4, [8, 8], extrapolation_value=127.0)
    found = pooling.crops(tf.constant(image), tf.constant(corners), 8, 127.0)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert (found[3] == 127.0).numpy().all()


def test_samples_by_hand():
    # From 1 to 5 cells of a side of 4: cut to 1..4, four points at 1.375, 2.125, 2.875, 3.625, less half a cell.
    found = pooling.sample_places(tf.constant([1.0, 3.0]), tf.constant([5.0, 3.0]), 4, 4)
    np.testing.assert_allclose(found, [[0.875, 1.625, 2.375, 3.0], [2.5] * 4])


def test_boxes_at_the_threshold_stay_and_equal_scores_keep_their_order():
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed")
    # The second shares just half of the first, the third a little more; the last two are one box with one score.
    boxes = np.float32([[0, 0, 2, 4], [0, 0, 2, 2], [0, 0, 2, 2.1], [50, 50, 60, 60], [50, 50, 60, 60]])
    scores = np.float32([0.9, 0.8, 0.7, 0.6, 0.6])

    def suppress(boxes, scores):
        return suppression.best_boxes(boxes, scores, 0.5, 4)

    specs = [tf.TensorSpec(boxes.shape), tf.TensorSpec(scores.shape)]
    traced = tf.function(suppress).get_concrete_function(*specs)
    lite = interpreter.Interpreter(
        model_content=tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert()
    )
    lite.allocate_tensors()
    for detail in lite.get_input_details():
        lite.set_tensor(detail["index"], boxes if len(detail["shape"]) == 2 else scores)
    lite.invoke()
    found = lite.get_tensor(lite.get_output_details()[0]["index"])
    kept = nms.nms(boxes, scores, 0.5, 4)
    assert kept.numpy().tolist() == [0, 1, 3]
    for answer in (found, suppress(boxes, scores).numpy()):
        np.testing.assert_array_equal(answer[0], [*boxes[kept], [0, 0, 0, 0]])


def test_regions_differ_in_score_and_side():
    one = {"boxes": [[[0, 0, 10, 10]]], "scores": [[0.9]], "labels": [[1]], "count": [1]}
    own = {name: np.array(value, np.float32) for name, value in one.items()}
    other = own | {"boxes": own["boxes"] + np.float32([0, 0, 2, 1]), "scores": own["scores"] - 0.2}
    compared = exported.compare([own], [other])
    assert (
        compared["pixels"] == 2
        and compared["difference"] == pytest.approx(0.2)
        and compared["agreement"] == 1
    )


def test_an_answer_is_measured_as_a_detector_is():
    data = datasets.open("shapes", None, "val")
    records = data.examples[:3]
    scale = SIDE / records[0].image().shape[0]

    def truth(picture):
        """A detector that knows all answers, in pixels of the picture that it is shown, but for the last one's."""
        same = [
            np.abs(images.resize(r.image(), SIDE)[0] - picture[0].astype(float)).max() < 1 for r in records
        ]
        (record,) = [record for record, found in zip(records, same, strict=True) if found]
        count = len(record.boxes) if record is not records[-1] else 0
        boxes, scores, labels = np.zeros((1, 9, 4)), np.zeros((1, 9)), np.full((1, 9), -1)
        boxes[0, :count], scores[0, :count] = record.boxes[:count] * scale, 0.9
        labels[0, :count] = record.labels[:count]
        return {"boxes": boxes, "scores": scores, "labels": labels, "count": np.array([count])}

    method = exported.Detecting(truth, 5, np.zeros(3))
    predictor = Predictor(method, names=data.classes, image_size=SIDE)
    found, refused = predictor.over_records(records)
    assert not refused and voc.evaluate(records[:2], found, data.classes)["map_area"] == 1.0
    assert len(found[records[-1].image_id].boxes) == 0
