"""What is added at test time: voting, refinement, scales, mirrored pictures, ensembles, LiteRT."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcnn import backbones, detector, images, load_model
from tfcnn.detection import test_time
from tfcnn.detection.detector import FasterRCNN
from tfcnn.detection.faster_rcnn import faster_rcnn
from tfcnn.detection.options import DetectorOptions
from tfcnn.detection.stages import Stages
from tfcnn.errors import InputError
from tfcnn.export import litert
from tfcnn.predictor import Predictor


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


def found(models, image, size=96, **options):
    models = models if isinstance(models, list) else [models]
    (answer,) = detector(models, image_size=size, **options)([image])
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
    prepared = detector(model, image_size=96).prepare(image)
    direct = model(prepared.pictures[0][None].astype(np.float32))
    count = int(direct["count"][0])
    answer = found(model, image)
    assert len(answer) == count > 0
    np.testing.assert_allclose(answer.scores, direct["scores"][0, :count], atol=1e-5)
    back = prepared.placement.to_file(direct["boxes"][0, :count])
    np.testing.assert_allclose(answer.boxes, back, atol=1e-2)


def test_an_ensemble_of_one_model_twice_changes_nothing(model, image):
    single, double = found(model, image), found([model, model], image)
    np.testing.assert_allclose(single.scores[:5], double.scores[:5], atol=1e-5)
    np.testing.assert_allclose(single.boxes[:5], double.boxes[:5], atol=1e-2)


def test_a_mirrored_picture_gets_mirrored_detections(model, image):
    plain, mirrored = found(model, image, flip=True), found(model, image[:, ::-1].copy(), flip=True)
    np.testing.assert_allclose(plain.scores[:5], mirrored.scores[:5], atol=1e-3)
    back = plain.boxes[:5, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [110, 0, 110, 0]
    np.testing.assert_allclose(back, mirrored.boxes[:5], atol=0.2)


def seen_by(stages, picture):
    size = tf.constant([picture.shape[1:3]])
    return [test_time._see(test_time.View(s, 0, False), picture, size, size) for s in stages], size


def test_scores_are_the_mean_over_the_views(model, image):
    stages = [Stages(model), Stages(build(seed=5))]
    picture = tf.constant(image[None, :64, :96], tf.float32)
    regions = tf.constant([[[5.0, 5, 60, 50], [0, 0, 0, 0]]])
    seen, size = seen_by(stages, picture)
    both, _ = test_time._classified(seen, regions, size)
    single = [test_time._classified([look], regions, size)[0] for look in seen]
    np.testing.assert_allclose(both, (single[0] + single[1]) / 2, atol=1e-6)
    assert not both[0, 1].numpy().any()  # padding has no score


def test_a_view_in_which_a_box_is_empty_has_none_to_average(model, image, monkeypatch):
    picture = tf.constant(image[None, :64, :96], tf.float32)
    regions = tf.constant([[[5.0, 5, 60, 50], [0, 0, 30, 30], [1, 1, 2, 2]]])
    boxes = [
        [[5.0, 5, 60, 50], [10, 0, 30, 20], [96, 5, 96, 9]],
        [[15, 5, 70, 50], [0, 9, 0, 20], [0, 0, 0, 0]],
    ]
    answers = iter(tf.constant(np.reshape(boxes, (2, 1, 3, 1, 4)), tf.float32))
    decode = lambda *_: (tf.zeros([1, 3, 3]), next(answers))  # noqa: E731
    monkeypatch.setattr(test_time.fast_rcnn, "decode_regions", decode)
    seen, size = seen_by([Stages(model)] * 2, picture)
    _, mean = test_time._classified(seen, regions, size)
    expected = [[10, 5, 65, 50], [10, 0, 30, 20], [0, 0, 0, 0]]
    np.testing.assert_allclose(mean[0, :, 0], expected, atol=1e-4)


def test_padding_of_one_views_proposals_never_outranks_anothers_boxes():
    class Seen:  # two views of three proposals; the second has one that is real
        rows = iter(
            [
                ([[0.0, 0, 9, 9], [20, 20, 29, 29], [40, 40, 49, 49]], [-1.0, -2.0, -3.0]),
                ([[60.0, 0, 69, 9], [0, 0, 0, 0], [0, 0, 0, 0]], [-4.0, -np.inf, -np.inf]),
            ]
        )

        def propose(self, first, height, width, count, scale):
            boxes, scores = next(self.rows)
            return tf.constant([boxes]), tf.constant([scores])

    size = tf.constant([[64, 96]])
    seen = [test_time._Seen(test_time.View(Seen(), 0, False), size, tf.ones(1), {}) for _ in range(2)]
    boxes = test_time._proposed(seen, size, 4)
    assert boxes[0, :, 0].numpy().tolist() == [0, 20, 40, 60]


@pytest.mark.parametrize(
    "options",
    [
        {"class_agnostic": False},
        *(pytest.param(o, marks=pytest.mark.slow) for o in ({"class_agnostic": True}, {"context": True})),
    ],
)
def test_refinement_scales_and_voting_give_boxes_inside_the_file(image, options):
    more = {"flip": True, "refine": 2, "box_voting": True, "max_detections": 9}
    answer = found(build(**options), image, scales=[96, 128], **more)
    assert 0 < len(answer) <= 9 and np.isfinite(answer.boxes).all()
    assert (answer.boxes >= 0).all() and (answer.boxes <= [110, 70, 110, 70]).all()


@pytest.mark.parametrize("resize", ["stretch", "fit"])
def test_litert_finds_what_tensorflow_finds(model, image, resize):
    pytest.importorskip("ai_edge_litert")
    plain, lite = (found(model, image, resize=resize, runtime=runtime) for runtime in ("tf", "litert"))
    np.testing.assert_allclose(plain.scores[:5], lite.scores[:5], atol=1e-4)
    np.testing.assert_allclose(plain.boxes[:5], lite.boxes[:5], atol=0.1)


def test_litert_computes_each_picture_once(model, image, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    calls, run = [], litert.Program.__call__
    monkeypatch.setattr(litert.Program, "__call__", lambda self, x: calls.append(len(x)) or run(self, x))
    found(model, image, runtime="litert")
    assert calls == [1, 12]  # the features of the picture, the head of its regions


def test_int8_features_are_near_and_fewer_proposals_are_classified(model, image, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    method = FasterRCNN([model], DetectorOptions(runtime="litert_int8", calibration=[image], proposals=5))
    predictor = Predictor(method, names=["a", "b", "c"], image_size=96)
    calls, run = [], litert.Program.__call__
    monkeypatch.setattr(litert.Program, "__call__", lambda self, x: calls.append(len(x)) or run(self, x))
    assert len(predictor([image])[0]) > 0
    assert calls == [1, 5] and method.proposal_count == 5
    rows = litert.rows([image], 96, 96)[0]
    for name, value in Stages(model).features(rows).items():
        error = np.abs(method.stages[0]._program_for(rows)(rows)[name] - value)
        assert 0 < error.mean() < 0.05 * np.ptp(value), name
    with pytest.raises(InputError, match="makes none"):
        FasterRCNN([build(proposals=0)], DetectorOptions(proposals=5))


def test_without_batch_norm_layers_the_release_finds_the_same():
    release, image = load_model("faster_rcnn_voc"), images.read(images.packaged()[0])
    names = [str(index) for index in range(20)]
    plain = Predictor(FasterRCNN([release]), names=names, image_size=320)([image])[0]
    folded = found(release, image, size=320)
    assert len(plain) == len(folded) > 0
    np.testing.assert_allclose(plain.scores[:3], folded.scores[:3], atol=1e-4)
    np.testing.assert_allclose(plain.boxes[:3], folded.boxes[:3], atol=0.05)


def test_proposals_that_are_given_are_classified():
    predictor = detector(build(proposals=0), image_size=96)
    image = np.random.default_rng(3).integers(0, 255, (48, 96, 3), np.uint8)
    given = [np.array([[8, 4, 40, 44]], np.float32), np.zeros((0, 4))]
    one, none = predictor([image, image], given)
    assert len(one) == 3 and len(none) == 0  # one region, classified as each of the three classes
    with pytest.raises(InputError, match="needs proposals"):
        predictor([image])


def test_models_of_other_classes_are_no_ensemble(model):
    with pytest.raises(InputError, match="same classes, but have 3, 4"):
        detector([model, build(classes=4)])


def test_a_model_of_another_kind_is_named():
    with pytest.raises(InputError, match="no Faster R-CNN"):
        detector(backbones.classifier("tiny", None))
