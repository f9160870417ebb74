import hashlib
import json
import pathlib
import time
import zipfile

import keras
import numpy as np
import pytest
import small_training as small

import tfcnn.layers  # noqa: F401  (all that keras' own load_model needs)
from tfcnn import datasets, files, images, load_model
from tfcnn.errors import InputError
from tfcnn.training import releases

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
CARD = {"data": "noise", "classes": ["a", "b"], "command": "none", "seed": 0, "metrics": {}, "licence": "CC0"}


def keras_3_9():
    """The arguments that each class of Keras 3.9.2 takes (read from its signatures); "" are every layer's."""
    return json.loads((HERE / "keras_3_9_arguments.json").read_text())


def unknown_to_3_9(config, known):
    """Lists what a model's config says that Keras 3.9 does not take."""
    found = []
    if isinstance(config, list):
        return [u for item in config for u in unknown_to_3_9(item, known)]
    if not isinstance(config, dict):
        return found
    module = (config.get("module") or "").removeprefix("keras.")
    name = f"{module}.{config.get('class_name')}"
    if module in ("layers", "initializers", "regularizers", "constraints") and not config["registered_name"]:
        arguments = known.get(name)
        if arguments is None:
            found.append(name)
        else:
            base = known[""] if module == "layers" else []
            found += [f"{name}({key})" for key in config["config"] if key not in [*arguments, *base]]
    return found + [u for value in config.values() for u in unknown_to_3_9(value, known)]


def config_of(file):
    return json.loads(zipfile.ZipFile(file).read("config.json"))


def every_newer_argument():
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, name="conv")(image)
    x = keras.layers.SeparableConv2D(4, 3, name="separable")(x)
    x = keras.layers.BatchNormalization(name="norm", synchronized=True)(x)
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    return keras.Model(image, keras.layers.Dense(2, name="dense")(keras.layers.Flatten(name="flat")(x)))


def test_a_release_says_nothing_that_keras_3_9_does_not_take(tmp_path):
    model, known = every_newer_argument(), keras_3_9()
    releases.save(model, tmp_path / "r", CARD)
    assert unknown_to_3_9(config_of(tmp_path / "r/model.keras"), known) == []
    model.save(tmp_path / "uncleaned.keras")
    if tuple(map(int, keras.__version__.split(".")[:2])) >= (3, 15):  # the check itself finds something
        unknown = unknown_to_3_9(config_of(tmp_path / "uncleaned.keras"), known)
        assert "layers.BatchNormalization(renorm)" in unknown
        assert "initializers.GlorotUniform(input_axes)" in unknown


@pytest.mark.parametrize("file", sorted(ROOT.glob("saved_models/*/model.keras")), ids=lambda f: f.parent.name)
def test_the_packaged_releases_load_in_keras_3_9_and_match_their_cards(file):
    assert unknown_to_3_9(config_of(file), keras_3_9()) == []
    card = json.loads((file.parent / "card.json").read_text())
    assert card["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert card["bytes"] == file.stat().st_size <= 16e6
    assert set(releases.REQUIRED) <= card.keys()


def digits_are_named(model):
    """Of 20 written digits of the validation split at least 19 are right (the card says 97.8 % of all)."""
    records = datasets.open("digits", split="val").examples[::18]
    pictures = np.stack([images.resize(r.image(), 64)[0] for r in records]).astype(np.float32)
    answers = model(pictures)["scores"].numpy().argmax(1)
    assert np.sum(answers == [r.label for r in records]) >= len(records) - 1


def a_cat_is_found(model):
    """The best box of a photograph of a cat's head is a cat, over most of the picture."""
    cat = images.packaged()[0]
    size = getattr(model.layers[-1], "size", 320)  # YOLO takes one size alone
    picture, _ = images.resize(images.read(cat.open()), size)
    found = {name: value[0].numpy() for name, value in model(picture[None].astype(np.float32)).items()}
    classes = json.loads((ROOT / "saved_models/faster_rcnn_voc/card.json").read_text())["classes"]
    assert classes[found["labels"][0]] == "cat" and found["scores"][0] > 0.5
    x1, y1, x2, y2 = found["boxes"][0]
    assert (x2 - x1) * (y2 - y1) > 0.4 * size**2


def answers_are_finite(model):
    outputs = model(np.full((1, model.input_shape[1] or 64, model.input_shape[2] or 64, 3), 127, np.float32))
    assert all(np.isfinite(value).all() for value in outputs.values())


def maps_are_finite(model):
    """Detectors on a pyramid give maps of one level, whose sizes differ."""
    assert all(np.isfinite(each).all() for each in model(np.full((1, 96, 112, 3), 127, np.float32)))


# What a release must still be able to do once it is loaded, on either pair of versions.
ABLE = {"digits": digits_are_named}
DETECTORS = ("faster_rcnn_voc", "mask_rcnn_voc", "one_stage_voc", "yolo_voc", "fast_yolo_voc")
ABLE |= dict.fromkeys(DETECTORS, a_cat_is_found)
ABLE |= dict.fromkeys(("hog_voc", "dpm_voc"), maps_are_finite)


@pytest.mark.parametrize("name", sorted(p.parent.name for p in ROOT.glob("saved_models/*/model.keras")))
def test_every_packaged_release_loads_and_does_its_work(name):
    model = load_model(name)
    ABLE.get(name, answers_are_finite)(model)
    if name == "pose_lsp" and tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15):
        return  # written when an operation kept the newer fields that `load_model` leaves out
    plainly = keras.saving.load_model(
        ROOT / "saved_models" / name / "model.keras"
    )  # tfcnn.layers is imported
    for ours, theirs in zip(model.get_weights(), plainly.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_operation_is_released_in_the_words_of_3_9():
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, keras.ops.convert_to_tensor(image, dtype="float32"))
    config = releases.clean_config(json.loads(model.to_json()))
    (operation,) = (each for each in config["config"]["layers"] if each["class_name"] == "ConvertToTensor")
    assert operation["name"] and operation["config"].keys() <= {"dtype", "sparse"}
    assert keras.models.model_from_json(json.dumps(config)).output_shape == (None, 4, 4, 3)


