"""--engine=ray on a small app without TensorFlow: the files of a run here, refused pictures and the page included."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tfcnn import images
from tfcnn.cli import ray_engine
from tfcnn.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]

PROBE = '''
"""An app for tests: the mean of each picture."""
from tfcnn import cli

GROUP, SUMMARY = "start", "means of pictures"

def main(run):
    run.over_pictures(work)
    run.metrics["sum"] = sum(mean for _, mean in run.finished_pictures())

def work(run):
    def answer(batch):
        for picture in batch:
            with picture:
                picture.entry["mean"] = picture.kept = float(picture.prepared.mean())
                picture.save(picture.prepared, "copy", "copy", main=True)
    return cli.Work(answer, run.flags.batch_size, lambda image: image)

if __name__ == "__main__":
    cli.start(main, batch_size=3, at_scale=True)
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "means.py").write_text(PROBE)
    (tmp_path / "photos").mkdir()
    for number in range(10):
        images.write(tmp_path / "photos" / f"{number}.png", np.full((90, 80, 3), 20 * number, np.uint8))
    (tmp_path / "photos" / "4.png").write_bytes(b"no picture")
    return tmp_path


def contents(folder):
    found = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    results = json.loads(found.pop("results.json"))
    del results["seconds"], results["flags"], found["flags.txt"]
    return found | {"results": results}


@pytest.mark.extras
def test_ray_finds_what_this_process_finds(folder):
    pytest.importorskip("ray.data", reason="the extra ray is not installed")
    done = {}
    for engine in ("local", "ray"):
        command = [
            sys.executable,
            "-m",
            "means",
            "photos",
            f"--engine={engine}",
            f"--output_dir={engine}",
            "--quiet",
        ]
        paths = {
            **os.environ,
            "PYTHONPATH": ":".join([str(ROOT), *filter(None, sys.path)]),
            "RAY_DEDUP_LOGS": "0",
        }
        done[engine] = subprocess.run(
            command, cwd=folder, env=paths, capture_output=True, text=True, check=False
        )
    assert [each.returncode for each in done.values()] == [1, 1], done["ray"].stderr
    refused = [line for line in done["ray"].stderr.splitlines() if "refused" in line]
    assert refused == done["local"].stderr.splitlines() and len(refused) == 1
    assert contents(folder / "ray") == contents(folder / "local")


def test_where_ray_is_missing_it_is_said_before_any_work(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"tfcnn\[ray\]"):
        ray_engine.check()
