"""saliency as a person runs it: the same bits twice, several classes, a channel, and names that are wrong."""

import json

import keras
import numpy as np
import pytest

from tfcnn import images
from tfcnn.backbones import classifier
from tfcnn.visualization import saliency


@pytest.fixture(scope="module")
def run(run_app, tmp_path_factory):
    """saliency of two classes on two packaged photographs: (process, output_dir)."""
    out = tmp_path_factory.mktemp("saliency")
    return run_app("saliency", "--limit=2", "--class=282,Egyptian cat", f"--output_dir={out}"), out


def test_pictures_and_entries_are_those_of_the_method(run):
    done, out = run
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "results.json").read_text())
    assert [e["file"] for e in report["images"]] == ["skimage/data/chelsea.png", "skimage/data/astronaut.png"]
    entry = report["images"][0]
    assert entry["method"] == "guided_grad_cam" and entry["class"] == entry["classes"][0]
    assert [c["label"] for c in entry["classes"]] == ["tiger cat", "Egyptian cat"]
    kinds = ("saliency_282", "overlay_282", "saliency_285", "overlay_285")
    assert entry["files"] == [f"chelsea_{kind}.png" for kind in kinds]
    assert entry["picture"] == "chelsea_saliency_282.png"

    seen, _ = images.resize(images.read(images.packaged()[0]), 224, "crop")
    maps, *_ = saliency.explained(classifier("efficientnet_lite0"), "guided_grad_cam")(
        seen[None].astype(np.float32), np.array([282], np.int32)
    )
    expected = saliency.picture(np.array(maps[0]))
    assert np.abs(images.read(out / entry["picture"])[..., 0] - expected).max() <= 1


def test_the_flagfile_repeats_the_run_bit_by_bit(run, run_app, tmp_path):
    _, out = run
    again = run_app("saliency", f"--flagfile={out / 'flags.txt'}", f"--output_dir={tmp_path}")
    assert again.returncode == 0
    first, second = (json.loads((place / "results.json").read_text()) for place in (out, tmp_path))
    for report in (first, second):
        report["flags"].pop("output_dir"), report.pop("seconds"), report.pop("device")
    assert first == second
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert len(pictures) == 8
    assert all((out / name).read_bytes() == (tmp_path / name).read_bytes() for name in pictures)


def test_a_channel_of_a_layer_and_the_list_of_layers(run_app, tmp_path):
    common = ["saliency", "--limit=1", f"--output_dir={tmp_path / 'out'}"]
    done = run_app(*common, "--layer=block10_add", "--channel=7")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "out" / "results.json").read_text())["images"]
    assert entry["layer"] == "block10_add" and entry["class"]["index"] == 7
    listed = run_app("saliency", "--list_layers", cwd=tmp_path)
    assert "block10_add" in listed.stdout.split() and listed.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--layer=block10_ad"], ["block10_add", "list_layers"]),
        (["--channel=3"], ["--layer"]),
        (["--class=tabby", "--layer=block10_add"], ["--class", "--layer"]),
        (["--method=gradient", "--samples=4"], ["--samples", "smoothgrad"]),
        (["--method=smooth"], ["smoothgrad"]),
        (["--method=grad_cam", "--cam_layer=block10_ad"], ["block10_add", "list_layers"]),
        (["--method=grad_cam", "--cam_layer=logits"], ["--cam_layer=logits", "no map"]),
    ],
)
def test_wrong_commands_are_status_2_and_name_what_is_near(run_app, tmp_path, flags, words):
    wrong = run_app("saliency", f"--output_dir={tmp_path / 'none'}", *flags)
    assert wrong.returncode == 2 and not (tmp_path / "none").exists()
    (line,) = wrong.stderr.strip().splitlines()
    assert all(word in line for word in words), line


@pytest.mark.parametrize("units", [1, 3])
def test_scores_are_the_heads_own_as_classify_says_them(run_app, tmp_path, units):
    image = keras.Input((16, 16, 3), dtype="uint8")
    x = keras.layers.Conv2D(4, 3, strides=2)(keras.layers.Rescaling(1 / 255.0)(image))
    x = keras.layers.Dense(units, activation="sigmoid")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, x)
    model.save(tmp_path / "net.keras")
    common = ["--limit=1", f"--model={tmp_path / 'net.keras'}", "--save_images=false"]
    asked = {"saliency": ["--class=0,1"], "classify": ["--resize=crop"], "occlusion": ["--class=0,1"]}
    entries = {}
    for app, flags in asked.items():
        done = run_app(app, *common, *flags, f"--output_dir={tmp_path / app}")
        assert done.returncode == 0, done.stderr
        (entries[app],) = json.loads((tmp_path / app / "results.json").read_text())["images"]
    seen, _ = images.resize(images.read(images.packaged()[0]), 16, "crop")
    own = np.array(model(np.rint(seen)[None].astype(np.uint8)))[0]
    expected = [1 - own[0], own[0]] if units == 1 else own
    answers = {each["index"]: each["score"] for each in entries["classify"]["predictions"]}
    assert [answers[index] for index in sorted(answers)] == pytest.approx(expected, abs=2e-3)
    for app in ("saliency", "occlusion"):
        for each in entries[app]["classes"]:
            assert each["score"] == pytest.approx(answers[each["index"]], abs=1e-6)
    flags = ["--method=gradient", "--class=0,1", "--steps=2", f"--output_dir={tmp_path / 'fool'}"]
    done = run_app("fool", f"--model={tmp_path / 'net.keras'}", *flags)
    assert done.returncode == 0, done.stderr
    for place, entry in enumerate(json.loads((tmp_path / "fool/results.json").read_text())["images"]):
        own = np.array(model(images.read(tmp_path / "fool" / entry["picture"])[None]))[0]
        expected = [1 - own[0], own[0]] if units == 1 else own
        assert entry["class"]["index"] == place and entry["score"] == pytest.approx(expected[place], abs=2e-3)
