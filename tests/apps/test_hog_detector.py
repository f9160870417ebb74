"""hog_detector and dpm as a person runs them: train a release on drawn shapes, detect with it, measure it."""

import json
import re
import signal
import subprocess
import sys

import pytest

import tfcnn
from tfcnn import images

DATA = ["--dataset=shapes", "--classes=ring", "--train_size=96", "--train_images=24", "--validate_images=4"]
DATA += ["--rounds=1", "--pictures=4", "--aspects=1", "--largest=1", "--per_octave=2", "--negatives=200"]


@pytest.fixture(scope="module")
def released(run_app, tmp_path_factory):
    """The outputs of both trainers: {app: folder}."""
    folders = {}
    for app, own in (("hog_detector", []), ("dpm", ["--parts=3", "--side=4"])):
        folders[app] = tmp_path_factory.mktemp(app)
        done = run_app(app, "train", *DATA, *own, f"--output_dir={folders[app]}")
        assert done.returncode == 0, done.stderr
    return folders


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize(("app", "kind"), [("hog_detector", "hog_svm"), ("dpm", "dpm")])
def test_train_then_detect_and_repeat(run_app, released, tmp_path, app, kind):
    folder = released[app]
    card = json.loads((folder / "release/card.json").read_text())
    assert card["kind"] == kind and card["classes"] == ["ring"] and "--step=train" in card["command"]
    report = results(folder)
    assert report["release"] == "release" and report["metrics"]["last"]["images"] == 4
    assert "--step=train" in (folder / "flags.txt").read_text().splitlines()
    assert {"templates.png", "components.png"} & set(report["files"])
    done = run_app(app, f"--model={folder / 'release'}", "--limit=1", f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    (entry,) = results(tmp_path)["images"]
    assert set(entry["detections"][0]) == {"label", "index", "score", "box"}
    assert len(json.loads((tmp_path / "detections.json").read_text())) == len(entry["detections"])
    assert any(name.endswith("_detected.png") for name in entry["files"])
    assert (app == "dpm") == any(name.endswith("_parts.png") for name in entry["files"])


def test_the_same_command_again_trains_nothing_and_another_is_refused(run_app, released):
    folder = released["hog_detector"]
    train = ["hog_detector", "train", *DATA, f"--output_dir={folder}"]
    done = run_app(*train)
    assert done.returncode == 0 and "nothing to do" in done.stdout
    done = run_app(*train, "--svm_c=0.5")
    assert done.returncode == 2 and "--svm_c" in done.stderr and len(done.stderr.splitlines()) == 1


def test_dalals_window_is_trained_drawn_and_detects(run_app, tmp_path):
    """The person's window of 64 x 128 pixels, on drawn shapes."""
    own = ["--features=dalal_triggs", "--window=16,8", "--margin=2", "--mirrored=false", "--train_size=160"]
    done = run_app("hog_detector", "train", *DATA, *own, f"--output_dir={tmp_path / 'trained'}")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "trained"
    settings = json.loads((folder / "release/card.json").read_text())["settings"]
    assert settings["window"] == [16, 8] and settings["features"] == "dalal_triggs"
    assert not settings["mirrored"] and settings["margin"] == 2
    model = tfcnn.load_model(folder / "release")
    assert model.get_layer("templates_16x8").kernel.shape == (15, 7, 36, 1)  # 3780 numbers
    strokes = images.read(folder / "templates.png")
    assert (
        "templates.png" in results(folder)["files"] and (strokes < 40).mean() > 0.1 and strokes.max() == 255
    )
    done = run_app(
        "hog_detector", f"--model={folder / 'release'}", "--limit=1", f"--output_dir={tmp_path / 'out'}"
    )
    assert done.returncode == 0, done.stderr
    assert len(results(tmp_path / "out")["images"]) == 1


@pytest.mark.slow
def test_a_signal_leaves_a_checkpoint_and_the_same_command_goes_on(run_app, released, tmp_path):
    """SIGTERM in the first round: status 75, one line; then the same templates as without."""
    command = ["hog_detector", "train", *DATA, f"--output_dir={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "-m", f"apps.{command[0]}", *command[1:]], stderr=subprocess.PIPE, text=True
    )
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "round 0" in line:
            process.send_signal(signal.SIGTERM)
            break
    lines += process.communicate(timeout=300)[1].splitlines()
    assert process.returncode == 75 and re.search("signal at step [1-9].*same command goes on", lines[-1]), (
        lines
    )
    assert not results(tmp_path)["finished"] and not (tmp_path / "release").exists()
    done = run_app(*command)
    assert done.returncode == 0 and "goes on in round" in done.stderr
    one, other = (results(each)["metrics"]["last"] for each in (tmp_path, released["hog_detector"]))
    cards = [
        json.loads((each / "release/card.json").read_text()) for each in (tmp_path, released["hog_detector"])
    ]
    assert (
        one == other
        and cards[0]["metrics"] == cards[1]["metrics"]
        and cards[0]["sha256"] == cards[1]["sha256"]
    )


def test_evaluate_takes_both(run_app, released, tmp_path):
    found = []
    for app, folder in released.items():
        flags = [
            f"--model={folder / 'release'}",
            "--dataset=voc",
            "--data=missing",
            f"--output_dir={tmp_path}",
        ]
        done = run_app("evaluate", *flags)
        found.append(
            (app, done.returncode, "missing" in done.stderr)
        )  # the data, not the kind, is what it misses
    assert found == [("hog_detector", 2, True), ("dpm", 2, True)]


def test_a_net_of_one_size_is_not_exported(run_app, released, tmp_path):
    done = run_app(
        "export_model", f"--model={released['dpm'] / 'release'}", f"--output_dir={tmp_path / 'out'}"
    )
    assert done.returncode == 2 and "not exported" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("hog_detector train --dataset=shapes --classes=unicorn", "unicorn"),
        ("hog_detector train --dataset=digits", "no boxes"),
        ("hog_detector train --dataset=shapes --window=3", "--window=3"),
        ("hog_detector train --dataset=shapes --model=hog_voc", "--model says nothing of a training"),
        ("dpm train --dataset=shapes --limit=5", "--train_images"),
        ("dpm train --dataset=shapes --score_threshold=0.5", "--score_threshold is for the step detect"),
        ("hog_detector train --dataset=shapes --longest=100", "--longest is for the step detect"),
        ("hog_detector --svm_c=0.1", "--svm_c is for the step train, and this is detect"),
        ("dpm --dataset=shapes", "--dataset is for the step train, and this is detect"),
        ("dpm --parts=3", "--parts is for the step train, and this is detect"),
        ("hog_detector train cat.jpg --dataset=shapes", "cat.jpg"),
        (
            "hog_detector train --dataset=shapes --classes=star,circle --train_images=1",
            "circle has no object",
        ),
        ("hog_detector --model=faster_rcnn_voc --limit=1", "faster_rcnn"),
        ("dpm train", "--dataset"),
        ("dpm --model=faster_rcnn_voc --limit=1", "faster_rcnn"),
        ("dpm detect nothing.jpg", "nothing.jpg"),
    ],
)
def test_a_wrong_command_is_one_line_and_leaves_nothing(run_app, tmp_path, command, words):
    app, *flags = command.split()
    done = run_app(app, *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()
