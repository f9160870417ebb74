"""dataset_stats as a person runs it."""

import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "datasets"))

import dataset_layouts as layouts  # noqa: E402

from tfcnn import images  # noqa: E402
from tfcnn.datasets import coco, statistics, voc  # noqa: E402


def test_a_set_with_broken_files(run_app, tmp_path):
    folder = layouts.voc(tmp_path / "VOC2007")
    objects = [
        ("cat", 9, 9, 2, 9, 0),
        ("cat", 3, 3, 70, 20, 0),
        ("cat", 5, 5, 9, 9, 0),
        ("unicorn", 1, 1, 2, 2, 0),
    ]
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(voc.CLASSES)]
    files = {
        "categories.json": json.dumps(categories),
        "Annotations/two.xml": layouts.voc_xml(objects),
        "Annotations/none.xml": layouts.voc_xml([], size=(50, 30)),
        "JPEGImages/one.jpg": layouts.encoded(layouts.picture(40, 30))[:-9],
    }
    layouts.write(folder, files)
    out = tmp_path / "out"
    done = run_app(
        "dataset_stats",
        "--dataset=voc",
        f"--data={layouts.zipped(folder, tmp_path / 'v.zip')}",
        f"--output_dir={out}",
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "results.json").read_text())
    assert results["class_count"] == 20 and results["image_count"] == 3 and results["object_count"] == 4
    assert abs(results["objects_per_image"] - 4 / 3) < 1e-12 and results["empty_images"] == 1
    assert results["per_class"]["cat"] == {"images": 1, "objects": 2}
    assert results["per_class"]["person"] == {"images": 1, "objects": 1}
    assert results["difficult"] == 1 and results["images"] == [] and results["refused"] == []
    assert results["metrics"]["object_count"] == 4
    found = [(finding["file"], finding["rule"]) for finding in results["broken"]]
    assert found == [
        ("Annotations/two.xml", "object skipped"),
        ("Annotations/two.xml", "object skipped"),
        ("Annotations/two.xml", "box clipped"),
        ("JPEGImages/one.jpg", "picture left out when it is read"),
        ("JPEGImages/none.jpg", "boxes scaled with the picture"),
    ]
    assert all(set(finding) == {"file", "why", "rule"} for finding in results["broken"])
    assert "40x30, its annotation says 50x30" in results["broken"][-1]["why"]
    assert images.read(out / "boxes.png").shape == (825, 1210, 3)
    assert images.read(out / "sheet.png").shape[1] > 300
    assert results["files"] == ["boxes.png", "sheet.png"]
    page = (out / "index.html").read_text()
    assert page.count("data:image/") == 2
    assert "unknown class 'unicorn'" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["class", "images", "objects", "objects", "an", "image"]
    assert lines[1].split() == ["all", "20", "classes", "3", "4", "1.33"]
    assert lines[-1] == f"see {out / 'index.html'}" and len(lines) <= 23


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "name the data set"),
        (("--dataset=vocc", "--data=."), "unknown --dataset 'vocc'; the nearest are voc"),
        (("--dataset=voc",), "needs its folder or .zip"),
    ],
)
def test_a_wrong_command(run_app, tmp_path, arguments, message):
    done = run_app("dataset_stats", *arguments, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists() and not done.stdout


@pytest.mark.parametrize("count", [1, 3])
def test_a_figure_of_boxes_that_are_all_alike(tmp_path, count):
    """Their histogram has no two ends; the set has three pictures of the same boxes, or one."""
    folder = layouts.voc(tmp_path / "set")
    xml = layouts.voc_xml([("cell", 1, 1, 32, 32, 0)] * count, size=(40, 40))
    layouts.write(folder, {f"Annotations/{name}.xml": xml for name in ("one", "two", "none")})
    for split in ("train", "val"):
        assert statistics.figure(voc.read(folder, split)).shape == (825, 1210, 3)


def test_figures_of_real_sets(data):
    for split, pictures, objects in (("train", 2500, 7843), ("val", 2508, 7812)):
        figures = statistics.summary(voc.read(data("voc2007-320.zip"), split))
        assert (figures["image_count"], figures["object_count"]) == (pictures, objects)
        assert sum(figures["sizes"].values()) == objects
    assert figures["per_class"]["person"] == {"images": 1023, "objects": 2739}
    figures = statistics.summary(coco.read(data("coco-part.zip")))
    assert (figures["image_count"], figures["object_count"], figures["crowd"]) == (128, 987, 10)
    assert figures["class_count"] == 80 and figures["empty_images"] == 2


def test_a_set_of_classification_and_of_poses(tmp_path):
    from tfcnn import datasets

    data = datasets.open("folder", layouts.classes(tmp_path / "set"), "train")
    figures = statistics.summary(data)
    assert figures["object_count"] == 0 and figures["per_class"]["bees"] == {"images": 3, "objects": 0}
    assert statistics.contact_sheet(data, count=4, side=30).ndim == 3
    poses = datasets.open("lsp", layouts.lsp(tmp_path / "lsp"))
    plain = statistics.contact_sheet(poses, count=2, side=80)
    for record in poses.examples:
        record.joints = None
        record.boxes = record.boxes[:0]
    assert (plain != statistics.contact_sheet(poses, count=2, side=80)).any()
