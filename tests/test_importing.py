"""The reader is chosen by content, and every kind of file gives a model or a line that says what is missing."""

import shutil
import struct

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcnn
from tfcnn import importing
from tfcnn.backbones import classifier
from tfcnn.backbones.rows import Preprocessing
from tfcnn.errors import InputError

PICTURES = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)
CAFFE = (
    b"\xa2\x06\x08\x0a\x01a\x3a\x03\x2a\x01\x00"  # layer = 100 {name: "a", blobs {data ...}}, damaged inside
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of every kind, some under names of another kind."""
    folder = tmp_path_factory.mktemp("kinds")
    image = keras.Input((16, 16, 3), name="image")
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="conv")(image)
    scores = keras.layers.Dense(5, "softmax", name="scores")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, scores)
    model.save(folder / "model.keras")
    shutil.copy(folder / "model.keras", folder / "model.caffemodel")
    model.save(folder / "legacy.h5")
    model.export(folder / "saved", verbose=False)
    classifier("tiny", None).save_weights(folder / "tiny.weights.h5")
    (folder / "net.caffemodel").write_bytes(CAFFE)
    (folder / "yolo.weights").write_bytes(struct.pack("<4i", 0, 1, 0, 0) + b"\0" * 400)
    (folder / "text.txt").write_text("no model at all")
    (folder / "empty").write_bytes(b"")
    (folder / "old.pth").write_bytes(b"\x80\x02.")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("w", initializer=np.zeros(2, np.float32))
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver()
        (folder / "slim").mkdir()
        saver.save(session, str(folder / "slim" / "model.ckpt"))
        first_format = tf.compat.v1.train.Saver(write_version=tf.compat.v1.train.SaverDef.V1)
        first_format.save(session, str(folder / "old.ckpt"))
    return folder


KINDS = {
    "model.keras": "keras",
    "model.caffemodel": "keras",
    "legacy.h5": "h5",
    "tiny.weights.h5": "h5_weights",
    "saved": "saved_model",
    "slim": "checkpoint",
    "slim/model.ckpt": "checkpoint",
    "slim/model.ckpt.index": "checkpoint",
    "slim/model.ckpt.data-00000-of-00001": "checkpoint",
    "old.ckpt": "checkpoint",
    "net.caffemodel": "caffemodel",
    "yolo.weights": "darknet",
    "old.pth": "pytorch",
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_known_by_its_content(folder, name):
    assert importing.kind_of(folder / name) == KINDS[name]


@pytest.mark.parametrize(
    "name,reason", [("none", "There is no model"), ("text.txt", "no model that"), ("empty", "no model that")]
)
def test_what_is_no_model(folder, name, reason):
    with pytest.raises(InputError, match=f"{reason}.* a .caffemodel"):
        importing.kind_of(folder / name)


def test_an_h5_that_is_cut_short_is_a_line(folder, tmp_path):
    (tmp_path / "cut.h5").write_bytes((folder / "legacy.h5").read_bytes()[:2000])
    with pytest.raises(InputError, match="cut.h5 cannot be read"):
        importing.kind_of(tmp_path / "cut.h5")


@pytest.mark.parametrize("name", ["model.keras", "legacy.h5", "saved"])
def test_a_whole_model_and_preprocessing_before_it(folder, name):
    expected = keras.saving.load_model(folder / "model.keras")(PICTURES[..., ::-1] / 255)
    imported = importing.import_model(folder / name, preprocessing=Preprocessing("bgr", scale=(255.0,) * 3))
    found = imported.model(PICTURES)
    found = found["scores"] if isinstance(found, dict) else found
    np.testing.assert_allclose(found, expected, atol=1e-5)
    if name != "saved":
        assert {"from": "conv", "to": "conv", "shape": [3, 3, 3, 4]} in imported.layers


def test_weights_alone_need_their_net(folder):
    path = folder / "tiny.weights.h5"
    with pytest.raises(InputError, match="weights without a net"):
        importing.import_model(path)
    imported = importing.import_model(path, net="tiny")
    assert imported.model.name == "tiny" and len(imported.layers) == 11 and not imported.left_over
    with pytest.raises(InputError, match="preprocessing inside"):
        importing.import_model(path, net="tiny", preprocessing=Preprocessing())


@pytest.mark.parametrize(
    "name,options,reason",
    [
        ("net.caffemodel", {}, "give its deploy.prototxt"),
        ("model.keras", {"prototxt": "a.prototxt"}, "is no .caffemodel, and needs no prototxt"),
        ("model.keras", {"net": "tiny"}, "is a whole model"),
        ("model.keras", {"endpoints": ["a"]}, "endpoints are of a .caffemodel"),
        ("yolo.weights", {}, "give yolo or fast_yolo"),
        ("yolo.weights", {"net": "tiny"}, "its nets are yolo and fast_yolo"),
        ("slim/model.ckpt", {}, "of the scope none, and not of one of alexnet_v2"),
    ],
)
def test_what_is_missing_or_makes_no_sense(folder, name, options, reason):
    with pytest.raises(InputError, match=reason):
        importing.import_model(folder / name, **options)


def test_darknets_numbers_fill_yolo(folder, monkeypatch):
    monkeypatch.setattr(importing, "yolo", lambda *_, **__: small)
    monkeypatch.setattr(importing.yolo_weights, "parameters", lambda layers: 0)
    image = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(keras.layers.Conv2D(1, 1, name="conv1")(image))
    small = keras.Model(image, keras.layers.Dense(2, name="output")(x))
    numbers = np.arange(1 + 3 + 2 + 32, dtype="<f4")  # bias, kernel, bias, kernel
    path = folder / "small.weights"
    path.write_bytes(struct.pack("<4i", 0, 1, 0, 0) + numbers.tobytes())
    imported = importing.import_model(path, net="fast_yolo")
    assert [each["to"] for each in imported.layers] == ["conv1", "output"]
    np.testing.assert_array_equal(small.get_layer("output").bias, [4, 5])


def test_a_release_is_a_model_too():
    assert importing.kind_of("digits") == "keras" and "importing" in dir(tfcnn)
