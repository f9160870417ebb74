"""Rules for broken boxes."""

import dataset_layouts as layouts
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfcnn.datasets.example import Record, checked_boxes, evenly


def check(box, width=40, height=30, slack=0.5):
    broken = []
    boxes, kept = checked_boxes(np.array([box]), ["cat"], width, height, "f.xml", broken, slack)
    assert boxes.dtype == np.float32 and len(boxes) == len(kept)
    return boxes.tolist(), [(finding["why"].split(") ")[1], finding["rule"]) for finding in broken]


def test_each_rule():
    assert check([1, 2, 3, 4]) == ([[1, 2, 3, 4]], [])
    assert check([0, 0, 40, 30]) == ([[0, 0, 40, 30]], [])
    assert check([3, 2, 1, 4]) == ([], [("is inverted", "object skipped")])
    assert check([1, 2, 1, 4]) == ([], [("is empty", "object skipped")])
    assert check([50, 2, 60, 4]) == ([], [("lies outside the picture of 40x30", "object skipped")])
    assert check([-9, 2, 60, 4]) == ([[0, 2, 40, 4]], [("sticks out of the picture of 40x30", "box clipped")])
    assert check([np.nan, 2, 3, 4]) == ([], [("is not finite", "object skipped")])
    assert check([1, 2, np.inf, 4]) == ([], [("is not finite", "object skipped")])


def test_rounding_is_clipped_in_silence():
    assert check([0, 0, 40.4, 30]) == ([[0, 0, 40, 30]], [])
    assert check([0, 0, 41, 30], slack=1) == ([[0, 0, 40, 30]], [])
    assert len(check([0, 0, 41, 30])[1]) == 1


def test_unknown_size_clips_nothing():
    assert check([-9, 2, 60, 4], 0, 0) == ([[-9, 2, 60, 4]], [])
    assert check([3, 2, 1, 4], 0, 0) == ([], [("is inverted", "object skipped")])


def test_report_names_file_object_and_numbers():
    broken = []
    boxes = np.array([[1, 1, 2, 2], [5, 5, 4, 9], [0, 0, 99, 9]])
    kept = checked_boxes(boxes, ["a", "b", "c"], 40, 30, "f.xml", broken)[1]
    assert kept.tolist() == [0, 2]
    assert broken[0] == {
        "file": "f.xml",
        "why": "box [5, 5, 4, 9] of object 2 (b) is inverted",
        "rule": "object skipped",
    }
    assert "object 3 (c)" in broken[1]["why"]


numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=5))
def test_what_is_kept_lies_inside_and_is_not_empty(boxes):
    kept, _ = checked_boxes(np.array(boxes).reshape(-1, 4), ["x"] * len(boxes), 40, 30, "f", [])
    assert np.isfinite(kept).all()
    assert (kept >= 0).all() and (kept <= [40, 30, 40, 30]).all()
    assert (kept[:, 2:] > kept[:, :2]).all()


def test_record_fills_in():
    record = Record(
        1, "f", 9, 9, lambda: np.zeros((9, 9, 3), np.uint8), np.float32([[0, 0, 2, 3], [1, 1, 2, 2]])
    )
    assert record.labels.tolist() == [0, 0] and record.area.tolist() == [6, 1]
    assert record.difficult.tolist() == record.crowd.tolist() == record.truncated.tolist() == [False, False]
    assert record.image().shape == (9, 9, 3)
    assert Record(1, "f", 9, 9, bytes).boxes.shape == (0, 4)


def read(folder):
    from tfcnn import datasets

    return datasets.open("voc", folder, "trainval")


def test_a_fingerprint_says_what_differs(tmp_path):
    folder = layouts.voc(tmp_path / "set")
    first = read(folder).fingerprint()
    assert first.startswith("3 pictures, classes ") and read(folder).fingerprint() == first
    assert read(layouts.zipped(folder, tmp_path / "set.zip")).fingerprint() == first

    def changed(**files):
        before = {name: (folder / name).read_bytes() for name in files}
        layouts.write(folder, files)
        after = read(folder).fingerprint()
        layouts.write(folder, before)
        return [a.split()[0] for a, b in zip(first.split(", "), after.split(", "), strict=True) if a != b]

    moved = layouts.voc_xml([("cat", 5, 5, 9, 9, 0)])
    assert changed(**{"Annotations/two.xml": moved}) == ["objects"]
    bytes_more = (folder / "JPEGImages/one.jpg").read_bytes() + b"0"
    assert changed(**{"JPEGImages/one.jpg": bytes_more}) == ["files"]
    assert changed(**{"ImageSets/Main/trainval.txt": "one\ntwo\n"}) == ["3", "objects", "files"]
    layouts.write(folder, {"categories.json": '[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]'})
    assert read(folder).fingerprint().split(", ")[1] != first.split(", ")[1]


def test_a_fingerprint_of_renamed_classes(tmp_path):
    from tfcnn import datasets

    folder = layouts.classes(tmp_path / "set")
    first = datasets.open("folder", folder, "train").fingerprint()
    (folder / "train/ants").rename(folder / "train/wasps")
    assert datasets.open("folder", folder, "train").fingerprint() != first
    assert datasets.open("digits").fingerprint() == datasets.open("digits").fingerprint()


@pytest.mark.parametrize("count", [1, 3, 6, 7, 10, 11])
def test_evenly_spread_items_reach_from_the_first_to_near_the_last(count):
    items = list(range(10))
    found = evenly(items, count)
    assert len(found) == min(count, 10) and found[0] == 0 and found == sorted(set(found))
    assert found[-1] >= 10 - -(-10 // count)
