"""Batches: a function of seed and step, of static shapes, with a way home to the file's pixels."""

import dataclasses
import os
import threading

import dataset_layouts as layouts
import numpy as np
import pytest

from tfcnn import datasets
from tfcnn.datasets import cache, pipeline, shapes
from tfcnn.datasets.augment import Augmentation
from tfcnn.datasets.example import Dataset, Record
from tfcnn.errors import InputError


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
    places = [place for step in range(11) for place in stream.places(step)]
    assert [epoch for epoch, _ in places] == [0] * 11 + [1] * 11 + [2] * 11 + [3] * 11
    orders = [[index for epoch, index in places if epoch == wanted] for wanted in range(4)]
    assert all(sorted(order) == list(range(11)) for order in orders)
    assert len(set(map(tuple, orders))) == 4
    assert stream.steps_per_epoch == 3
    other = batches(data, seed=1)
    assert [other.places(step) for step in range(3)] != [stream.places(step) for step in range(3)]


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
    assert set(batch) == {"image", "image_id", "original_size", "scale", "offset", "label"}
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


def test_bad_arguments(data):
    for options, message in (
        ({"augment": "strong"}, "No augmentation 'strong': one of none, detection"),
        ({"resize": "crop"}, "stretch or letterbox"),
    ):
        with pytest.raises(InputError, match=message):
            batches(data, **options)
    with pytest.raises(InputError, match="has no pictures"):
        batches(made())


# ------------------------------------------------------------------------------- caches


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_cache(kind, tmp_path):
    reads = []
    pixels = layouts.picture(80, 60)

    def source():
        reads.append(threading.get_ident())
        return pixels

    known = Record("a", "a", 80, 60, source, np.float32([[8, 6, 40, 30]]))
    unknown = Record("b", "b", 0, 0, source, np.float32([[8, 6, 40, 30]]))
    small = Record("c", "c", 20, 15, lambda: layouts.picture(20, 15), np.float32([[2, 1, 9, 9]]))
    data = made(known, unknown, small)
    expected = batches(data, shuffle=False, batch_size=3).batch(0)

    def cached():
        return cache.in_memory(data, 30) if kind == "memory" else cache.on_disk(data, tmp_path / "cache", 30)

    kept = cached()
    for step in (0, 1):
        batch = batches(kept, shuffle=False, batch_size=3).batch(step)
        for name in ("boxes", "scale", "offset", "area", "original_size"):
            np.testing.assert_allclose(batch[name], expected[name], rtol=1e-5, err_msg=name)
        assert np.abs(batch["image"] - expected["image"]).mean() < 3
    assert len(reads) == 2 + 2  # once for what is expected, once for the cache
    assert kept.examples[0].image().shape == (30, 40, 3)
    if kind == "disk":
        again = batches(cached(), shuffle=False, batch_size=3).batch(0)
        equal(again, batch)
        assert len(reads) == 4 and len(os.listdir(tmp_path / "cache")) == 3
        for index, file in enumerate((tmp_path / "cache").iterdir()):
            file.write_bytes(b"damaged" if index else file.read_bytes()[:90])
        equal(batches(cached(), shuffle=False, batch_size=3).batch(0), batch)
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="cannot hold the cache"):
            cache.on_disk(data, tmp_path / "file" / "in", 30)


# ------------------------------------------------------------------------------- tf.data


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
