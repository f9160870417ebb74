"""The result type of detectors."""

import numpy as np
import pytest

from tfcnn import masks
from tfcnn.detections import Detections
from tfcnn.images import Placement


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


def with_masks():
    """Two detections whose masks are told apart by their size in pixels: the better one has 6, the other 20."""
    shown = np.zeros((2, 8, 10), bool)
    shown[0, 2:6, 1:6], shown[1, :2, :3] = True, True
    return Detections(
        [[1, 2, 6, 6], [0, 0, 3, 2]], [0.3, 0.9], [0, 1], masks=[masks.encode(m) for m in shown]
    )


def sizes(found):
    return [int(mask.sum()) for mask in found.bitmaps()]


def test_masks_go_where_their_boxes_go():
    found = with_masks()
    assert sizes(found) == [6, 20] and sizes(found.top(1)) == [6]
    assert sizes(found.take(found.labels == 0)) == [20]
    other = found.relabelled([2, -1], ["a", "b", "c"])
    assert other.labels.tolist() == [2] and sizes(other) == [20] and list(other.names) == ["a", "b", "c"]
    half = found.to_file(Placement(0.5, 0.5))
    assert sizes(half) == [24, 80] and half.boxes[1].tolist() == [2, 4, 12, 12]
    assert list(some().bitmaps()) == [] and some().top(2).masks is None


def test_masks_to_coco_and_back():
    entries = with_masks().to_coco(4)
    assert entries[0]["segmentation"]["size"] == [8, 10] and type(entries[0]["segmentation"]["counts"]) is str
    assert sizes(Detections.from_coco(entries)) == [6, 20]
    assert Detections.from_coco([entries[0], some().to_coco(4)[0]]).masks is None
    assert "segmentation" not in some().to_coco(4)[0]


def test_one_mask_a_detection():
    with pytest.raises(ValueError, match="1 boxes and 0 masks"):
        Detections([[0, 0, 1, 1]], [0.5], [0], masks=[])


def test_masks_are_drawn_below_their_boxes():
    image = np.zeros((90, 120, 3), np.uint8)
    shown = np.zeros((90, 120), bool)
    shown[30:80, 20:100] = True
    found = Detections([[20, 30, 100, 80]], [0.9], [3], masks=[masks.encode(shown)])
    plain = Detections(found.boxes, found.scores, found.labels).draw(image)
    drawn = found.draw(image)
    assert not plain[60, 60].any() and drawn[60, 60].any()
    np.testing.assert_array_equal(drawn[~shown], plain[~shown])
