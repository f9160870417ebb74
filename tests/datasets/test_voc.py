"""VOC's layout, by hand and on real data."""

import json

import dataset_layouts as layouts
import numpy as np
import pytest
from PIL import Image

from tfcnn.datasets import voc
from tfcnn.errors import InputError


@pytest.fixture
def folder(tmp_path):
    return layouts.voc(tmp_path / "VOC2007")


def findings(data):
    return [(f["file"], f["why"], f["rule"]) for f in data.broken]


def test_by_hand(folder):
    data = voc.read(folder, "trainval")
    one, two, none = data.examples
    assert data.classes == voc.CLASSES and data.category_ids == list(range(1, 21)) and not data.broken
    assert (one.image_id, one.file, one.width, one.height) == ("one", "JPEGImages/one.jpg", 40, 30)
    assert one.boxes.tolist() == [[0, 0, 40, 30], [10, 5, 20, 25]]
    assert [voc.CLASSES[k] for k in one.labels] == ["person", "dog"]
    assert one.difficult.tolist() == [True, False] and one.area.tolist() == [1200, 200]
    assert two.boxes.tolist() == [[4, 4, 5, 5]]  # one pixel, since corners are inclusive
    assert none.boxes.shape == (0, 4) and none.labels.shape == (0,)
    assert one.image().shape == (30, 40, 3)
    assert one.truth.boxes.dtype == np.float64 and one.truth.ignored.tolist() == [True, False]


def test_splits(folder, tmp_path):
    def ids(split):
        return [record.image_id for record in voc.read(folder, split).examples]

    assert ids("train") == ["one", "two"] and ids("val") == ["none"]
    assert ids("val+train") == ["none", "one", "two"]
    assert ids("dog_trainval") == ["one", "none"]  # flags 1 and 0 (difficult), not -1
    layouts.write(folder, {"ImageSets/Segmentation/val.txt": "two"})
    assert ids("Segmentation/val") == ["two"]
    own = tmp_path / "own.txt"
    own.write_text("none\ntwo\n")
    assert ids(str(own)) == ["none", "two"]
    with pytest.raises(InputError, match="no split 'test': it has train, trainval, val"):
        voc.read(folder, "test")


def test_zip_equals_folder(folder, tmp_path):
    path = layouts.zipped(folder, tmp_path / "voc.zip")
    for a, b in zip(voc.read(folder).examples, voc.read(path).examples, strict=True):
        assert a.image_id == b.image_id
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.image(), b.image())


def test_classes(folder):
    layouts.write(folder, {"Annotations/none.xml": layouts.voc_xml([("unicorn", 1, 1, 9, 9, 0)])})
    data = voc.read(folder)
    assert data.classes == voc.CLASSES
    why = "object 1 has unknown class 'unicorn'"
    assert findings(data) == [("Annotations/none.xml", why, "object skipped")]
    names = [{"id": 5, "name": "unicorn"}, {"id": 2, "name": "dog"}]
    layouts.write(folder, {"categories.json": json.dumps(names)})
    data = voc.read(folder)
    assert data.classes == ["unicorn", "dog"] and data.category_ids == [5, 2]
    assert [record.labels.tolist() for record in data.examples] == [[1], [], [0]]


def test_classes_from_the_annotations(folder):
    for name in ("one", "two", "none"):
        cells = [("WBC", 1, 1, 9, 9, 0), ("RBC", 5, 5, 9, 9, 0)]
        layouts.write(folder, {f"Annotations/{name}.xml": layouts.voc_xml(cells)})
    assert voc.read(folder).classes == ["RBC", "WBC"]


