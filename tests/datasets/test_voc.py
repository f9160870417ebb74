"""VOC's layout, by hand and on real data."""

import json

import dataset_layouts as layouts
import numpy as np
import pytest
from PIL import Image

from tfcnn import masks
from tfcnn.datasets import statistics, voc
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


def names(folder, **objects_of):
    """One object of each name in each picture's annotation."""
    for image_id, found in objects_of.items():
        xml = layouts.voc_xml([(name, 1, 1, 9, 9, 0) for name in found.split()])
        layouts.write(folder, {f"Annotations/{image_id}.xml": xml})
    return folder


def test_classes_of_ones_own_that_share_some_of_vocs_names(folder):
    """Taken for VOC's 20 before, and every truck left out."""
    for split in ("train", "val"):
        data = voc.read(names(folder, one="person car truck", two="car", none="truck"), split)
        assert data.classes == ["car", "person", "truck"] and data.category_ids == [1, 2, 3]
    assert not [finding for finding in findings(data) if "unknown" in finding[1]]


def test_a_class_of_another_split_alone(folder):
    data = voc.read(names(folder, one="ripe unripe", two="ripe", none="ripe rotten"), "train")
    assert data.classes == ["ripe", "rotten", "unripe"]
    why = "no object of rotten here, but in other splits"
    rule = "class kept; a categories.json beside Annotations says which there are"
    assert findings(data) == [("train", why, rule)]
    assert voc.read(folder, "val").classes == data.classes


def test_a_stray_name_beside_vocs_is_said(folder):
    data = voc.read(names(folder, one=" ".join(voc.CLASSES), two="unicorn", none=""), "train")
    assert data.classes == sorted([*voc.CLASSES, "unicorn"])
    assert findings(data)[0][:2] == ("Annotations", "unicorn beside VOC's own classes")


def test_names_of_other_splits_are_those_of_objects_alone(folder):
    """An owner, a part of a body, and a text that is no plain ASCII."""
    whole = layouts.voc_xml([("person", 1, 1, 9, 9, 0)])
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    odd = whole.replace("</object>", f"{part}</object><owner><name>Jim</name></owner>")
    names(folder, one="person", two="person")
    layouts.write(folder, {"Annotations/none.xml": odd})
    assert voc.read(folder, "train").classes == voc.CLASSES
    coded = whole.replace("person", "m&#252;ll")
    layouts.write(folder, {"Annotations/none.xml": coded})
    assert voc.read(folder, "train").classes == ["müll", "person"]
    layouts.write(folder, {"Annotations/none.xml": whole.replace("person", "犬").encode("utf-16")})
    assert voc.read(folder, "train").classes == ["person", "犬"]


def test_categories_json(folder):
    layouts.write(folder, {"Annotations/none.xml": layouts.voc_xml([("unicorn", 1, 1, 9, 9, 0)])})
    listed = [{"id": 5, "name": "unicorn"}, {"id": 2, "name": "dog"}]
    layouts.write(folder, {"categories.json": json.dumps(listed)})
    data = voc.read(folder)
    assert data.classes == ["unicorn", "dog"] and data.category_ids == [5, 2]
    assert [record.labels.tolist() for record in data.examples] == [[1], [], [0]]
    assert ("Annotations/two.xml", "object 1 has unknown class 'cat'", "object skipped") in findings(data)
    twice = '[{"id": 1, "name": "dog"}, {"id": 2, "name": "dog"}]'
    for bad in (
        "{",
        "{}",
        twice,
        twice.replace("2", "1"),
        '[{"name": "dog"}]',
        '[{"id": "1", "name": "dog"}]',
        "[1]",
    ):
        layouts.write(folder, {"categories.json": bad})
        with pytest.raises(InputError, match="categories.json is no list of"):
            voc.read(folder)


