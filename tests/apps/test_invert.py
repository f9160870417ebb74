"""invert as a person runs it: a code from each layer and the scores, several starts, and what it refuses."""

import json

import numpy as np
import pytest
from flag_changes import changes

from tfcnn import images

# What both runs have, a bar, and the flag that is tried.
FLAGS = [
    "|--method=momentum",
    "|--method=lbfgs",
    "|--steps=12",
    "|--neigh=3",
    "|--lambda_tv=0.5",
    "--lambda_tv=0.5 |--tv_beta=1",
    "|--lambda_alpha=1e-3",
    "--lambda_alpha=1e-3 |--alpha=2",
    "|--jitter=6",
    "|--noise=60",
    "|--statistics=1",
    "--method=momentum |--lambda_tv=0.5",
    "--method=momentum |--jitter=6",
    "--method=lbfgs |--lambda_tv=0.5",
    "--method=lbfgs |--neigh=3",
]

MAKE = """
seen = np.random.default_rng(0).uniform(0, 255, (24, 24, 3)).astype(np.float32)

def make():
    return invert.inversion(net, "map").invert(seen, [1]).image[0]
"""


@pytest.fixture(scope="module")
def run(run_app, tmp_path_factory):
    """Inversions of a packaged photograph, small, from three layers and two starts: (process, output_dir, results)."""
    out = tmp_path_factory.mktemp("invert")
    done = run_app(
        "invert",
        "--image_size=64",
        "--steps=15",
        "--layer=stem,block0_project_bn,scores",
        "--repeats=2",
        f"--output_dir={out}",
    )
    return done, out, json.loads((out / "results.json").read_text())


def test_entries_pictures_and_figures(run):
    done, out, report = run
    assert done.returncode == 0, done.stderr
    (entry,) = report["images"]
    assert [(code["layer"], code["repeat"]) for code in entry["layers"]] == [
        (layer, repeat) for layer in ("stem", "block0_project_bn", "scores") for repeat in (1, 2)
    ]
    source, _ = images.resize(images.read(images.packaged()[0]), 64, "crop")
    for code in entry["layers"]:
        made = images.read(out / code["picture"])
        assert made.shape == (64, 64, 3)
        error = np.mean((made.astype(float) - np.asarray(source, np.float32)) ** 2)
        np.testing.assert_allclose(code["psnr"], 10 * np.log10(255**2 / error), atol=0.01)
        assert len(code["history"]) == 15 and code["history"][0]["step"] == 1
        assert {"value", "code", "total_variation"} <= set(code["final"])
    assert entry["layers"][0]["final"]["code"] < 0.3 * entry["layers"][0]["history"][0]["code"]
    assert entry["layers"][0]["distance"] < 0.1
    assert entry["history"] == entry["layers"][-1]["history"]
    assert entry["picture"] == "chelsea_layers.png" and entry["picture"] in entry["files"]
    assert len(entry["files"]) == 7 and all((out / name).exists() for name in entry["files"])
    assert "block0_project_bn" in done.stdout


def test_the_first_start_alone_is_the_same(run, run_app, tmp_path):
    _, out, report = run
    done = run_app("invert", "--image_size=64", "--steps=15", "--layer=stem", f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    alone = images.read(tmp_path / "chelsea_stem.png").astype(float)
    together = images.read(out / "chelsea_stem_1.png").astype(float)
    assert np.abs(alone - together).max() <= 2


def test_without_pictures_none_is_named(run_app, tmp_path):
    flags = ["--image_size=48", "--steps=1", "--layer=stem", "--method=momentum", "--save_images=false"]
    done = run_app("invert", *flags, f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "results.json").read_text())["images"]
    assert "picture" not in entry and "files" not in entry
    assert [code["layer"] for code in entry["layers"]] == ["stem"] and "picture" not in entry["layers"][0]
    assert not list(tmp_path.glob("*.png"))


def test_any_picture_and_one_that_is_none(run_app, tmp_path):
    images.write(tmp_path / "thin.png", np.full((1, 90), 60, np.uint8))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    done = run_app(
        "invert",
        "--limit=2",
        tmp_path / "thin.png",
        tmp_path / "broken.png",
        "--image_size=48",
        "--resize=letterbox",
        "--layer=stage2",
        "--steps=2",
        "--method=momentum",
        f"--output_dir={tmp_path / 'out'}",
    )
    assert done.returncode == 1
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [entry["file"].endswith("thin.png") for entry in report["images"]] == [True]
    assert report["refused"][0]["file"].endswith("broken.png")


@pytest.mark.slow
def test_every_flag_changes_the_picture(warm, tmp_path):
    moved = changes(warm, tmp_path, "invert", MAKE, FLAGS)
    assert all(grey > 0.5 for grey in moved.values()), moved


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--layer=stage33"], ["stage33", "stage3", "--list_layers"]),
        (["--layer=stage7", "--neigh=9"], ["stage7 has 7 x 7 locations", "9 x 9"]),
        (["--method=lbfgs", "--jitter=4"], ["--jitter belongs to --method=fourier and momentum"]),
        (["--method=momentum", "--noise=4"], ["--noise belongs to --method=fourier"]),
        (["--alpha=2"], ["--alpha does nothing where --lambda_alpha is 0"]),
    ],
)
def test_wrong_commands(run_app, tmp_path, arguments, words):
    done = run_app("invert", *arguments, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "out").exists()
