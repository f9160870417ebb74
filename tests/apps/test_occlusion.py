"""occlusion as a person runs it: maps, where the class is lost, the most probable classes, a channel."""

import json

import keras
import numpy as np
import pytest

from tfcnn import images

layers = keras.layers


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A classifier of 32 px whose class 0 is red and class 1 green, as a file."""
    image = keras.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D(name="mean")(layers.Conv2D(2, 1, use_bias=False, name="colours")(image))
    net = keras.Model(image, layers.Dense(2, activation="softmax", use_bias=False)(x))
    net.set_weights([np.float32([[[[1, 0], [0, 1], [0, 0]]]]), np.eye(2, dtype=np.float32) / 8])
    path = tmp_path_factory.mktemp("model") / "colours.keras"
    net.save(path)
    return path


@pytest.fixture(scope="module")
def run(run_app, model, tmp_path_factory):
    """A red spot at the upper right and a green one at the lower left of 64 x 64 pixels: (process, output_dir)."""
    out = tmp_path_factory.mktemp("occlusion")
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[8:16, 40:48, 0] = 255
    picture[48:56, 16:24, 1] = 200
    images.write(out / "spots.png", picture)
    return run_app(
        "occlusion", out / "spots.png", f"--model={model}", "--resize=stretch", f"--output_dir={out}"
    ), out


def test_the_class_is_lost_where_its_colour_is_hidden(run):
    done, out = run
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((out / "results.json").read_text())["images"]
    red, green = 255 / 64, 200 / 64  # means of the whole picture
    assert entry["class"]["index"] == 0 and entry["method"] == "zeros" and entry["patch"] == 8
    assert entry["class"]["score"] == pytest.approx(1 / (1 + np.exp((green - red) / 8)), abs=2e-3)
    assert entry["least"] == pytest.approx(1 / (1 + np.exp(green / 8)), abs=2e-3)
    x, y = entry["place"]  # in the file's pixels; the patch is 16 of them, and covers the spot of 8
    assert abs(x - 44) <= 4.5 and abs(y - 12) <= 4.5
    assert np.shape(entry["map"]) == (13, 13) and np.min(entry["map"]) == pytest.approx(
        entry["least"], abs=1e-5
    )
    assert {each["index"] for each in entry["most_probable"]} == {0, 1}
    assert sum(each["share"] for each in entry["most_probable"]) == pytest.approx(1)
    assert entry["picture"] == "spots_occlusion.png" and all((out / name).exists() for name in entry["files"])
    dark = images.read(out / "spots_occlusion.png").sum(axis=-1)
    row, column = np.unravel_index(dark.argmin(), dark.shape)
    assert abs(column - 22) <= 3 and abs(row - 6) <= 3  # of the 32 pixels that the net sees


def test_two_classes_another_patch_and_a_channel(run_app, run, model, tmp_path):
    picture = run[1] / "spots.png"
    flags = ["--class=0,1", "--method=mean", "--patch=10", "--stride=5"]
    done = run_app("occlusion", picture, f"--model={model}", *flags, f"--output_dir={tmp_path / 'a'}")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "a" / "results.json").read_text())["images"]
    assert [each["index"] for each in entry["classes"]] == [0, 1] and entry["method"] == "mean"
    flags = ["--layer=colours", "--channel=1", "--resize=stretch"]
    done = run_app("occlusion", picture, f"--model={model}", *flags, f"--output_dir={tmp_path / 'b'}")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "b" / "results.json").read_text())["images"]
    assert entry["least"] == pytest.approx(0, abs=0.05) and entry["class"]["score"] == pytest.approx(
        200 / 64, abs=0.05
    )
    assert abs(entry["place"][0] - 20) <= 4.5 and "most_probable" not in entry


def test_a_patch_that_does_not_fit(run_app, run, model, tmp_path):
    done = run_app(
        "occlusion",
        run[1] / "spots.png",
        f"--model={model}",
        "--patch=40",
        f"--output_dir={tmp_path / 'out'}",
    )
    assert done.returncode == 2 and "32" in done.stderr and not (tmp_path / "out").exists()


def test_what_is_no_classifier_is_asked_by_a_layer(run_app, run, tmp_path):
    """A model of two outputs has no classes; occlusion says what to ask, attacks that it cannot be attacked."""
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(2, 1, activation="relu", name="colours")(image)
    path, picture = tmp_path / "two.keras", run[1] / "spots.png"
    keras.Model(image, [x, layers.Flatten()(x)], name="two").save(path)
    for app, layer in (("occlusion", True), ("adversarial", False)):
        done = run_app(app, picture, f"--model={path}", f"--output_dir={tmp_path / 'none'}")
        assert done.returncode == 2 and not (tmp_path / "none").exists()
        (line,) = done.stderr.strip().splitlines()
        assert "two is no classifier" in line and ("ask one of its layers by --layer" in line) == layer
    flags = ["--layer=colours", "--channel=1", f"--output_dir={tmp_path / 'out'}"]
    done = run_app("occlusion", picture, f"--model={path}", *flags)
    assert done.returncode == 0, done.stderr
