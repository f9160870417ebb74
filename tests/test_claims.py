"""Files of a few kilobytes that claim gigabytes, or were damaged, end in one line and take no memory."""

import random
import zipfile

import h5py
import keras
import numpy as np
import pytest

import tfcnn
from tfcnn import claims, importing
from tfcnn.errors import InputError

MANY = 2_000_000_000


@pytest.fixture(scope="module")
def model():
    image = keras.Input((4, 4, 3))
    return keras.Model(image, keras.layers.Dense(5, name="dense")(keras.layers.Flatten()(image)))


def changed(path, units=5, arrays=None, blanks=0):
    """A .keras or .h5 file with other `units` in its description, or an array that was never written."""
    old, new = '"units": 5', f'"units": {units}'
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = file.attrs["model_config"].replace(old, new)
            if arrays:
                grown(file["model_weights/dense/dense"], "kernel", arrays)
        return path
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = members["config.json"].replace(old.encode(), new.encode()) + b" " * blanks
    if arrays:
        inner = path.with_suffix(".inner")
        inner.write_bytes(members["model.weights.h5"])
        with h5py.File(inner, "r+") as file:
            grown(file["layers/dense/vars"], "0", arrays)
        members["model.weights.h5"] = inner.read_bytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def grown(group, name, shape):
    del group[name]
    group.create_dataset(name, shape, "f4", chunks=(1, 1000))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize(
    "options,words",
    [
        ({"units": MANY}, "dense claims more weights than"),
        ({"arrays": (48, MANY)}, "claims 384,000,000,000 bytes"),
    ],
)
def test_a_small_file_claims_no_large_net(model, tmp_path, suffix, options, words):
    path = tmp_path / f"net{suffix}"
    model.save(path)
    assert tfcnn.load_model(path).count_params() == model.count_params()
    with pytest.raises(InputError, match=f"^[^\n]*{words}[^\n]*$"):
        tfcnn.load_model(changed(path, **options))


def test_an_archive_that_grows_a_thousand_times_is_not_unpacked(model, tmp_path):
    path = tmp_path / "net.keras"
    model.save(path)
    with pytest.raises(InputError, match="bytes when unpacked"):
        tfcnn.load_model(changed(path, blanks=claims.SLACK + 2**20))


def test_add_weight_is_keras_own_again(model, tmp_path):
    plain = keras.layers.Layer.add_weight
    model.save(tmp_path / "net.keras")
    with pytest.raises(InputError):
        tfcnn.load_model(changed(tmp_path / "net.keras", units=MANY))
    assert keras.layers.Layer.add_weight is plain


def test_darknets_net_is_not_built_for_a_file_that_is_too_short(tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "yolo", None)
    (tmp_path / "net.weights").write_bytes(np.array([0, 1, 0, 0, *range(50)], "<i4").tobytes())
    with pytest.raises(InputError, match="it holds 50 numbers, and fast_yolo has 45,089,374 weights"):
        importing.import_model(tmp_path / "net.weights", net="fast_yolo")


def test_every_damage_of_an_h5_is_a_line(model, tmp_path):
    model.save(tmp_path / "good.h5")
    good, path, draw, said = (tmp_path / "good.h5").read_bytes(), tmp_path / "net.h5", random.Random(0), 0
    places = [*range(0, 2048, 16), *(draw.randrange(len(good)) for _ in range(60))]
    for place in places:
        content = bytearray(good)
        content[place : place + 8] = draw.choice([b"\xff", b"\0", b"\x7f"]) * 8
        path.write_bytes(content)
        try:
            importing.import_model(path)
        except InputError as error:
            said += 1
            assert "\n" not in str(error)
    assert said > 20
