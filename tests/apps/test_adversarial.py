"""adversarial as a person runs it: files read back, metrics, pictures wrong before, targets, and what it refuses."""

import json

import keras
import numpy as np
import pytest

from tfcnn import images
from tfcnn.backbones import classifier


@pytest.fixture(scope="module")
def run(run_app, tmp_path_factory):
    """Two packaged photographs, one of them named wrongly before: (process, output_dir, results)."""
    out = tmp_path_factory.mktemp("adversarial")
    (out / "truth.csv").write_text("file,class_index\nchelsea.png,282\nastronaut.png,281\n")
    done = run_app("adversarial", "--limit=2", f"--truth={out / 'truth.csv'}", f"--output_dir={out / 'run'}")
    return done, out / "run", json.loads((out / "run" / "results.json").read_text())


def test_an_entry_is_measured_on_the_file(run):
    done, out, report = run
    assert done.returncode == 0, done.stderr
    entry = report["images"][0]
    assert entry["picture"] == "chelsea_adversarial.png"
    assert entry["files"] == [f"chelsea_{kind}.png" for kind in ("adversarial", "difference", "sum")]
    seen, _ = images.resize(images.read(images.packaged()[0]), 224, "crop")
    made = images.read(out / entry["picture"])
    difference = made.astype(float) - seen
    assert entry["linf"] == np.abs(difference).max() <= 4
    np.testing.assert_allclose(entry["l2"], np.sqrt((difference**2).sum()), rtol=1e-6)
    scores = np.array(classifier("efficientnet_lite0")(np.stack([seen, made]).astype(np.float32))["scores"])
    assert scores[0].argmax() == entry["index_before"] == 282 and entry["label_before"] == "tiger cat"
    assert scores[1].argmax() == entry["index_after"] != 282 and entry["success"]
    np.testing.assert_allclose(entry["score_after"], scores[1].max(), rtol=1e-3)
    assert entry["history"][0]["step"] == 1 and {"value", "cross_entropy"} <= set(entry["history"][0])
    assert entry["final"]["value"] > -np.log(entry["score_before"])


def test_pictures_that_are_wrong_before_are_counted_apart(run):
    done, out, report = run
    entry = report["images"][1]
    assert entry["wrong_before"] and not entry["success"] and entry["linf"] == 0
    metrics = report["metrics"]
    assert metrics["clean_top1"] == 0.5 and metrics["success"] == 1 and metrics["images"] == 2
    assert metrics["wrong_before"] == 1 and metrics["mean_linf"] == report["images"][0]["linf"]
    assert "clean top-1 50.0%" in done.stderr and "wrong before" in done.stdout


def test_a_target_on_a_users_model_and_a_picture_that_is_it_already(run_app, tmp_path):
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, activation="tanh")(keras.layers.Rescaling(1 / 127.5, offset=-1)(image))
    x = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(x))
    model = keras.Model(image, x)
    model.save(tmp_path / "net.keras")
    pictures = np.random.default_rng(0).integers(0, 256, [12, 16, 16, 3]).astype(np.uint8)
    answers = np.array(model(pictures.astype(np.float32))).argmax(axis=1)
    target = int(np.bincount(answers).argmax())
    assert (answers != target).any()
    (tmp_path / "in").mkdir()
    for number, picture in enumerate(pictures):
        images.write(tmp_path / "in" / f"{number:02}.png", picture)
    done = run_app(
        "adversarial",
        tmp_path / "in",
        f"--model={tmp_path / 'net.keras'}",
        "--resize=stretch",
        "--method=cw",
        "--save_images=false",
        f"--target={target}",
        f"--output_dir={tmp_path / 'out'}",
    )
    assert done.returncode == 1, done.stderr
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(report["refused"]) == (answers == target).sum()
    assert "already" in report["refused"][0]["why"]
    assert len(report["images"]) == (answers != target).sum()
    assert all(entry["index_after"] == target and entry["success"] for entry in report["images"])
    assert report["metrics"]["clean_top1"] is None and report["metrics"]["success"] == 1


def test_eps_0_leaves_the_picture(run_app, tmp_path):
    done = run_app("adversarial", "--limit=1", "--eps=0", "--save_images=false", f"--output_dir={tmp_path}")
    assert done.returncode == 0 and "nothing is left" in done.stderr
    report = json.loads((tmp_path / "results.json").read_text())
    assert report["metrics"] | {"clean_top1": None} == report["metrics"]
    assert report["metrics"]["success"] == 0 and report["images"][0]["linf"] == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--target=tabbi"], ["tabby", "--list_classes"]),
        (["--target=tabby,goldfish"], ["2 classes"]),
        (["--method=deepfool", "--target=tabby"], ["--target", "deepfool"]),
        (["--method=cw", "--eps=4"], ["smallest change"]),
        (["--method=bim", "--restarts=2"], ["random starts"]),
        (["--method=pgdd"], ["pgd"]),
        (["--eps=-1"], ["eps"]),
        (["--eps=256"], ["eps=256", "255 grey levels"]),
        (["--truth=no.csv"], ["no.csv"]),
    ],
)
def test_wrong_commands(run_app, tmp_path, flags, words):
    done = run_app("adversarial", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and not (tmp_path / "out").exists(), done.stderr
    (line,) = done.stderr.strip().splitlines()[-1:]
    assert all(word in line for word in words), line
