"""Batches: a function of seed and step, of static shapes, with a way home to the file's pixels."""

import dataclasses
import json

import dataset_layouts as layouts
import numpy as np
import pytest

from tfcnn import datasets, images
from tfcnn.datasets import pipeline, shapes
from tfcnn.datasets.augment import Augmentation
from tfcnn.datasets.example import Dataset, Record
from tfcnn.datasets.proposals import Proposals
from tfcnn.errors import InputError
from tfcnn.training import loop


@pytest.fixture(scope="module")
def data():
    return shapes.read(count=11, side=48)


def batches(data, **options):
    return pipeline.batches(data, **({"size": 32, "batch_size": 4} | options))


def equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def plain(boxes=(), width=40, height=30, image_id="a", **fields):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    pixels = layouts.picture(width, height)
    return Record(image_id, f"{image_id}.jpg", width, height, lambda: pixels, boxes, **fields)


def made(*records, joints=()):
    return Dataset("made", ["a", "b"], [1, 2], list(records), [], list(joints))


# ------------------------------------------------------------------------------- order


def test_every_epoch_is_another_permutation(data):
    stream = batches(data)
    places = [place for step in range(11) for place in stream.picks(step)]
    assert [epoch for epoch, _ in places] == [0] * 11 + [1] * 11 + [2] * 11 + [3] * 11
    orders = [[index for epoch, index in places if epoch == wanted] for wanted in range(4)]
    assert all(sorted(order) == list(range(11)) for order in orders)
    assert len(set(map(tuple, orders))) == 4
    assert stream.steps_per_epoch == 3
    other = batches(data, seed=1)
    assert [other.picks(step) for step in range(3)] != [stream.picks(step) for step in range(3)]


def test_a_step_depends_on_seed_and_step_alone(data):
    first, second = batches(data, augment="detection"), batches(data, augment="detection")
    forward = [first.batch(step) for step in range(6)]
    for step in reversed(range(6)):
        equal(second.batch(step), forward[step])
    assert not np.array_equal(
        forward[0]["image"], batches(data, augment="detection", seed=5).batch(0)["image"]
    )


def test_an_epoch_draws_anew(data):
    stream = batches(made(data.examples[0]), augment="detection", batch_size=1)
    assert not np.array_equal(stream.batch(0)["image"], stream.batch(1)["image"])


def test_single_pass_in_order_pads_the_last(data):
    stream = batches(data, shuffle=False, repeat=False)
    ids = [image_id for step in range(stream.steps_per_epoch) for image_id in stream.batch(step)["image_id"]]
    assert ids == [record.image_id for record in data.examples] + [""]
    last = stream.batch(2)
    assert last["image"].shape == (4, 32, 32, 3) and not last["image"][3].any()
    assert (last["labels"][3] == -1).all() and (last["scale"][3] == 1).all()


# ------------------------------------------------------------------------------- content


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_boxes_go_home(resize):
    record = plain([[4, 6, 20, 24]], labels=np.int32([1]), area=np.float32([100]))
    batch = batches(made(record), resize=resize, size=(64, 96), batch_size=1).batch(0)
    scale, offset = np.tile(batch["scale"][0], 2), np.tile(batch["offset"][0], 2)
    np.testing.assert_allclose((batch["boxes"][0, 0] - offset) / scale, [4, 6, 20, 24], rtol=1e-5)
    assert batch["original_size"][0].tolist() == [30, 40]
    np.testing.assert_allclose(batch["area"][0, 0], 100 * batch["scale"][0].prod(), rtol=1e-6)
    if resize == "letterbox":
        assert abs(batch["scale"][0, 0] - batch["scale"][0, 1]) < 0.05
        assert (batch["image"][0, :, :4] == 127).all()
    else:
        np.testing.assert_allclose(batch["scale"][0], [96 / 40, 64 / 30], rtol=1e-6)


def test_augmented_scale_and_offset_are_the_windows():
    record = plain([[4, 6, 20, 24]])
    how = Augmentation(window=(0.5, 1.5), aspect=0.3, min_visible=1.0, min_objects=1.0)
    for step in range(5):
        batch = batches(made(record), augment=how, batch_size=1).batch(step)
        home = (batch["boxes"][0, 0] - np.tile(batch["offset"][0], 2)) / np.tile(batch["scale"][0], 2)
        np.testing.assert_allclose(home, [4, 6, 20, 24], atol=1e-3)


