"""Models of others are opened, or refused with what is missing; nothing that a file brings along is run."""

import json
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import tfcnn
from tfcnn import cards, importing
from tfcnn.backbones import classifier
from tfcnn.backbones.rows import Preprocessing
from tfcnn.errors import InputError

PICTURE = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model in every form."""
    folder = tmp_path_factory.mktemp("models")
    model = classifier("tiny", None, classes=7, size=32)
    model.save(folder / "model.keras")
    model.save(folder / "legacy.h5")
    model.save_weights(folder / "only.weights.h5")
    model.export(folder / "saved", verbose=False)
    shutil.copy(folder / "model.keras", folder / "model.bin")
    shutil.copy(folder / "legacy.h5", folder / "legacy.model")
    (folder / "text.keras").write_text("no model")
    data = (folder / "model.keras").read_bytes()
    (folder / "cut.keras").write_bytes(data[: len(data) // 2])
    with zipfile.ZipFile(folder / "other.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    return folder


@pytest.mark.parametrize(
    "source", ["model.keras", "legacy.h5", "model.bin", "legacy.model", "saved", ""], ids=str
)
def test_every_form_of_a_model(folder, source):
    expected = keras.saving.load_model(folder / "model.keras")(PICTURE)
    model = tfcnn.load_model(folder / source)
    for key in ("logits", "scores"):
        np.testing.assert_allclose(model(PICTURE)[key], expected[key], atol=1e-6)
    picture = tf.constant(PICTURE)
    with tf.GradientTape() as tape:
        tape.watch(picture)
        score = model(picture)["logits"][:, 0]
    assert np.any(tape.gradient(score, picture))
    if source != "saved":
        np.testing.assert_array_equal(model.zero_rgb, [127.5] * 3)


@pytest.mark.parametrize(
    "source,reason",
    [
        ("none.keras", "There is no model"),
        ("text.keras", "no model of Keras"),
        ("cut.keras", "damaged or cut short"),
        ("other.zip", "no model of Keras"),
        ("only.weights.h5", "holds weights without a model"),
    ],
)
def test_what_is_no_model(folder, source, reason):
    with pytest.raises(InputError, match=reason):
        tfcnn.load_model(folder / source)


def test_releases_by_name(folder, monkeypatch, tmp_path):
    (tmp_path / "saved_models" / "mine").mkdir(parents=True)
    shutil.copy(folder / "model.keras", tmp_path / "saved_models" / "mine")
    monkeypatch.setattr(cards, "__file__", str(tmp_path / "tfcnn" / "cards.py"))
    assert cards.releases() == {"mine": tmp_path / "saved_models" / "mine"}
    assert tfcnn.load_model("mine").name == "tiny"
    with pytest.raises(InputError, match="a release .mine."):
        tfcnn.load_model("yours")
    (tmp_path / "tfcnn" / "saved_models").mkdir(parents=True)
    assert cards.releases() == {}, "an installed package looks inside itself"


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_file_is_not_run(tmp_path, suffix):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Lambda(lambda x: 2 * x, name="double")(image))
    path = tmp_path / f"lambda{suffix}"
    model.save(path)
    with pytest.raises(InputError, match="the Lambda double, which is code"):
        tfcnn.load_model(path)
    picture = PICTURE[:, :8, :8]
    np.testing.assert_array_equal(tfcnn.load_model(path, allow_custom_objects=True)(picture), 2 * picture)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_class_that_is_not_here(tmp_path, suffix):
    class Strange(keras.layers.Layer):
        def call(self, x):
            return x

    image = keras.Input((8, 8, 3))
    path = tmp_path / f"strange{suffix}"
    keras.Model(image, Strange()(image)).save(path)
    with pytest.raises(InputError, match="needs .*Strange, which is code that tfcnn does not know"):
        tfcnn.load_model(path)
    with pytest.raises(InputError, match="cannot be opened by Keras .*; it needs .*Strange"):
        tfcnn.load_model(path, allow_custom_objects=True)
    with keras.saving.custom_object_scope({"Strange": Strange}):
        assert tfcnn.load_model(path).output_shape == (None, 8, 8, 3), (
            "a class that was imported is no stranger"
        )


HOSTILE = [
    {"class_name": "function", "config": "system", "module": "os", "registered_name": "system"},
    {"class_name": "function", "config": "system", "module": "os", "registered_name": "tfcnn>Preprocess"},
    {"class_name": "function", "config": "get_file", "module": "keras.utils", "registered_name": "get_file"},
    {"class_name": "function", "config": "eval", "module": "builtins", "registered_name": "eval"},
    {"class_name": "Popen", "config": {"args": "true"}, "module": "subprocess", "registered_name": "Popen"},
    {"class_name": "__lambda__", "config": {"value": "00"}},
    {"class_name": "Lambda", "config": {"name": "f"}},
    {"class_name": "TFSMLayer", "module": "keras.layers", "config": {"name": "f"}},
]


@pytest.mark.parametrize("part", HOSTILE, ids=lambda part: f"{part.get('module')}.{part['class_name']}")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_hostile_parts_are_refused_before_keras_sees_them(tmp_path, monkeypatch, part, suffix):
    config = {
        "class_name": "Sequential",
        "config": {"layers": [{"class_name": "ReLU", "config": {"x": [part]}}]},
    }
    path = tmp_path / f"hostile{suffix}"
    if suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", json.dumps(config))
    else:
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = json.dumps(config)
    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("Keras was asked"))
    with pytest.raises(InputError, match="is code that tfcnn does not know"):
        tfcnn.load_model(path)


def test_a_saved_model_that_writes_files_is_refused(tmp_path):
    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3))])
        def __call__(self, x):
            tf.io.write_file(str(tmp_path / "harm"), "x")
            return x

    module = Module()
    tf.saved_model.save(module, tmp_path / "saved", signatures=module.__call__)
    (tmp_path / "harm").unlink(missing_ok=True)
    with pytest.raises(InputError, match="WriteFile"):
        tfcnn.load_model(tmp_path / "saved")
    assert not (tmp_path / "harm").exists()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(InputError, match="no SavedModel"):
        tfcnn.load_model(tmp_path / "saved")


def saved(path, act):
    """A SavedModel with a variable, which does `act` where it is served."""

    class Module(tf.Module):
        def __init__(self):
            self.scale = tf.Variable(2.0)

        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3))])
        def __call__(self, x):
            act()
            return x * self.scale

    module = Module()
    tf.saved_model.save(module, path, signatures=module.__call__)


def write_summary(folder):
    writer = tf.raw_ops.SummaryWriter()
    tf.raw_ops.CreateSummaryFileWriter(
        writer=writer, logdir=folder, max_queue=1, flush_millis=1, filename_suffix=""
    )


@pytest.mark.parametrize(
    ("op", "act"),
    [
        ("PrintV2", lambda file: tf.print("x", output_stream=f"file://{file}")),
        ("CreateSummaryFileWriter", lambda file: write_summary(file)),
        ("SaveV2", lambda file: tf.raw_ops.SaveV2(
            prefix=file, tensor_names=["a"], shape_and_slices=[""], tensors=[tf.constant(1.0)])),
        ("SaveSlices", lambda file: tf.raw_ops.SaveSlices(
            filename=file, tensor_names=["a"], shapes_and_slices=[""], data=[tf.constant(1.0)])),
        ("DebugIdentityV2", lambda file: tf.raw_ops.DebugIdentityV2(
            input=tf.constant(1.0), debug_urls=[f"file://{file}"])),
        ("DebugIdentity", lambda file: tf.raw_ops.DebugIdentity(
            input=tf.constant(1.0), debug_urls=[f"file://{file}"])),
        ("SaveDataset", lambda file: tf.data.Dataset.range(2).save(file)),
    ],
)  # fmt: skip
def test_no_operation_of_a_saved_model_writes(tmp_path, op, act):
    saved(tmp_path / "saved", lambda: act(str(tmp_path / "harm")))
    shutil.rmtree(tmp_path / "harm", ignore_errors=True)  # a data set's is written while it is traced
    with pytest.raises(InputError, match=f"touch files or call Python by .*{op}"):
        tfcnn.load_model(tmp_path / "saved")
    assert not (tmp_path / "harm").exists()


def test_ordinary_saved_models_are_opened(tmp_path):
    saved(tmp_path / "saved", lambda: tf.print("served"))
    assert (tfcnn.load_model(tmp_path / "saved")(np.ones((1, 8, 8, 3))).numpy() == 2).all()


def test_the_saver_of_a_saved_model_is_not_served(tmp_path):
    saved(tmp_path / "saved", lambda: None)
    path = tmp_path / "saved" / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    meta = model.meta_graphs[0]
    saver = meta.saver_def.save_tensor_name.partition(":")[0]
    (name,) = (node.attr["f"].func.name for node in meta.graph_def.node if node.name == saver)
    first = next(each for each in meta.graph_def.library.function if each.signature.name != name)
    other = first.node_def.add(name="harm", op="StatefulPartitionedCall")
    other.attr["f"].func.name = name
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="MergeV2Checkpoints, SaveV2"):
        tfcnn.load_model(tmp_path / "saved")


def test_the_saver_of_a_saved_model_of_tensorflow_1(tmp_path):
    for name in ("good", "bad"):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            image = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 3))
            scale = tf.compat.v1.get_variable("scale", initializer=2.0, use_resource=True)
            harm = [
                tf.raw_ops.SaveV2(prefix="harm", tensor_names=["a"], shape_and_slices=[""], tensors=[image])
            ]
            with tf.control_dependencies(harm if name == "bad" else []):
                outputs = {"y": image * scale}
            session.run(scale.initializer)
            tf.compat.v1.saved_model.simple_save(session, str(tmp_path / name), {"x": image}, outputs)
    assert (tfcnn.load_model(tmp_path / "good")(np.ones((1, 8, 8, 3))).numpy() == 2).all()
    with pytest.raises(InputError, match="by SaveV2"):
        tfcnn.load_model(tmp_path / "bad")


def test_preprocessing_for_a_model_without(tmp_path, folder):
    image = keras.Input((8, 8, 3))
    bare = keras.Model(image, keras.layers.Conv2D(2, 3)(image))
    bare.save(tmp_path / "bare.keras")
    bare.export(tmp_path / "saved", verbose=False)
    picture = PICTURE[:, :8, :8]
    for source in ("bare.keras", "saved"):
        model = tfcnn.load_model(tmp_path / source, preprocessing="tf")
        np.testing.assert_allclose(model(picture), bare(picture / 127.5 - 1), atol=1e-5)
        np.testing.assert_array_equal(model.zero_rgb, [127.5] * 3)
    np.testing.assert_allclose(
        tfcnn.load_model(tmp_path / "bare.keras", preprocessing="vgg16")(picture),
        bare(picture[..., ::-1] - np.array([103.939, 116.779, 123.68])),
        atol=1e-3,
    )
    with pytest.raises(InputError, match="has its preprocessing inside"):
        tfcnn.load_model(folder / "model.keras", preprocessing="tf")
    with pytest.raises(InputError, match="unknown preprocessing 'vgg_16'"):
        tfcnn.load_model(tmp_path / "bare.keras", preprocessing="vgg_16")


def _saved(path, *shapes):
    """A net that sums its inputs and scales each channel of its sum."""
    inputs = [keras.Input(shape) for shape in shapes]
    x = inputs[0] if len(inputs) == 1 else keras.layers.Add()(inputs)
    weights = keras.layers.Dense(2, use_bias=False, kernel_initializer="ones")(x)
    keras.Model(inputs if len(inputs) > 1 else inputs[0], weights).save(path)
    return path


def test_a_net_of_one_channel_takes_pictures_of_three_once_they_are_made_grey(tmp_path):
    path = _saved(tmp_path / "grey.keras", (4, 4, 1))
    how = Preprocessing("grey", (10.0, 10.0, 10.0), (2.0, 2.0, 2.0))
    keras.models.load_model(path).export(tmp_path / "grey", verbose=False)
    for source in (path, tmp_path / "grey"):
        model = tfcnn.load_model(source, preprocessing=how)
        assert model.input_shape == (None, 4, 4, 3)
        found = np.asarray(model(np.full((1, 4, 4, 3), (50, 100, 200), np.float32)))
        np.testing.assert_allclose(found, (0.299 * 50 + 0.587 * 100 + 0.114 * 200 - 10) / 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("shapes", "why"),
    [
        ([(4, 4, 1)], "reads 1 channels, and pictures in the order rgb have 3: the channels are grey"),
        ([(4, 4, 4)], "reads 4 channels"),
        ([(16,)], "no picture that could be preprocessed"),
        ([(4, 4, 3), (4, 4, 3)], "reads 2 inputs, and preprocessing is of one picture"),
    ],
)
def test_preprocessing_for_what_is_no_picture_is_refused(tmp_path, shapes, why):
    with pytest.raises(InputError, match=why):
        tfcnn.load_model(_saved(tmp_path / "odd.keras", *shapes), preprocessing="tf")


def test_transfer_learning_as_people_do_it(tmp_path):
    """A sequential model with augmentation, scaling and a whole net inside becomes one flat net."""
    base = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3))
    base.trainable = False
    inside = [keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 127.5, -1), base]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4, activation="softmax")]
    model = keras.Sequential([keras.Input((32, 32, 3)), *inside, *head])
    model.save(tmp_path / "mine.keras")
    opened = tfcnn.load_model(tmp_path / "mine.keras")
    np.testing.assert_allclose(opened(PICTURE), model(PICTURE), atol=1e-6)
    assert opened.get_layer("block_3_expand").output.shape[-1] == 144
    unbuilt = keras.Sequential([keras.layers.Dense(2)])
    unbuilt.save(tmp_path / "unbuilt.keras")
    with pytest.raises(InputError, match="does not say what size of picture it reads"):
        tfcnn.load_model(tmp_path / "unbuilt.keras")


def keras_2_file(path, **fields):
    """A file as Keras 2 wrote it: a depthwise convolution with fields that Keras 3 does not know."""
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.DepthwiseConv2D(3, name="depthwise")])
    model.save(path)
    first = {"batch_input_shape": [None, 8, 8, 3], "dtype": "float32", "sparse": False, "ragged": False}
    second = {"name": "depthwise", "trainable": True, "dtype": "float32", "kernel_size": [3, 3]}
    second |= {"strides": [1, 1], "padding": "valid", "activation": "linear", "depth_multiplier": 1}
    second["depthwise_initializer"] = {"class_name": "GlorotUniform", "config": {"seed": None, "spread": 3}}
    layers = [
        {"class_name": "InputLayer", "config": first | {"name": "input_1"}},
        {"class_name": "DepthwiseConv2D", "config": second | fields},
    ]
    config = {"class_name": "Sequential", "config": {"name": "sequential", "layers": layers}}
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = b"2.9.0"
    return model


def test_fields_of_keras_2_that_do_nothing_are_dropped(tmp_path):
    model = keras_2_file(tmp_path / "old.h5", groups=1, implementation=None)
    picture = PICTURE[:, :8, :8]
    np.testing.assert_allclose(tfcnn.load_model(tmp_path / "old.h5")(picture), model(picture), rtol=1e-6)


def test_an_operation_of_a_newer_keras_is_opened_without_what_this_one_does_not_know(tmp_path):
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, keras.ops.relu(keras.layers.Conv2D(2, 1)(image)))
    model.save(tmp_path / "own.keras")
    with zipfile.ZipFile(tmp_path / "own.keras") as own, zipfile.ZipFile(tmp_path / "new.keras", "w") as new:
        config = json.loads(own.read("config.json"))
        (relu,) = (each for each in config["config"]["layers"] if each["class_name"].lower() == "relu")
        relu["config"]["of_tomorrow"] = None
        for name in own.namelist():
            new.writestr(name, json.dumps(config) if name == "config.json" else own.read(name))
    pictures = np.random.default_rng(0).normal(size=(1, 4, 4, 3))
    np.testing.assert_array_equal(tfcnn.load_model(tmp_path / "new.keras")(pictures), model(pictures))


def test_a_field_that_does_something_is_named(tmp_path):
    keras_2_file(tmp_path / "old.h5", groups=3)
    with pytest.raises(InputError, match=r"old.h5 cannot be opened .*DepthwiseConv2D: \{'groups': 3\}"):
        tfcnn.load_model(tmp_path / "old.h5")


def test_fields_of_another_keras_3_are_dropped_too(tmp_path, folder):
    with (
        zipfile.ZipFile(folder / "model.keras") as archive,
        zipfile.ZipFile(tmp_path / "newer.keras", "w") as newer,
    ):
        for name in archive.namelist():
            data = archive.read(name)
            if name == "config.json":
                config = json.loads(data)
                for layer in config["config"]["layers"]:
                    layer["config"]["of_the_future"] = False
                data = json.dumps(config)
            newer.writestr(name, data)
    expected = tfcnn.load_model(folder / "model.keras")(PICTURE)["scores"]
    np.testing.assert_allclose(tfcnn.load_model(tmp_path / "newer.keras")(PICTURE)["scores"], expected)


def test_a_model_of_whole_numbers_is_one_of_floats(tmp_path):
    image = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255.0)(image))
    model = keras.Model(image, keras.layers.Dense(2)(x))
    model.save(tmp_path / "whole.keras")
    loaded = tfcnn.load_model(tmp_path / "whole.keras")
    picture = np.rint(PICTURE[:, :8, :8])
    assert loaded.inputs[0].dtype == "float32"
    np.testing.assert_allclose(loaded(picture), model(picture.astype(np.uint8)), rtol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_one_line(tmp_path, bad):
    """A rectifier turns NaN into 0 on some machines, so that the scores look like any others."""
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="first")(image)
    model = keras.Model(image, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(x)))
    kernel, bias = model.get_layer("first").get_weights()
    kernel[0, 0, 0, 0] = bad
    model.get_layer("first").set_weights([kernel, bias])
    model.save(tmp_path / "bad.keras")
    with pytest.raises(InputError, match="not finite in first/kernel"):
        tfcnn.load_model(tmp_path / "bad.keras")


def test_half_a_file_is_said_to_be_one(folder):
    with pytest.raises(InputError, match="cut.keras is damaged or cut short"):
        importing.import_model(folder / "cut.keras")
    with pytest.raises(InputError, match="cut.keras is damaged or cut short"):
        classifier("tiny", folder / "cut.keras", classes=7, size=32)
