"""COCO's layout and masks, by hand, against pycocotools and on real data."""

import json

import dataset_layouts as layouts
import numpy as np
import pytest

from tfcnn import masks
from tfcnn.datasets import coco
from tfcnn.datasets.root import Root
from tfcnn.errors import InputError

ANNOTATIONS = "annotations/instances_val2017.json"


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
    assert data.skeleton == [(0, 1)]  # the file counts from 1, and has two joints
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
    with pytest.raises(InputError, match="is not JSON|is not COCO's JSON"):
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


def test_a_square_of_whole_pixels():
    shape = masks.compact([[2, 1, 5, 1, 5, 3, 2, 3]], 4, 6)
    expected = np.zeros((4, 6), bool)
    expected[1:3, 2:5] = True
    np.testing.assert_array_equal(masks.draw(shape, 4, 6), expected)
    two = masks.compact([[0, 0, 1, 0, 1, 1, 0, 1], [2, 1, 5, 1, 5, 3, 2, 3]], 4, 6)
    expected[0, 0] = True
    np.testing.assert_array_equal(masks.draw(two, 4, 6), expected)
    assert not masks.draw(masks.compact([], 4, 6), 4, 6).any() and masks.compact(None, 4, 6) is None


def test_masks_are_those_of_cocos_own_program(data):
    """`annToMask` of the same annotations: the polygons' rule is COCO's, to the pixel."""
    official = pytest.importorskip("pycocotools.coco")
    api = official.COCO.__new__(official.COCO)
    api.dataset = json.loads(Root(data("coco-part.zip")).at("coco-part").text(ANNOTATIONS))
    api.createIndex()
    drawn = 0
    for record in coco.read(data("coco-part.zip")).examples[:40]:
        if record.masks is None:
            continue
        entries = [a for a in api.dataset["annotations"] if a["image_id"] == record.image_id]
        ours = record.masks()
        assert len(entries) == len(ours)
        for entry, mask in zip(entries, ours, strict=True):
            np.testing.assert_array_equal(mask, api.annToMask(entry))
            drawn += 1
    assert drawn > 200


@pytest.mark.parametrize("form", ["runs", "bytes", "text"])
def test_run_lengths(form):
    from pycocotools import mask as official

    rng = np.random.default_rng(1)
    for height, width in ((1, 1), (7, 5), (40, 300), (200, 150)):
        for share in (0.0, 0.05, 0.5, 1.0):
            mask = rng.random((height, width)) < share
            mask = np.repeat(mask, 3, axis=0)[:height] if share == 0.05 else mask  # longer runs
            counts = official.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
            if form == "text":
                counts = counts.decode()
            elif form == "runs":
                flat = mask.T.ravel()
                edges = np.flatnonzero(np.diff(flat)) + 1
                counts = np.diff([0, *edges, flat.size]).tolist()
                counts = [0, *counts] if flat[0] else counts
            shape = masks.compact({"size": [height, width], "counts": counts}, height, width)
            np.testing.assert_array_equal(masks.draw(shape, height, width), mask)


BAD_SHAPES = [
    {},
    {"counts": []},
    {"counts": [2, 3]},
    {"counts": [-1, 7]},
    {"counts": [7]},
    {"counts": [2, 4], "size": [3, 2]},
    {"counts": [2, 4], "size": 6},
    {"counts": ["a"]},
    {"counts": ""},
    {"counts": "05"},
    {"counts": "o"},
    {"counts": "\u00e9"},
    {"counts": None},
    [1, 1, 5, 1, 5, 5],
    [[1, 1, 5, 1]],
    [[1, 1, 5, 1, 5]],
    [[1, 1, 5, 1, 5, 5, 3]],
    [[1, 1, 5, 1, 5, 1e12]],
    [[1, 1, 5, 1, 5, None]],
    [[1, 1, 5, 1, 5, "x"]],
    [{}],
    "polygon",
    7,
]


@pytest.mark.parametrize("segmentation", BAD_SHAPES, ids=map(str, range(len(BAD_SHAPES))))
def test_what_is_no_mask(segmentation):
    with pytest.raises(InputError, match="neither polygons nor run lengths of 3x2 pixels"):
        masks.compact(segmentation, 2, 3)


