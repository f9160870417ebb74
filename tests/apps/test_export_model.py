"""export_model as a person runs it: formats side by side, each with its difference, size and time."""

import csv
import json

import pytest
from PIL import Image

from tfcnn.export import tf1_graph

# What a data set's figures are measured of; with ONNX where its packages are.
MEASURED = ["litert", pytest.param("saved_model,litert,onnx,tf1_graph", marks=pytest.mark.extras)]


@pytest.fixture(scope="module")
def out(run_app, tmp_path_factory):
    """digits in four formats: (process, output_dir)."""
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    out = tmp_path_factory.mktemp("export")
    with open(out / "truth.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file", "class_index"], ["chelsea.png", 3], ["astronaut.png", 1]])
    formats = "litert,litert_int8,saved_model,tf1_graph,onnx"
    flags = ["--model=digits", "--limit=2", f"--format={formats}", f"--truth={out / 'truth.csv'}"]
    return run_app("export_model", *flags, f"--output_dir={out / 'run'}"), out / "run"


def test_each_format_with_its_difference_bytes_and_time(out):
    done, folder = out
    report = json.loads((folder / "results.json").read_text())
    kinds = ["litert", "litert_int8", "saved_model", "tf1_graph"]
    assert [entry["format"] for entry in report["images"] if "format" in entry][:4] == kinds
    assert set(kinds) <= set(report["bytes"]) == set(report["difference"]) == set(report["milliseconds"])
    for kind in ("litert", "saved_model", "tf1_graph"):
        assert report["difference"][kind] < 1e-4 and report["milliseconds"][kind] > 0
    assert report["bytes"]["litert_int8"] < 0.5 * report["bytes"]["litert"]
    for name in report["files"]:
        assert (folder / name).exists()
    assert {"keras", *kinds} <= set(report["metrics"]["top1"])
    named = json.loads((folder / "tf1_graph" / "graph.json").read_text())
    assert named == {"input": "image:0", "outputs": {"logits": "logits:0", "scores": "scores:0"}}
    assert tf1_graph.Runner(folder / "tf1_graph" / "graph.pb", {"scores": "scores"})


def test_a_format_whose_packages_are_not_there_is_refused_by_name(out):
    done, folder = out
    report = json.loads((folder / "results.json").read_text())
    refused = {each["file"]: each["why"] for each in report["refused"]}
    if "onnx" in report["bytes"]:
        pytest.skip("ONNX' packages are installed")
    assert done.returncode == 1 and "pip install" in refused["onnx"] and list(refused) == ["onnx"]


