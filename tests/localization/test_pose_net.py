"""The layers of a pose net by hand, and its poses in the pixels of the file."""

import numpy as np
import pytest
import tensorflow as tf

import tfcnn
from tfcnn import backbones, images
from tfcnn.errors import InputError
from tfcnn.localization import pose, pose_net
from tfcnn.localization.pose_estimator import in_boxes

JOINTS = ["left_shoulder", "right_hip", "nose"]


def net(stages=2, size=64, part_size=16, **options):
    layers = ("conv4", "conv2")
    backs = [backbones.backbone("tiny", None, [layers[bool(stage)]]) for stage in range(stages)]
    return pose_net(backs, JOINTS, size=size, part_size=part_size, hidden=(), channels=0, **options)


def constant(model, *stages):
    """Makes each stage say the same numbers of every picture: joints [J, 2] or [2], displacements [2]."""
    for number, values in enumerate(stages, 1):
        layer = model.get_layer(f"stage{number}_numbers")
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel * 0, np.resize(np.float32(values), bias.shape)])
    return model


def ramp(size):
    """A picture whose red is the continuous x of each pixel's centre, and green its y."""
    y, x = np.mgrid[:size, :size].astype(np.float32) + 0.5
    return np.stack([x, y, 0 * x], axis=-1)[None]


def test_a_sub_image_is_sampled_at_the_centres_of_its_pixels():
    """Round (32, 24) of 64 pixels, 16 wide, in 8 pixels of 2: centres at 25, 27, ... and 17, 19, ..."""
    cut = pose.SubImages(8).cut(ramp(64), tf.constant([[[0.0, -0.125]]]), tf.constant([0.25]))
    assert cut.shape == (1, 8, 8, 3)
    np.testing.assert_allclose(cut[0, 3, :, 0], 25 + 2 * np.arange(8), atol=1e-3)
    np.testing.assert_allclose(cut[0, :, 3, 1], 17 + 2 * np.arange(8), atol=1e-3)


def test_beyond_the_picture_a_sub_image_is_grey():
    cut = pose.SubImages(8).cut(ramp(64), tf.constant([[[-0.5, 0.0]]]), tf.constant([0.25])).numpy()
    assert (cut[0, :, :3] == 127).all() and (cut[0, :, 5:, 0] < 10).all()


def test_sides_are_sigma_torso_diameters():
    """3-4-5 tenths; a torso seen from its end has the least; one whose ends are not known the usual one."""
    joints = tf.constant(
        [[[0, 0], [0.3, 0.4], [0, 0]], [[0.1, 0], [0.1, 0], [0, 0]], [[0, 0], [0.3, 0.4], [0, 0]]]
    )
    known = tf.constant([[True] * 3, [True] * 3, [True, False, True]])
    layer = pose.SubImages(8, sigma=2.0, torso=(0, 1))
    np.testing.assert_allclose(
        layer.sides(joints, known), [1.0, 2 * pose.SMALLEST, 2 * pose.DIAMETER], atol=1e-6
    )
    np.testing.assert_allclose(layer.sides(joints)[2], 1.0, atol=1e-6)
    np.testing.assert_allclose(pose.SubImages(8, 1.5).sides(joints), [1.5 * pose.DIAMETER] * 3, atol=1e-6)


def test_each_sub_image_speaks_for_its_own_joint():
    numbers = tf.reshape(tf.range(2 * 3 * 6, dtype=tf.float32), [6, 6])  # two persons of three joints
    expected = [[[0, 1], [8, 9], [16, 17]], [[18, 19], [26, 27], [34, 35]]]
    assert pose.own(numbers).numpy().tolist() == expected


def test_stages_by_hand():
    """The torso is 0.5 long, sigma 2: sub-images of 1.0, of which stage 2 moves each joint by (0.1, -0.2)."""
    first = [[0, 0], [0.3, 0.4], [-0.2, 0.1]]
    model = constant(net(), first, [0.1, -0.2])
    found = model(np.zeros((2, 64, 64, 3), np.float32))
    assert found["stages"].shape == (2, 2, 3, 2)
    np.testing.assert_allclose(found["stages"][1, 0], first, atol=1e-6)
    np.testing.assert_allclose(found["joints"][0], np.add(first, [0.1, -0.2]), atol=1e-5)
    assert pose.form(model) == pose.Form(3, 2, 64)


def test_a_saved_net_gives_the_same_joints(tmp_path):
    model = net(stages=3)
    picture = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    model.save(tmp_path / "pose.keras")
    loaded = tfcnn.load_model(tmp_path / "pose.keras")
    np.testing.assert_allclose(loaded(picture)["stages"], model(picture)["stages"], atol=1e-5)
    assert pose.form(loaded) == pose.Form(3, 3, 64) and loaded.get_layer("stage2_parts").torso == (0, 1)