# ------------------------------------------------------------------------------- odd fields


def test_a_mask_that_cannot_be_read_costs_no_box(folder):
    """A flat list of corners, and an empty object."""

    def change(content):
        content["annotations"][0]["segmentation"] = [10, 10, 60, 10, 60, 60]
        content["annotations"][1]["segmentation"] = {}

    rewrite(folder, change)
    data = coco.read(folder)
    assert len(data.examples[0].boxes) == 2 and data.examples[0].masks is None
    assert [finding["rule"] for finding in data.broken] == ["mask left out"] * 2
    assert data.broken[0]["why"].startswith(
        "annotation 1: its segmentation is neither polygons nor run lengths"
    )


def test_masks_of_a_size_that_no_picture_may_have_are_left_out(folder):
    def change(content):
        content["images"][0] |= {"width": 10**6, "height": 10**6}
        content["annotations"][0] |= {"image_id": content["images"][0]["id"]}
        content["annotations"][0]["segmentation"] = [[10, 10, 60, 10, 60, 60]]

    rewrite(folder, change)
    data = coco.read(folder)
    assert data.examples[0].masks is None
    whys = [finding["why"] for finding in data.broken if finding["rule"] == "mask left out"]
    assert "annotation 1: its segmentation is of 1000000x1000000 pixels, above 100,000,000" in whys


def test_polygons_across_the_border_are_clipped_and_named(folder):
    def change(content):
        content["annotations"][0]["segmentation"] = [[10, 5, 60, 5, 60, 15, 10, 15]]
        content["annotations"][1]["category_id"] = 5  # of an unknown category: it is no object at all
        content["annotations"].append({**content["annotations"][0], "id": 8, "bbox": [9, 9, -1, 2]})
        del content["annotations"][2]["segmentation"]

    rewrite(folder, change)
    data = coco.read(folder)
    (one,) = data.examples[0].masks()
    expected = np.zeros((30, 40), bool)
    expected[5:15, 10:] = True
    np.testing.assert_array_equal(one, expected)
    findings = [(finding["why"], finding["rule"]) for finding in data.broken]
    assert ("annotation 1: its polygons stick out of the picture of 40x30", "mask clipped") in findings
    # Evaluation knows the object whose box is inverted, too; it has no mask.
    truth = data.examples[0].truth
    drawn, nothing = truth.masks()
    np.testing.assert_array_equal(masks.decode(drawn), expected)
    assert nothing is None and truth.annotated_areas


def test_an_area_that_is_null_is_the_boxs(folder):
    def change(content):
        content["annotations"][0] |= {"area": None, "iscrowd": None}
        content["annotations"][1]["area"] = "61"
        content["annotations"].append({**content["annotations"][0], "id": 3, "area": "large"})

    rewrite(folder, change)
    data = coco.read(folder)
    record = data.examples[0]
    assert record.area.tolist() == [100, 61, 100] == record.truth.areas.tolist()
    assert record.crowd.tolist() == [False, True, False]
    assert [finding["why"] for finding in data.broken] == ["annotation 3 has an area that is no number"]


def test_numbers_that_are_texts(folder):
    def change(content):
        content["images"][0] |= {"id": "7", "width": "40", "height": "30.0"}
        content["annotations"][0] |= {"image_id": 7, "category_id": "3", "bbox": ["10", 5, "1e1", 10]}
        content["annotations"][1]["image_id"] = "7"

    rewrite(folder, change)
    data = coco.read(folder)
    record = data.examples[0]
    assert not data.broken and (record.width, record.height) == (40, 30)
    assert record.boxes.tolist() == [[10, 5, 20, 15], [0, 0, 2, 30]] and record.labels.tolist() == [0, 1]


def test_a_file_in_another_encoding_is_said(folder):
    text = json.dumps(layouts.coco_json()).replace("person", "personne âgée")
    for encoding, said in (("utf-8", []), ("utf-16", []), ("cp1252", ["letters that are not UTF-8"])):
        layouts.write(folder, {ANNOTATIONS: text.encode(encoding)})
        data = coco.read(folder)
        assert [finding["why"] for finding in data.broken] == said
        assert (data.classes[0] == "personne âgée") == (not said)


