"""Results files: what is read, and what is said of those that cannot be."""

import json
import pathlib

import numpy as np
import pytest

from tfcnn.datasets.example import Record
from tfcnn.errors import InputError
from tfcnn.evaluation import results

CLASSES, IDS = ["cat", "potted_plant", "plant"], [17, 3, 64]


def record(image_id, file):
    return Record(image_id, file, 0, 0, lambda: b"")


@pytest.fixture
def images():
    return results.image_index([record("000012", "JPEGImages/000012.jpg"), record("b", "JPEGImages/b.jpg")])


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def entry(**changes):
    return {"image_id": "b", "category_id": 3, "bbox": [1, 2, 10, 20], "score": 0.5} | changes


def test_a_picture_is_called_by_id_or_stem_or_number(images):
    assert [images[name] for name in ("000012", 12, "JPEGImages/000012", "b")] == [0, 0, 0, 1]
    coco = results.image_index([record(7, "val/a.jpg"), record(2, "val/000007.jpg")])
    assert [coco[name] for name in (7, 2, "a", "000007", "7")] == [0, 1, 0, 1, 0]


def test_a_coco_list_keeps_its_order_and_numbers(tmp_path, images):
    path = write(
        tmp_path / "r.json", [entry(), entry(image_id=12, category_id=17, score=0.5, bbox=[0.1, 0, 700, 1])]
    )
    table, notes = results.read(path, images, CLASSES, IDS)
    assert table.image.tolist() == [1, 0] and table.label.tolist() == [1, 0] and notes == []
    assert table.boxes.tolist() == [[1, 2, 11, 22], [0.1, 0, 700.1, 1]] and table.box_areas.tolist() == [
        200,
        700,
    ]
    assert table.boxes.dtype == np.float64


def test_an_empty_list_is_no_detections(tmp_path, images):
    table, _ = results.read(write(tmp_path / "r.json", []), images, CLASSES, IDS)
    assert len(table) == 0 and table.boxes.shape == (0, 4)


def test_categories_beside_the_list_name_its_classes(tmp_path, images):
    write(tmp_path / "categories.json", [{"id": 1, "name": "plant"}, {"id": 2, "name": "dragon"}])
    path = write(tmp_path / "detections.json", [entry(category_id=1), entry(category_id=2)])
    table, notes = results.read(path, images, CLASSES, IDS)
    assert table.label.tolist() == [2]
    assert len(notes) == 1 and "1 detections of unknown category_id (2)" in notes[0]
    folder, _ = results.read(str(tmp_path), images, CLASSES, IDS)
    assert folder.label.tolist() == [2]


@pytest.mark.parametrize(
    "content, message",
    [
        ("{nonsense", "is not JSON"),
        ({"annotations": []}, "is no COCO results list"),
        ([entry(), {"image_id": 1}], "entry 2 has no category_id"),
        ([entry(), 5], "entry 2 has no image_id"),
        ([entry(), entry(bbox=[1, 2, 3])], r"bbox of entry 2 is not 4 finite numbers: \[1, 2, 3\]"),
        ([entry(bbox=[1, 2, 3, "x"])], "bbox of entry 1"),
        ('[{"image_id": "b", "category_id": 3, "bbox": [1, 2, 3, NaN], "score": 1}]', "bbox of entry 1"),
        ([entry(score=None)], "score of entry 1 is not a finite number: null"),
        ([entry(score=[0.5])], "score of entry 1"),
        (
            [entry(), entry(image_id="elsewhere")],
            "names pictures that are not in this split .1, such as elsewhere",
        ),
        ([entry(image_id=["b"])], "neither a number nor a text"),
        ([entry(category_id=5)], "no category_id is the data set's: 5 here, 17, 3, 64 there"),
    ],
)
def test_what_is_said_of_a_list_that_is_none(tmp_path, images, content, message):
    with pytest.raises(InputError, match=message):
        results.read(write(tmp_path / "r.json", content), images, CLASSES, IDS)


def devkit(folder):
    folder.mkdir()
    write(folder / "comp3_det_test_cat.txt", "000012 0.5 1 1 10 20\n\nb 0.25 3.5 4 5 6.25\n")
    write(folder / "comp3_det_test_potted_plant.txt", "")
    write(folder / "comp3_det_test_plant.txt", "b 1e-3 1 2 3 4")
    return folder


@pytest.mark.parametrize("form", ["{}", "{}/*.txt", "{}/comp3_det_test_%s.txt", "{}/comp3_det_*_CLASS.txt"])
def test_the_devkits_files_are_1_based_and_inclusive(tmp_path, images, form):
    folder = devkit(tmp_path / "Main")
    table, notes = results.read(form.format(folder), images, CLASSES, IDS)
    assert table.label.tolist() == [0, 0, 2] and table.image.tolist() == [0, 1, 1] and notes == []
    assert table.score.tolist() == [0.5, 0.25, 0.001]
    assert table.boxes.tolist() == [[0, 0, 10, 20], [2.5, 3, 5, 6.25], [0, 1, 3, 4]]
    assert table.box_areas.tolist() == [200, 2.5 * 3.25, 9]