def test_scores_that_are_not_finite_are_right_nowhere(run_source):
    code = """
import numpy as np
from tfcnn.cli.exported_figures import top1
rows = ([np.nan, np.nan], [0.9, 0.1], [np.inf, 0.1])
print(top1([{"scores": np.float32(row)} for row in rows], [0, 0, 0]))
"""
    done = run_source(code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(1 / 3)


def needs(formats):
    """The formats one by one; the test is skipped where one's packages are absent."""
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    if "onnx" in formats:
        pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
    return formats.split(",")


@pytest.mark.parametrize("formats", MEASURED)
def test_a_data_set_says_the_accuracy_of_each_format(run_app, tmp_path, formats):
    kinds = needs(formats)
    flags = ["--model=digits", "--dataset=digits", "--split=test", "--limit=20", f"--format={formats}"]
    done = run_app("export_model", *flags, f"--output_dir={tmp_path}")
    assert done.returncode == 0 and "top-1" in done.stdout, done.stderr
    report = json.loads((tmp_path / "results.json").read_text())
    assert set(report["metrics"]["top1"]) == {"keras", *kinds} and set(report["milliseconds"]) == set(kinds)
    for entry, kind in zip(report["images"][-len(kinds) :], kinds, strict=True):
        assert entry["top1"] == report["metrics"]["top1"][kind] > 0.9
        assert entry["milliseconds"] > 0 and entry["keras_milliseconds"] > 0


@pytest.mark.parametrize("formats", MEASURED)
def test_a_data_set_says_the_map_of_a_detector_in_each_format(run_app, tmp_path, formats):
    kinds = needs(formats)
    import keras

    from tfcnn import backbones, datasets
    from tfcnn.detection.faster_rcnn import faster_rcnn

    keras.utils.set_random_seed(0)
    small = {"channels": 16, "units": 32, "proposals": 20, "sizes": (12.0, 24.0), "score_threshold": 0.0}
    names = datasets.open("shapes", None, "val").classes
    faster_rcnn(backbones.backbone("tiny", None), len(names), **small).save(tmp_path / "model.keras")
    card = {"kind": "faster_rcnn", "classes": names, "image_size": 64, "longest": 100, "resize": "fit"}
    (tmp_path / "card.json").write_text(json.dumps(card))
    flags = [f"--model={tmp_path}", "--image_size=64"]
    flags += ["--dataset=shapes", "--split=val", "--limit=4", f"--format={formats}"]
    done = run_app("export_model", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 0 and "mAP" in done.stdout, done.stderr
    assert "measured in bars at 64 px" in done.stderr  # a program takes one size
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(report["milliseconds"]) == set(kinds)
    for name in ("map_11", "map_area"):
        measured = report["metrics"][name]
        assert set(measured) == {"keras", *kinds}
        assert measured == {kind: pytest.approx(measured["keras"], abs=1e-3) for kind in measured}


def tiny_mask_rcnn(names):
    from tfcnn import backbones
    from tfcnn.detection.mask_rcnn import mask_rcnn

    small = {"channels": 16, "units": 32, "proposals": 20, "sizes": (12.0, 24.0), "score_threshold": 0.0}
    net = mask_rcnn(backbones.backbone("tiny", None), len(names), mask_channels=8, **small)
    return net, {"kind": "mask_rcnn", "classes": names, "image_size": 64}


def tiny_localizer(names):
    from tfcnn import backbones
    from tfcnn.localization.heads import with_box_head

    net = with_box_head(backbones.classifier("tiny", None, classes=len(names), size=64))
    return net, {"kind": "localizer", "classes": names, "image_size": 64}


def tiny_pose_net(joints):
    from tfcnn import backbones
    from tfcnn.localization.pose import pose_net

    net = pose_net([backbones.backbone("tiny", None) for _ in range(2)], joints, size=48, part_size=16)
    return net, {"kind": "pose", "classes": ["person"], "joints": joints, "image_size": 48}


@pytest.mark.parametrize(
    "build,data,formats,figures",
    [
        (tiny_mask_rcnn, "shapes", "litert", ["map_11", "map_area", "segm_AP", "segm_AP50"]),
        (tiny_localizer, "shapes", "litert", ["top1_cls", "top1_loc"]),
        (tiny_pose_net, "figures", "litert,tf1_graph", ["pcp_strict", "pdj_02"]),
    ],
)
def test_a_data_set_says_the_figures_of_every_other_kind(run_app, tmp_path, build, data, formats, figures):
    kinds = needs(formats)
    import keras

    from tfcnn import datasets

    keras.utils.set_random_seed(0)
    opened = datasets.open(data, None, "val")
    net, card = build(getattr(opened, "joints", None) or opened.classes)
    net.save(tmp_path / "model.keras")
    (tmp_path / "card.json").write_text(json.dumps(card))
    flags = [f"--model={tmp_path}", f"--dataset={data}", "--split=val", "--limit=4", f"--format={formats}"]
    done = run_app("export_model", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    for name in figures:
        measured = report["metrics"][name]
        assert set(measured) == {"keras", *kinds}
        assert measured == {kind: pytest.approx(measured["keras"], abs=1e-3) for kind in measured}
    assert report["metrics"].keys() == set(figures)


@pytest.mark.parametrize(
    "flags,words",
    [
        (["--format=lite"], ["litert", "nearest"]),
        (["--model=nothing"], ["nothing"]),
        (["--calibration=photos"], ["--calibration", "litert_int8"]),
        (["--model=digits", "--image_size=77", "--format=onnx"], ["77"]),
        (["--model=digits", "--data=photos"], ["--data", "--dataset"]),
        (["--model=digits", "--dataset=digits", "--truth=a.csv"], ["--truth", "--dataset"]),
    ],
)
def test_wrong_commands_are_status_2(run_app, tmp_path, flags, words):
    done = run_app("export_model", *flags, f"--output_dir={tmp_path / 'none'}")
    assert done.returncode == 2 and not (tmp_path / "none").exists()
    (line,) = done.stderr.strip().splitlines()[-1:]
    assert all(word in line for word in words), line


def test_int8_is_not_calibrated_on_what_is_measured(run_app, tmp_path):
    flags = ["--model=digits", "--format=litert_int8", "--dataset=folder", "--split=val", "--limit=1"]
    for split in ("train", "val"):
        for name in ("0", "1"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(folder / f"{split}{name}.png")
    flags += [f"--data={tmp_path / 'data'}", f"--calibration={tmp_path / 'data' / 'val'}"]
    done = run_app("export_model", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and "beside those that are measured" in done.stderr, done.stderr
