"""Training of a pose net: which persons and joints are learned, losses by hand, and figures learned to the end."""

import dataclasses

import numpy as np
import pytest
from test_pose_net import JOINTS, constant, net

import tfcnn
from tfcnn import backbones
from tfcnn.datasets import figures
from tfcnn.datasets.example import Dataset, Record
from tfcnn.errors import InputError
from tfcnn.localization import PoseConfig, pose_net, train_pose
from tfcnn.localization.persons import persons
from tfcnn.localization.pose_training import PoseTrainee, Validation, displacements

CONFIG = PoseConfig(tensorboard=False, validate_epochs=0, batch_size=8)
PIXELS = np.arange(60 * 80 * 3, dtype=np.uint8).reshape(60, 80, 3)


def record(joints, **fields):
    return Record(0, "a.jpg", 80, 60, lambda: PIXELS, joints=np.float32(joints), **fields)


def test_a_picture_of_one_person_is_that_persons_box():
    said = []
    records = [
        record([[10, 20, 1], [0, 0, 0], [40, 50, 1]]),
        record([[81, 20, 1], [5, 5, 1], [0, 0, 0]]),
        record([[0, 0, 0]] * 3),
        record([[10, 90, 1], [0, 0, 0], [0, 0, 0]]),
    ]
    found = persons(Dataset("lsp", ["person"], [1], records, joints=JOINTS), said.append)
    assert len(found) == 2
    assert found.examples[0].boxes.tolist() == [[10, 20, 40, 50]]
    assert found.examples[1].joints.tolist() == [[0, 0, 0], [5, 5, 1], [0, 0, 0]]
    assert said == [
        "2 persons of lsp have no labelled joint, and are left out",
        "2 joints of lsp lie outside their pictures, and are not learned",
    ]


def test_persons_among_others_are_cut_out():
    """A box of 20 x 10 round (50, 30) becomes a square of 26 from (37, 17); COCO's 1 (hidden) counts as labelled."""
    joints = [[[50, 30, 2], [45, 35, 1], [0, 0, 0]], [[1, 1, 2]] * 3, [[0, 0, 0]] * 3]
    boxes = np.float32([[40, 25, 60, 35], [0, 0, 80, 60], [1, 1, 9, 9]])
    data = Dataset(
        "coco", ["person"], [1], [record(joints, boxes=boxes, crowd=np.array([False, True, False]))]
    )
    found = persons(dataclasses.replace(data, joints=JOINTS))
    (one,) = found.examples
    assert one.joints.tolist() == [[13, 13, 1], [8, 18, 1], [0, 0, 0]]
    assert one.truth.joints.tolist() == one.joints.tolist()
    np.testing.assert_array_equal(one.image(), PIXELS[17:43, 37:63])
    assert (one.width, one.height, one.image_id) == (26, 26, "0_1")


def test_a_person_at_the_edge_is_filled_up_with_grey():
    data = Dataset(
        "coco",
        ["person"],
        [1],
        [record([[[5, 5, 2]] * 3], boxes=np.float32([[0, 0, 10, 10]]))],
        joints=JOINTS,
    )
    picture = persons(data).examples[0].image()
    assert picture.shape == (13, 13, 3) and (picture[:2] == 127).all()
    np.testing.assert_array_equal(picture[2:, 2:], PIXELS[:11, :11])


def test_a_set_without_joints_is_refused():
    for examples in ([Record(0, "a", 8, 8, lambda: PIXELS)], [record([[0, 0, 0]] * 3)]):
        with pytest.raises(InputError, match="has no labelled joints"):
            persons(Dataset("voc", ["person"], [1], examples, joints=JOINTS))


def batch(*joints):
    return {
        "image": np.zeros((len(joints), 64, 64, 3), np.float32),
        "joints": np.float32(joints),
        "seed": np.int32([1, 2]),
    }


def test_only_labelled_joints_are_in_the_loss():
    """All found in the centre: the first is 0.25 right of it, the last 0.5 below; the second is not labelled."""
    trainee = PoseTrainee(constant(net(stages=1), [0, 0]), 1, CONFIG)
    joints = [[48, 32, 1], [0, 0, 0], [32, 64, 1]]
    loss = trainee.losses(batch(joints, [[0, 0, 0]] * 3))
    assert float(loss["joints"]) == pytest.approx(0.25**2 + 0.5**2, abs=1e-6)


def test_a_later_stage_learns_the_way_back_from_a_displacement():
    """Always displaced by (0.06, 0), with sub-images of 2 x 0.3 (the torso is not labelled): back by 0.1 of them."""
    joints = [[32, 32, 1], [0, 0, 0], [20, 40, 1]]
    spread = (np.float32([[0.06, 0]] * 3), np.zeros((3, 2), np.float32))
    model = constant(net(), [0, 0], [0, 0])
    loss = PoseTrainee(model, 2, CONFIG, spread=spread).losses(batch(joints))
    assert float(loss["joints"]) == pytest.approx(2 * 0.1**2, rel=1e-3)
    model = constant(model, [0, 0], [-0.1, 0])
    loss = PoseTrainee(model, 2, CONFIG, spread=spread).losses(batch(joints))
    assert float(loss["joints"]) == pytest.approx(0, abs=1e-6)


