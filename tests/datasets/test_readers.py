"""A contract over all readers, and each of the smaller ones by hand."""

import dataclasses
import functools
import gzip
import io
import struct
import tracemalloc
import types

import dataset_layouts as layouts
import numpy as np
import pytest
import scipy.io

from tfcnn import datasets
from tfcnn.datasets import figures, shapes, tfds
from tfcnn.errors import InputError

MADE = {
    "voc": (layouts.voc, "train"),
    "coco": (layouts.coco, "val2017"),
    "imagenet_loc": (functools.partial(layouts.imagenet, task="CLS-LOC"), "val"),
    "imagenet_det": (functools.partial(layouts.imagenet, task="DET"), "val"),
    "tiny_imagenet": (layouts.tiny_imagenet, "train"),
    "lsp": (layouts.lsp, "train"),
    "yolo": (layouts.yolo, "train"),
    "folder": (layouts.classes, "train"),
    "cifar10": (layouts.cifar10, "train"),
    "mnist": (layouts.mnist, "train"),
}


def test_every_reader_is_under_contract():
    assert set(MADE) | set(datasets.PACKAGED) == set(datasets.READERS)


def check(data):
    assert data.examples and len(data.classes) == len(data.category_ids) == len(set(data.category_ids))
    assert all(isinstance(name, str) for name in data.classes)
    ids = [record.image_id for record in data.examples]
    assert len(set(ids)) == len(ids)
    for record in data.examples[:20]:
        image = record.image()
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        if record.width:
            assert image.shape[:2] == (record.height, record.width)
        count = len(record.boxes)
        assert record.boxes.dtype == np.float32 and record.boxes.shape == (count, 4)
        assert record.labels.dtype == np.int32 and record.area.dtype == np.float32
        assert all(column.dtype == bool for column in (record.difficult, record.crowd, record.truncated))
        columns = (record.labels, record.area, record.difficult, record.crowd, record.truncated)
        assert all(column.shape == (count,) for column in columns)
        assert count or record.label >= 0 or record.file.startswith(("val2017", "train-", "images/train"))
        assert (record.labels >= 0).all() and (record.labels < len(data.classes)).all()
        assert -1 <= record.label < len(data.classes)
        assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()
        assert (record.boxes <= [image.shape[1], image.shape[0]] * 2).all() and (record.boxes >= 0).all()


@pytest.mark.parametrize("name", datasets.READERS)
def test_contract(name, tmp_path):
    if name in datasets.PACKAGED:
        check(datasets.open(name))
        assert len(datasets.open(name, split="val")) > 0
        with pytest.raises(InputError, match="no split 'x'"):
            datasets.open(name, split="x")
        return
    make, split = MADE[name]
    folder = make(tmp_path / "set")
    data = datasets.open(name, folder, split)
    assert data.name == name and not data.broken
    check(data)
    packed = datasets.open(name, layouts.zipped(folder, tmp_path / "set.zip"), split)
    assert packed.classes == data.classes and len(packed) == len(data)
    for a, b in zip(data.examples, packed.examples, strict=True):
        assert a.image_id == b.image_id and a.label == b.label
        np.testing.assert_array_equal(a.image(), b.image())
        np.testing.assert_array_equal(a.boxes, b.boxes)
    for bad in ((tmp_path / "absent", split), (None, split)):
        with pytest.raises(InputError):
            datasets.open(name, *bad)
    if name != "coco":
        with pytest.raises(InputError, match="no split 'x'|no pictures in x"):
            datasets.open(name, folder, "x")
        with pytest.raises(InputError, match="has no annotation file"):
            datasets.open(name, folder, split, annotations="a.json")


def test_unknown_name():
    with pytest.raises(InputError, match="unknown data set 'vocc'; the nearest are voc.*one of voc, coco"):
        datasets.open("vocc", ".")


