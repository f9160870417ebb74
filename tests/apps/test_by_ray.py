"""classify, detect and embed with --engine=ray: the files of a run here, and a killed run that goes on."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tfcnn import images

pytestmark = pytest.mark.extras

ROOT = pathlib.Path(__file__).resolve().parents[2]
COUNT, DAMAGED = 12, "05.png"
APPS = {
    "classify": ["--model=digits", "--truth=labels.csv"],
    "detect": ["--model=one_stage_voc", "--image_size=96", "--score_threshold=0.05"],
    "embed": ["--model=digits", "--method=pca"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of several sizes, one of them damaged, and labels."""
    pytest.importorskip("ray.data", reason="the extra ray is not installed")
    folder = tmp_path_factory.mktemp("ray")
    (folder / "in").mkdir()
    sources = images.packaged()
    for number in range(COUNT):
        size = [60 + 7 * number, 80]
        image = images.resize(images.read(sources[number % len(sources)]), size)[0]
        images.write(folder / "in" / f"{number:02}.png", np.asarray(image).astype(np.uint8))
    (folder / "in" / DAMAGED).write_bytes((folder / "in" / DAMAGED).read_bytes()[:200])
    lines = [f"{number:02}.png,{number % 10}" for number in range(COUNT)]
    (folder / "labels.csv").write_text("\n".join(["file,class_index", *lines]))
    return folder


def begin(folder, app, name, *arguments):
    """An app in a process of its own, whose results go to `name`."""
    command = [sys.executable, "-m", f"apps.{app}", "in", *APPS[app], f"--output_dir={name}"]
    command += ["--threads=1", "--batch_size=2", "--quiet", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process):
    """(status, standard output, standard error) at its end."""
    out, err = process.communicate(timeout=900)
    return process.returncode, out, err


def contents(folder):
    """A run's files, without what differs from run to run."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found = {name: data.replace(folder.name.encode(), b"OUT") for name, data in found.items()}
    results = json.loads(found["results.json"])
    for name in ("seconds", "images_per_second"):
        results.pop(name, None)
    for name in ("engine", "shard"):
        results["flags"].pop(name, None)
    lines = found.pop("flags.txt").decode().splitlines()
    flags = [line for line in lines if not line.startswith(("--engine", "--shard"))]
    return found | {"results.json": results, "flags": flags}


@pytest.fixture(scope="module")
def here(folder):
    """A function from an app's name to its run without Ray: (status, its files, refusals)."""
    found = {}

    def run(app):
        if app not in found:
            status, _, err = end(begin(folder, app, f"{app}-here"))
            found[app] = status, contents(folder / f"{app}-here"), refusals(err)
        return found[app]

    return run


def refusals(err):
    """What a person reads of the pictures that were refused."""
    return [line for line in err.splitlines() if "refused" in line]


@pytest.mark.parametrize("app", APPS)
def test_an_app_by_ray_writes_the_same_files(folder, here, app):
    status, expected, refused = here(app)
    assert status == 1 and len(refused) == 1 and DAMAGED in refused[0]
    code, out, err = end(begin(folder, app, f"{app}-ray", "--engine=ray"))
    assert code == 1 and err.splitlines() == refused, err  # nothing of Ray's own
    found = contents(folder / f"{app}-ray")
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert len(found["results.json"]["images"]) == COUNT - 1


def test_a_killed_run_by_ray_goes_on(folder, here):
    _, expected, _ = here("classify")
    shard = folder / "killed" / "shard-1-of-1"
    journal = shard / "journal.jsonl"
    flags = ("classify", "killed", "--engine=ray", "--shard=1/1", "--quiet=false")
    process = begin(folder, *flags)
    until = time.time() + 900
    while process.poll() is None and time.time() < until:
        if journal.exists() and journal.read_bytes().count(b"\n") > 1:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    end(process)
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) > 1
    journal.write_bytes(
        b"".join(lines[:2])
    )  # as if it had been killed after its first batch, whenever it was
    (shard / "results.json").unlink(missing_ok=True)
    code, out, err = end(begin(folder, *flags))
    assert code == 1 and f"going on after 1 of {COUNT // 2} batches" in out + err, err
    batches = [json.loads(line)["batch"] for line in journal.read_text().splitlines()[1:]]
    assert batches == list(range(COUNT // 2))
    results = json.loads((shard / "results.json").read_text())
    assert results["images"] == expected["results.json"]["images"]
    assert results["metrics"] == expected["results.json"]["metrics"]
    assert results["refused"] == expected["results.json"]["refused"]
