import json
import os
import resource
import types

import keras
import numpy as np
import pytest
import small_training as small
import tensorflow as tf

from tfcnn import images
from tfcnn.datasets.example import Dataset, Record
from tfcnn.datasets.root import Root
from tfcnn.errors import InputError
from tfcnn.training import features, last_layer, team
from tfcnn.training.config import ClassifierConfig

IDS = [str(i) for i in small.arrays()["image_id"]]
SIZE = (small.SIDE, small.SIDE)


def body(scale=1.0):
    image = keras.Input((small.SIDE, small.SIDE, 3), name="image")
    start = keras.initializers.GlorotUniform(1)
    x = keras.layers.Conv2D(4, 3, name="conv", kernel_initializer=start)(image)
    net = keras.Model(image, {"map": x, "top": keras.layers.Flatten(name="flat")(x)}, name="body")
    net.get_layer("conv").kernel.assign(net.get_layer("conv").kernel * scale)
    return net


def in_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return body()
    finally:
        keras.config.set_dtype_policy("float32")


def once():
    """All pictures in order, in batches of 8; the last is padded as tfcnn.datasets.pipeline pads it."""
    data = small.arrays()
    for first in range(0, 40, 8):
        image = np.zeros((8, *data["image"].shape[1:]), np.float32)
        ids = [i.encode() for i in IDS[first : first + 8]]
        image[: len(ids)] = data["image"][first : first + 8]
        yield {"image": tf.constant(image), "image_id": tf.constant(ids + [b""] * (8 - len(ids)))}


def found(net, ids=IDS, size=SIZE, files="files 0"):
    return features.fingerprint(net, ids, files, size, "stretch")


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache") / "features"
    net, said, done = body(), [], []
    features.write(folder, net, once, found(net), IDS, say=said.append, progress=done.append)
    assert done == [8, 16, 24, 32, 37]
    return folder, net, said


def test_the_features_are_the_nets_of_each_picture_and_its_mirror_image(cached):
    folder, net, said = cached
    cache = features.read(folder, found(net))
    assert cache.image_ids == IDS
    image = small.arrays()["image"]
    for view, pictures in enumerate((image, image[:, :, ::-1])):
        for name, expected in net(pictures).items():
            np.testing.assert_allclose(cache.arrays[name][:, view], expected, atol=2e-3)
    assert cache.arrays["map"].shape == (37, 2, 4, 4, 4) and cache.arrays["map"].dtype == np.float16
    assert said == [f"The features of 37 pictures take {37 * 2 * 128 * 2 / 1e6:.1f} MB in {folder}."]


@pytest.mark.parametrize(
    "what, changed",
    [
        ("weights", {"net": lambda: body(1.001)}),
        ("pictures", {"ids": IDS[::-1]}),
        ("pictures", {"files": "files 1"}),
        ("layers and precision", {"net": in_bfloat16}),
        ("size", {"size": (5, 6)}),
    ],
)
def test_a_stale_cache_is_refused_with_what_has_changed(cached, what, changed):
    folder, net, _ = cached
    other = changed.get("net", lambda: net)()
    rest = {name: value for name, value in changed.items() if name != "net"}
    with pytest.raises(InputError, match=f"stale: other {what}; delete"):
        features.read(folder, found(other, **rest))


def test_another_folder_of_the_same_names_is_other_pictures(tmp_path):
    config = ClassifierConfig(batch_size=2, resize="stretch", threads=1)

    def cached(level, label):
        file = tmp_path / str(level) / "a.png"
        file.parent.mkdir(exist_ok=True)
        images.write(file, np.random.default_rng(0).integers(0, level, (9, 9, 3), np.uint8))
        record = Record("a", "a.png", 9, 9, Root(file.parent).file("a.png"), label=label)
        part = Dataset("folder", ["one", "two"], [1, 2], [record])
        how = {"stop": None, "progress": None, "say": len}
        return last_layer.cache(body(), part, tmp_path / "cache", config, small.SIDE, False, **how)

    first = cached(256, 0).arrays["map"]
    np.testing.assert_array_equal(cached(256, 1).arrays["map"], first)
    with pytest.raises(InputError, match="stale: other pictures; delete"):
        cached(2, 0)