def test_imagenet(tmp_path):
    folder = layouts.imagenet(tmp_path / "ILSVRC", "CLS-LOC")
    data = datasets.open("imagenet_loc", folder, "val")
    assert data.classes == ["first thing", "second, the"]  # synsets in sorted order
    assert data.category_ids == [1, 2]
    (record,) = data.examples
    assert (record.image_id, record.label, record.labels.tolist()) == ("v_1", 1, [1, 1])
    assert record.boxes.tolist() == [[0, 0, 10, 10], [10, 10, 40, 30]]  # 0-based, inclusive
    assert record.truth.boxes.tolist() == [[0, 0, 10, 10], [10, 10, 40, 30]]
    train = datasets.open("imagenet_loc", folder, "train_cls")
    assert [(record.label, len(record.boxes)) for record in train.examples] == [(0, 0), (1, 2)]
    (folder / "LOC_synset_mapping.txt").write_text("n001 3 first_thing\nn003 1 third\n")
    data = datasets.open("imagenet_loc", folder, "val")
    assert data.classes == ["first_thing", "third"] and not len(data.examples[0].boxes)
    assert data.category_ids == [3, 1]  # the list's own, as official results have them
    assert [finding["rule"] for finding in data.broken] == ["object skipped"] * 2
    (folder / "LOC_synset_mapping.txt").unlink()
    (folder / "ImageSets/CLS-LOC/val.txt").unlink()  # then the annotations are the list
    layouts.write(folder, {"Annotations/CLS-LOC/val/v_2.xml": "<annotation>"})
    data = datasets.open("imagenet_loc", folder, "val")
    assert data.classes == ["n002"] and data.broken[0]["why"].startswith("not a readable annotation")


def test_ids_of_the_official_synset_list_are_kept(tmp_path):
    folder = layouts.imagenet(tmp_path / "ILSVRC", "DET")
    (folder / "LOC_synset_mapping.txt").unlink()
    for lines, ids in (
        ("n002 1 second\nn001 2 first\n", [2, 1]),
        ("n002 7 second\nn001 7 first\n", [1, 2]),  # ids that are none
        ("n002 second\nn001 2 first\n", [1, 2]),
    ):
        layouts.write(folder, {"devkit/data/map_det.txt": lines})
        data = datasets.open("imagenet_det", folder, "val")
        assert (data.classes, data.category_ids) == (["first", "second"], ids)


def test_a_line_of_imagenets_list_is_a_name_and_a_number(tmp_path):
    folder = layouts.imagenet(tmp_path / "ILSVRC", "DET")
    (folder / "Annotations/DET/val/v_1.xml").rename(folder / "Annotations/DET/val/v (1).xml")
    (folder / "Data/DET/val/v_1.JPEG").rename(folder / "Data/DET/val/v (1).JPEG")
    for line in ("v (1)", "v (1) 17"):
        layouts.write(folder, {"ImageSets/DET/val.txt": line})
        assert [record.image_id for record in datasets.open("imagenet_det", folder, "val").examples] == [
            "v (1)"
        ]


def test_imagenet_reads_a_size_that_is_missing(tmp_path):
    folder = layouts.imagenet(tmp_path / "ILSVRC", "DET")
    xml = layouts.voc_xml([("n002", 0, 0, 9, 99, 0)], size=None)
    layouts.write(folder, {"Annotations/DET/val/v_1.xml": xml})
    data = datasets.open("imagenet_det", folder, "val")
    (record,) = data.examples
    assert (record.width, record.height) == (40, 30) and record.boxes.tolist() == [[0, 0, 10, 30]]
    assert data.broken[0]["why"] == "no size of the picture"
    layouts.write(folder, {"Data/DET/val/v_1.JPEG": b"no picture"})
    assert not datasets.open("imagenet_det", folder, "val").examples


def test_imagenet_det_keeps_pictures_without_objects(tmp_path):
    folder = layouts.imagenet(tmp_path / "ILSVRC", "DET")
    layouts.write(folder, {"Annotations/DET/val/v_1.xml": layouts.voc_xml([])})
    (record,) = datasets.open("imagenet_det", folder, "val").examples
    assert record.label == -1 and not len(record.boxes)


