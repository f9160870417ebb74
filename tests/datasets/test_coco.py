"""COCO's layout and masks, by hand, against pycocotools and on real data."""

import json

import dataset_layouts as layouts
import numpy as np
import pytest

from tfcnn.datasets import coco, masks
from tfcnn.errors import InputError


@pytest.fixture
def folder(tmp_path):
    return layouts.coco(tmp_path / "coco")


def rewrite(folder, change):
    content = layouts.coco_json()
    change(content)
    layouts.write(folder, {"annotations/instances_val2017.json": json.dumps(content)})


def test_by_hand(folder):
    data = coco.read(folder, "val2017")
    assert data.classes == ["person", "toothbrush"] and data.category_ids == [3, 90]
    assert data.joints == ["left_eye", "right_eye"] and not data.broken
    a, b = data.examples
    assert (a.image_id, a.file, a.width, a.height) == (7, "val2017/a.jpg", 40, 30)
    assert a.boxes.tolist() == [[10, 5, 20, 15], [0, 0, 2, 30]]
    assert a.labels.tolist() == [0, 1] and a.crowd.tolist() == [False, True] and a.area.tolist() == [100, 60]
    assert a.joints.tolist() == [[[12, 6, 2], [18, 6, 1]], [[0, 0, 0], [0, 0, 0]]]
    drawn = a.masks()
    expected = np.zeros((2, 30, 40), bool)
    expected[0, 5:15, 10:20] = True
    expected[1, :, :2] = True  # run lengths go down the columns
    np.testing.assert_array_equal(drawn, expected)
    assert b.boxes.shape == (0, 4) and b.joints.shape == (0, 2, 3) and b.masks is None
    assert a.image().shape == (30, 40, 3)
    assert a.truth.boxes.tolist() == [[10, 5, 20, 15], [0, 0, 2, 30]] and a.truth.ignored.tolist() == [
        False,
        True,
    ]


def test_split_names(folder, tmp_path):
    assert len(coco.read(folder)) == len(coco.read(folder, "val")) == len(coco.read(tmp_path, "val2017")) == 2
    assert len(coco.read(layouts.zipped(folder, tmp_path / "coco.zip"), "val")) == 2
    with pytest.raises(InputError, match="has the splits val2017: name one, not train"):
        coco.read(folder, "train")
    layouts.write(folder, {"annotations/instances_val2014.json": json.dumps(layouts.coco_json())})
    with pytest.raises(InputError, match="val2014, val2017: name one, not val"):
        coco.read(folder, "val")
    with pytest.raises(InputError, match="name one, not none"):
        coco.read(folder)


def test_annotations_alone(folder, tmp_path):
    file = folder / "annotations/instances_val2017.json"
    data = coco.read(None, annotations=file)
    assert len(data) == 2 and data.examples[0].file == "a.jpg"
    with pytest.raises(InputError, match="read without its pictures"):
        data.examples[0].image()
    other = tmp_path / "mine.json"
    other.write_bytes(file.read_bytes())
    assert coco.read(folder, annotations=other).examples[0].image().shape == (30, 40, 3)
    assert (
        coco.read(tmp_path, annotations="annotations/instances_val2017.json").examples[0].file
        == "val2017/a.jpg"
    )
    with pytest.raises(InputError, match="No annotation file at absent.json"):
        coco.read(None, annotations="absent.json")


def test_annotations_beside_the_pictures(tmp_path):
    files = {"train/_annotations.coco.json": json.dumps(layouts.coco_json())}
    files |= {f"train/{name}.jpg": layouts.encoded(layouts.picture(40, 30)) for name in "ab"}
    data = coco.read(layouts.write(tmp_path / "set", files), "train")
    assert [record.file for record in data.examples] == ["train/a.jpg", "train/b.jpg"]


