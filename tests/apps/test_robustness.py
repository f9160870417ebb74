"""train_robust and robustness as a person runs them: digits trained and attacked, pictures on a release."""

import json

import numpy as np
import pytest

from tfcnn import images


def report(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def trained(run_app, tmp_path_factory):
    folder = tmp_path_factory.mktemp("robust")
    flags = ["--eps=32", "--steps=60", "--image_size=16", "--validate_epochs=0", "--limit=300"]
    return run_app("train_robust", *flags, f"--output_dir={folder}"), folder


def test_a_release_is_trained_on_attacked_batches(trained):
    done, folder = trained
    assert done.returncode == 0, done.stderr
    assert "each batch is attacked by fgsm, eps 32 of 255" in done.stderr
    found = report(folder)
    assert {"top1", "robust_top1", "loss"} <= set(found["metrics"]["last"]) and found["steps"] == 60
    card = json.loads((folder / "release" / "card.json").read_text())
    assert card["kind"] == "classifier" and card["attack"] == "fgsm, eps 32 of 255"
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert set(next(line["losses"] for line in lines if "losses" in line)) == {"clean", "attacked"}


def test_the_curve_of_the_release(run_app, trained, tmp_path):
    _, folder = trained
    flags = [f"--model={folder / 'release'}", "--dataset=digits", "--eps=0,16,32", "--limit=120"]
    done = run_app("robustness", *flags, f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    metrics = report(tmp_path)["metrics"]
    curve = metrics["curve"]
    assert [entry["eps"] for entry in curve] == [0, 16, 32] and metrics["images"] == 120
    errors = [entry["error"] for entry in curve]
    assert (
        errors == sorted(errors)
        and errors[0] == curve[0]["noise_error"]
        and errors[2] > curve[2]["noise_error"]
    )
    assert report(tmp_path)["images"] == [] and metrics["transfer"] == {}
    assert report(tmp_path)["files"] == ["curve.png", "examples.png"]
    whole = report(folder)["metrics"]["last"]
    assert errors[0] == pytest.approx(1 - whole["top1"], abs=0.1)


def test_pictures_have_entries_with_the_least_eps(run_app, tmp_path, trained):
    (tmp_path / "in").mkdir()
    for number, picture in enumerate(np.random.default_rng(0).integers(0, 256, [3, 16, 16, 3], np.uint8)):
        images.write(tmp_path / "in" / f"{number}.png", picture)
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    flags = [tmp_path / "in", f"--model={trained[1] / 'release'}", "--eps=0,200", "--resize=stretch"]
    done = run_app("robustness", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 1 and "broken.png" in done.stderr, done.stderr
    found = report(tmp_path / "out")
    assert found["metrics"]["curve"][0]["error"] == 0 and len(found["images"]) == 3
    for entry in found["images"]:
        assert entry["least_eps"] in (200, None) and entry["label"] in "0123456789"
    fooled = np.mean([entry["least_eps"] == 200 for entry in found["images"]])
    assert found["metrics"]["curve"][1]["error"] == pytest.approx(fooled)


def test_an_unreadable_picture_of_a_data_set_is_named_in_a_line_and_the_others_are_measured(
    run_app, tmp_path, trained
):
    for number, picture in enumerate(np.random.default_rng(0).integers(0, 256, [10, 16, 16, 3], np.uint8)):
        (tmp_path / "data" / "val" / str(number)).mkdir(parents=True)
        images.write(tmp_path / "data" / "val" / str(number) / "a.png", picture)
    (tmp_path / "data" / "val" / "3" / "broken.png").write_bytes(b"no picture")
    flags = [
        f"--model={trained[1] / 'release'}",
        "--dataset=folder",
        f"--data={tmp_path / 'data'}",
        "--split=val",
        "--eps=0,32",
    ]
    done = run_app("robustness", *flags, "--quiet", f"--output_dir={tmp_path / 'out'}")
    (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 1 and line.startswith("robustness: refused ") and "broken.png" in line, (
        done.stderr
    )
    found = report(tmp_path / "out")
    assert [each["file"] for each in found["refused"]] == ["3/broken.png"] and found["metrics"][
        "images"
    ] == 10


def test_answers_that_are_not_finite_are_refused(run_source):
    code = """
import numpy as np
from apps.robustness import answer_function
answers = answer_function(lambda pictures: np.full((len(pictures), 3), np.nan), 2)
try:
    answers(np.zeros((3, 4, 4, 3), np.uint8))
except ValueError as error:
    print(error)
"""
    done = run_source(code)
    assert "not finite" in done.stdout


@pytest.mark.parametrize(
    ("app", "flags", "words"),
    [
        ("robustness", ["--eps=0,x"], "--eps=0,x"),
        ("robustness", ["--data=x"], "--data belongs to --dataset"),
        ("robustness", ["--split=test"], "--split belongs to --dataset"),
        ("robustness", ["--eps=4,4"], "different numbers"),
        ("robustness", ["--dataset=digits"], "10 classes"),
        ("robustness", ["--dataset=digits", "--truth=labels.csv"], "--dataset"),
        ("robustness", ["--transfer=mobilenet"], "mobilenet_v2"),
        ("train_robust", ["--eps=0"], "above 0"),
        ("train_robust", ["--attack=pgdd"], "pgd"),
        ("train_robust", ["--model=digits"], "--init"),
        ("train_robust", ["--attack_steps=3"], "--attack_steps belongs to --attack=pgd"),
    ],
)
def test_wrong_commands(run_app, tmp_path, app, flags, words):
    done = run_app(app, *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and not (tmp_path / "out").exists(), done.stderr
    assert words in done.stderr.strip().splitlines()[-1], done.stderr