def test_convolutions_come_before_each_stages_dense_layers():
    names = {layer.name for layer in net(convolutions=(6, 5)).layers}
    assert {"stage1_separable1", "stage1_separable2", "stage2_separable1", "stage2_separable2"} <= names
    assert net(convolutions=(6, 5)).get_layer("stage1_flatten").input.shape == (None, 4, 4, 5)


def test_one_stage_sees_what_the_model_shows_it():
    model, picture = net(), np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    found = model(picture)["stages"]
    first = pose.stage_net(model, 1)(picture)
    np.testing.assert_allclose(first, found[:, 0], atol=1e-6)
    parts, sides = model.get_layer("stage2_parts")([picture, first])
    moved = first + pose.own(pose.stage_net(model, 2)(parts)) * sides[:, None, None]
    np.testing.assert_allclose(moved, found[:, 1], atol=1e-5)


def test_joints_come_home_to_the_file():
    """200 x 100 lies in the middle half of the square of 64: (0, 0) is its centre, a quarter down its lower edge."""
    model = constant(net(stages=1), [[0, 0], [0.25, 0.25], [-0.5, -0.25]])
    estimator = tfcnn.pose_estimator(model, joints=JOINTS, skeleton=[(0, 1)])
    (found,) = estimator([np.zeros((100, 200, 3), np.uint8)])
    np.testing.assert_allclose(found.joints, [[100, 50], [150, 100], [0, 0]], atol=1e-3)
    assert found.box.tolist() == [0, 0, 200, 100] and found.names == tuple(JOINTS)
    assert found.to_coco("a")[0]["keypoints"] == pytest.approx([100, 50, 1, 150, 100, 1, 0, 0, 1], abs=1e-3)
    half = found.to_file(images.Placement(0.5, 0.5))  # of a picture that was halved after annotation
    np.testing.assert_allclose(half.joints[1], [300, 200], atol=1e-3)


def test_several_persons_are_seen_in_squares_round_their_boxes():
    """A box of 20 x 40 round (20, 40) becomes a square of 52; one at the edge is filled up with grey."""
    model = constant(net(stages=1), [[0, 0], [0.25, 0], [0, -0.5]])
    estimator = tfcnn.pose_estimator(model, joints=JOINTS, batch_size=2)
    image = np.zeros((100, 200, 3), np.uint8)
    boxes = np.array([[10, 20, 30, 60], [190, 0, 200, 10], [50, 50, 60, 60]])
    (found, none) = in_boxes(estimator, [(image, boxes), (image, boxes[:0])])
    assert len(found) == 3 and none == []
    np.testing.assert_allclose(found[0].joints, [[20, 40], [33, 40], [20, 14]], atol=0.51)
    np.testing.assert_allclose(found[1].joints[0], [195, 5], atol=0.51)
    assert found[0].box.tolist() == [10, 20, 30, 60]


def test_a_batch_is_as_its_pictures_alone():
    estimator = tfcnn.pose_estimator(net())
    pictures = list(np.random.default_rng(1).integers(0, 256, (3, 80, 60, 3), np.uint8))
    together = estimator(pictures)
    for picture, found in zip(pictures, together, strict=True):
        np.testing.assert_allclose(estimator([picture])[0].stages, found.stages, atol=1e-3)


def test_mirrored_too_sides_change_places_and_views_are_averaged():
    model = net()
    plain = tfcnn.pose_estimator(model, joints=["left_hand", "right_hand", "nose"])
    both = tfcnn.pose_estimator(model, joints=["left_hand", "right_hand", "nose"], flip=True)
    picture = np.random.default_rng(1).integers(0, 256, (64, 48, 3), np.uint8)
    found, mirrored = plain([picture, picture[:, ::-1].copy()])
    swapped = mirrored.stages[:, [1, 0, 2]] * [-1, 1] + [48, 0]
    np.testing.assert_allclose(both([picture])[0].stages, (found.stages + swapped) / 2, atol=1e-3)
    unpaired = tfcnn.pose_estimator(model, joints=["left_hand", "foot", "nose"], flip=True)([picture])[0]
    assert np.isfinite(unpaired.stages).all()


def test_what_is_wrong_is_said():
    with pytest.raises(InputError, match="digits is a classifier, no pose net"):
        tfcnn.pose_estimator("digits")
    with pytest.raises(InputError, match="gives no joints"):
        tfcnn.pose_estimator(backbones.backbone("tiny", None))
    with pytest.raises(InputError, match="same joints, stages and size"):
        tfcnn.pose_estimator([net(stages=1), net(stages=2)])
    with pytest.raises(InputError, match="non-finite"):
        tfcnn.pose_estimator(constant(net(stages=1), [np.nan]))([np.zeros((64, 64, 3), np.uint8)])
    with pytest.raises(InputError, match="at least one stage"):
        pose_net([], JOINTS)
    with pytest.raises(InputError, match="sigma=0"):
        net(sigma=0)
