"""class_model as a person runs it: entries, the score of the picture read back, flags, and what it refuses."""

import json

import numpy as np
import pytest
from flag_changes import changes

from tfcnn import images
from tfcnn.backbones import classifier

SMALL = ("--image_size=64", "--steps=9")
# What both runs have, a bar, and the flags that are tried.
FLAGS = [
    "|--statistics=0",
    "|--noise=0",
    "|--smooth=50",
    "|--frequency_decay=2",
    "|--rivals=0",
    "|--push_dir=-1",
    "|--steps=9",
    "--method=simonyan |--l2=5",
    "--method=simonyan |--rate=3",
    "--method=simonyan --l2=0 --layer=map --channel=1 |--push_spatial=3,4",
    "--method=yosinski |--start_at=randu",
    "--method=yosinski |--start_at=mean",
    "--method=yosinski |--decay=0.5",
    "--method=yosinski |--blur_radius=2",
    "--method=yosinski |--blur_every=2",
    "--method=yosinski |--small_val_percentile=50",
    "--method=yosinski |--small_norm_percentile=50",
    "--method=yosinski |--px_benefit_percentile=50",
    "--method=yosinski |--px_abs_benefit_percentile=50",
    "--method=yosinski |--lr_params={'lr':1}",
    "--method=yosinski |--lr_policy=progress --lr_params={'max_lr':1e6,'desired_prog':2}",
]

MAKE = """
def make():
    layer = class_model.LAYER.value or "logits"
    spot = class_model.location(net, layer) if class_model.SPATIAL.value else None
    what = class_model.what_to_raise(layer, tf.constant([1]), spot)
    return class_model.make_ascent(net, what).run([3], seed=1).image
"""


@pytest.fixture(scope="module")
def run(run_app, tmp_path_factory):
    """Class models of two classes, by index and by synset: (process, output_dir, results)."""
    out = tmp_path_factory.mktemp("class_model")
    done = run_app("class_model", *SMALL, "--class=goldfish,n02007558", f"--output_dir={out}")
    return done, out, json.loads((out / "results.json").read_text())


def test_entries_and_the_score_of_the_picture_read_back(run):
    done, out, report = run
    assert done.returncode == 0, done.stderr
    assert [e["class"] for e in report["images"]] == [
        {"index": 1, "synset": "n01443537", "label": "goldfish"},
        {"index": 130, "synset": "n02007558", "label": "flamingo"},
    ]
    net = classifier("efficientnet_lite0", size=64)
    for entry in report["images"]:
        picture = images.read(out / entry["picture"])
        assert picture.shape == (64, 64, 3) and entry["files"] == [entry["picture"]]
        scores = net(picture[None].astype(np.float32))["scores"][0]
        np.testing.assert_allclose(entry["score"], scores[entry["class"]["index"]], rtol=1e-4)
        assert entry["method"] == "fourier"
        assert [h["step"] for h in entry["history"]] == list(range(1, len(entry["history"]) + 1))
        terms = {"value", "logits", "cross_entropy", "statistics", "total_variation"}
        assert set(entry["final"]) == terms and set(entry["history"][3]) == terms | {"step"}
        values = entry["history"][3]
        np.testing.assert_allclose(values["value"], sum(values[t] for t in terms - {"value"}), rtol=1e-4)
        assert entry["history"][-1]["value"] > entry["history"][0]["value"]
    assert report["files"] == ["sheet.png"] and (out / "sheet.png").exists()
    assert "goldfish" in done.stdout and "index.html" in done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_flagfile_repeats_the_run_bit_by_bit(run, run_app, tmp_path):
    _, out, report = run
    again = run_app("class_model", f"--flagfile={out / 'flags.txt'}", f"--output_dir={tmp_path}")
    assert again.returncode == 0, again.stderr
    second = json.loads((tmp_path / "results.json").read_text())
    assert second["images"] == report["images"]
    for entry in report["images"]:
        assert (out / entry["picture"]).read_bytes() == (tmp_path / entry["picture"]).read_bytes()


def test_a_unit_of_a_layer_by_yosinski(run_app, tmp_path):
    done = run_app(
        "class_model",
        "--image_size=64",
        "--method=yosinski",
        "--steps=4",
        "--layer=stage5",
        "--channel=3,7",
        "--push_spatial=1,2",
        "--lr_policy=progress",
        "--lr_params={'max_lr': 1e6, 'desired_prog': 0.5}",
        "--batch_size=2",
        f"--output_dir={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    entries = json.loads((tmp_path / "results.json").read_text())["images"]
    assert [e["class"]["label"] for e in entries] == ["stage5 channel 3", "stage5 channel 7"]
    for entry in entries:
        values = [row["value"] for row in entry["history"]]
        assert entry["final"]["value"] == values[-1], "his last step only looks"
        np.testing.assert_allclose(
            np.diff(values)[1:], 0.5, atol=0.2, err_msg="a step raises by the wanted 0.5"
        )
        assert abs(entry["score"] - values[-1]) < 0.3, "the unit's own value on the file, not its map's mean"


@pytest.mark.slow
def test_every_flag_of_a_method_changes_the_picture(warm, tmp_path):
    moved = changes(warm, tmp_path, "class_model", MAKE, FLAGS)
    assert all(grey > 0.5 for grey in moved.values()), moved


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--class=goldfsh"], ["goldfsh", "goldfish", "--list_classes"]),
        (["--layer=stage55", "--channel=1"], ["stage55", "stage5", "--list_layers"]),
        (["--layer=stage5"], ["--layer and --channel"]),
        (["--layer=stage5", "--channel=112"], ["--channel=112", "0 to 111"]),
        (["--push_spatial=3,3"], ["--push_spatial belongs to --method=simonyan"]),
        (["--push_dir=-1", "--rivals=5"], ["--rivals belongs to classes that are raised"]),
        (["--decay=0.1"], ["--decay belongs to --method=yosinski"]),
        (["--method=yosinski", "--blur_radius=60"], ["--blur_radius=60", "at most 56"]),
        (["--method=yosinski", "--lr_params={'lr': 'fast'}"], ["--lr_params", "'lr': NUMBER"]),
    ],
)
def test_wrong_commands(run_app, tmp_path, arguments, words):
    done = run_app("class_model", *arguments, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_layer_of_a_detector_is_asked(run_app, tmp_path):
    from tfcnn import backbones
    from tfcnn.detection.faster_rcnn import faster_rcnn

    small = {"channels": 16, "units": 32, "proposals": 20, "sizes": (12.0, 24.0)}
    faster_rcnn(backbones.backbone("tiny", None), 3, **small).save(tmp_path / "model.keras")
    flags = [f"--model={tmp_path / 'model.keras'}", "--image_size=64", "--method=simonyan", "--steps=2"]
    done = run_app("class_model", *flags, "--layer=conv3", "--channel=1", f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
