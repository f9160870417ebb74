"""Runs in shards on a small app without TensorFlow: killed, gone on with, merged; each way not to belong together."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tfcnn import files, images
from tfcnn.cli import shards
from tfcnn.cli.items import unique_stems
from tfcnn.cli.journal import Journal, Shard
from tfcnn.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]
PICTURES, DAMAGED = 11, 4

PROBE = '''
"""An app for tests: the mean of each picture, and of all."""
import os, time
from absl import flags
from tfcnn import cli

GROUP, SUMMARY = "start", "means of pictures"
PLUS = flags.DEFINE_float("plus", 0.0, "Added to each mean, e.g. --plus=1")

def main(run):
    facts = run.over_pictures(work)
    means = [mean for _, mean in run.finished_pictures()]
    run.metrics["mean"] = sum(means) / max(1, len(means))
    run.table(["unit", "mean"], [[facts["unit"], run.metrics["mean"]]])

def work(run):
    def answer(batch):
        for picture in batch:
            with picture:
                mean = float(picture.prepared.mean()) + PLUS.value
                picture.entry["mean"] = picture.kept = mean
                picture.lines.append(f"mean {mean}")
                picture.save(picture.prepared, "copy", f"{mean}", main=True)
        print("batch", flush=True)
        time.sleep(float(os.environ.get("PAUSE", 0)))
    return cli.Work(answer, run.flags.batch_size, lambda image: image, {"unit": "grey levels"})

if __name__ == "__main__":
    cli.start(main, batch_size=2, at_scale=True)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A package with the app and `merge`, and a folder of pictures, one of them damaged."""
    folder = tmp_path_factory.mktemp("scale")
    (folder / "apps").mkdir()
    (folder / "apps" / "__init__.py").write_text("")
    (folder / "apps" / "means.py").write_text(PROBE)
    shutil.copy(ROOT / "apps" / "merge.py", folder / "apps")
    (folder / "photos").mkdir()
    for number in range(PICTURES):
        images.write(folder / "photos" / f"{number:02}.png", np.full((40, 30, 3), 20 * number, np.uint8))
    (folder / "photos" / f"{DAMAGED:02}.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def run(folder):
    def run(app, *arguments, wait=True, pause=0.0):
        command = [sys.executable, "-m", f"apps.{app}", *map(str, arguments), "--quiet"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(
            command, cwd=folder, env={"PYTHONPATH": str(ROOT), "PAUSE": str(pause)}, **pipes
        )
        if not wait:
            return process
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    return run


@pytest.fixture(scope="module")
def whole(run, folder):
    """The run over everything at once, and its results."""
    done = run("means", "photos", "--output_dir=whole")
    assert done.returncode == 1 and f"{DAMAGED:02}.png" in done.stderr
    return done, contents(folder / "whole")


@pytest.fixture(scope="module")
def merged(run, folder, whole):
    """Three shards, of which the second is killed and run again, merged: the process that merged them."""
    statuses = [run("means", "photos", "--output_dir=out", f"--shard={k}/3").returncode for k in (1, 3)]
    process = run("means", "photos", "--output_dir=out", "--shard=2/3", wait=False, pause=0.4)
    process.stdout.readline()
    time.sleep(0.2)  # its first batch of two is answered and, most likely, in the journal
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = run("means", "photos", "--output_dir=out", "--shard=2/3")
    statuses.insert(1, again.returncode)
    assert statuses == [0, 1, 0], again.stderr  # the damaged one is the second's
    return run("merge", "out")


def contents(folder):
    """The files of a run, but for shards and what differs from run to run."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not name.startswith("shard"):
            found[name] = path.read_bytes()
    results = json.loads(found["results.json"])
    for name in ("seconds", "device"):
        del results[name]
    del results["flags"]["output_dir"]
    flags = [line for line in found["flags.txt"].decode().splitlines() if "output_dir" not in line]
    return found | {"results.json": results, "flags.txt": flags}


def test_merged_shards_are_the_run_over_everything(merged, whole, folder):
    done, expected = whole
    found = contents(folder / "out")
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert len(found["results.json"]["images"]) == PICTURES - 1
    assert [entry["file"] for entry in found["results.json"]["refused"]] == [f"photos/{DAMAGED:02}.png"]
    assert merged.returncode == done.returncode == 1
    assert merged.stdout.replace("out/", "whole/") == done.stdout.replace("batch\n", "")


def test_merging_again_changes_nothing(merged, run, folder):
    before = contents(folder / "out")
    assert run("merge", "out").returncode == 1
    assert contents(folder / "out") == before


def test_a_finished_shard_run_again_does_nothing(merged, run, folder):
    before = (folder / "out/shard-2-of-3/results.json").read_bytes()
    done = run("means", "photos", "--output_dir=out", "--shard=2/3")
    assert done.returncode == 1 and "finished" in done.stdout and "batch" not in done.stdout
    assert (folder / "out/shard-2-of-3/results.json").read_bytes() == before


def test_a_journal_that_a_kill_cut_off_is_gone_on_with(merged, run, folder):
    path = folder / "out/shard-1-of-3/journal.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    missing = run("merge", "out")
    assert missing.returncode == 2 and "shard 1/3 is not finished" in missing.stderr
    done = run("means", "photos", "--output_dir=out", "--shard=1/3")
    assert done.returncode == 0 and done.stdout.count("batch") == len(lines) - 2
    assert path.read_bytes() == whole


def test_what_does_not_belong_together_is_said(merged, run, folder):
    for name, arguments in {
        "flags": ["photos", "--plus=1", "--shard=2/3"],
        "division": ["photos", "--shard=2/4"],
        "pictures": ["photos", "--limit=9", "--shard=2/3"],
    }.items():
        run("means", *arguments, f"--output_dir={name}")
    (folder / "text").mkdir()
    (folder / "text/journal.jsonl").write_text('{"app": 3}\n')
    cases = {
        "flags": "--plus=1.0 there",
        "division": "another division",
        "pictures": "--limit=9",
        "out/shard-2-of-3": "--shard=3/3",
        "nothing": "no such folder",
        "photos": "holds no shards",
        "text": "not the journal of a shard",
    }
    for names, words in cases.items():
        done = run("merge", "out/shard-1-of-3", names, "--output_dir=other")
        (line,) = done.stderr.splitlines()
        assert done.returncode == 2 and words in line and not (folder / "other").exists(), names
    (line,) = run("merge").stderr.splitlines()
    assert "which shards" in line


def test_a_shard_that_another_process_works_on_is_left_alone(run, folder):
    process = run("means", "photos", "--output_dir=busy", "--shard=1/1", wait=False, pause=5)
    process.stdout.readline()
    done = run("means", "photos", "--output_dir=busy", "--shard=1/1")
    process.kill()
    process.communicate()
    assert done.returncode == 2 and "another process" in done.stderr


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"])
def test_a_shard_that_is_none_is_status_2(run, folder, text):
    done = run("means", "photos", f"--shard={text}", "--output_dir=none")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and not (folder / "none").exists()


def test_shards_are_cut_between_batches_and_leave_none_out():
    for batches in (0, 1, 2, 7, 100):
        for of in (1, 2, 3, 7):
            parts = [list(Shard(number, of).part(batches)) for number in range(1, of + 1)]
            assert sum(parts, []) == list(range(batches))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_no_file_outside_the_shard_is_linked(tmp_path):
    part = tmp_path / "shard-1-of-1"
    part.mkdir()
    header = {"app": "means", "version": "0", "flags": [], "shard": [1, 1], "pictures": 1, "sha256": ""}
    header |= {"batch_size": 1, "batches": [0, 1], "facts": {}}
    line = {"batch": 0, "shown": 0, "items": [{"entry": {"file": "a.png", "files": ["../../secret"]}}]}
    (part / "journal.jsonl").write_text(json.dumps(header) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(InputError, match="outside"):
        shards.gather(shards.find([tmp_path]), tmp_path / "out")


def test_json_in_parts_is_json_as_a_whole():
    obj = {"a": [1, {"b": [2.5, None]}], "c": {}, "d": [], "e": {"f": [float("nan")]}, "g": np.arange(2)}
    streamed = {name: iter(value) if isinstance(value, list) else value for name, value in obj.items()}
    assert "".join(files.json_parts(streamed)) == files.to_json(obj)
    assert "".join(files.json_parts(iter(obj["a"]))) == files.to_json(obj["a"])
    assert "".join(files.json_parts(iter([]))) == "[]" and "".join(files.json_parts({})) == "{}"


def test_names_are_told_apart_by_as_much_of_the_path_as_it_takes():
    def source(file, name):
        return images.Source(file, name, pathlib.Path(file))

    sources = [source("in/a.png", "a.png"), source("in/x/b.png", "x/b.png"), source("in/y/b.png", "y/b.png")]
    sources += [source("in/y/b.jpg", "y/b.jpg"), source("/up/../c.png", "c.png")]
    assert unique_stems(sources) == ["a", "x/b", "y/b.png", "y/b.jpg", "c"]
    alone = [source(f"/a/long/path/{name}", name) for name in ("d.png", "d.jpg", "e.png")]
    assert unique_stems(alone) == ["d.png", "d.jpg", "e"]
    alone += [source("/other/d.png", "d.png"), source("/other/e.png", "e.png")]
    assert unique_stems(alone) == ["a/long/path/d.png", "d.jpg", "a/long/path/e", "other/d", "other/e"]
    long = [source(f"{'ü' * 120}{end}.png", f"{'ü' * 120}{end}.png") for end in "ab"]
    assert unique_stems(long) == ["ü" * 90, "ü" * 90 + "_1"]


def test_a_journal_reads_itself_while_it_grows(tmp_path):
    header = {"app": "a", "version": "0", "flags": [], "shard": [1, 1], "pictures": 2, "sha256": ""}
    with Journal.temporary(tmp_path) as journal:
        journal.begin(header | {"batch_size": 1, "batches": [0, 2], "facts": {}})
        journal.add({"batch": 0, "shown": 1, "items": [{"entry": {"file": "é" * 2**20}}]})
        first = journal.items()
        assert next(first)["entry"]["file"].startswith("é")
        journal.add({"batch": 1, "shown": 1, "items": [{"refused": {"file": "b", "why": "w"}}]})
        assert [*first] == [{"refused": {"file": "b", "why": "w"}}]
        assert (journal.entries, journal.refused, journal.complete) == (1, 1, True)
    assert not [*tmp_path.iterdir()]


def journal_of(folder, **fields):
    """A finished shard of a stranger."""
    folder.mkdir()
    header = {"app": "means", "version": "0", "flags": [], "shard": [1, 1], "pictures": 0, "sha256": ""}
    header |= {"batch_size": 1, "batches": [0, 0], "facts": {"unit": "grey levels"}} | fields
    (folder / "journal.jsonl").write_text(json.dumps(header) + "\n")


def test_flags_of_a_journal_that_do_other_work_are_passed_over(run, folder):
    lines = ["--list_layers=true", "--list_nets", "--model=evil.keras", "--allow_custom_objects=true"]
    lines += ["--flagfile=more.txt", "--noquiet", "more.png", "--plus=2.0", ["--list_nets=true"]]
    journal_of(folder / "stranger", flags=lines)
    found = shards.belonging(shards.find([folder / "stranger"]))
    (app, *kept) = shards.command(found, pathlib.Path("out"), folder / "apps")
    assert app == "means"
    assert kept == ["--model=evil.keras", "--plus=2.0", "--output_dir=out", "--shard=merged"]
    done = run("merge", "stranger", "--output_dir=ended")
    assert done.returncode == 0 and (folder / "ended/results.json").exists(), done.stderr


@pytest.mark.parametrize("app", ["merge", "another", "../means", "means.py", "", "means --debug"])
def test_a_journal_of_another_app_is_refused(folder, tmp_path, app):
    journal_of(tmp_path / "stranger", app=app)
    found = shards.belonging(shards.find([tmp_path / "stranger"]))
    with pytest.raises(InputError, match="no app of this name works in shards"):
        shards.command(found, tmp_path / "out", folder / "apps")
