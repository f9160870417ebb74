"""fool as a person runs it: digits evolved and read back, resumed, climbed by gradient, and what it refuses."""

import json

import numpy as np
import pytest

from tfcnn import images

DIGITS = ["--model=digits", "--grey", "--checkpoint_minutes=0"]


def report(folder):
    return json.loads((folder / "results.json").read_text())


def scores_of(folder, entries):
    from tfcnn import load_model

    pictures = np.stack([images.read(folder / entry["picture"]) for entry in entries])
    return load_model("digits")(pictures.astype(np.float32))["scores"].numpy()


@pytest.fixture(scope="module")
def evolved(run_app, tmp_path_factory):
    """Sixty generations in one go: (process, folder)."""
    folder = tmp_path_factory.mktemp("fool")
    flags = ["--method=direct", "--generations=60", "--children=40", f"--output_dir={folder}"]
    return run_app("fool", *DIGITS, *flags), folder


def test_scores_are_those_of_the_files(evolved):
    done, folder = evolved
    assert done.returncode == 0, done.stderr
    entries = report(folder)["images"]
    assert [entry["class"]["label"] for entry in entries] == list("0123456789")
    scores = scores_of(folder, entries)
    for place, entry in enumerate(entries):
        np.testing.assert_allclose(entry["score"], scores[place, place], rtol=1e-3, atol=1e-6)
        assert entry["success"] == (scores[place].argmax() == place)
        values = [each["value"] for each in entry["history"]]
        assert values == sorted(values) and entry["history"][0]["step"] == 1
        assert entry["final"]["value"] == entry["score"] == pytest.approx(values[-1], abs=1e-5)
    metrics = report(folder)["metrics"]
    assert metrics["above_99"] == sum(entry["score"] > 0.99 for entry in entries) >= 5
    assert metrics["classes"] == 10 and metrics["generations"] == 60 and metrics["evaluations"] == 2400
    assert (folder / "gallery.png").exists() and "classes above 99 %" in done.stderr


def test_a_finished_run_does_nothing_and_an_unfinished_one_goes_on(run_app, evolved, tmp_path):
    done, folder = evolved
    flags = ["--method=direct", "--generations=60", "--children=40"]
    again = run_app("fool", *DIGITS, *flags, f"--output_dir={folder}")
    assert again.returncode == 0 and "nothing to do" in again.stdout
    other = run_app("fool", *DIGITS, *flags, "--seed=1", f"--output_dir={folder}")
    assert other.returncode == 2 and "--seed=1 here" in other.stderr
    # As if it had been killed after its last checkpoint: the results are gone.
    before = report(folder)["images"]
    (folder / "results.json").unlink()
    resumed = run_app("fool", *DIGITS, *flags, f"--output_dir={folder}")
    assert resumed.returncode == 0 and "goes on after generation 60" in resumed.stderr
    assert report(folder)["images"] == before


def test_by_gradient_two_classes_are_certain(run_app, tmp_path):
    done = run_app("fool", "--model=digits", "--method=gradient", "--class=3,8", f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    entries = report(tmp_path)["images"]
    assert [entry["class"]["index"] for entry in entries] == [3, 8]
    scores = scores_of(tmp_path, entries)
    assert scores[0, 3] > 0.99 and scores[1, 8] > 0.99
    np.testing.assert_allclose([entry["score"] for entry in entries], [scores[0, 3], scores[1, 8]], rtol=1e-4)
    assert entries[0]["history"][0]["value"] > entries[0]["final"]["value"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--class=12"], ["0 to 9"]),
        (["--children=7"], ["even"]),
        (["--method=gradient", "--generations=9"], ["--generations", "gradient"]),
        (["--method=cppn", "--mutation=0.2"], ["--mutation", "cppn"]),
        (["--method=direkt"], ["direct"]),
        (["picture.png"], ["takes no pictures"]),
    ],
)
def test_wrong_commands(run_app, tmp_path, flags, words):
    done = run_app("fool", "--model=digits", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and not (tmp_path / "out").exists(), done.stderr
    assert all(word in done.stderr.strip().splitlines()[-1] for word in words), done.stderr
