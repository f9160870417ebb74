"""The result type of detectors."""

import numpy as np
import pytest

from tfcnn.detections import Detections


def some():
    boxes = [[0, 0, 10, 10], [5, 5, 8, 9], [-3, 2, 4, 600]]
    return Detections(np.array(boxes, np.float32), np.float32([0.2, 0.9, 0.2]), [1, 0, 2])


def test_sorted_by_score_and_equal_scores_keep_their_order():
    found = some()
    assert found.labels.tolist() == [0, 1, 2]
    assert found.scores.tolist() == [np.float32(0.9), np.float32(0.2), np.float32(0.2)]
    assert found.boxes[2].tolist() == [-3, 2, 4, 600]  # not clipped
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float64, np.float64, np.int32)


def test_many_equal_scores_keep_their_order():
    found = Detections(np.zeros((500, 4)), np.arange(500) % 2, np.arange(500))
    assert found.labels.tolist() == [*range(1, 500, 2), *range(0, 500, 2)]


def test_top_takes_the_best():
    assert some().top(2).labels.tolist() == [0, 1]
    assert len(some().top(0)) == 0 and len(some().top(9)) == 3


def test_to_coco_and_back():
    entries = some().to_coco(17, category_ids=[5, 90, 3])
    assert entries[0] == {"image_id": 17, "category_id": 5, "bbox": [5, 5, 3, 4], "score": np.float32(0.9)}
    assert [type(value) for value in (entries[0]["score"], entries[0]["bbox"][0])] == [float, float]
    back = Detections.from_coco(entries, category_ids=[5, 90, 3])
    for name in ("boxes", "scores", "labels"):
        assert np.array_equal(getattr(back, name), getattr(some(), name))


def test_category_is_the_index_plus_1_where_the_data_set_has_no_ids():
    entries = some().to_coco("000012")
    assert [entry["category_id"] for entry in entries] == [1, 2, 3]
    assert Detections.from_coco(entries).labels.tolist() == [0, 1, 2]
    with pytest.raises(KeyError):
        Detections.from_coco(entries, category_ids=[1, 2])


def test_nothing_found():
    assert len(Detections.empty()) == 0
    assert Detections.empty().to_coco(1) == []
    assert Detections.from_coco([]).boxes.shape == (0, 4)
    assert Detections([], [], []).boxes.shape == (0, 4)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="1 boxes, 2 scores and 1 labels"):
        Detections([[0, 0, 1, 1]], [0.5, 0.4], [0])