def test_broken(folder):
    objects = [
        ("dog", 9, 9, 3, 20, 0),
        ("dog", 9, 9, 8, 20, 0),
        ("dog", 60, 9, 70, 20, 0),
        ("dog", -5, 9, 70, 20, 0),
        ("dog", "x", 9, 70, 20, 0),
        ("dog", "nan", 9, 70, 20, 0),
        ("cat", 2, 2, 3, 3, 0),
    ]
    bomb = '<!DOCTYPE a [<!ENTITY b "c">]><annotation><filename>&b;</filename></annotation>'
    files = {
        "Annotations/one.xml": layouts.voc_xml(objects),
        "Annotations/two.xml": "<annotation><object>",
        "Annotations/bomb.xml": bomb,
        "Annotations/alone.xml": layouts.voc_xml([]),
        "Annotations/none.xml": layouts.voc_xml([("dog", 1, 1, 9, 9, 0)], size=None),
        "ImageSets/Main/train.txt": "one\ntwo\nbomb\nabsent\nalone\nnone",
    }
    data = voc.read(layouts.write(folder, files), "train")
    assert [record.image_id for record in data.examples] == ["one", "none"]
    assert data.examples[0].boxes.tolist() == [[0, 8, 40, 20], [1, 1, 3, 3]]
    assert [voc.CLASSES[k] for k in data.examples[0].labels] == ["dog", "cat"]
    assert (data.examples[1].width, data.examples[1].height) == (40, 30)
    assert findings(data) == [
        ("Annotations/one.xml", "object 5 (dog) has no box of four numbers", "object skipped"),
        ("Annotations/one.xml", "object 6 (dog) has no box of four numbers", "object skipped"),
        ("Annotations/two.xml", "not a readable annotation", "picture skipped"),
        ("Annotations/bomb.xml", "not a readable annotation", "picture skipped"),
        ("Annotations/absent.xml", "the annotation is missing", "picture skipped"),
        ("Annotations/one.xml", "box [8, 8, 3, 20] of object 1 (dog) is inverted", "object skipped"),
        ("Annotations/one.xml", "box [8, 8, 8, 20] of object 2 (dog) is empty", "object skipped"),
        (
            "Annotations/one.xml",
            "box [59, 8, 70, 20] of object 3 (dog) lies outside the picture of 40x30",
            "object skipped",
        ),
        (
            "Annotations/one.xml",
            "box [-6, 8, 70, 20] of object 4 (dog) sticks out of the picture of 40x30",
            "box clipped",
        ),
        ("Annotations/alone.xml", "no picture JPEGImages/alone.*", "picture skipped"),
        ("Annotations/none.xml", "no size of the picture", "size read from the picture"),
    ]


def test_annotations_alone(folder):
    for file in (folder / "JPEGImages").iterdir():
        file.unlink()
    assert not voc.read(folder).examples
    data = voc.read(folder, pictures=False)
    assert len(data) == 3 and not data.broken
    with pytest.raises(InputError, match="no JPEGImages/one.jpg"):
        data.examples[0].image()


def test_other_suffixes_and_names(folder):
    (folder / "JPEGImages/one.jpg").rename(folder / "JPEGImages/one.PNG")
    (folder / "JPEGImages/two.jpg").rename(folder / "JPEGImages/other.jpg")
    layouts.write(folder, {"Annotations/two.xml": layouts.voc_xml([], filename="x/other.jpg")})
    assert [r.file for r in voc.read(folder, "train").examples] == [
        "JPEGImages/one.PNG",
        "JPEGImages/other.jpg",
    ]


def test_masks_follow_the_annotation(folder):
    numbers = np.zeros((30, 40), np.uint8)
    numbers[:5], numbers[10:12], numbers[20] = 1, 2, 255
    picture = Image.fromarray(numbers, "P")
    picture.putpalette(list(range(256)) * 3)
    (folder / "SegmentationObject").mkdir()
    picture.save(folder / "SegmentationObject/one.png")
    one, two, _ = voc.read(folder).examples
    assert two.masks is None
    np.testing.assert_array_equal(one.masks(), [numbers == 1, numbers == 2])
    # The first object is skipped: the second keeps its own mask.
    objects = [("person", 9, 9, 1, 1, 0), ("dog", 11, 6, 20, 25, 0)]
    layouts.write(folder, {"Annotations/one.xml": layouts.voc_xml(objects)})
    np.testing.assert_array_equal(voc.read(folder).examples[0].masks(), [numbers == 2])


@pytest.mark.parametrize(
    "split, pictures, objects, difficult", [("train", 2500, 7843, 1543), ("val", 2508, 7812, 1511)]
)
def test_voc2007(data, split, pictures, objects, difficult):
    read = voc.read(data("voc2007-320.zip"), split)
    assert len(read) == pictures and not read.broken
    assert sum(len(record.boxes) for record in read.examples) == objects
    assert sum(record.difficult.sum() for record in read.examples) == difficult


def test_bccd(data):
    read = voc.read(data("bccd.zip"), "test")
    assert read.classes == ["Platelets", "RBC", "WBC"] and len(read) == 72 and not read.broken
    assert np.bincount(np.concatenate([record.labels for record in read.examples])).tolist() == [69, 805, 71]