def test_a_line_of_a_list_is_a_name(folder):
    """Blanks in a name, the kit's column of flags, and pictures' own suffixes and folders."""
    picture = layouts.encoded(layouts.picture(40, 30))
    for name in ("images (42)", "images (43)", "take 1", "a_jpg.rf.06d5"):
        layouts.write(
            folder, {f"Annotations/{name}.xml": layouts.voc_xml([]), f"JPEGImages/{name}.jpg": picture}
        )
    lines = [
        "images (42)  1",
        "images (43)",
        "take 1",
        "one.jpg",
        "JPEGImages/two.xml",
        "none -1",
        "a_jpg.rf.06d5",
    ]
    layouts.write(folder, {"ImageSets/Main/own.txt": "\n".join(lines)})
    data = voc.read(folder, "own")
    assert not data.broken
    assert [record.image_id for record in data.examples] == [
        "images (42)",
        "images (43)",
        "take 1",
        "one",
        "two",
        "a_jpg.rf.06d5",
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_as_windows_saves_it(folder, encoding):
    layouts.write(folder, {"ImageSets/Main/own.txt": "one\r\ntwo\r\n".encode(encoding)})
    assert [record.image_id for record in voc.read(folder, "own").examples] == ["one", "two"]


def test_a_split_of_segmentation_alone(folder):
    layouts.write(folder, {"ImageSets/Segmentation/seg.txt": "two"})
    assert [record.image_id for record in voc.read(folder, "seg").examples] == ["two"]


def test_a_second_box_in_an_object_is_named(folder):
    box = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></object>"
    xml = layouts.voc_xml([("dog", 1, 1, 9, 9, 0)]).replace("</object>", box)
    data = voc.read(layouts.write(folder, {"Annotations/none.xml": xml}), "val")
    why = "object 1 (dog) has 2 elements bndbox"
    assert findings(data) == [("Annotations/none.xml", why, "the first is taken")]
    assert data.examples[0].boxes.tolist() == [[0, 0, 9, 9]]


@pytest.mark.parametrize("encoding", ["gb2312", "shift_jis", "cp1252", "utf-16"])
def test_encodings_that_python_knows(folder, encoding):
    word = {"gb2312": "马", "shift_jis": "馬"}.get(encoding, "œuf" if encoding == "cp1252" else "馬")
    xml = f'<?xml version="1.0" encoding="{encoding}"?>' + layouts.voc_xml([(word, 1, 1, 9, 9, 0)])
    layouts.write(folder, {"Annotations/none.xml": xml.encode(encoding)})
    data = voc.read(folder, "val")
    assert word in data.classes and len(data.examples[0].boxes) == 1


def test_an_encoding_that_nobody_knows_costs_one_picture(folder):
    xml = '<?xml version="1.0" encoding="UTF8MB4"?>' + layouts.voc_xml([])
    data = voc.read(layouts.write(folder, {"Annotations/one.xml": xml}), "train")
    assert [record.image_id for record in data.examples] == ["two"]
    why = "not a readable annotation (unknown encoding: UTF8MB4)"
    assert findings(data) == [("Annotations/one.xml", why, "picture skipped")]


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
        (
            "Annotations/two.xml",
            "not a readable annotation (no element found: line 1, column 20)",
            "picture skipped",
        ),
        (
            "Annotations/bomb.xml",
            "not a readable annotation (EntitiesForbidden(name='b', system_id=None, public_id=None))",
            "picture skipped",
        ),
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
    np.testing.assert_array_equal(one.void(), numbers == 255)
    drawn = [masks.decode(runs) for runs in one.truth.masks()]
    np.testing.assert_array_equal(drawn, one.masks())
    # The first object is skipped: the second keeps its own mask.
    objects = [("person", 9, 9, 1, 1, 0), ("dog", 11, 6, 20, 25, 0)]
    layouts.write(folder, {"Annotations/one.xml": layouts.voc_xml(objects)})
    one = voc.read(folder).examples[0]
    np.testing.assert_array_equal(one.masks(), [numbers == 2])
    assert len(one.truth.masks()) == 2 and not one.truth.annotated_areas  # evaluation has both


def object_numbers(folder, shape):
    """A segmentation of this shape whose left half is the first object."""
    numbers = np.zeros(shape, np.uint8)
    numbers[:, : shape[1] // 2] = 1
    (folder / "SegmentationObject").mkdir(exist_ok=True)
    Image.fromarray(numbers, "L").save(folder / "SegmentationObject/one.png")
    return voc.read(folder).examples[0]


def test_masks_of_another_size_than_the_annotation(folder):
    one = object_numbers(folder, (15, 20))  # made smaller, as the picture may be
    first, second = one.truth.masks()
    assert second is None and one.masks().shape == (2, 15, 20)
    expected = np.zeros((30, 40), bool)
    expected[:, :20] = True
    np.testing.assert_array_equal(masks.decode(first), expected)
    with pytest.raises(
        InputError, match="one.jpg is 40x30, its annotation says 40x30, and its masks are 20x15"
    ):
        one.drawn_masks((30, 40))
    assert one.drawn_masks((15, 20))["void"].shape == (15, 20)
    one = object_numbers(folder, (30, 20))
    with pytest.raises(InputError, match="one.png is 20x30, its annotation says 40x30"):
        one.masks()


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ((30, 40), "object 2 (dog) has a mask without a pixel"),
        ((30, 20), "SegmentationObject/one.png is 20x30, its annotation says 40x30"),
    ],
)
def test_masks_that_are_not_as_they_should_be_are_named(folder, shape, why):
    object_numbers(folder, shape)
    data = voc.read(folder)
    statistics.check_pictures(data)
    assert [finding["why"] for finding in data.broken] == [why]


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