def test_tiny_imagenet(tmp_path):
    folder = layouts.tiny_imagenet(tmp_path / "tiny")
    data = datasets.open("tiny_imagenet", folder)
    assert data.classes == ["second", "first"]
    assert [record.boxes.tolist() for record in data.examples] == [[[5, 5, 7, 7]], [[0, 10, 63, 64]]]
    assert [record.label for record in data.examples] == [0, 1]
    (val,) = datasets.open("tiny_imagenet", folder, "val").examples
    assert (val.image_id, val.label, val.boxes.tolist()) == ("val_0", 0, [[1, 2, 4, 5]])
    rows = "val_0.JPEG\tn002\t1\t2\tx\t4\n\nval_9.JPEG\tn002\t1\t2\t3\t4\nval_0.JPEG\tn9\t1\t2\t3\t4\nval_0.JPEG\n"
    layouts.write(folder, {"val/val_annotations.txt": rows})
    data = datasets.open("tiny_imagenet", folder, "val")
    assert [finding["rule"] for finding in data.broken] == [
        "object skipped",
        *["picture skipped"] * 3,
    ]
    assert len(data) == 1 and not len(data.examples[0].boxes)


def test_tiny_imagenet_real(data):
    read = datasets.open("tiny_imagenet", data("tiny-imagenet-loc.zip"), "val")
    assert len(read) == 2000 and len(read.classes) == 200 and not read.broken
    assert np.bincount([record.label for record in read.examples]).tolist() == [10] * 200


def test_lsp_csv(tmp_path):
    folder = layouts.lsp(tmp_path / "lsp")
    data = datasets.open("lsp", folder)
    first, second = data.examples
    assert data.joints[0] == "right_ankle" and data.joints[-1] == "head_top" and len(data.joints) == 14
    assert first.joints[:3].tolist() == [[0, 0, 1], [1, 2, 1], [2, 4, 1]]
    assert first.joints[12:].tolist() == [[0, 0, 0]] * 2
    assert first.boxes.tolist() == [[0, 0, 11, 22]] and second.boxes.tolist() == [[0.5, 0, 13.5, 13]]
    text = (folder / "train/joints.csv").read_text().replace("im2.jpg,40,30,0.5", "im2.jpg,40,30,77")
    (folder / "train/joints.csv").write_text(text + "im1.jpg,40,30,1,1,1\n")
    data = datasets.open("lsp", folder)
    assert [finding["why"] for finding in data.broken] == [
        "the line of ['im1.jpg'] has not 14 joints",
        "right_ankle lies outside the picture of 40x30",
    ]
    assert data.examples[1].joints[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("extended", [False, True])
def test_lsp_mat(tmp_path, extended):
    count = 4 if extended else 1003
    joints = np.random.default_rng(0).uniform(2, 20, (count, 14, 3))
    joints[..., 2] = np.arange(14) % 2
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"joints": joints.transpose(1, 2, 0) if extended else joints.transpose(2, 1, 0)})
    files = {"joints.mat": buffer.getvalue()} | {f"images/im{i:05d}.jpg": b"" for i in range(count)}
    folder = layouts.write(tmp_path / "lsp", files)
    test = datasets.open("lsp", folder, "train" if extended else "test")
    assert len(test) == (4 if extended else 3)
    record, expected = test.examples[-1], joints[-1]
    shown = expected[:, 2] > 0 if extended else np.ones(14, bool)  # there the flag says occluded
    np.testing.assert_allclose(record.joints[shown, :2], expected[shown, :2] - 1, rtol=1e-6)
    np.testing.assert_array_equal(record.joints[:, 2], shown)
    if extended:
        with pytest.raises(InputError, match="no split 'test'"):
            datasets.open("lsp", folder, "test")


def test_lsp_real(data):
    read = datasets.open("lsp", data("lsp-extended-220.zip"), "val")
    assert len(read) == 300 and sum(record.joints[:, 2].sum() for record in read.examples) == 4008