def test_pictures_without_objects_and_more_than_fit():
    many = plain(
        [[k, k, k + 5, k + 5] for k in range(6)], image_id="many", labels=np.arange(6, dtype=np.int32)
    )
    stream = batches(made(plain(), many), batch_size=2, shuffle=False)
    batch = stream.batch(0)
    assert batch["boxes"].shape == (2, 6, 4)
    assert (batch["labels"][0] == -1).all() and batch["labels"][1].tolist() == [0, 1, 2, 3, 4, 5]
    batch = batches(made(plain(), many), batch_size=2, shuffle=False, max_boxes=3).batch(0)
    assert batch["labels"][1].tolist() == [0, 1, 2] and batch["boxes"].shape == (2, 3, 4)
    for augment in ("detection", "detection_mosaic"):
        nothing = batches(made(plain(), plain()), augment=augment, batch_size=2).batch(0)
        assert (nothing["labels"] == -1).all() and np.isfinite(nothing["image"]).all()


def test_classification(tmp_path):
    folder = layouts.classes(tmp_path / "set")
    batch = batches(datasets.open("folder", folder, "train"), augment="classification", size=16).batch(0)
    assert set(batch) == {
        "image",
        "image_id",
        "position",
        "original_size",
        "size",
        "scale",
        "offset",
        "label",
    }
    assert batch["original_size"].tolist() == [[10, 12]] * 4 and set(batch["label"]) <= {0, 1}


def test_class_and_box_together(tmp_path):
    data = datasets.open("tiny_imagenet", layouts.tiny_imagenet(tmp_path / "tiny"))
    batch = batches(data, batch_size=2, shuffle=False).batch(0)
    assert batch["label"].tolist() == [0, 1] and batch["labels"].tolist() == [[0], [1]]


def test_joints_and_masks(tmp_path):
    person = batches(datasets.open("lsp", layouts.lsp(tmp_path / "lsp")), augment="pose").batch(0)
    assert person["joints"].shape == (4, 14, 3) and person["boxes"].shape == (4, 1, 4)
    people = datasets.open("coco", layouts.coco(tmp_path / "coco"))
    batch = batches(people, masks=True, size=(60, 80), batch_size=2, shuffle=False).batch(0)
    assert batch["joints"].shape == (2, 2, 2, 3) and batch["joints"][0, 0].tolist() == [
        [24, 12, 2],
        [36, 12, 1],
    ]
    expected = np.zeros((60, 80), bool)
    expected[10:30, 20:40] = True
    np.testing.assert_array_equal(batch["masks"][0, 0], expected)
    assert not batch["masks"][1].any()
    assert batch["void"].shape == (2, 60, 80) and not batch["void"].any()
    square = batches(people, masks=True, resize="letterbox", size=80, batch_size=2, shuffle=False).batch(0)
    expected = np.zeros((80, 80), bool)
    expected[10:70, :4] = True  # the crowd: all the picture's height, nothing of the bars
    np.testing.assert_array_equal(square["masks"][0, 1], expected)
    assert batch["crowd"][0].tolist() == [False, True]
    with pytest.raises(InputError, match="no masks"):
        batches(made(plain()), masks=True)
    with pytest.raises(InputError, match="no pose"):
        batches(people, augment="detection_mosaic")


def test_mosaic_takes_four_pictures():
    data = made(*(plain([[5, 5, 30, 25]], image_id=str(k), labels=np.int32([k % 2])) for k in range(8)))
    batch = batches(data, augment=Augmentation(mosaic=1.0), size=64).batch(0)
    assert batch["boxes"].shape == (4, 4, 4) and (batch["labels"] >= 0).all()


# ------------------------------------------------------------------------------- shards


@pytest.mark.parametrize("of", [2, 3, 4])
def test_shards_together_are_the_batch(data, of):
    stream = batches(data, augment="detection_mosaic", masks=True)
    for step in (0, 2):
        whole, parts = stream.batch(step), [stream.batch(step, shard, of) for shard in range(of)]
        for name in whole:
            np.testing.assert_array_equal(
                np.concatenate([part[name] for part in parts]), whole[name], err_msg=name
            )


def test_a_shard_reads_its_own_pictures_alone():
    read = []

    def counted(k):
        record = plain(image_id=str(k))
        return dataclasses.replace(record, source=lambda: read.append(k) or layouts.picture(40, 30))

    stream = batches(made(*map(counted, range(8))), shuffle=False, threads=1)
    stream.batch(1, shard=1, of=2)
    assert read == [6, 7]