def test_files_of_the_same_names_and_sizes_are_other_pictures_where_they_hold_others(tmp_path):
    config = ClassifierConfig(batch_size=2, resize="stretch", threads=1)

    def cached(level, count=3):
        folder = tmp_path / str(level)
        folder.mkdir(exist_ok=True)
        for i in range(count):
            (folder / f"{i}.ppm").write_bytes(b"P6 9 9 255\n" + bytes([level + i]) * (9 * 9 * 3))
        root = Root(folder)
        records = [Record(f"{i}", f"{i}.ppm", 9, 9, root.file(f"{i}.ppm"), label=0) for i in range(count)]
        part = Dataset("folder", ["one"], [1], records)
        how = {"stop": None, "progress": None, "say": len}
        return last_layer.cache(body(), part, tmp_path / "cache", config, small.SIDE, False, **how)

    first = cached(7).arrays["map"]
    np.testing.assert_array_equal(cached(7).arrays["map"], first)
    with pytest.raises(InputError, match="stale: other pictures; delete"):
        cached(8)


def test_another_preprocessing_is_another_net():
    plain = body()
    image = keras.Input((small.SIDE, small.SIDE, 3), name="image")
    scaled = plain.get_layer("conv")(keras.layers.Rescaling(0.5, name="scale")(image))
    other = keras.Model(image, {"map": scaled, "top": plain.get_layer("flat")(scaled)}, name="body")
    assert found(other)["layers"] != found(plain)["layers"]
    assert found(other)["weights"] == found(plain)["weights"]
    assert found(body()) == found(body())


@pytest.mark.parametrize("harm", ["flip", "cut", "index"])
def test_a_damaged_cache_is_refused(cached, tmp_path, harm):
    folder, net, _ = cached
    copy = tmp_path / "features"
    copy.mkdir()
    for file in folder.iterdir():
        content = bytearray(file.read_bytes())
        if harm == "index" and file.name == "index.json":
            content = content[:50]
        if harm != "index" and file.name == "map.npy":
            content[-3] ^= 1
            content = content[: -100 if harm == "cut" else None]
        (copy / file.name).write_bytes(content)
    with pytest.raises(InputError, match="damaged|no whole cache"):
        features.read(copy, found(net))


def test_values_beyond_float16_are_kept_as_float32_and_this_is_said(tmp_path):
    """Some pictures' features pass 65504, the first batch's do not."""
    net, said = body(), []

    def later_bright():
        for k, b in enumerate(once()):
            yield b | {"image": b["image"] * 1e6 if k == 3 else b["image"]}

    features.write(tmp_path / "f", net, later_bright, found(net), IDS, say=said.append)
    cache = features.read(tmp_path / "f", found(net))
    assert cache.arrays["map"].dtype == np.float32
    expected = net(small.arrays()["image"])["map"].numpy()
    np.testing.assert_allclose(cache.arrays["map"][:8, 0], expected[:8], atol=2e-3)
    np.testing.assert_allclose(cache.arrays["map"][24:32, 0], expected[24:32] * 1e6, rtol=1e-3, atol=1e3)
    assert "map pass float16's range: they are kept as float32" in " ".join(said)
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == ["index.json", "map.npy", "top.npy"]


def test_features_that_are_not_finite_are_no_cache(tmp_path):
    net = body(np.nan)
    with pytest.raises(InputError, match="not finite"):
        features.write(tmp_path / "f", net, once, found(net), IDS, say=lambda text: None)
    assert not (tmp_path / "f").exists()


def test_shards_of_a_batch_are_the_batch(cached):
    folder, net, _ = cached
    batches = features.Batches(features.read(folder, found(net)), {"label": np.arange(37)}, 8, seed=4)
    whole = next(batches(6).as_numpy_iterator())
    parts = [next(batches(6, shard, 3).as_numpy_iterator()) for shard in range(3)]
    for name, array in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), array)


def test_too_small_a_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(features.shutil, "disk_usage", lambda folder: type("", (), {"free": 10})())
    net = body()
    with pytest.raises(InputError, match="the disk has 0.0 GB left"):
        features.write(tmp_path / "f", net, once, found(net), IDS, say=lambda text: None)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_is_cut_off_leaves_no_cache(tmp_path):
    net = body()

    def broken():
        yield next(once())
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        features.write(tmp_path / "f", net, broken, found(net), IDS, say=lambda text: None)
    with pytest.raises(InputError, match="no whole cache"):
        features.read(tmp_path / "f", found(net))


