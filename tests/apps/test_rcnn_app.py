"""rcnn as a person runs it: all steps on drawn shapes, one step again, detection, and what does not fit."""

import json

import numpy as np
import pytest

from tfcnn import datasets

DATA = ["--dataset=shapes", "--limit=10"]
NET = ["--net=tiny", "--side=32", "--context=4", "--image_size=96", "--steps=20", "--batch_size=2"]


def proposals(path, seed):
    """Boxes near the shapes of both splits and elsewhere, as propose writes them."""
    random, entries = np.random.default_rng(seed), []
    for split in ("train", "val"):
        for record in datasets.open("shapes", split=split).examples[::50]:
            near = np.repeat(record.boxes, 5, axis=0) + random.normal(0, 4, (5 * len(record.boxes), 4))
            corner = random.uniform(0, 100, (8, 2))
            boxes = np.concatenate([near, np.concatenate([corner, corner + 50], axis=1)]).clip(0, 160)
            rows = [[*box, 1 - i / 100] for i, box in enumerate(boxes.tolist())]
            entries.append({"file": record.file, "proposals": rows})
    path.write_text(json.dumps({"images": entries}))
    return path


@pytest.fixture(scope="module")
def trained(run_app, tmp_path_factory):
    """All steps: (process, output_dir, its proposals)."""
    folder = tmp_path_factory.mktemp("rcnn")
    file = proposals(folder / "proposals.json", 0)
    done = run_app("rcnn", "all", *DATA, *NET, f"--proposals_file={file}", f"--output_dir={folder / 'out'}")
    return done, folder / "out", file


def test_all_steps_leave_a_release_and_say_the_size_of_the_features(trained):
    done, out, _ = trained
    assert done.returncode == 0, done.stderr
    assert "MB in" in done.stderr and "features of" in done.stderr
    results = json.loads((out / "results.json").read_text())
    assert results["release"] == "release" and results["finetune"]["steps"] == 20
    assert 0 <= results["metrics"]["last"]["map_11"] <= 1
    card = json.loads((out / "release" / "card.json").read_text())
    assert card["kind"] == "rcnn" and card["classes"] == ["circle", "triangle", "square", "star", "ring"]
    assert results["features"]["bytes"] == sum(p.stat().st_size for p in (out / "features").glob("*.npz"))


def test_other_proposals_than_the_features_are_refused_in_a_line(run_app, trained, tmp_path):
    _, out, _ = trained
    other = proposals(tmp_path / "other.json", 1)
    done = run_app("rcnn", "svm", *DATA, *NET, f"--proposals_file={other}", f"--output_dir={out}", "--quiet")
    assert done.returncode in (1, 2) and len(done.stderr.splitlines()) == 1
    assert "other proposals" in done.stderr


def test_features_of_another_precision_are_refused_and_a_part_of_the_validation_is_measured(run_app, trained):
    _, out, file = trained
    flags = [*DATA, *NET, f"--proposals_file={file}", f"--output_dir={out}", "--quiet"]
    done = run_app("rcnn", "features", *flags, "--runtime=litert_int8")
    assert done.returncode in (1, 2) and len(done.stderr.splitlines()) == 1
    assert "other precision" in done.stderr
    done = run_app("rcnn", "boxes", *flags, "--validate_images=3")
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "results.json").read_text())["metrics"]["last"]["images"] == 3


def test_the_release_detects_with_proposals_of_its_own(run_app, trained, tmp_path):
    _, out, file = trained
    flags = [f"--model={out / 'release'}", "--limit=1", "--proposals=20"]
    done = run_app("rcnn", "detect", *flags, f"--output_dir={tmp_path / 'a'}")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "a" / "results.json").read_text())["images"]
    assert {each["label"] for each in entry["detections"]} <= {"circle", "triangle", "square", "star", "ring"}
    assert (tmp_path / "a" / "detections.json").exists() and (tmp_path / "a" / entry["picture"]).exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["finetune", *DATA], "--proposals_file"),
        (["svm", *DATA, "--proposals_file=no.json"], "no.json"),
        (["detect"], "--model is missing"),
        (["detect", "--model=faster_rcnn_voc"], "no R-CNN"),
    ],
)
def test_a_wrong_command_is_one_line(run_app, tmp_path, arguments, said):
    done = run_app("rcnn", *arguments, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert said in done.stderr and not (tmp_path / "out").exists()