def test_folder_of_classes(tmp_path):
    folder = layouts.classes(tmp_path / "set")
    data = datasets.open("folder", folder, "train")
    assert data.classes == ["ants", "bees"]
    assert [record.image_id for record in data.examples[:3]] == ["ants/0", "ants/1", "ants/2"]
    assert [record.label for record in data.examples] == [0, 0, 0, 1, 1, 1]
    with pytest.raises(InputError, match="name the split, test or train"):
        datasets.open("folder", folder)
    assert len(datasets.open("folder", tmp_path, "train")) == 6
    with pytest.raises(InputError, match="no pictures in val/CLASS"):
        datasets.open("folder", folder, "val")


def test_folder_without_splits_holds_out_each_tenth(tmp_path):
    files = {
        f"{label}/{index:02d}.jpg": b""
        for label, count in (("a", 25), ("b", 4), ("c", 1))
        for index in range(count)
    }
    folder = layouts.write(tmp_path / "wrapper" / "set", files)
    val = [record.image_id for record in datasets.open("folder", folder, "val").examples]
    train = [record.image_id for record in datasets.open("folder", folder, "train").examples]
    assert val == ["a/09", "a/19", "b/03"]
    assert [
        record.image_id for record in datasets.open("folder", tmp_path / "wrapper", "val").examples
    ] == val
    assert sorted(val + train) == [record.image_id for record in datasets.open("folder", folder).examples]


def test_folders_that_a_person_does_not_see_are_no_classes(tmp_path):
    folder = layouts.classes(tmp_path / "set")
    hidden = {
        f"train/{name}/x.png": b"" for name in (".ipynb_checkpoints", "@eaDir", "ants/.ipynb_checkpoints")
    }
    layouts.write(folder, hidden | {"train/ants/._0.png": b""})
    data = datasets.open("folder", folder, "train")
    assert data.classes == ["ants", "bees"] and len(data) == 6 and not data.broken


def test_pictures_inside_a_classs_folders_are_named(tmp_path):
    folder = layouts.write(tmp_path / "set", {"cat/1.jpg": b"", "cat/persian/2.jpg": b"", "dog/3.jpg": b""})
    data = datasets.open("folder", folder)
    assert len(data) == 2
    (finding,) = data.broken
    assert finding["why"] == "1 pictures in folders inside the class cat"
    assert finding["rule"].startswith("pictures skipped: move them up")


def test_pictures_beside_the_classes_are_named(tmp_path):
    folder = layouts.write(tmp_path / "set", {"cat/1.jpg": b"", "dog/3.jpg": b"", "4.jpg": b""})
    (finding,) = datasets.open("folder", folder).broken
    assert finding["why"] == "1 pictures beside the folders of classes"


def test_a_single_class_is_said(tmp_path):
    data = datasets.open("folder", layouts.write(tmp_path / "set", {"only/1.jpg": b"", "only/2.jpg": b""}))
    assert [finding["why"] for finding in data.broken] == ["only one class, only: every answer is right"]


def test_a_folder_whose_pictures_all_lie_deeper_is_named(tmp_path):
    picture = layouts.encoded(layouts.picture(8, 8))
    names = ["dog/a.jpg", "bird/b.jpg", "cat/persian/c.jpg", "cat/siamese/d.jpg"]
    data = datasets.open("folder", layouts.write(tmp_path, {name: picture for name in names}))
    assert data.classes == ["bird", "dog"]
    (finding,) = data.broken
    assert finding["why"] == "2 pictures in folders inside cat, and none right in it"


def test_a_class_folder_that_only_one_split_has(tmp_path):
    folder = layouts.classes(tmp_path / "set")
    layouts.write(folder, {"val/ants/0.png": b"", "train/wasps/0.png": b"", "notes/pages/0.png": b""})
    train, val = (datasets.open("folder", folder, split) for split in ("train", "val"))
    assert train.classes == val.classes == ["ants", "bees", "wasps"] and not train.broken
    assert [finding["why"] for finding in val.broken] == [
        "no picture of bees here, but in other splits",
        "no picture of wasps here, but in other splits",
    ]
    assert [record.label for record in val.examples] == [0]


