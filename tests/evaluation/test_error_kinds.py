"""The kinds of errors, by hand."""

import numpy as np
import pytest
from evaluation_cases import inclusive

from tfcnn.evaluation import errors

CLASSES = ["cat", "dog", "sofa"]
OBJECT = (1, 1, 10, 10)


def kinds(objects, detections, images=4):
    """The shares of class cat."""
    truth, found = inclusive(objects, detections, images)
    return errors.breakdown(truth, found, CLASSES)[1].get("cat")


def only(kind):
    return {k: float(k == kind) for k in errors.KINDS}


@pytest.mark.parametrize(
    "objects, box, kind",
    [
        ([(0, 0, 0, *OBJECT)], (1, 1, 10, 5), "correct"),  # IoU just 0.5
        ([(0, 0, 0, *OBJECT)], (1, 1, 10, 4), "localisation"),
        ([(0, 0, 0, *OBJECT)], (1, 1, 10, 1), "localisation"),  # IoU just 0.1
        ([(0, 0, 0, *OBJECT)], (1, 1, 9, 1), "background"),  # 0.09
        ([(1, 0, 0, *OBJECT), (0, 1, 0, *OBJECT)], OBJECT, "similar"),  # a dog taken for a cat
        ([(1, 0, 0, *OBJECT), (0, 2, 0, *OBJECT)], OBJECT, "other"),  # a sofa taken for a cat
        (
            [(1, 0, 0, *OBJECT), (0, 1, 0, 1, 1, 10, 2), (0, 2, 0, *OBJECT)],
            OBJECT,
            "other",
        ),  # the sofa fits better
        (
            [(0, 0, 0, *OBJECT), (0, 1, 0, 1, 1, 10, 4)],
            (1, 1, 10, 4),
            "localisation",
        ),  # checked before similar
        ([(1, 0, 0, *OBJECT), (0, 0, 1, *OBJECT)], OBJECT, "correct"),  # a difficult cat
    ],
)
def test_one_detection(objects, box, kind):
    assert kinds(objects, [(0, 0, 0.9, *box)]) == only(kind)


def test_a_duplicate_is_a_localisation_error():
    objects = [(0, 0, 0, *OBJECT), (1, 0, 0, *OBJECT)]
    assert kinds(objects, [(0, 0, 0.9, *OBJECT), (0, 0, 0.8, *OBJECT)]) == {
        **only("correct"),
        "correct": 0.5,
        "localisation": 0.5,
    }


def test_unlike_voc_a_detection_takes_the_second_best_object():
    objects = [(0, 0, 0, *OBJECT), (0, 0, 0, 1, 4, 10, 13)]
    assert kinds(objects, [(0, 0, 0.9, *OBJECT), (0, 0, 0.8, 1, 2, 10, 11)]) == only("correct")


def test_a_detection_takes_the_best_object_and_of_equals_the_files_first():
    objects = [(0, 0, 0, 1, 1, 40, 40), (0, 0, 0, 1, 9, 40, 48)]
    low = (0, 0, 0.8, 1, 20, 40, 59)  # reaches only the second object
    assert kinds(objects, [(0, 0, 0.9, 1, 4, 40, 43), low]) == only(
        "correct"
    )  # takes the first, it is nearer
    assert kinds(objects, [(0, 0, 0.9, 1, 5, 40, 44), low]) == only("correct")  # as near to both
    assert kinds(objects[::-1], [(0, 0, 0.9, 1, 5, 40, 44), low])["localisation"] == 0.5


def test_only_as_many_detections_as_there_are_objects():
    objects = [(0, 0, 0, *OBJECT), (1, 0, 1, *OBJECT)]  # one, and a difficult one
    assert kinds(objects, [(2, 0, 0.9, *OBJECT), (0, 0, 0.8, *OBJECT)]) == only("background")


def test_the_mean_is_over_classes_with_objects_and_detections():
    objects = [(0, 0, 0, *OBJECT), (1, 1, 0, *OBJECT), (1, 2, 0, 30, 30, 50, 50)]
    truth, found = inclusive(objects, [(0, 0, 0.9, *OBJECT), (3, 1, 0.9, *OBJECT)], 4)
    mean, per_class = errors.breakdown(truth, found, CLASSES)
    assert mean == {**only("correct"), "correct": 0.5, "background": 0.5}
    assert list(per_class) == ["cat", "dog"]


def test_nothing_found_has_no_kinds():
    truth, found = inclusive([(0, 0, 0, *OBJECT)], [], 1)
    mean, per_class = errors.breakdown(truth, found, CLASSES)
    assert per_class == {} and all(np.isnan(share) for share in mean.values())


def test_similar_classes_of_voc_and_coco():
    names = ["aeroplane", "bird", "bus", "person", "cow", "chair", "diningtable", "bottle"]
    alike = errors.similar(names)
    pairs = {(names[a], names[b]) for a, b in np.argwhere(alike) if a < b}
    expected = [
        ("aeroplane", "bird"),
        ("aeroplane", "bus"),
        ("bird", "person"),
        ("bird", "cow"),
        ("person", "cow"),
    ]
    assert pairs == {*expected, ("chair", "diningtable")}
    assert not errors.similar(["RBC", "WBC"]).any()
