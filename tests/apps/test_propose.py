"""propose as a person runs it: proposals of photographs, recall on a data set, and commands that are wrong."""

import json

import cv2
import pytest

from tfcnn.datasets.proposals import Proposals

CONTRIB = hasattr(getattr(cv2, "ximgproc", None), "createEdgeBoxes")


@pytest.fixture(scope="module")
def measured(run_app, tmp_path_factory):
    """Recall of windows on drawn shapes: (process, output_dir)."""
    out = tmp_path_factory.mktemp("propose")
    flags = [
        "--dataset=shapes",
        "--method=sliding_window",
        "--proposals=400",
        "--limit=12",
        "--counts=20,400",
    ]
    return run_app("propose", *flags, "--repeatability=1", f"--output_dir={out}"), out


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_proposals_of_a_photograph_are_read_by_who_takes_a_file_of_them(run_app, tmp_path):
    done = run_app("propose", "--limit=1", "--proposals=200", f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    (entry,) = results(tmp_path)["images"]
    assert entry["method"] == "selective_search" and 50 < len(entry["proposals"]) <= 200
    assert (tmp_path / entry["picture"]).exists()
    scores = [row[4] for row in entry["proposals"]]
    assert scores == sorted(scores, reverse=True)
    found = Proposals(tmp_path / "results.json", count=30).of("chelsea.png")
    assert found.shape == (30, 4) and found[:, 2].max() <= entry["width"]


@pytest.mark.parametrize(
    "search",
    [
        "own",
        pytest.param(
            "contrib",
            marks=[
                pytest.mark.extras,
                pytest.mark.skipif(not CONTRIB, reason="the extra contrib is not installed"),
            ],
        ),
    ],
)
def test_the_search_of_edge_boxes_is_said(run_app, tmp_path, search):
    flags = ["--method=edge_boxes", f"--search={search}", "--limit=1", "--longest=100", "--proposals=50"]
    done = run_app("propose", *flags, f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert results(tmp_path)["search"] == search
    assert {"own": "our own search", "contrib": "opencv-contrib's search"}[search] in done.stderr


def test_recall_on_a_data_set_grows_with_the_number_of_proposals(measured):
    done, out = measured
    assert done.returncode == 0, done.stderr
    found = results(out)
    few, many = (found["metrics"][count]["recall"]["0.5"] for count in ("20", "400"))
    assert 0 <= few < many <= 1
    assert found["metrics"]["400"]["average_recall"] < many
    assert set(found["metrics"]["repeatability"]) == {"scale", "noise", "jpeg", "rotation"}
    assert found["metrics"]["repeatability"]["jpeg"]["50"] == pytest.approx(1)  # windows do not look
    assert Proposals(out / "results.json").of(found["images"][0]["file"]).shape[1] == 4
    assert len(found["images"]) > 3 and all(len(e["proposals"]) <= 400 for e in found["images"])


@pytest.mark.parametrize(
    ("flags", "counts", "most"),
    [
        ([], ["100", "1000", "10000"], 10000),
        (["--proposals=300"], ["100"], 300),
        (["--proposals=30"], ["30"], 30),
    ],
)
def test_recall_is_measured_on_as_many_proposals_as_it_says(run_app, tmp_path, flags, counts, most):
    data = ["--dataset=shapes", "--limit=2", "--method=uniform", "--save_images=false"]
    done = run_app("propose", *data, *flags, f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    found = results(tmp_path)
    assert [name for name in found["metrics"] if name.isdigit()] == counts
    assert found["flags"]["proposals"] == most
    assert {len(entry["proposals"]) for entry in found["images"]} == {most}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--split=val"], "--dataset"),
        (["--method=uniform", "--bing_weights=bing.json"], "--method=bing"),
        (["--method=bing", "--bing_weights=no.json"], "no.json"),
        (["--image_size=100"], "--longest"),
        (["--dataset=digits"], "no boxes"),
        (["--dataset=shapes", "--proposals=300", "--counts=100,1000"], "more than --proposals=300"),
        (["--model=faster_rcnn_voc"], "--method=rpn"),
        (["--search=own"], "--method=edge_boxes"),
        pytest.param(
            ["--method=edge_boxes", "--search=contrib"],
            "opencv-contrib-python-headless",
            marks=pytest.mark.skipif(CONTRIB, reason="the extra contrib is installed"),
        ),
    ],
)
def test_a_wrong_command_is_one_line_and_leaves_nothing(run_app, tmp_path, flags, said):
    done = run_app("propose", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert said in done.stderr and not (tmp_path / "out").exists()
