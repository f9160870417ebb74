"""fool_linear as a person runs it: a table, templates, moved pictures, and what it refuses."""

import json

import numpy as np
import pytest

from tfcnn import images


def test_classes_are_reached_from_the_file(run_app, tmp_path):
    done = run_app("fool_linear", "--class=3,8", "--epochs=12", "--image_size=8", f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "results.json").read_text())
    assert [entry["class"]["label"] for entry in report["images"]] == ["3", "8"]
    for entry in report["images"]:
        assert entry["success"] and entry["score"] >= 0.995 and entry["score_before"] > 0.2
        assert entry["label_before"] != entry["class"]["label"]
        assert images.read(tmp_path / entry["picture"]).shape == (8, 8, 3)
        assert len(entry["files"]) == 2 and entry["mean_change"] <= entry["linf"]
    ten = report["ten_numbers"]
    assert ten["score"] == [-3, 2] and np.round(ten["probability"], 4).tolist() == [0.0474, 0.8808]
    assert len(ten["rows"]) == 10 and ten["rows"][0] == {"x": 2, "w": -1, "moved": 1.5}
    assert report["metrics"]["top1"] > 0.8 and report["metrics"]["images"] == 360
    assert "p 0.0474 before, 0.88 after" in done.stderr and (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--class=12"], ["0 to 9"]),
        (["--dataset=cifar10"], ["--data"]),
        (["--dataset=cifra10"], ["cifar10"]),
        (["--dataset=shapes"], ["class each"]),
        (["--score=2"], ["score"]),
    ],
)
def test_wrong_commands(run_app, tmp_path, flags, words):
    done = run_app("fool_linear", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and not (tmp_path / "out").exists(), done.stderr
    assert all(word in done.stderr.strip().splitlines()[-1] for word in words), done.stderr


def test_a_broken_picture_is_refused_and_a_class_alone_is_one_line(run_app, tmp_path):
    for split in ("train", "val"):
        for name, value in (("dark", 20), ("light", 230)):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(2):
                images.write(folder / f"{number}.png", np.full([8, 8, 3], value, np.uint8))
    whole = (tmp_path / "data/train/dark/0.png").read_bytes()
    (tmp_path / "data/train/dark/cut.png").write_bytes(whole[:50])
    for number in range(2):
        (tmp_path / f"data/val/light/{number}.png").write_bytes(whole[:50])
    flags = [
        "--dataset=folder",
        f"--data={tmp_path / 'data'}",
        "--image_size=8",
        f"--output_dir={tmp_path / 'out'}",
    ]
    done = run_app("fool_linear", *flags)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [entry["class"]["label"] for entry in report["images"]] == ["light"]
    assert len(report["refused"]) == 4 and "of another class" in report["refused"][0]["why"]