def test_a_picture_that_cannot_be_read_leaves_its_row_empty_and_is_never_shown(tmp_path):
    """The 10th and the last are unreadable: the others stay in their rows."""

    def with_gaps():
        for batch in once():
            ids = [b"" if i in (b"picture9", b"picture36") else i for i in batch["image_id"].numpy()]
            yield batch | {"image_id": tf.constant(ids)}

    net = body()
    features.write(tmp_path / "f", net, with_gaps, found(net), IDS, say=lambda text: None)
    cache = features.read(tmp_path / "f", found(net))
    assert cache.image_ids == ["" if k in (9, 36) else i for k, i in enumerate(IDS)]
    expected = net(small.arrays()["image"])["top"].numpy()
    np.testing.assert_allclose(
        np.delete(cache.arrays["top"][:, 0], [9, 36], 0), np.delete(expected, [9, 36], 0), atol=2e-3
    )
    batches = features.Batches(cache, {"label": np.arange(37)}, 5, seed=4)
    assert batches.steps_per_epoch == 7
    shown = np.concatenate([b["label"] for b in batches(0).take(7).as_numpy_iterator()])
    assert sorted(shown) == [k for k in range(37) if k not in (9, 36)]


def test_a_disk_that_fills_ends_in_a_sentence(tmp_path):
    """The limit of a file's size stands in for the full disk."""
    net = body()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot be written to .*too large"):
            features.write(tmp_path / "f", net, once, found(net), IDS, say=lambda text: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "f").exists()


def test_batches_show_every_picture_once_an_epoch_and_go_on_anywhere(cached):
    folder, net, _ = cached
    cache = features.read(folder, found(net))
    batches = features.Batches(cache, {"label": np.arange(37)}, 8, seed=4)
    assert batches.steps_per_epoch == 5
    rows = [b for b in batches(0).take(10).as_numpy_iterator()]
    order = np.concatenate([b["label"] for b in rows])
    assert sorted(order[:37]) == list(range(37)) != list(order[:37])
    assert sorted(order[37:74]) == list(range(37)) and list(order[37:74]) != list(order[:37])
    for row, later in zip(rows[3:], batches(3).take(7).as_numpy_iterator(), strict=True):
        for name in row:
            np.testing.assert_array_equal(row[name], later[name])
    views = set()
    for name, place, top in zip(rows[0]["image_id"], rows[0]["label"], rows[0]["top"], strict=True):
        assert name.decode() == IDS[place]
        views.add(int(np.argmin([abs(cache.arrays["top"][place, v] - top).sum() for v in (0, 1)])))
    assert views == {0, 1}


def test_names_of_files_need_not_be_utf_8(tmp_path):
    (tmp_path / "data").mkdir()
    for name in (b"bild_\xff.png", "\u00fc.png".encode()):
        images.write(os.fsdecode(bytes(tmp_path / "data") + b"/" + name), np.zeros((9, 9, 3), np.uint8))
    root = Root(tmp_path / "data")
    names = ["bild_\udcff.png", "\u00fc.png"]
    records = [Record(name[:-4], name, 9, 9, root.file(name), label=0) for name in names]
    part = Dataset("folder", ["one"], [1], records)
    config = ClassifierConfig(batch_size=2, resize="stretch", threads=1)
    how = {"stop": None, "progress": None, "say": len}
    cache = last_layer.cache(body(), part, tmp_path / "cache", config, small.SIDE, False, **how)
    assert cache.image_ids == ["bild_\udcff", "\u00fc"]
    batch = next(features.Batches(cache, {"label": np.arange(2)}, 2, seed=4)(0).as_numpy_iterator())
    assert set(batch["image_id"]) == {b"bild_\xff", "\u00fc".encode()}


def test_the_index_is_as_documented(cached):
    index = json.loads((cached[0] / "index.json").read_text())
    assert index.keys() == {"format", "fingerprint", "image_ids", "arrays"}
    assert index["arrays"]["top"].keys() == {"file", "shape", "dtype", "sha256"}
    assert np.load(cached[0] / "top.npy").shape == tuple(index["arrays"]["top"]["shape"]) == (37, 2, 64)


def test_several_processes_keep_no_features(monkeypatch):
    assert team.check_alone(None, "folder") and team.check_alone(None, None)
    monkeypatch.setattr(team, "Team", lambda strategy: types.SimpleNamespace(size=2))
    assert not team.check_alone(None, None)
    with pytest.raises(InputError, match="cache_features is for one process"):
        team.check_alone(None, "folder")