def test_an_id_that_is_not_listed_is_shown_as_it_is_written(folder):
    rewrite(folder, lambda content: content["annotations"][0].update(image_id="seven"))
    (finding,) = coco.read(folder).broken
    assert finding["why"] == "annotation 1 is of picture 'seven', which is not listed"


def test_a_size_that_is_missing_is_the_pictures(folder):
    def change(content):
        for image in content["images"]:
            del image["width"], image["height"]

    rewrite(folder, change)
    data = coco.read(folder)
    assert [(record.width, record.height) for record in data.examples] == [(40, 30)] * 2
    assert data.examples[0].masks().shape == (2, 30, 40)
    assert [(f["why"], f["rule"]) for f in data.broken] == [
        ("no size of the picture", "size read from the picture")
    ] * 2
    assert coco.read(folder, pictures=False).examples[0].width == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"][1].pop("id"), r"instances_val2017.json: images\[1\] has no id"),
        (lambda c: c["images"][1].update(id=[]), r"images\[1\] has no id"),
        (lambda c: c["images"].append(3), r"images\[2\] has no id"),
        (lambda c: c["categories"][0].pop("name"), r"categories\[0\] has no name"),
        (lambda c: c["categories"][1].pop("id"), r"categories\[1\] has no id"),
        (lambda c: c["categories"][1].update(id=90), r"categories\[1\] has the id 90, where each"),
        (lambda c: c["categories"][1].update(id="x"), r"categories\[1\] has the id 'x'"),
    ],
)
def test_what_cannot_be_read_at_all_is_one_line(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(InputError, match=message) as error:
        coco.read(folder)
    assert "\n" not in str(error.value)


def test_odd_annotations_are_skipped_and_named(folder):
    def change(content):
        box = content["annotations"][0]
        content["annotations"] += [
            None,
            {**box, "id": [1], "category_id": None},
            {**box, "id": 5, "keypoints": [1, 2]},
            {key: value for key, value in box.items() if key != "id"},
        ]

    rewrite(folder, change)
    data = coco.read(folder)
    assert len(data.examples[0].boxes) == 4
    assert [(f["why"], f["rule"]) for f in data.broken] == [
        ("annotations[2] is no entry", "object skipped"),
        ("annotation [1] has unknown category None", "object skipped"),
        ("annotation 5 has no 2 keypoints of three numbers", "joints left out"),
    ]


def test_categories_of_one_name_are_classes_of_their_own(folder):
    """A root category with its class's own name, as exporters write it."""

    def change(content):
        content["categories"] = [
            {"id": 90, "name": "car"},
            {"id": 0, "name": "car"},
            {"id": 3, "name": "bus"},
        ]

    rewrite(folder, change)
    data = coco.read(folder)
    assert data.classes == ["car", "bus", "car"] and data.category_ids == [0, 3, 90]
    assert data.examples[0].labels.tolist() == [1, 2]
    assert [finding["why"] for finding in data.broken] == ["the categories 0 and 90 are both called car"]


# ------------------------------------------------------------------------------- which picture


def two_splits(tmp_path, top="", name="a.jpg"):
    """A picture of the same name in two splits, another size each."""
    files = {}
    for split, size in (("train", (40, 30)), ("val", (20, 10))):
        content = layouts.coco_json()
        content["images"] = [{"id": 7, "file_name": name, "width": size[0], "height": size[1]}]
        files[f"annotations/instances_{split}.json"] = json.dumps(content)
        files[f"{top}{split}/a.jpg"] = layouts.encoded(layouts.picture(*size))
    return layouts.write(tmp_path / "set", files)


@pytest.mark.parametrize("top", ["", "images/"])
def test_the_splits_own_folder_first(tmp_path, top):
    folder = two_splits(tmp_path, top)
    for split, shape in (("train", (30, 40, 3)), ("val", (10, 20, 3))):
        (record,) = coco.read(folder, split).examples
        assert record.file == f"{top}{split}/a.jpg" and record.image().shape == shape
        file = f"annotations/instances_{split}.json"
        for annotations in (file, folder / file):
            assert coco.read(folder, annotations=annotations).examples[0].file == record.file


def test_a_splits_name_as_a_word_of_its_folder(tmp_path):
    folder = two_splits(tmp_path)
    for split in ("train", "val"):
        (folder / split).rename(folder / f"{split}_images")
    assert [coco.read(folder, s).examples[0].file for s in ("train", "val")] == [
        "train_images/a.jpg",
        "val_images/a.jpg",
    ]


def test_a_name_in_two_folders_of_no_split_is_an_error(tmp_path):
    folder = two_splits(tmp_path)
    (folder / "annotations/instances_val.json").rename(folder / "mine.json")
    with pytest.raises(InputError, match="a.jpg is train/a.jpg and val/a.jpg: name the folder"):
        coco.read(folder, annotations=folder / "mine.json")


@pytest.mark.parametrize(
    "name",
    [
        "images\\a b.jpg",
        "..\\..\\media\\upload\\4\\a b.jpg",
        "C:\\pictures\\a b.jpg",
        "a%20b.jpg",
        "/data/local-files/?d=upload/a%20b.jpg",
        "./a b.jpg",
        "/nowhere/on/this/machine/a b.jpg",
    ],
)
def test_names_as_other_programs_write_them(tmp_path, name):
    content = layouts.coco_json()
    content["images"] = [content["images"][0] | {"file_name": name}]
    files = {"annotations/instances_val.json": json.dumps(content)}
    files["images/a b.jpg"] = layouts.encoded(layouts.picture(40, 30))
    data = coco.read(layouts.write(tmp_path / "set", files))
    assert [record.file for record in data.examples] == ["images/a b.jpg"]
    assert data.examples[0].image().shape == (30, 40, 3)


def test_both_forms_of_an_accent(tmp_path):
    content = layouts.coco_json()
    content["images"] = [content["images"][0] | {"file_name": "caf\u00e9.jpg"}]
    files = {"annotations/instances_val.json": json.dumps(content)}
    files["images/cafe\u0301.jpg"] = layouts.encoded(layouts.picture(40, 30))
    assert len(coco.read(layouts.write(tmp_path / "set", files))) == 1


@pytest.mark.parametrize(
    "folders", [("val2017", "images/val2017"), ("my_val2017", "val2017_masks"), ("images/val", "val")]
)
def test_two_folders_that_are_both_the_splits_are_said(tmp_path, folders):
    folder = of_val2017(tmp_path, *folders)
    with pytest.raises(InputError, match="a.jpg is .* and .*: name the folder of pictures of one split"):
        coco.read(folder, "val2017")


def test_the_exact_folder_before_one_without_a_year_before_one_with_other_words(tmp_path):
    folder = of_val2017(tmp_path, "val2017", "val", "my_val2017")
    for wanted in ("val2017", "val", "my_val2017"):
        (record,) = coco.read(folder, "val2017").examples
        assert record.file == f"{wanted}/a.jpg"
        (folder / wanted / "a.jpg").unlink()


def test_another_years_folder_is_not_the_splits(tmp_path):
    data = coco.read(of_val2017(tmp_path, "val2014", "other"), "val2017")
    assert data.examples[0].file == "other/a.jpg"
    data = coco.read(of_val2017(tmp_path / "again", "val2014"), "val2017")
    assert not data.examples and data.broken[0]["why"] == "the picture is missing"


def of_val2017(tmp_path, *folders):
    """A set whose annotations are val2017's, with the same picture's name in some folders, another size in each."""
    content = layouts.coco_json()
    content["images"] = [{"id": 7, "file_name": "a.jpg", "width": 20, "height": 10}]
    files = {"annotations/instances_val2017.json": json.dumps(content)}
    for number, folder in enumerate(folders, 1):
        files[f"{folder}/a.jpg"] = layouts.encoded(layouts.picture(20 * number, 10 * number))
    return layouts.write(tmp_path / "set", files)
