"""neurons as a person runs it: three rules side by side, a user's own nested model, names that are wrong."""

import json

import keras
import numpy as np
import pytest

from tfcnn import images
from tfcnn.backbones import tap
from tfcnn.visualization import relu_rules
from tfcnn.visualization.gradients import neuron_gradients

layers = keras.layers


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A user's model of 48 px with a model inside it, as a file, and its path."""
    keras.utils.set_random_seed(0)
    body = keras.Sequential(
        [
            keras.Input((48, 48, 3)),
            layers.Rescaling(1 / 127.5, -1),
            layers.Conv2D(6, 3, strides=2, activation="relu", name="low"),
            layers.Conv2D(8, 3, strides=2, activation="relu", name="high"),
        ],
        name="body",
    )
    image = keras.Input((48, 48, 3))
    x = layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(body(image)))
    path = tmp_path_factory.mktemp("model") / "own.keras"
    keras.Model(image, x).save(path)
    return path


@pytest.fixture(scope="module")
def run(run_app, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("neurons")
    flags = ["--neuron=high:3:2,5", "--neuron=low", "--limit=2"]
    return run_app("neurons", f"--model={model}", *flags, f"--output_dir={out}"), out


def test_entries_and_pictures_are_those_of_the_method(run, model):
    done, out = run
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "results.json").read_text())
    entry = report["images"][0]
    assert len(report["images"]) == 2 and entry["rules"] == ["gradient", "deconvnet", "guided"]
    first, second = entry["neurons"]
    assert entry["class"] == first and first["label"] == "high:3:2,5" and first["place"] == [2, 5]
    assert second["layer"] == "low" and second["value"] > 0
    assert entry["picture"] == "chelsea_high_3_2_5_rules.png" and entry["picture"] in entry["files"]
    assert len(entry["files"]) == 8 and all((out / name).exists() for name in entry["files"])

    import tfcnn

    net = tfcnn.load_model(model)
    seen, placement = images.resize(images.read(images.packaged()[0]), 48, "crop")
    find = neuron_gradients(net, "high", "guided")
    ask = seen[None].astype(np.float32), np.array([3], np.int32), np.array([[2, 5]], np.int32)
    signal, _, _, value = find(*ask)
    assert first["value"] == pytest.approx(float(value[0]), rel=1e-4)
    activation = float(tap(net, ["high"])(ask[0])["high"][0, 2, 5, 3])
    assert max(float(value[0]), 0) == pytest.approx(activation, rel=1e-4)
    # stride 4, field 7: rows 8 to 14 and columns 20 to 26, shown with 16 pixels a side
    x1, y1, x2, y2 = np.rint(placement.from_file([first["box"]])[0]).astype(int)
    assert (x2 - x1, y2 - y1) == (16, 16) and y1 <= 8 and y2 >= 15 and x1 <= 20 and x2 >= 27
    expected = relu_rules.picture(signal[0].numpy()[y1:y2, x1:x2])
    assert np.abs(images.read(out / "chelsea_high_3_2_5_guided.png") - expected).max() <= 1


def test_a_class_by_one_rule(run_app, model, tmp_path):
    flags = ["--limit=1", "--rule=guided", "--class=2"]
    done = run_app("neurons", f"--model={model}", *flags, f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "results.json").read_text())["images"]
    assert (
        entry["class"]["index"] == 2 and entry["class"]["layer"] == "logits" and entry["method"] == "guided"
    )
    assert entry["files"] == ["chelsea_2_guided.png", "chelsea_2_rules.png"]


def test_classes_of_one_label_have_files_of_their_own(run_app, model, tmp_path):
    (tmp_path / "labels.txt").write_text("crane\ntabby\ncrane\nsea crane\n")
    flags = [f"--labels={tmp_path / 'labels.txt'}", "--limit=1", "--rule=guided", "--class=0,1,2"]
    done = run_app("neurons", f"--model={model}", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "out" / "results.json").read_text())["images"]
    stems = ("crane_0", "tabby", "crane_2")
    assert entry["files"] == [f"chelsea_{stem}_{kind}.png" for stem in stems for kind in ("guided", "rules")]
    assert all((tmp_path / "out" / name).exists() for name in entry["files"])


def test_a_neuron_of_a_released_detector(run_app, tmp_path):
    flags = ["--neuron=block2_add:3", "--rule=guided", "--image_size=96", "--limit=1"]
    done = run_app("neurons", "--model=faster_rcnn_bccd", *flags, f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "results.json").read_text())["images"]
    row, column = entry["class"]["place"]
    assert entry["class"]["label"] == f"block2_add:3:{row},{column}" and max(row, column) < 24  # stride 4
    assert images.read(tmp_path / entry["files"][0]).std() > 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--neuron=hihg:3"], ["high", "--list_layers"]),
        (["--neuron=high:red"], ["--neuron=high:red", "LAYER:CHANNEL"]),
        (["--neuron=high:3:11,2"], ["row 11", "11 x 11", "48 pixels"]),
        (["--rule=deconv"], ["deconvnet"]),
        (["--neuron=high:3", "--class=1"], ["--neuron", "--class"]),
        (["--channel=3"], ["--layer"]),
    ],
)
def test_wrong_commands_are_status_2(run_app, model, tmp_path, flags, words):
    wrong = run_app("neurons", f"--model={model}", f"--output_dir={tmp_path / 'none'}", *flags)
    assert wrong.returncode == 2 and not (tmp_path / "none").exists()
    (line,) = wrong.stderr.strip().splitlines()
    assert all(word in line for word in words), line


def test_other_rectifiers_are_refused_by_name_before_any_work(run_app, tmp_path):
    image = keras.Input((24, 24, 3))
    x = layers.Conv2D(4, 3, activation="swish", name="smooth")(image)
    keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x))).save(tmp_path / "net.keras")
    common = ["neurons", f"--model={tmp_path / 'net.keras'}", "--limit=1", "--neuron=smooth:1"]
    wrong = run_app(*common, f"--output_dir={tmp_path / 'none'}")
    assert wrong.returncode == 2 and "silu in smooth" in wrong.stderr and not (tmp_path / "none").exists()