def test_mnist(tmp_path):
    folder = layouts.mnist(tmp_path / "mnist")
    data = datasets.open("mnist", folder, "test")
    assert [record.label for record in data.examples] == [0, 1] and len(data.classes) == 10
    expected = (np.arange(784) + 784).astype(np.uint8).reshape(28, 28)
    np.testing.assert_array_equal(data.examples[1].image(), np.repeat(expected[..., None], 3, axis=2))
    layouts.write(folder, {"train-images-idx3-ubyte": b"\0\0\x08\x03\0\0\0\x09"})
    with pytest.raises(InputError, match="no whole idx file"):
        datasets.open("mnist", folder)


def test_mnist_unpacks_no_more_than_its_header_says(tmp_path):
    folder = layouts.mnist(tmp_path / "mnist")
    sizes = {"train": (5, 5 + 2**24), "t10k": (2**31, 2)}  # what the header says, and what comes
    for part, (said, count) in sizes.items():
        data = struct.pack(">HBBI", 0, 8, 1, said) + bytes(count)
        layouts.write(folder, {f"{part}-labels-idx1-ubyte.gz": gzip.compress(data)})
    tracemalloc.start()
    with pytest.raises(InputError, match="no whole idx file"):
        datasets.open("mnist", folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22
    with pytest.raises(InputError, match="2,147,483,648 bytes when unpacked"):
        datasets.open("mnist", folder, "test")
    layouts.write(folder, {"train-labels-idx1-ubyte.gz": b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 9})
    with pytest.raises(InputError, match="no whole idx file"):
        datasets.open("mnist", folder)


def test_cifar10(tmp_path):
    folder = layouts.cifar10(tmp_path / "cifar")
    data = datasets.open("cifar10", folder)
    assert [record.label for record in data.examples] == [0, 1, 2]
    assert (data.examples[1].image() == [1, 101, 201]).all()
    assert datasets.open("cifar10", folder, "test").classes[3] == "cat"
    layouts.write(folder, {"data_batch_1.bin": b"123"})
    with pytest.raises(InputError, match="3 bytes are no rows of 3073"):
        datasets.open("cifar10", folder)
    pickled = layouts.write(tmp_path / "pickled", {"cifar-10-batches-py/data_batch_1": b"x"})
    with pytest.raises(InputError, match="pickled version, which can run code"):
        datasets.open("cifar10", pickled)
    folders = layouts.classes(tmp_path / "folders")
    assert len(datasets.open("cifar10", folders, "val")) == 2


def test_digits():
    train, test = datasets.open("digits"), datasets.open("digits", split="test")
    assert (len(train), len(test)) == (1437, 360)
    assert max(record.image().max() for record in train.examples[:9]) == 255


def test_shapes_are_where_their_boxes_say():
    data = datasets.open("shapes")
    assert len(data) == 500
    counts = np.bincount([len(record.boxes) for record in data.examples])
    assert counts[0] > 20 and len(counts) > 3  # some pictures have none, some several
    for record in data.examples[:40]:
        masks = record.masks()
        for index, box in enumerate(record.boxes):
            rows, columns = np.nonzero(masks[index])
            drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            whole = len(record.boxes) == 1  # nothing lies on top
            assert np.abs(drawn - box).max() < (3 if whole else 30)  # a thin tip covers no pixel by half
    np.testing.assert_array_equal(data.examples[3].image(), data.examples[3].image())
    other = shapes.read(split="val", count=5)
    assert any(len(a.boxes) != len(b.boxes) for a, b in zip(other.examples, data.examples, strict=False))


def test_a_circle_is_exact():
    circle = shapes.Shape(shapes.CLASSES.index("circle"), 50, 40, 20, 0)
    np.testing.assert_allclose(circle.box(), [30, 20, 70, 60], atol=1e-9)
    share = shapes._coverage(circle, 100)
    assert abs(share.sum() / (np.pi * 400) - 1) < 0.01
    ring = shapes.Shape(shapes.CLASSES.index("ring"), 50, 40, 20, 0)
    assert abs(shapes._coverage(ring, 100).sum() / (np.pi * 400 * (1 - 0.55**2)) - 1) < 0.02


class Features(dict):
    """As tfds.features.FeaturesDict: feature names to features, a sequence keeping its inner one in `feature`."""


def named(*names):
    return types.SimpleNamespace(names=list(names))


def test_tfds_detection():
    features = Features(objects=types.SimpleNamespace(feature=Features(label=named("cat", "dog"))))
    items = [
        {
            "image": layouts.encoded(layouts.picture(40, 30)),
            "image/filename": b"x/0001.jpg",
            "objects": {
                "bbox": np.float32([[0.1, 0.2, 0.5, 0.6], [0, 0, 0, 1]]),
                "label": np.array([1, 0]),
                "is_difficult": np.array([True, False]),
            },
        },
        {
            "image": layouts.picture(40, 30),
            "image/id": np.int64(5),
            "objects": {"bbox": np.zeros((0, 4), np.float32), "label": np.zeros(0, np.int64)},
        },
    ]
    data = tfds.adapt(items, tfds._class_names(features), "tfds:made")
    check(dataclasses.replace(data, examples=data.examples[:1]))
    first, second = data.examples
    assert data.classes == ["cat", "dog"] and (first.image_id, second.image_id) == ("0001", 5)
    np.testing.assert_allclose(first.boxes, [[8, 3, 24, 15]], rtol=1e-6)
    assert first.labels.tolist() == [1] and first.difficult.tolist() == [True]
    assert data.broken[0]["why"].endswith("of object 2 (cat) is empty")
    assert not len(second.boxes) and second.image().shape == (30, 40, 3)


def test_tfds_classification():
    items = [{"image": np.full((8, 8, 1), 7, np.uint8), "label": np.int64(1)}]
    data = tfds.adapt(items, tfds._class_names(Features(label=named("a", "b"))), "tfds:made")
    check(data)
    assert data.examples[0].label == 1 and (data.examples[0].image() == 7).all()
    with pytest.raises(InputError, match="no set of classes or boxes"):
        tfds._class_names(Features(text=None))


def test_tfds_absent():
    try:
        import tensorflow_datasets  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match="pip install tensorflow-datasets"):
            datasets.open("tfds:mnist")


