"""Classes are ids: names that repeat are told apart, and matched with a model's by name, id, or objects."""

import numpy as np
import pytest

from tfcnn import datasets
from tfcnn.datasets import statistics
from tfcnn.datasets.classes import distinct, joined, match, united
from tfcnn.datasets.example import Dataset, Record, Truth
from tfcnn.errors import InputError

# A root category with the name of its only child, as Roboflow exports it.
NAMES, IDS = ["car", "car", "dog"], [0, 1, 4]


def test_equal_names_are_told_apart_by_their_ids():
    assert distinct(NAMES, IDS) == ["car (id 0)", "car (id 1)", "dog"]
    assert distinct(NAMES) == ["car (id 0)", "car (id 1)", "dog"] == distinct(distinct(NAMES))


def test_a_models_class_is_that_of_the_same_name_and_of_several_that_of_the_same_id():
    assert match(["dog", "car", "cat"], [1, 2, 3], ["car", "dog"], [7, 9], {0}) == [1, 0, -1]
    assert match(NAMES, IDS, NAMES, IDS, {1}) == [0, 1, 2]


def test_of_several_classes_with_a_name_and_other_ids_the_one_with_objects_is_meant():
    assert match(["car"], [7], NAMES, IDS, {1, 2}) == [1]
    for present in ({0, 1}, {2}):
        with pytest.raises(InputError, match=r"several classes named 'car' \(ids 0, 1\)"):
            match(["car"], [7], NAMES, IDS, present)


@pytest.fixture
def cars():
    boxes = np.array([[0, 0, 5, 5], [0, 0, 15, 9]], np.float32)
    record = Record("a", "a.jpg", 20, 20, lambda: b"", boxes, np.array([1, 1], np.int32))
    return Dataset("coco", ["猫", "猫", "$a_$"], [0, 1, 2], [record])


def test_statistics_count_equal_names_apart(cars):
    per_class = statistics.summary(cars)["per_class"]
    assert [(name, row["objects"]) for name, row in per_class.items()] == [
        ("猫 (id 0)", 0),
        ("猫 (id 1)", 2),
        ("$a_$", 0),
    ]


def test_statistics_draw_any_name_without_a_warning(cars, recwarn):
    statistics.figure(cars)
    assert [str(each.message) for each in recwarn] == []


def part(names, ids, labels):
    boxes = np.tile(np.float32([[0, 0, 2, 2]]), (len(labels), 1))
    labels = np.array(labels, np.int32)
    truth = Truth(boxes, labels, labels, labels, labels > 9)
    record = Record("a", "a", 4, 4, bytes, boxes, labels, label=len(names) - 1, truth=truth)
    return Dataset("coco", names, ids, [record, Record("b", "b", 4, 4, bytes)])


def test_parts_are_trained_on_the_classes_of_both():
    train, val = united([part(["cat", "dog"], [3, 7], [0, 1]), part(["ant", "dog"], [1, 7], [1])])
    assert train.classes == val.classes == ["ant", "cat", "dog"] and train.category_ids == [1, 3, 7]
    for data, labels in ((train, [1, 2]), (val, [2])):
        record, empty = data.examples
        assert record.labels.tolist() == labels == record.truth.labels.tolist()
        assert record.label == 2 and empty.label == -1 and empty.truth is None
    assert [finding["why"] for finding in train.broken + val.broken] == [
        "no class ant here, but in another part",
        "no class cat here, but in another part",
    ]
    same = [part(["cat"], [1], []), part(["cat"], [1], [])]
    assert united(same) == same


def test_parts_that_mean_other_classes():
    with pytest.raises(InputError, match="id 3 is cat in one and dog in another"):
        united([part(["cat"], [3], []), part(["dog"], [3], [])])


def test_parts_are_joined_one_after_the_other():
    one, other = part(["cat", "dog"], [3, 7], [0, 1]), part(["ant", "dog"], [1, 7], [1])
    for record in other.examples:
        record.image_id += "2"
    both = joined([one, other], "train+val")
    assert [record.image_id for record in both.examples] == ["a", "b", "a2", "b2"]
    assert both.classes == ["ant", "cat", "dog"] and both.category_ids == [1, 3, 7]
    assert [record.labels.tolist() for record in both.examples] == [[1, 2], [], [2], []]
    assert len(both.broken) == 2
    with pytest.raises(InputError, match="train\\+val: the picture a lies in two of these parts"):
        joined([one, part(["cat"], [3], [])], "train+val")
    for number, dataset in enumerate((one, other)):
        for record in dataset.examples:
            record.image_id, record.file = 7, f"{number}/{record.file}"
        del dataset.examples[1:]
    with pytest.raises(InputError, match="train\\+val: 7 is the id of two pictures, 0/a and 1/a"):
        joined([one, other], "train+val")

    whole = datasets.open("shapes", split="train[:5]+val")
    assert [record.image_id for record in whole.examples][4:6] == ["train-00004", "val-00000"]
    assert len(whole) == 505