def test_one_file_of_the_devkit_is_one_class_and_the_others_are_named(tmp_path, images):
    folder = devkit(tmp_path / "Main")
    table, notes = results.read(str(folder / "comp3_det_test_plant.txt"), images, CLASSES, IDS)
    assert table.label.tolist() == [2] and "cat, potted_plant" in notes[0]


@pytest.mark.parametrize(
    "name, line, message",
    [
        ("x_cat.txt", "b 0.5 1 2 3", "not `image score xmin ymin xmax ymax`: b 0.5 1 2 3"),
        ("x_cat.txt", "b 0.5 1 2 3 four", "not `image score"),
        ("x_cat.txt", "b nan 1 2 3 4", "not `image score"),
        ("x_cat.txt", "c 0.5 1 2 3 4", "pictures that are not in this split .1, such as c"),
        ("x_dragon.txt", "b 0.5 1 2 3 4", "no known class"),
    ],
)
def test_what_is_said_of_a_devkit_file_that_is_none(tmp_path, images, name, line, message):
    path = write(tmp_path / name, "000012 0.5 1 2 3 4\n" + line + "\n")
    with pytest.raises(InputError, match=message):
        results.read(path, images, CLASSES, IDS)


def test_two_files_of_one_class_and_no_file_at_all(tmp_path, images):
    for name in ("a_cat.txt", "b_cat.txt"):
        write(tmp_path / name, "b 0.5 1 2 3 4")
    with pytest.raises(InputError, match="two files of class cat"):
        results.read(str(tmp_path), images, CLASSES, IDS)
    with pytest.raises(InputError, match="No results at"):
        results.read(str(tmp_path / "none_*.txt"), images, CLASSES, IDS)
    with pytest.raises(InputError, match="cannot be read"):
        results.load(pathlib.Path(tmp_path / "none.json"))


def test_poses_take_the_best_of_a_picture_and_the_first_of_equals(images):
    def pose(x, **more):
        return {"image_id": "b", "category_id": 1, "keypoints": [x, 2, 1, 3, 4, 0]} | more

    found = results.poses([pose(1, score=0.5), pose(2, score=0.9), pose(3, score=0.9)], images, 2)
    assert np.isnan(found[0]).all() and found[1].tolist() == [[2, 2], [3, 4]]
    assert results.poses([pose(1), pose(2)], images, 2)[1, 0, 0] == 1
    app = {
        "images": [
            {"file": "x/b.jpg", "persons": [{"joints": [[5, 6], [7, 8]]}, {"joints": [[0, 0], [0, 0]]}]}
        ]
    }
    assert results.poses(app, images, 2)[1].tolist() == [[5, 6], [7, 8]]
    with pytest.raises(InputError, match="keypoints of entry 1 is not 6 finite numbers"):
        results.poses([pose(1, keypoints=[1, 2, 3])], images, 2)


def test_the_devkits_files_cannot_tell_classes_of_one_name_apart(tmp_path):
    (tmp_path / "det_car.txt").write_text("a 0.5 1 1 2 2\n")
    with pytest.raises(InputError, match="several classes are named car"):
        results.read(str(tmp_path), {"a": 0}, ["car", "car"], [0, 1])


@pytest.mark.parametrize(
    "entry",
    [
        {"bbox": [0, 0, 10**400, 1]},
        {"score": 10**400},
        {"score": float("inf")},
        {"score": True},
        {"score": "0.5"},
        {"score": None},
        {"bbox": [0, 0, 1, "1"]},
        {"bbox": [0, 0, 1, False]},
        {"bbox": [[0, 0, 1, 1]]},
        {"bbox": [0, 0, 1]},
        {"bbox": [0, 0, float("nan"), 1]},
        {"category_id": [1]},
        {"image_id": {}},
    ],
)
def test_a_value_that_is_none_is_one_line_with_its_field(entry):
    whole = {"image_id": "a", "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5} | entry
    with pytest.raises(InputError, match=next(iter(entry))):
        results.coco_results([whole], {"a": 0}, {1: 0})


def test_a_list_made_in_python_may_hold_numpys_numbers():
    whole = {
        "image_id": np.int64(7),
        "category_id": np.int64(1),
        "bbox": [np.float32(2.5)] * 4,
        "score": np.float64(0.5),
    }
    table, _ = results.coco_results([whole], {7: 0}, {1: 0})
    assert table.boxes.tolist() == [[2.5, 2.5, 5.0, 5.0]] and table.score.tolist() == [0.5]
    for value in (np.float32("nan"), np.bool_(True), "0.5"):
        with pytest.raises(InputError, match="score of entry 1 is not a finite number"):
            results.coco_results([whole | {"score": value}], {7: 0}, {1: 0})


def test_brackets_without_end_are_no_results(tmp_path):
    (tmp_path / "r.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="nested too deep"):
        results.load(tmp_path / "r.json")


@pytest.mark.parametrize(
    "pictures",
    [
        None,
        [1],
        [{"file": 1, "persons": [{"joints": []}]}],
        [{"file": "a", "persons": [{"joints": 3}]}],
        [{"file": "a", "detections": []}],
    ],
)
def test_a_run_of_app_pose_that_is_none_is_one_line(pictures):
    with pytest.raises(InputError, match="persons"):
        results.poses({"images": pictures}, {"a": 0}, 2)