def test_shards_of_a_single_passs_last_batch(data):
    stream = batches(data, shuffle=False, repeat=False)
    assert [stream.batch(2, shard, 2)["image_id"].tolist() for shard in (0, 1)] == [
        ["train-00008", "train-00009"],
        ["train-00010", ""],
    ]


def test_a_shard_without_rows(data):
    with pytest.raises(InputError, match="Shard 4 of 5 has no rows of a batch of 4"):
        batches(data)(0, 4, 5)


# ------------------------------------------------------------------------------- fit


def test_fit_keeps_the_ratio_and_pads_at_the_right_and_below():
    wide = plain([[4, 6, 20, 24]], 80, 40, "wide")
    high = plain([[4, 6, 20, 24]], 30, 90, "high")
    batch = batches(made(wide, high), resize="fit", size=60, longest=100, batch_size=2, shuffle=False).batch(
        0
    )
    assert batch["size"].tolist() == [[50, 100], [100, 33]]  # the longer side of both would pass 100
    assert batch["image"].shape == (2, 128, 128, 3)
    assert (batch["image"][0, 50:] == 127).all() and (batch["image"][0, :, 100:] == 127).all()
    assert (batch["image"][0, :50, :100] == images.resize(wide.image(), 60, "fit", longest=100)[0]).all()
    np.testing.assert_allclose(batch["boxes"][0, 0], [5, 7.5, 25, 30])
    np.testing.assert_allclose(
        batch["boxes"][1, 0] / np.tile(batch["scale"][1], 2), [4, 6, 20, 24], rtol=1e-6
    )
    one = batches(made(wide), resize="fit", size=40, batch_size=1).batch(0)
    assert one["image"].shape == (1, 64, 96, 3) and one["size"].tolist() == [[40, 80]]


def test_an_augmented_picture_keeps_its_fitted_size():
    record = plain([[4, 6, 20, 24]], 80, 40)
    for augment in (Augmentation(flip=1.0), "detection", Augmentation(mosaic=1.0)):
        stream = batches(made(record), resize="fit", size=60, augment=augment, batch_size=1)
        batch = stream.batch(0)
        assert batch["size"].tolist() == [[60, 120]] and batch["image"].shape == (1, 64, 128, 3)
    flipped = batches(made(record), resize="fit", size=60, augment=Augmentation(flip=1.0), batch_size=1)
    np.testing.assert_allclose(flipped.batch(0)["boxes"][0, 0], [90, 9, 114, 36], rtol=1e-6)


def test_fit_as_tensors_has_unknown_sides(data):
    stream = batches(data, resize="fit", size=20, masks=True)
    spec = stream(0).element_spec
    assert spec["image"].shape.as_list() == [4, None, None, 3]
    (batch,) = stream(1, shard=1, of=2).take(1)
    assert batch["image"].shape == (2, 32, 32, 3) and batch["masks"].shape[2:] == (32, 32)
    with pytest.raises(InputError, match="takes one number, the shorter side"):
        batches(data, resize="fit", size=(20, 30))


# ------------------------------------------------------------------------------- proposals


def proposals(folder, boxes_of):
    entries = [{"file": file, "proposals": rows} for file, rows in boxes_of.items()]
    path = folder / "results.json"
    path.write_text(json.dumps({"images": entries}))
    return Proposals(path)


def test_proposals_are_a_column_that_moves_with_the_picture(tmp_path):
    found = proposals(tmp_path, {"x/a.jpg": [[0, 0, 10, 10, 0.1], [4, 6, 20, 24, 0.9]], "b.png": []})
    records = made(plain([[4, 6, 20, 24]]), plain(image_id="b"))
    options = {"proposals": found, "batch_size": 2, "shuffle": False, "size": (60, 80)}
    batch = batches(records, **options).batch(0)
    assert batch["proposals"].shape == (2, 2, 4) and not batch["proposals"][1].any()
    np.testing.assert_allclose(batch["proposals"][0], [[8, 12, 40, 48], [0, 0, 20, 20]])  # best first
    assert batch["labels"].tolist() == [[0], [-1]]
    for augment in ("detection", Augmentation(flip=1.0), Augmentation(mosaic=1.0)):
        batch = batches(records, augment=augment, **options).batch(0)
        width = 8 if getattr(augment, "mosaic", 0) else 2
        assert batch["proposals"].shape == (2, width, 4)
        if batch["labels"][0, 0] == 0:
            nearest = np.abs(batch["proposals"][0] - batch["boxes"][0, 0]).max(1)
            assert nearest.min() < 1e-3


