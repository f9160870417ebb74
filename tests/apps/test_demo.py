"""demo: an example of every app, and one page."""

import json
import re

import pytest

from apps import cli, demo
from tfcnn import images, report
from tfcnn.errors import InputError


def test_every_app_has_an_example():  # its flags are parsed by tests/test_architecture.py, which starts each
    shown = {command.split()[0] for command in demo.EXAMPLES}
    assert shown == set(cli.apps()) - {"demo"}
    folders = list(demo.chosen([]))
    for place, command in enumerate(demo.EXAMPLES):
        assert set(re.findall(r"{(\w+)}", command)) <= set(folders[:place])


def test_the_truth_of_the_packaged_photographs_fits_them():
    truth = json.loads(demo.TRUTH.read_text())
    sizes = {source.file.rpartition("/")[2]: images.read(source).shape[:2] for source in images.packaged()}
    for entry in truth["images"]:
        assert (entry["height"], entry["width"]) == sizes.pop(entry["file_name"])
        for each in truth["annotations"]:
            x, y, width, height = each["bbox"]
            if each["image_id"] == entry["id"]:
                assert 0 <= x < x + width <= entry["width"] and 0 <= y < y + height <= entry["height"]
                assert each["area"] == width * height
    assert not sizes, "photographs that the truth leaves out"


def test_examples_are_chosen_with_those_they_need(monkeypatch):
    monkeypatch.setattr(demo, "EXAMPLES", ["nets", "classify", "classify --model={nets}", "saliency"])
    assert list(demo.chosen([])) == ["nets", "classify", "classify_2", "saliency"]
    assert list(demo.chosen(["classify"])) == ["nets", "classify", "classify_2"]
    with pytest.raises(InputError, match="saliency"):
        demo.chosen(["salience"])


def test_one_page_shows_what_the_apps_made(run_app, tmp_path):
    done = run_app("demo", "--apps=nets,download", f"--output_dir={tmp_path}")
    assert done.returncode == 0
    lines = done.stderr.splitlines()  # one an example
    assert len(lines) == 2 and re.fullmatch(r"demo: 1/2 nets, \d+ s", lines[0]) and "2/2 download" in lines[1]
    results = json.loads((tmp_path / "results.json").read_text())
    assert [entry["command"] for entry in results["images"]] == ["tfcnn download", "tfcnn nets"]
    assert all(entry["status"] == 0 for entry in results["images"])
    page = (tmp_path / "index.html").read_text()
    assert 'href="nets/index.html"' in page and "efficientnet_lite0" in page
    assert re.findall(r'<a href="#[^"]+">([^<]+)</a>', page) == ["start", "models"]
    assert demo.EXAMPLES["nets"] in page
    assert (tmp_path / "nets" / "results.json").exists()
    assert done.stdout.splitlines()[-1].endswith("index.html")


def test_a_failed_example_is_named_and_the_others_shown(run_app, tmp_path):
    (tmp_path / "nets").write_text("in the way")
    done = run_app("demo", "--apps=nets,download", "--at_once=1", f"--output_dir={tmp_path}", "--quiet")
    assert done.returncode == 1 and "tfcnn nets: ended with status 2" in done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert [entry["folder"] for entry in results["images"]] == ["download"]
    assert [entry["file"] for entry in results["refused"]] == ["tfcnn nets"]


@pytest.mark.slow
def test_the_whole_demo(run_app, tmp_path):
    done = run_app("demo", f"--output_dir={tmp_path}", timeout=1200)
    assert done.returncode == 0, done.stderr
    assert len((done.stdout + done.stderr).splitlines()) <= 70 and "warning" not in done.stderr.lower()
    page = (tmp_path / "index.html").read_text()
    assert len(report.pictures_of(page)) >= 15
    for name in demo.chosen([]):
        assert re.search(rf'href="{name}/(shard[-0-9of]+/)?index.html"', page), name  # a shard's is deeper
