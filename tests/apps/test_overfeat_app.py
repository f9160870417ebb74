"""overfeat as a person runs it: with a localizer's boxes, and with windows alone."""

import json

import numpy as np
import pytest
from PIL import Image

from tfcnn import backbones, localization


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A localizer of three classes and 64 pixels that was never trained, whose box is always the whole window."""
    path = tmp_path_factory.mktemp("model") / "net.keras"
    net = localization.with_box_head(backbones.classifier("tiny", None, classes=3, size=64))
    layer = net.get_layer("box_numbers")
    layer.set_weights([0 * layer.get_weights()[0], np.float32([0, 0, 1, 1])])
    net.save(path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def test_windows_and_merged_boxes(run_app, model, pictures, tmp_path):
    flags = [f"--model={model}", "--scales=64,96", "--top=2", "--flip", f"--output_dir={tmp_path}"]
    done = run_app("overfeat", pictures, *flags)
    assert done.returncode == 1 and "broken.png" in done.stderr, done.stderr
    assert "windows of 64 px every 32 px, at scales of 64, 96 px" in done.stderr
    (entry,) = json.loads((tmp_path / "results.json").read_text())["images"]
    assert [each["windows"] for each in entry["maps"]] == [[1, 2], [1, 2], [2, 4], [2, 4]]
    assert entry["maps"][2]["size"] == [96, 160]
    assert set(entry["windows"][0]) == {"box", "index", "score"}
    assert set(entry["merged"][0]) == {"box", "index", "label", "score"}
    assert len(entry["merged"]) < len(entry["windows"])
    for index in {each["index"] for each in entry["windows"]}:
        total = [sum(e["score"] for e in entry[key] if e["index"] == index) for key in ("windows", "merged")]
        assert total[0] == pytest.approx(total[1])  # no confidence is lost
    assert entry["files"] == [f"noise_{kind}.png" for kind in ("merged", "windows", "maps")]
    listed = json.loads((tmp_path / "detections.json").read_text())
    assert 1 <= len(listed) <= 2 and listed[0]["image_id"] == "noise"


def test_scales_that_become_one_size_are_seen_once(run_app, model, pictures, tmp_path):
    entries = []
    for scales in ("64", "20,64"):
        out = tmp_path / scales
        done = run_app(
            "overfeat",
            pictures / "noise.png",
            f"--model={model}",
            f"--scales={scales}",
            f"--output_dir={out}",
        )
        assert done.returncode == 0, done.stderr
        (entry,) = json.loads((out / "results.json").read_text())["images"]
        entries.append([entry[key] for key in ("maps", "windows", "merged")])
    assert entries[0] == entries[1]


def test_offsets_are_for_windows_not_for_region_proposal_networks(run_app, pictures, tmp_path):
    net = backbones.classifier("tiny", None, classes=3, size=64)
    localization.with_class_rpn(net, channels=8).save(tmp_path / "rpn.keras")
    flags = [pictures / "noise.png", f"--model={tmp_path / 'rpn.keras'}", "--scales=64"]
    for offsets in ("--offsets", "--offsets=false"):
        done = run_app("overfeat", *flags, offsets, f"--output_dir={tmp_path / 'none'}")
        (line,) = done.stderr.strip().splitlines()
        assert (
            done.returncode == 2 and "--offsets is for windows" in line and not (tmp_path / "none").exists()
        )
    done = run_app("overfeat", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "out" / "results.json").read_text())["images"]
    assert entry["file"].endswith("noise.png") and "merged" in entry


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--scales=x"], "--scales=x"),
        (["--scales=0"], "--scales=0"),
        (["--scales=245,4001"], "at most 4000, since a picture is looked at with no more than 16 million"),
        (["--image_size=96"], "--image_size does nothing here"),
        (["--variant=resnet"], "resnet"),
        (["--model=faster_rcnn_voc"], "faster_rcnn"),
    ],
)
def test_a_wrong_command_is_one_line_and_leaves_nothing(run_app, tmp_path, flags, message):
    done = run_app("overfeat", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()