def test_proposals_of_the_same_name_in_two_folders(tmp_path):
    found = proposals(tmp_path, {f"set/{part}/1.jpg": [[k, 0, 9, 9, 1]] for k, part in enumerate("ab")})
    assert found.of("b/1.jpg").tolist() == [[1, 0, 9, 9]]
    for file, message in (
        ("1.jpg", "several pictures of the name 1.jpg"),
        ("c.jpg", "no proposals for c.jpg"),
    ):
        with pytest.raises(InputError, match=message):
            found.of(file)
    with pytest.raises(InputError, match="no proposals for a.jpg"):
        batches(made(plain()), proposals=found)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(InputError, match="is no results.json of the app propose"):
        Proposals(tmp_path / "results.json")


# ------------------------------------------------------------------------------- broken pictures


def test_a_picture_that_cannot_be_read():
    def fails():
        raise InputError("truncated")

    bad = dataclasses.replace(plain(image_id="bad"), source=fails)
    stream = batches(made(plain(image_id="a"), bad, plain(image_id="c")), shuffle=False, batch_size=3)
    assert stream.batch(0)["image_id"].tolist() == ["a", "c", "c"]
    assert stream.refused == {"bad.jpg": "truncated"}
    stream = batches(made(plain(image_id="a"), bad), shuffle=False, repeat=False, batch_size=2)
    assert stream.batch(0)["image_id"].tolist() == ["a", ""] and stream.refused
    with pytest.raises(InputError, match="No picture of the made data set can be read: truncated"):
        batches(made(bad)).batch(0)


def test_a_mosaics_partner_that_cannot_be_read_is_refused_not_the_picture():
    def fails():
        raise InputError("truncated")

    bad = [dataclasses.replace(plain(image_id=f"bad{k}"), source=fails) for k in range(7)]
    good = plain([[0, 0, 40, 30]], image_id="good", labels=np.int32([1]))
    how = Augmentation(mosaic=1.0)
    stream = batches(made(good, *bad), augment=how, shuffle=False, batch_size=1)
    batch = stream.batch(0)
    assert batch["image_id"].tolist() == ["good"] and batch["labels"].tolist() == [[1, 1, 1, 1]]
    assert stream.refused and "good.jpg" not in stream.refused


def test_bad_arguments(data):
    for options, message in (
        ({"augment": "strong"}, "No augmentation 'strong': one of none, .*detection"),
        ({"resize": "crop"}, "one of stretch, letterbox, fit"),
    ):
        with pytest.raises(InputError, match=message):
            batches(data, **options)
    with pytest.raises(InputError, match="has no pictures"):
        batches(made())


# ------------------------------------------------------------------------------- tf.data


def test_an_id_that_is_no_utf8_reaches_tensorflow_as_its_bytes():
    records = made(plain([[4, 6, 20, 24]], image_id="bild_\udcff"), plain(image_id="\u00fc"))
    stream = batches(records, shuffle=False, repeat=False, batch_size=3)
    (batch,) = stream(0)
    assert batch["image_id"].numpy().tolist() == [b"bild_\xff", "\u00fc".encode(), b""]
    assert loop._ids(stream, 0, 1) == ["bild_\udcff", "\u00fc", ""]


def test_tensorflow_dataset(data):
    stream = batches(data, augment="detection_mosaic", masks=True, threads=3)
    tensors = list(stream(2).take(5))
    for step, batch in enumerate(tensors, start=2):
        expected = stream.batch(step)
        assert list(batch) == list(expected)
        for name, tensor in batch.items():
            assert tensor.shape == expected[name].shape
            array = tensor.numpy()
            if name == "image_id":
                array = np.array([text.decode() for text in array.tolist()], object)
            np.testing.assert_array_equal(array, expected[name], err_msg=name)
    spec = stream(0).element_spec
    assert spec["image"].shape == (4, 32, 32, 3) and spec["labels"].dtype == "int32"
    single = batches(data, shuffle=False, repeat=False)
    assert sum(1 for _ in single(0)) == 3 and sum(1 for _ in single(1)) == 2
