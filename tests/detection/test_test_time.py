"""What is added at test time: voting, refinement, scales, mirrored pictures, ensembles, LiteRT."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcnn import backbones, images, load_model
from tfcnn.detection import test_time
from tfcnn.detection.detector import Detector
from tfcnn.detection.faster_rcnn import faster_rcnn
from tfcnn.detection.stages import Stages
from tfcnn.errors import InputError
from tfcnn.export import litert


def build(seed=1, classes=3, **options):
    keras.utils.set_random_seed(seed)
    small = {"channels": 8, "units": 16, "bin_channels": 2, "proposals": 12, "score_threshold": 0.0}
    return faster_rcnn(backbones.backbone("tiny", None), classes, **{**small, **options})


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(2).integers(0, 255, (70, 110, 3), np.uint8)


def found(detector, image):
    (answer,) = detector.detect([detector.prepare(image)], [image.shape[:2]])
    return answer


@pytest.mark.parametrize("shared", [True, False])
def test_voting_by_hand(shared):
    candidates = [[0, 0, 10, 10], [0, 0, 10, 12], [50, 50, 60, 60]]  # IoU of the first two: 100 / 120
    boxes = np.array(candidates, np.float32)[None, :, None]  # [1, 3, 1, 4]
    if not shared:
        boxes = np.concatenate([boxes + 500, boxes], axis=2)  # of class 0 all lie elsewhere
    scores = tf.constant([[[0.9, 0.6], [0.9, 0.2], [0.9, 0.9]]])
    kept = tf.constant([[candidates[0], [0, 0, 0, 0]]], tf.float32)
    voted = test_time.vote(kept, tf.constant([[1, -1]]), tf.constant(boxes), scores).numpy()[0]
    np.testing.assert_allclose(voted[0], [0, 0, 10, (0.6 * 10 + 0.2 * 12) / 0.8], rtol=1e-5)
    assert not voted[1].any()


def test_one_view_is_the_model_itself(model, image):
    detector = Detector([model], [96])
    (picture,), placement = detector.prepare(image)
    direct = model(picture[None])
    count = int(direct["count"][0])
    answer = found(detector, image)
    assert len(answer) == count > 0
    np.testing.assert_allclose(answer.scores, direct["scores"][0, :count], atol=1e-5)
    np.testing.assert_allclose(answer.boxes, placement.to_file(direct["boxes"][0, :count]), atol=1e-2)


def test_an_ensemble_of_one_model_twice_changes_nothing(model, image):
    single, double = found(Detector([model], [96]), image), found(Detector([model, model], [96]), image)
    np.testing.assert_allclose(single.scores[:5], double.scores[:5], atol=1e-5)
    np.testing.assert_allclose(single.boxes[:5], double.boxes[:5], atol=1e-2)


def test_a_mirrored_picture_gets_mirrored_detections(model, image):
    detector = Detector([model], [96], flip=True)
    plain, mirrored = found(detector, image), found(detector, image[:, ::-1].copy())
    np.testing.assert_allclose(plain.scores[:5], mirrored.scores[:5], atol=1e-3)
    back = plain.boxes[:5, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [110, 0, 110, 0]
    np.testing.assert_allclose(back, mirrored.boxes[:5], atol=0.2)


def test_scores_are_the_mean_over_the_views(model, image):
    stages = [Stages(model), Stages(build(seed=5))]
    picture = tf.constant(image[None, :64, :96], tf.float32)
    regions = tf.constant([[[5.0, 5, 60, 50], [0, 0, 0, 0]]])
    looks = [(test_time.View(s, 0, False), picture, s.first(picture)) for s in stages]
    both, _ = test_time._named(looks, regions, picture)
    single = [test_time._named([look], regions, picture)[0] for look in looks]
    np.testing.assert_allclose(both, (single[0] + single[1]) / 2, atol=1e-6)
    assert not both[0, 1].numpy().any()  # padding has no score


@pytest.mark.parametrize("options", [{"class_agnostic": True}, {"class_agnostic": False}, {"context": True}])
def test_refinement_scales_and_voting_give_boxes_inside_the_file(image, options):
    net = build(**options)
    answer = found(Detector([net], [96, 128], flip=True, refine=2, box_voting=True, max_detections=9), image)
    assert 0 < len(answer) <= 9 and np.isfinite(answer.boxes).all()
    assert (answer.boxes >= 0).all() and (answer.boxes <= [110, 70, 110, 70]).all()


def test_litert_finds_what_tensorflow_finds(model, image):
    pytest.importorskip("ai_edge_litert")
    plain, lite = (
        found(Detector([model], [96]), image),
        found(Detector([model], [96], runtime="litert"), image),
    )
    np.testing.assert_allclose(plain.scores[:5], lite.scores[:5], atol=1e-4)
    np.testing.assert_allclose(plain.boxes[:5], lite.boxes[:5], atol=0.1)


def test_litert_computes_each_picture_once(model, image, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    calls, run = [], litert.Program.__call__
    monkeypatch.setattr(litert.Program, "__call__", lambda self, x: calls.append(len(x)) or run(self, x))
    found(Detector([model], [96], runtime="litert"), image)
    assert calls == [1, 12]  # the features of the picture, the head of its regions


def test_without_batch_norm_layers_the_release_finds_the_same():
    release, image = load_model("faster_rcnn_voc"), images.read(images.packaged()[0])
    plain, folded = (found(Detector([net]), image) for net in (release, backbones.folded(release)))
    assert len(plain) == len(folded) > 0
    np.testing.assert_allclose(plain.scores[:3], folded.scores[:3], atol=1e-4)
    np.testing.assert_allclose(plain.boxes[:3], folded.boxes[:3], atol=0.05)


def test_given_proposals_are_looked_at():
    net = build(proposals=0)
    detector = Detector([net], [96])
    image = np.random.default_rng(3).integers(0, 255, (48, 96, 3), np.uint8)
    prepared, shapes = [detector.prepare(image)] * 2, [image.shape[:2]] * 2
    one, none = detector.detect(prepared, shapes, [np.array([[8, 4, 40, 44]], np.float32), np.zeros((0, 4))])
    assert len(one) == 3 and len(none) == 0  # one region, named as each of the three classes
    assert detector.proposal_count == 0


def test_models_of_other_classes_are_no_ensemble(model):
    with pytest.raises(InputError, match="same classes, but have 3, 4"):
        Detector([model, build(classes=4)], [96])


def test_a_model_of_another_kind_is_named():
    with pytest.raises(InputError, match="no Faster R-CNN"):
        Detector([backbones.classifier("tiny", None)], [96])
