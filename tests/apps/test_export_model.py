"""export_model as a person runs it: formats side by side, each with its difference, size and time."""

import csv
import json

import pytest

from tfcnn.export import tf1_graph


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


@pytest.mark.parametrize(
    "flags,words",
    [
        (["--format=lite"], ["litert", "nearest"]),
        (["--model=nothing"], ["nothing"]),
        (["--calibration=photos"], ["--calibration", "litert_int8"]),
        (["--model=digits", "--image_size=77", "--format=onnx"], ["77"]),
    ],
)
def test_wrong_commands_are_status_2(run_app, tmp_path, flags, words):
    done = run_app("export_model", *flags, f"--output_dir={tmp_path / 'none'}")
    assert done.returncode == 2 and not (tmp_path / "none").exists()
    (line,) = done.stderr.strip().splitlines()[-1:]
    assert all(word in line for word in words), line