def test_a_split_may_be_a_part_of_one():
    whole = datasets.open("digits", split="test")
    first, rest, some = (
        datasets.open("digits", split=f"test{part}") for part in ("[:5]", "[5:]", "[100:103]")
    )
    assert [r.image_id for r in first.examples + rest.examples] == [r.image_id for r in whole.examples]
    assert [r.image_id for r in some.examples] == [r.image_id for r in whole.examples[100:103]]
    assert len(datasets.open("digits", split="[:7]")) == 7  # of the reader's default
    with pytest.raises(InputError, match="no split"):
        datasets.open("digits", split="nothing[:5]")


def test_figures_are_where_their_joints_say():
    """The wrist's pixel has the colour of its side, and all joints lie in the picture."""
    data = datasets.open("figures")
    assert len(data) == 300 and data.joints == datasets.open("figures", split="val").joints
    for record in data.examples[:40]:
        points = record.joints[:, :2]
        assert (points > 0).all() and (points < 128).all() and record.joints[:, 2].all()
        assert record.boxes[0].tolist() == [*points.min(0), *points.max(0)]
    record = data.examples[0]
    image = record.image().astype(int)
    for name, colour in (("left_wrist", figures.LEFT), ("right_ankle", figures.RIGHT)):
        x, y = record.joints[data.joints.index(name), :2].astype(int)
        assert np.abs(image[y, x] - colour).max() < 30
    with pytest.raises(InputError, match="no split 'x'"):
        datasets.open("figures", split="x")
