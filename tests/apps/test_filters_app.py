"""filters as a person runs it: a model of one's own with known kernels, a release, wrong commands."""

import json

import keras
import numpy as np
import pytest

from tfcnn import images


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """own.keras: two filters of 7 x 7 in colours, a red edge and noise, then a layer of 3 x 3."""
    path = tmp_path_factory.mktemp("filters") / "own.keras"
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(2, 7, name="first")(image)
    x = keras.layers.Conv2D(5, 3, name="second")(x)
    own = keras.Model(image, x)
    kernel, bias = own.get_layer("first").get_weights()
    across = np.sin(np.arange(7) - 3.0) * np.exp(-((np.arange(7) - 3.0) ** 2) / 8)
    kernel[..., 0] = 0
    kernel[:, :, 0, 0] = across
    kernel[..., 1] = np.random.default_rng(0).normal(size=(7, 7, 3)) / 4
    own.get_layer("first").set_weights([kernel, bias])
    own.save(path)
    return path


def test_an_edge_is_regular_and_noise_is_not(run_app, model, tmp_path):
    done = run_app("filters", f"--model={model}", f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    first, second = json.loads((tmp_path / "results.json").read_text())["images"]
    assert (first["layer"], first["shape"], first["filters"]) == ("first", [7, 7, 3], 2)
    best, worst = first["explained"]
    assert best["channel"] == 0 and best["explained"] > 0.95 and worst["explained"] < 0.6
    assert first["explained_of_noise"] < 0.3 and first["files"] == ["first.png", "first_gabor.png"]
    assert (second["shape"], second["filters"]) == ([3, 3, 2], 5)
    assert second["explained_of_noise"] > 0.8, "nine numbers fit nine values"
    picture = images.read(tmp_path / "first.png")
    left, middle, right = picture[30, 4 + 8 * 2 + 4], picture[30, 4 + 8 * 3 + 4], picture[30, 4 + 8 * 4 + 4]
    assert left[0] == 0 and right[0] == 255 and abs(int(middle[0]) - 128) <= 1 and (left[1:] == 128).all()


def test_a_release_and_chosen_filters(run_app, tmp_path):
    done = run_app(
        "filters", "--model=faster_rcnn_voc", "--layer=block4_depthwise_conv", "--channel=3,5", "--fits=0",
        f"--output_dir={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "results.json").read_text())["images"]
    assert entry["channels"] == [3, 5] and entry["shape"] == [5, 5, 1] and "explained" not in entry


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--layer=frist"], ["frist", "first, second"]),
        (["--channel=2"], ["--channel=2", "0 to 1"]),
        (["--layer=first", "--inputs=4"], ["--inputs is for filters of many input channels"]),
    ],
)
def test_wrong_commands(run_app, model, tmp_path, flags, words):
    done = run_app("filters", f"--model={model}", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    (line,) = done.stderr.strip().splitlines()
    assert all(word in line for word in words), line
