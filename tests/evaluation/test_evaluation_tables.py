"""Records and detections as flat tables."""

import numpy as np

from tfcnn import datasets
from tfcnn.datasets.example import Record, Truth
from tfcnn.detections import Detections
from tfcnn.evaluation import tables, voc


def test_truth_as_written_comes_before_the_boxes_for_training():
    ones = np.ones(1)
    truth = Truth(np.array([[0.1, 0, 700.1, 1]]), 700 * ones, 12 * ones, np.array([4]), np.array([True]))
    written = Record(7, "a.jpg", 9, 9, lambda: b"", truth=truth)
    drawn = Record(
        "b", "b", 9, 9, lambda: b"", boxes=np.float32([[1, 2, 4, 6], [0, 0, 2, 2]]), labels=np.int32([2, 3])
    )
    empty = Record("c", "c", 9, 9, lambda: b"")
    table = tables.truth_table([empty, written, drawn])
    assert (
        table.images == ["c", 7, "b"]
        and table.image.tolist() == [1, 2, 2]
        and table.label.tolist() == [4, 2, 3]
    )
    assert table.boxes.tolist() == [[0.1, 0, 700.1, 1], [1, 2, 4, 6], [0, 0, 2, 2]]
    assert table.box_areas.tolist() == [700, 12, 4] and table.areas.tolist() == [12, 12, 4]
    assert table.ignored.tolist() == [True, False, False]
    nothing = tables.truth_table([])
    assert len(nothing) == 0 and nothing.boxes.shape == (0, 4)


def test_detections_by_picture_in_the_order_of_the_pictures():
    found = {"b": Detections([[0, 0, 2, 3]], [0.5], [1]), "x": Detections([[0, 0, 1, 1]], [0.9], [0])}
    table = tables.result_table(found, ["a", "b"])
    assert table.image.tolist() == [1] and table.label.tolist() == [1] and table.box_areas.tolist() == [6]
    assert len(tables.result_table({}, ["a"])) == 0


def test_a_trainer_measures_the_synthetic_set_by_its_records():
    shapes = datasets.open("shapes")
    records = shapes.examples[:20]
    found = {r.image_id: Detections(r.boxes, np.ones(len(r.boxes)), r.labels) for r in records}
    assert voc.evaluate(records, found, shapes.classes)["map_11"] == 1
    assert voc.evaluate(records, {}, shapes.classes)["map_11"] == 0