def test_what_3_9_cannot_do_is_no_release():
    with pytest.raises(ValueError, match="renorm"):
        releases.clean_config({"class_name": "BatchNormalization", "config": {"renorm": True}})


def test_it_loads_with_its_weights_kernels_rounded_and_vectors_exact(tmp_path):
    model = small.small_net(batch_norm=True)
    model.get_layer("norm").moving_variance.assign([1e-6, 1e6, 1.0, 3.0])
    model.get_layer("logits").kernel.assign(model.get_layer("logits").kernel * 1e6)  # too large for float16
    card = releases.save(model, tmp_path / "noise", CARD, flags="--steps=3\n")
    loaded = keras.models.load_model(tmp_path / "noise/model.keras")
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        assert theirs.dtype == "float32"
        if ours.path == "conv/kernel":
            np.testing.assert_array_equal(theirs, ours.numpy().astype(np.float16))
        else:
            np.testing.assert_array_equal(theirs, ours)
    assert json.loads((tmp_path / "noise/card.json").read_text()) == card
    assert card["parameters"] == model.count_params()
    assert (tmp_path / "noise/flags.txt").read_text() == "--steps=3\n"


def test_float32_on_request(tmp_path):
    model = small.small_net()
    releases.save(model, tmp_path, CARD, float16=False)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_release_is_compressed(tmp_path):
    releases.save(small.small_net(), tmp_path, CARD)
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert all(member.compress_size < member.file_size for member in archive.infolist())


def test_the_same_weights_are_the_same_bytes(tmp_path):
    for k in range(2):
        releases.save(small.small_net(batch_norm=True), tmp_path / str(k), CARD)
        time.sleep(1.1)  # HDF5 can keep the second in which a group was made
    assert (tmp_path / "0/model.keras").read_bytes() == (tmp_path / "1/model.keras").read_bytes()


def test_a_net_trained_in_mixed_precision_is_released_in_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small.small_net()
    finally:
        keras.config.set_dtype_policy("float32")
    releases.save(model, tmp_path, CARD)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded(small.arrays()["image"]).dtype == "float32"


def test_what_a_kill_left_half_written_is_deleted(tmp_path):
    files.beside(tmp_path / "model.keras").write_bytes(b"half")
    releases.save(small.small_net(), tmp_path, CARD)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "model.keras"]


def test_a_card_that_lacks_something_is_refused(tmp_path):
    with pytest.raises(ValueError, match="licence"):
        releases.save(small.small_net(), tmp_path, {k: v for k, v in CARD.items() if k != "licence"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_released(tmp_path, bad):
    model = small.small_net()
    model.set_weights([np.full_like(array, bad) for array in model.get_weights()])
    with pytest.raises(InputError, match="is not finite: nothing is released"):
        releases.save(model, tmp_path / "release", CARD)
    assert not (tmp_path / "release").exists()


def test_a_figure_that_is_not_finite_is_null_on_the_card(tmp_path):
    figures = {"last": {"top1": 0.0, "loss": float("nan")}, "best": None}
    releases.save(small.small_net(), tmp_path, CARD | {"metrics": figures})
    assert json.loads((tmp_path / "card.json").read_text())["metrics"]["last"] == {"top1": 0.0, "loss": None}