def test_broken(folder):
    def change(content):
        box = content["annotations"][0]
        content["annotations"] += [
            {**box, "id": 0},
            {**box, "id": 3, "image_id": 8},
            {**box, "id": 4, "category_id": 1},
            {**box, "id": 5, "bbox": [1, 2, 3]},
            {**box, "id": 6, "bbox": [1, 2, float("nan"), 3]},
            {**box, "id": 7, "bbox": [1, 2, -3, 3]},
            {**box, "id": 8, "bbox": [35, 2, 30, 3]},
            {**box, "id": 8},
        ]
        content["images"] += [content["images"][0], {"id": 10, "file_name": "c.jpg", "width": 4, "height": 4}]

    rewrite(folder, change)
    data = coco.read(folder)
    assert [record.image_id for record in data.examples] == [7, 9]
    assert data.examples[0].boxes.tolist() == [
        [10, 5, 20, 15],
        [0, 0, 2, 30],
        [10, 5, 20, 15],
        [35, 2, 40, 5],
        [10, 5, 20, 15],
    ]
    assert data.examples[0].joints.shape == (5, 2, 3) and data.examples[0].masks().shape == (5, 30, 40)
    found = {finding["why"]: finding["rule"] for finding in data.broken}
    assert found == {
        "annotation has id 0, which pycocotools counts as unmatched": "object kept",
        "annotation 3 is of picture 8, which is not listed": "object skipped",
        "annotation 4 has unknown category 1": "object skipped",
        "annotation 5 has no box of four numbers": "object skipped",
        "annotation 6 has no box of four numbers": "object skipped",
        "box [1, 2, -2, 5] of object 4 (annotation 7) is inverted": "object skipped",
        "box [35, 2, 65, 5] of object 5 (annotation 8) sticks out of the picture of 40x30": "box clipped",
        "annotation id 8 comes twice": "object kept",
        "picture id 7 comes twice": "picture skipped",
        "the picture is missing": "picture skipped",
    }
    assert (
        len(data.examples[0].truth.boxes) == 6
    )  # evaluation counts the file's numbers, the inverted box too


@pytest.mark.parametrize("text", ["{", "[]", '{"images": [], "annotations": []}'])
def test_what_is_not_cocos(folder, text):
    layouts.write(folder, {"annotations/instances_val2017.json": text})
    with pytest.raises(InputError, match="is no JSON|is not COCO's JSON"):
        coco.read(folder)


def test_coco_part(data):
    read = coco.read(data("coco-part.zip"))
    assert len(read) == 128 and len(read.classes) == 80 and not read.broken
    assert sum(len(record.boxes) for record in read.examples) == 987
    assert sum(record.crowd.sum() for record in read.examples) == 10
    assert sum(not len(record.boxes) for record in read.examples) == 2
    people = coco.read(data("coco-part.zip"), annotations="annotations/person_keypoints_val2017.json")
    assert sum((record.joints[..., 2] > 0).any(1).sum() for record in people.examples) == 112


def test_masks_of_coco_part_have_the_annotated_areas(data):
    drawn, annotated = [], []
    for record in coco.read(data("coco-part.zip")).examples[:40]:
        if record.masks:
            drawn += record.masks().sum((1, 2)).tolist()
            annotated += record.area.tolist()
    drawn, annotated = np.array(drawn), np.array(annotated)
    large = annotated > 200
    assert large.sum() > 100
    assert np.abs(drawn[large] / annotated[large] - 1).max() < 0.12
    assert abs(drawn[large].sum() / annotated[large].sum() - 1) < 0.005


def test_polygon_takes_pixels_whose_middle_is_inside():
    triangle = [np.array([0, 0, 4, 0, 0, 4])]
    expected = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    ours = masks.from_polygons(triangle, 4, 4)
    rows, columns = np.mgrid[:4, :4] + 0.5
    on_edge = rows + columns == 4
    np.testing.assert_array_equal(ours[~on_edge], np.array(expected, bool)[~on_edge])
    ring = np.array([0, 0, 6, 0, 6, 6, 0, 6, 0, 0, 2, 2, 2, 4, 4, 4, 4, 2, 2, 2])
    drawn = masks.from_polygons([ring], 6, 6)
    assert drawn.sum() == 36 - 4 and not drawn[2:4, 2:4].any()
    assert masks.from_polygons([np.array([-5, -5, 50, -5, 50, 50, -5, 50])], 3, 4).all()


def test_polygons_agree_with_a_loop_over_points():
    rng = np.random.default_rng(0)
    for _ in range(20):
        polygon = rng.uniform(-2, 14, (rng.integers(3, 8), 2))
        ours = masks.from_polygons([polygon.ravel()], 10, 12)
        for y in range(10):
            for x in range(12):
                inside = False
                for (xa, ya), (xb, yb) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
                    if (ya > y + 0.5) != (yb > y + 0.5):
                        inside ^= x + 0.5 > xa + (y + 0.5 - ya) * (xb - xa) / (yb - ya)
                assert ours[y, x] == inside


def test_run_lengths_equal_pycocotools():
    official = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(1)
    for height, width in ((1, 1), (7, 5), (40, 300), (200, 150)):
        for share in (0.0, 0.05, 0.5, 1.0):
            mask = rng.random((height, width)) < share
            mask = np.repeat(mask, 3, axis=0)[:height] if share == 0.05 else mask  # longer runs
            text = official.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
            np.testing.assert_array_equal(masks.from_runs(text, height, width), mask)
            np.testing.assert_array_equal(masks.from_runs(text.decode(), height, width), mask)


def test_run_lengths_that_do_not_fit():
    with pytest.raises(InputError, match="run lengths of 5 pixels for a mask of 3x2"):
        masks.from_runs(np.array([2, 3]), 2, 3)
