"""Which objects of a picture are learned, and where they lie in the net's picture."""

import numpy as np
import pytest

from tfcnn.datasets.example import Dataset, Record
from tfcnn.errors import InputError
from tfcnn.localization.targets import largest_objects, unit_boxes

BOXES = np.float32([[0, 0, 10, 10], [0, 0, 40, 20], [10, 0, 30, 15], [0, 0, 80, 40]])


def dataset(*records):
    return Dataset("made", ["a", "b", "c", "d"], [1, 2, 3, 4], list(records))


def record(boxes=BOXES, side=(80, 40), **fields):
    width, height = side
    picture = np.zeros((40, 80, 3), np.uint8)
    labels = np.arange(len(boxes), dtype=np.int32)
    fields = {"labels": labels, **fields}
    return Record(f"{len(boxes)}", "file", width, height, lambda: picture, boxes=boxes, **fields)


def test_the_largest_objects_come_first_and_the_picture_has_the_class_of_the_first():
    (found,) = largest_objects(dataset(record()), 3).examples
    assert found.labels.tolist() == [3, 1, 2] and found.label == 3
    assert found.boxes.tolist() == BOXES[[3, 1, 2]].tolist() == found.truth.boxes.tolist()
    (found,) = largest_objects(dataset(record(label=2)), 1).examples
    assert found.label == 2


def test_difficult_objects_and_crowds_are_not_learned():
    hard = {"difficult": np.array([0, 0, 0, 1], bool), "crowd": np.array([0, 1, 0, 0], bool)}
    (found,) = largest_objects(dataset(record(**hard)), 4).examples
    assert found.labels.tolist() == [2, 0] and not found.difficult.any()


def test_what_is_left_out_is_counted():
    said = []
    data = dataset(
        record(), record(BOXES[:0]), record(BOXES[:1], difficult=np.array([True])), record(BOXES[:2])
    )
    assert [each.image_id for each in largest_objects(data, 1, said.append).examples] == ["4", "2"]
    assert said == [
        "2 of 4 pictures have no object to learn, and are left out",
        "4 objects beyond the 1 largest of their pictures are left out",
    ]
    said.clear()
    largest_objects(dataset(record()), 4, said.append)
    assert said == []


def test_pictures_with_exactly_so_many_objects():
    said, data = [], dataset(record(), record(BOXES[:0]), record(BOXES[:1]), record(BOXES[:2]))
    assert [each.image_id for each in largest_objects(data, 2, said.append, exactly=True).examples] == ["2"]
    assert said == ["3 of 4 pictures have not exactly 2 objects to learn, and are left out"]
    hard = record(BOXES[:2], difficult=np.array([True, False]))
    with pytest.raises(InputError, match="exactly 2 objects"):
        largest_objects(dataset(hard), 2, exactly=True)


def test_a_set_without_boxes_is_refused():
    with pytest.raises(InputError, match="The made data set has no boxes"):
        largest_objects(dataset(record(BOXES[:0])), 1)


def test_unit_boxes_are_fractions_of_the_nets_picture():
    data = largest_objects(dataset(record(BOXES[1:3])), 3)
    (boxes,) = unit_boxes(data, 32, "stretch", 3)
    assert boxes == pytest.approx(np.array([[0, 0, 0.5, 0.5], [0.125, 0, 0.375, 0.375], [0, 0, 0, 0]]))
    (boxes,) = unit_boxes(data, 32, "letterbox", 1 + 1)
    assert boxes == pytest.approx(np.array([[0, 0.25, 0.5, 0.5], [0.125, 0.25, 0.375, 0.4375]]))


def test_boxes_of_a_picture_that_was_made_smaller_are_scaled_with_it():
    data = largest_objects(dataset(record(2 * BOXES[1:2], side=(160, 80))), 1)
    assert unit_boxes(data, 32, "stretch", 1)[0] == pytest.approx(np.array([[0, 0, 0.5, 0.5]]))
