"""PCP, PDJ and PCK by hand."""

import numpy as np
import pytest

from tfcnn.evaluation import pose

J = {name: index for index, name in enumerate(pose.JOINTS)}


def person():
    """Upright, 10 px a limb; the torso's diameter (left shoulder to right hip) is sqrt(20^2 + 40^2)."""
    points = {
        "head_top": (0, 0),
        "neck": (0, 10),
        "right_shoulder": (-10, 10),
        "left_shoulder": (10, 10),
        "right_elbow": (-10, 20),
        "left_elbow": (10, 20),
        "right_wrist": (-10, 30),
        "left_wrist": (10, 30),
        "right_hip": (-10, 50),
        "left_hip": (10, 50),
        "right_knee": (-10, 60),
        "left_knee": (10, 60),
        "right_ankle": (-10, 70),
        "left_ankle": (10, 70),
    }
    return np.array([[points[name] for name in pose.JOINTS]], np.float64)


def measured(predicted, truth=None, visible=None):
    truth = person() if truth is None else truth
    return pose.evaluate(truth, np.ones((len(truth), 14), bool) if visible is None else visible, predicted)


def moved(**shifts):
    predicted = person()
    for name, shift in shifts.items():
        predicted[0, J[name]] += shift
    return predicted


def test_a_perfect_pose():
    ours = measured(person())
    assert [ours[k] for k in ("pcp_strict", "pcp_relaxed", "pdj_02", "pck_02", "pckh_05")] == [1] * 5
    assert len(ours["per_limb"]) == 10 and len(ours["per_joint"]) == 14


def test_half_a_limb_is_just_right_and_a_little_more_is_wrong():
    # A wrist is an end of one limb, the lower arm, of 10 px.
    just = measured(moved(right_wrist=(0, 5)))
    assert just["pcp_strict"] == 1
    more = measured(moved(right_wrist=(0, 5.01)))
    assert more["pcp_strict"] == pytest.approx(9 / 10)
    assert more["per_limb"]["right_lower_arm"]["pcp_strict"] == 0
    assert more["pcp_relaxed"] == 1  # the mean of 5.01 and 0
    far = measured(moved(right_wrist=(0, 10.01)))
    assert far["pcp_relaxed"] == pytest.approx(9 / 10)


def test_the_torso_runs_from_middle_to_middle():
    # Both shoulders off by 30 to the same side move their middle by 30 of 40; to opposite sides, by nothing.
    assert (
        measured(moved(right_shoulder=(30, 0), left_shoulder=(30, 0)))["per_limb"]["torso"]["pcp_strict"] == 0
    )
    assert (
        measured(moved(right_shoulder=(30, 0), left_shoulder=(-30, 0)))["per_limb"]["torso"]["pcp_strict"]
        == 1
    )


def test_a_joint_within_a_fifth_of_the_torsos_diameter():
    fifth = 0.2 * np.sqrt(20**2 + 40**2)
    assert measured(moved(neck=(fifth - 1e-9, 0)))["pdj_02"] == 1
    ours = measured(moved(neck=(fifth + 1e-9, 0)))
    assert ours["pdj_02"] == ours["pck_02"] == pytest.approx(13 / 14)
    assert ours["per_joint"]["neck"] == {"pdj_02": 0, "pckh_05": 0, "count": 1}  # half the head is 5


def test_what_is_not_annotated_counts_nowhere():
    visible = np.ones((1, 14), bool)
    visible[0, J["right_wrist"]] = False
    ours = measured(moved(right_wrist=(900, 900), left_wrist=(900, 900)), visible=visible)
    assert ours["pcp_strict"] == pytest.approx(8 / 9) and ours["pdj_02"] == pytest.approx(12 / 13)
    assert np.isnan(ours["per_limb"]["right_lower_arm"]["pcp_strict"])
    visible[0, J["right_hip"]] = False  # no torso diameter: no joint can be measured
    assert np.isnan(measured(person(), visible=visible)["pdj_02"])
    assert measured(person(), visible=visible)["pckh_05"] == 1


def test_a_picture_without_a_pose_is_wrong_in_all():
    truth = np.concatenate([person(), person()])
    predicted = np.concatenate([person(), np.full((1, 14, 2), np.nan)])
    ours = measured(predicted, truth)
    assert [ours[k] for k in ("pcp_strict", "pcp_relaxed", "pdj_02", "pckh_05")] == [0.5] * 4


def test_no_pictures():
    assert np.isnan(measured(np.zeros((0, 14, 2)), np.zeros((0, 14, 2)))["pcp_strict"])


def test_of_other_joints_only_the_limbs_that_they_have_are_measured():
    """COCO has no neck and no top of the head: nine limbs, a torso, no head."""
    names = ["nose", *(name for name in pose.JOINTS if name not in ("neck", "head_top"))]
    truth = np.concatenate([np.zeros((1, 1, 2)), person()[:, [J[name] for name in names[1:]]]], axis=1)
    predicted = truth.copy()
    predicted[0, names.index("left_knee")] += 6
    found = pose.evaluate(truth, np.ones((1, 13), bool), predicted, names)
    assert found["pcp_strict"] == pytest.approx(7 / 9) and found["pdj_02"] == 1
    assert (
        np.isnan(found["pckh_05"]) and list(found["per_joint"]) == names and "head" not in found["per_limb"]
    )
    nothing = pose.evaluate(truth[:, :1], np.ones((1, 1), bool), predicted[:, :1], names[:1])
    assert np.isnan(nothing["pcp_strict"]) and np.isnan(nothing["pdj_02"]) and not nothing["per_limb"]