def test_displacements_by_hand():
    """Found in the centre. Joint 0 is labelled 16 px left, then right; joint 1 once, joint 2 8 px and 16 px above."""
    first, second = [[16, 32, 1], [16, 16, 1], [32, 24, 1]], [[48, 32, 1], [0, 0, 0], [32, 16, 1]]
    middle, spread = displacements(constant(net(stages=1), [0, 0]), 1, [batch(first), batch(second)])
    np.testing.assert_allclose(middle, [[0, 0], [0, 0], [0, 0.1875]], atol=1e-6)
    np.testing.assert_allclose(spread[[0, 2]] / 1.4826, [[0.25, 0], [0, 0.0625]], atol=1e-5)
    # All that is known: .25 0 -.25 0, .25 .25, 0 .125 0 .25, of median .0625, and half of them at most .125 from it.
    np.testing.assert_allclose(spread[1] / 1.4826, [0.125, 0.125], atol=1e-5)
    one_wrong = [
        batch([[x, 32, 1]] * 3) for x in (32, 36, 28, 36, 64)
    ]  # the last is no reason to look so far
    middle, spread = displacements(constant(net(stages=1), [0, 0]), 1, one_wrong)
    np.testing.assert_allclose(middle, [[-0.0625, 0]] * 3, atol=1e-6)
    np.testing.assert_allclose(spread / 1.4826, [[0.0625, 0]] * 3, atol=1e-5)
    with pytest.raises(InputError, match="No joint is labelled"):
        displacements(constant(net(stages=1), [0, 0]), 1, [batch([[0, 0, 0]] * 3)])


def test_figures_by_hand():
    """A net that always says the centre, and one picture whose joints lie there but for one, half the picture off."""
    model = constant(net(stages=1), [0, 0])
    data = Dataset(
        "mine",
        ["person"],
        [1],
        [record([[40, 30, 1], [0, 30, 1], [40, 30, 1]])],
        joints=["nose", "tail", "ear"],
    )
    measure = Validation(model, persons(data), CONFIG, 1)
    found = measure()
    assert measure.best == "-error" and found == {"error": pytest.approx(0.5 / 3, abs=1e-4)}


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Eight figures learned in two stages: what was trained, the weights before, the pictures, what was said."""
    data, said, shown = figures.read(count=8, side=64), [], {}
    backs = [backbones.backbone("tiny", None, [name]) for name in ("conv4", "conv3")]
    model = pose_net(backs, data.joints, size=48, part_size=16, hidden=(128,), channels=0)
    before = {w.path: np.array(w) for w in model.trainable_variables}
    config = dataclasses.replace(
        CONFIG, steps=150, stage_steps=60, learning_rate=3e-3, warmup=10, average=0.9, augment="none"
    )
    folder = tmp_path_factory.mktemp("pose")
    show = lambda image, name, title: shown.update({name: image})  # noqa: E731
    return (
        train_pose(model, data, data, config, folder, say=said.append, show=show),
        before,
        data,
        shown,
        said,
    )


def test_a_handful_of_figures_is_learned_to_the_end(learned):
    trained, _, _, shown, said = learned
    for stage in trained.card["stage_metrics"]:
        assert stage["last"]["pcp_strict"] > 0.95 and stage["last"]["error"] < 0.03, stage
    assert set(shown) == {"first_batch", "answers", "stages"}
    assert any(line.startswith("stage 2: joints of the stage before are off by 0.0") for line in said)


def test_every_weight_was_trained(learned):
    trained, before, *_ = learned
    after = {w.path: np.array(w) for layer in trained.model.layers for w in layer.weights}
    same = [path for path, value in before.items() if (after[path] == value).all()]
    assert len(before) > 20 and not same


def test_the_release_finds_the_joints_again(learned):
    trained, _, data, *_ = learned
    estimator = tfcnn.pose_estimator(trained.release)
    assert estimator.names == data.joints and trained.card["kind"] == "pose"
    (found,) = estimator([data.examples[0].image()])
    assert np.abs(found.joints - data.examples[0].joints[:, :2]).max() < 4
    assert found.skeleton == data.skeleton


def test_settings_that_cannot_be_are_said(tmp_path):
    for options, message in (
        ({"loss": "l3"}, "loss"),
        ({"resize": "stretch"}, "undistorted"),
        ({"augment": "poses"}, "augment"),
    ):
        with pytest.raises(InputError, match=message):
            dataclasses.replace(CONFIG, **options)
    data = figures.read(count=2, side=64)
    with pytest.raises(InputError, match="The model has 3 joints, figures has 14"):
        train_pose(net(), data, data, CONFIG, tmp_path)
    for stage in (0, 2):
        with pytest.raises(InputError, match=f"first_stage={stage}: the model has stages 1 to 1"):
            one = pose_net([backbones.backbone("tiny", None)], data.joints, size=48)
            train_pose(one, data, data, dataclasses.replace(CONFIG, first_stage=stage), tmp_path)
    later = dataclasses.replace(CONFIG, epochs=9, stage_epochs=3, steps=7)
    assert (later.of_stage(1).steps, later.of_stage(2).steps, later.of_stage(2).epochs) == (7, None, 3)
