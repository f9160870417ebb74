"""YOLO's layout of text files: as several annotation tools export it, and what is wrong in such exports."""

import dataset_layouts as layouts
import numpy as np
import pytest

from tfcnn import datasets
from tfcnn.errors import InputError

PICTURE = layouts.encoded(layouts.picture(40, 30))
LABELS = "1 0.5 0.5 0.25 0.4\n\n0 .1 .1 .1 .1\n"  # of 40 x 30: (15, 9, 25, 21) and (2, 1.5, 6, 4.5)
YAML = "path: ../datasets/ours\ntrain: images/train\nval: images/val\nnc: 2\nnames: ['cat', 'dog']\n"


def files(**more):
    return {
        "data.yaml": YAML,
        "images/train/a.jpg": PICTURE,
        "images/train/b.jpg": PICTURE,
        "images/val/c.jpg": PICTURE,
        "labels/train/a.txt": LABELS,
        **more,
    }


@pytest.mark.parametrize("archive", [False, True])
def test_boxes_are_shares_of_the_picture(tmp_path, archive):
    folder = layouts.write(tmp_path / "ours", files())
    data = datasets.open(
        "yolo", layouts.zipped(folder, tmp_path / "ours.zip") if archive else folder, "train"
    )
    assert data.classes == ["cat", "dog"] and data.category_ids == [0, 1] and not data.broken
    first, second = data.examples
    assert (first.file, first.width, first.height) == ("images/train/a.jpg", 40, 30)
    np.testing.assert_allclose(first.boxes, [[15, 9, 25, 21], [2, 1.5, 6, 4.5]], atol=1e-5)
    assert first.labels.tolist() == [1, 0] and first.masks is None
    assert len(second.boxes) == 0 and second.image().shape == (30, 40, 3)
    assert [record.file for record in datasets.open("yolo", folder, "valid").examples] == ["images/val/c.jpg"]


@pytest.mark.parametrize(
    ("train", "pictures"),
    [
        ("../train/images", "train/images/a.jpg"),  # as one annotation service writes it
        ("C:\\data\\ours\\images\\train", "images/train/a.jpg"),
        ("/home/someone/ours/images/train", "images/train/a.jpg"),
        ("[images/train]", "images/train/a.jpg"),
        ("train.txt", "images/train/a.jpg"),
    ],
)
def test_paths_as_tools_write_them_are_found(tmp_path, train, pictures):
    label = pictures.replace("images", "labels").replace(".jpg", ".txt")
    content = {
        "data.yaml": f"train: {train}\nnames: {{0: cat, 1: dog}}\n",
        pictures: PICTURE,
        label: LABELS,
        "train.txt": "./images/train/a.jpg\n",
    }
    data = datasets.open("yolo", layouts.write(tmp_path, content), "train")
    assert [record.file for record in data.examples] == [pictures] and len(data.examples[0].boxes) == 2


def test_pictures_of_one_stem_have_different_ids(tmp_path):
    names = ["seq1/000001.jpg", "seq1/000001.png", "seq2/000001.jpg", "seq2/000002.jpg"]
    content = {"data.yaml": YAML, **{f"images/train/{name}": PICTURE for name in names}}
    data = datasets.open("yolo", layouts.write(tmp_path, content), "train")
    assert {record.file: record.image_id for record in data.examples} == {
        "images/train/seq1/000001.jpg": "images/train/seq1/000001.jpg",
        "images/train/seq1/000001.png": "images/train/seq1/000001.png",
        "images/train/seq2/000001.jpg": "images/train/seq2/000001",
        "images/train/seq2/000002.jpg": "000002",
    }


def test_files_of_one_stem_in_two_splits_are_two_pictures(tmp_path):
    content = {"data.yaml": YAML, "images/train/a.jpg": PICTURE, "images/val/a.jpg": PICTURE}
    folder = layouts.write(tmp_path, content)
    both = datasets.open("yolo", folder, "train+val")
    assert [record.image_id for record in both.examples] == ["images/train/a", "images/val/a"]
    with pytest.raises(InputError, match="the picture a lies in two of these parts"):
        datasets.open("yolo", folder, "train+train")


def test_polygons_become_boxes_and_masks(tmp_path):
    polygon = "1 0.25 0.2 0.75 0.2 0.75 0.8 0.25 0.8\n0 0.5 0.5 0.25 0.4\n"
    folder = layouts.write(tmp_path, files(**{"labels/train/a.txt": polygon}))
    record = datasets.open("yolo", folder, "train").examples[0]
    np.testing.assert_allclose(record.boxes[0], [10, 6, 30, 24], atol=1e-4)
    masks = record.masks()
    assert masks.shape == (2, 30, 40) and masks[0].sum() == 20 * 18 and not masks[1].any()
    drawn, nothing = record.truth.masks()
    assert drawn["size"] == [30, 40] and nothing is None


@pytest.mark.parametrize(
    ("line", "why", "kept"),
    [
        ("2 .5 .5 .1 .1", "class 2", 0),
        ("-1 .5 .5 .1 .1", "class -1", 0),
        ("0 .5 .5 .1", "4 numbers", 0),
        ("0 .5 .5 .1 nan", "no shares", 0),
        ("0 .5 x .1 .1", "no numbers", 0),
        ("0 200 150 40 40", "no shares", 0),
        ("0 .5 .5 0 .1", "empty", 0),
        ("0 1.0 .5 .5 .5", "sticks out", 1),
    ],
)
def test_odd_lines_are_named_and_the_rest_is_used(tmp_path, line, why, kept):
    folder = layouts.write(tmp_path, files(**{"labels/train/a.txt": f"{line}\n{LABELS}"}))
    data = datasets.open("yolo", folder, "train")
    assert len(data.examples[0].boxes) == 2 + kept
    (finding,) = data.broken
    assert why in finding["why"] and finding["file"] == "labels/train/a.txt"


def test_a_picture_that_is_none_is_skipped(tmp_path):
    folder = layouts.write(tmp_path, files(**{"images/train/b.jpg": b"no picture"}))
    data = datasets.open("yolo", folder, "train")
    assert [record.file for record in data.examples] == ["images/train/a.jpg"]
    why = "not a picture (or of a format that Pillow does not read)"
    assert data.broken == [{"file": "images/train/b.jpg", "why": why, "rule": "picture skipped"}]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("names: [cat]\n", "no split 'train'"),
        ("train: images/train\n", "no list of names"),
        ("train: images/none\nnames: [cat]\n", None),  # images/train is tried
        ("train: images/train\nnames: {1: cat}\n", "not 0, 1, 2"),
        ("- a\n- b\n", "no keys"),
        ("a: [1\n", "no YAML"),
        ("!!python/object/apply:os.system ['true']", "no YAML"),
        ("[" * 100_000, "no YAML"),
    ],
)
def test_a_description_that_is_none_is_one_line(tmp_path, content, why):
    folder = layouts.write(tmp_path, files(**{"data.yaml": content}))
    if why is None:
        assert len(datasets.open("yolo", folder, "train")) == 2
        return
    with pytest.raises(InputError, match=why) as raised:
        datasets.open("yolo", folder, "train")
    assert "\n" not in str(raised.value)


def test_a_folder_without_a_description_is_named(tmp_path):
    with pytest.raises(InputError, match=r"data\.yaml"):
        datasets.open("yolo", layouts.write(tmp_path, {"images/a.jpg": PICTURE}), "train")
