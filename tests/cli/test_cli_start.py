"""What every app promises, on a small app that needs no TensorFlow; and each kind of bad input on it."""

import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import types
import zipfile

import numpy as np
import pytest
from PIL import Image

from tfcnn import images
from tfcnn.cli.items import Item
from tfcnn.cli.output import Output
from tfcnn.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]

PROBE = '''
"""An app for tests: turns pictures into negatives, or fails as it is told."""
import pathlib, shutil, sys, time
from absl import flags
from tfcnn import cli
from tfcnn.errors import InputError

GROUP, SUMMARY = "start", "negatives"
WAYS = ["no", "early", "nan", "entry", "bug", "late", "full", "gone", "slow", "kernel", "memory"]
FAIL = flags.DEFINE_enum("fail", "no", WAYS, "How to fail")
AMOUNT = flags.DEFINE_float("amount", 1.0, "How much, in parts of one, e.g. --amount=0.5", lower_bound=0.0)

def main(run):
    if FAIL.value == "early":
        raise InputError("layer 'x' is not there")
    for n, picture in enumerate(run.pictures()):
        with picture:
            negative = 255.0 - AMOUNT.value * picture.image
            picture.entry["mean"] = negative.mean()
            if FAIL.value == "nan" and n == 1:
                negative[0, 0, 0] = float("nan")
            picture.save(negative, "negative", main=True)
            if FAIL.value == "entry" and n == 1:
                picture.entry["deep"] = [{"value": float("inf")}]
        if n == 1 and FAIL.value == "bug":
            raise KeyError("a bug")
        if n == 1 and FAIL.value == "kernel":
            raise type("UnimplementedError", (Exception,), {})("Determinism is not yet supported for this op")
        if n == 1 and FAIL.value == "memory":
            raise MemoryError()
        if n == 1 and FAIL.value == "late":
            raise InputError("it will not do")
        if n == 1 and FAIL.value == "full":
            def full(*_): raise OSError(28, "No space left on device")
            from tfcnn import files
            files.write_bytes = full
        if n == 1 and FAIL.value == "gone":
            shutil.rmtree(run.output_dir)
        if n == 1 and FAIL.value == "slow":
            print("ready", flush=True)
            time.sleep(60)
    assert not any("image" in item.__dict__ for item in run.entries.values())  # pixels are let go
    run.metrics["share"] = float("nan")
    run.table(["file"], [[e.name] for e in run.entries.values()])
    assert "tensorflow" not in sys.modules

if __name__ == "__main__":
    cli.start(main)
'''

TRAINER = '''
"""A trainer for tests: counts, and remembers how far it is."""
import pathlib, sys, time
from absl import flags
from tfcnn import cli
from tfcnn import files
from tfcnn.runtime import Interrupted

GROUP, SUMMARY = "start", "counts"
STEPS = flags.DEFINE_integer("steps", 3, "Steps, e.g. --steps=9")

def main(run):
    run.trains_on({"training": "numbers"})
    run.begin()
    place = run.output_dir / "step"
    step = int(place.read_text()) if run.resume else 0
    print("resumed at", step, flush=True)
    while step < STEPS.value:
        step += 1
        files.write_text(place, str(step))
        if STEPS.value > 100:
            time.sleep(0.004)
        if run.stop:
            raise Interrupted("stopped by a signal")
    run.metrics["step"] = step

if __name__ == "__main__":
    cli.start(main, trainer=True, pictures=False)
'''


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """A function that runs the probe (or the trainer) in a folder and gives the finished process."""
    home = tmp_path_factory.mktemp("probe")
    (home / "probe.py").write_text(PROBE)
    (home / "trainer.py").write_text(TRAINER)

    def start(*arguments, name="probe", cwd=home):
        command = [sys.executable, str(home / f"{name}.py"), *map(str, arguments)]
        variables = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=cwd, env=variables, stdout=pipe, stderr=pipe, text=True)

    def run(*arguments, **options):
        process = start(*arguments, **options)
        process.out, process.err = process.communicate(timeout=300)
        return process

    run.start = start
    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three small pictures in a folder with a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "c.png"):
        images.write(folder / name, random.integers(0, 256, (20, 30, 3), np.uint8))
    (folder / "notes.txt").write_text("no picture")
    return folder


def results(folder):
    return json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)


def one_line(text):
    """The only line of standard error, progress notes aside."""
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


def test_a_run_leaves_what_is_promised_and_its_flagfile_repeats_it(probe, photos, tmp_path):
    out = tmp_path / "deep" / "out"
    done = probe(photos, f"--output_dir={out}", "--amount=0.5", "--limit=2", "--quiet")
    assert (done.returncode, done.err) == (0, "")
    assert done.out.splitlines()[0].strip() == "file" and str(out / "index.html") in done.out.splitlines()[-1]

    first = results(out)
    assert [Path["file"] for Path in first["images"]] == [str(photos / "a.png"), str(photos / "b.jpg")]
    entry = first["images"][0]
    assert (entry["width"], entry["height"]) == (30, 20)
    assert entry["picture"] == "a_negative.png" and entry["files"] == ["a_negative.png"]
    expected = np.rint(255 - 0.5 * images.read(photos / "a.png"))
    assert (images.read(out / "a_negative.png") == expected).all()
    assert first["app"] == "probe" and first["net"] is None and first["refused"] == []
    assert first["metrics"] == {"share": None}  # NaN
    assert first["flags"]["amount"] == 0.5 and first["flags"]["seed"] == 0

    page = (out / "index.html").read_text()
    assert page.count("data:image/") == 2 and "http" not in re.sub(r'base64,[^"]*', "", page)
    lines = (out / "flags.txt").read_text().splitlines()
    assert {"--amount=0.5", "--limit=2", f"--images={photos}", "--quiet=true"} < set(lines)

    again = probe(f"--flagfile={out / 'flags.txt'}", f"--output_dir={tmp_path / 'again'}")
    assert again.returncode == 0
    second = results(tmp_path / "again")
    for part in (first, second):
        part.pop("seconds"), part["flags"].pop("output_dir")
    assert first == second
    for name in ("a_negative.png", "b_negative.png"):
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()

    refused = probe(photos, f"--output_dir={out}", "--overwrite=false")
    assert refused.returncode == 2 and "--overwrite=false" in one_line(refused.err)


@pytest.mark.parametrize(
    ("app", "flag"),
    [
        ("dataset_stats", "--net=resnet50"),
        ("detect", "--net=resnet50"),
        ("dpm", "--weights=none"),
        ("evaluate", "--preprocessing=resnet50"),
        ("fool_linear", "--model=my.keras"),
        ("hog_detector", "--net=resnet50"),
        ("hog_lookalike", "--labels=README.md"),
        ("music", "--allow_custom_objects"),
        ("nets", "--net=resnet50"),
        ("pose", "--labels=README.md"),
        ("propose", "--net=resnet50"),
    ],
)
def test_a_common_flag_that_means_nothing_to_an_app_is_refused(run_app, tmp_path, app, flag):
    done = run_app(app, flag, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr == f"{app}: {flag.partition('=')[0]} means nothing to {app}\n"


def test_a_file_whose_name_begins_with_a_dash_is_told_from_a_flag(probe, photos, tmp_path):
    (tmp_path / "-dash.png").write_bytes((photos / "a.png").read_bytes())
    done = probe("-dash.png", "--output_dir=out", cwd=tmp_path)
    assert done.returncode == 2 and one_line(done.err).endswith("the file of this name is ./-dash.png")
    assert probe("./-dash.png", "--output_dir=out", cwd=tmp_path).returncode == 0


def test_files_of_an_earlier_run_stay_and_are_named(probe, photos, tmp_path):
    out = tmp_path / "out"
    assert probe(photos, f"--output_dir={out}").err.count("earlier run") == 0
    assert "earlier run" not in probe(photos, f"--output_dir={out}").err  # all of them were made anew
    (out / "c_negative.png").unlink()
    done = probe(photos / "a.png", f"--output_dir={out}")
    assert done.returncode == 0
    (line,) = [each for each in done.err.splitlines() if "earlier run" in each]
    assert line == (
        f"probe: {out} keeps 1 file of an earlier run, no longer in results.json and index.html: b_negative.png"
    )
    assert (out / "b_negative.png").exists() and "b_negative" not in (out / "results.json").read_text()
    (out / "results.json").write_text('{"files": [\n"a_negative.png",\n"broken')  # of another program, say
    assert probe(photos / "b.jpg", f"--output_dir={out}", "--quiet").err == ""


def test_pictures_are_left_out_with_save_images_false(probe, photos, tmp_path):
    done = probe(photos, f"--output_dir={tmp_path}", "--save_images=false")
    assert done.returncode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["flags.txt", "index.html", "results.json"]
    assert "picture" not in results(tmp_path)["images"][0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--amont=1"], ["amont", "amount"]),
        (["--amount=much"], ["amount", "much"]),
        (["--amount=-1"], ["amount"]),
        (["--fail=sometimes"], ["fail", "early"]),
        (["--device=tpu"], ["device", "tpu"]),
        (["no/such/folder"], ["no/such/folder"]),
        (["--images=*.nothing"], ["*.nothing"]),
        (["--fail=early"], ["layer 'x'"]),
        (["--output_dir={file}/out"], ["output_dir", "a.png"]),
        (["--output_dir=/proc/out"], ["output_dir", "/proc/out"]),
        (["--flagfile=none.txt"], ["none.txt"]),
        (["--limit=0"], ["limit"]),
        (["--image_size=10001"], ["image_size", "10000"]),
        (["--resize=fit"], ["resize", "letterbox"]),  # the probe takes squares
        (["--seed=-1"], ["seed"]),
        (["--threads=100000"], ["threads", "1024"]),
        (["--seed=2147483648"], ["seed", "2147483647"]),
    ],
)
def test_a_wrong_command_is_one_line_status_2_and_nothing_written(probe, photos, tmp_path, arguments, words):
    arguments = [each.format(file=photos / "a.png") for each in arguments]
    default = [] if any("output_dir" in each for each in arguments) else ["--output_dir=out/deep"]
    pictures = (
        [] if any("images" in each or "/" in each[:4] for each in arguments) else [f"--images={photos}"]
    )
    done = probe(*arguments, *default, *pictures, cwd=tmp_path)
    assert done.returncode == 2, done.err
    assert all(word in one_line(done.err) for word in words)
    assert done.out == "" and list(tmp_path.iterdir()) == []


def test_help_shows_own_flags_first_and_every_common_flag_with_its_default(probe, tmp_path):
    done = probe("--help", cwd=tmp_path)
    assert (done.returncode, done.err) == (0, "")
    own, every = done.out.index("--amount  [default: 1.0]"), done.out.index("--images  [default: none]")
    assert own < done.out.index("--image_size") < every
    promised = (
        "images output_dir net weights model preprocessing labels batch_size limit device precision threads seed "
        "deterministic overwrite save_images quiet verbosity debug flagfile help version image_size resize max_pixels"
    )
    for name in promised.split():
        assert re.search(rf"^  --{name}  \[default: .+\]$", done.out, re.M), name
    assert "e.g. --amount=0.5" in done.out and "e.g. --seed=" in done.out
    assert "log_dir" not in done.out and list(tmp_path.iterdir()) == []
    version = probe("--version")
    assert version.returncode == 0 and re.fullmatch(r"tfcnn \d+\.\d+\.\d+\n", version.out)


def test_an_op_without_a_deterministic_kernel_names_the_flag_that_does_without(probe, photos, tmp_path):
    done = probe(photos, f"--output_dir={tmp_path}", "--fail=kernel")
    assert done.returncode == 1
    assert "Determinism is not yet supported" in one_line(done.err)
    assert "--deterministic=false" in done.err


def test_a_failure_during_the_work_keeps_what_is_finished(probe, photos, tmp_path):
    nan = probe(photos, f"--output_dir={tmp_path / 'nan'}", "--fail=nan")
    assert nan.returncode == 1
    assert results(tmp_path / "nan")["refused"] == [{"file": str(photos / "b.jpg"), "why": "non-finite"}]
    assert len(results(tmp_path / "nan")["images"]) == 2
    assert not (tmp_path / "nan" / "b_negative.png").exists()

    entry = probe(photos, f"--output_dir={tmp_path / 'entry'}", "--fail=entry")
    assert entry.returncode == 1 and "b.jpg: non-finite" in entry.err
    assert not (tmp_path / "entry" / "b_negative.png").exists()
    assert (tmp_path / "entry" / "c_negative.png").exists()

    late = probe(photos, f"--output_dir={tmp_path / 'late'}", "--fail=late")
    assert late.returncode == 1 and one_line(late.err) == "probe: it will not do"
    assert len(results(tmp_path / "late")["images"]) == 1

    memory = probe(photos, f"--output_dir={tmp_path / 'memory'}", "--fail=memory")
    assert memory.returncode == 1
    assert one_line(memory.err) == "probe: out of memory: take a smaller --batch_size or --image_size"

    bug = probe(photos, f"--output_dir={tmp_path / 'bug'}", "--fail=bug")
    assert bug.returncode == 1 and "Traceback" in bug.err and "KeyError" in bug.err

    full = probe(photos, f"--output_dir={tmp_path / 'full'}", "--fail=full")
    assert full.returncode == 1 and "disk" in one_line(full.err)
    assert sorted(p.name for p in (tmp_path / "full").iterdir()) == ["a_negative.png", "b_negative.png"]

    gone = probe(photos, f"--output_dir={tmp_path / 'gone'}", "--fail=gone")
    assert gone.returncode == 1 and "is gone" in one_line(gone.err)
    assert not (tmp_path / "gone").exists()

    debug = probe("nothing", f"--output_dir={tmp_path / 'debug'}", "--debug")
    assert debug.returncode == 2 and "Traceback" in debug.err


def test_ctrl_c_writes_what_is_finished(probe, photos, tmp_path):
    process = probe.start(photos, f"--output_dir={tmp_path}", "--fail=slow")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert len(results(tmp_path)["images"]) == 1
    assert not [p for p in tmp_path.iterdir() if ".part" in p.name]


def damaged(folder):
    """One file of each damaged kind: {name: words of the reason}."""
    good = images.encode(np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8), ".jpg")
    png = images.encode(np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8), ".png")
    (folder / "cut.jpg").write_bytes(good[: len(good) // 2])
    (folder / "cut.png").write_bytes(png[: len(png) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("I am a text")
    (folder / "header.png").write_bytes(png[:20])
    (folder / "folder.png").mkdir()
    Image.new("1", (11000, 11000)).save(folder / "bomb.png")
    return {
        "bomb.png": "limit",
        "cut.jpg": "truncated",
        "cut.png": "truncated",
        "empty.png": "empty",
        "header.png": "",
        "text.jpg": "not a picture",
    }


def test_damaged_pictures_are_refused_by_name_and_the_others_done(probe, photos, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    reasons = damaged(folder)
    (folder / "wrong_suffix.gif").write_bytes((photos / "a.png").read_bytes())
    out = tmp_path / "out"
    done = probe(folder, photos / "b.jpg", photos / "notes.txt", f"--output_dir={out}")
    assert done.returncode == 1
    report = results(out)
    assert [e["file"] for e in report["images"]] == [str(folder / "wrong_suffix.gif"), str(photos / "b.jpg")]
    refused = {pathlib.Path(e["file"]).name: e["why"] for e in report["refused"]}
    assert set(refused) == {*reasons, "notes.txt"}
    for name, words in reasons.items():
        assert words in refused[name]
        assert re.search(rf"refused .*{re.escape(name)}", done.err)
    page = (out / "index.html").read_text()
    assert f"{folder / 'empty.png'} was refused: empty file" in page

    alone = probe(folder / "cut.jpg", f"--output_dir={tmp_path / 'alone'}")
    assert alone.returncode == 1 and results(tmp_path / "alone")["images"] == []
    limit = probe(photos / "a.png", "--max_pixels=599", f"--output_dir={tmp_path / 'limit'}")
    assert limit.returncode == 1 and "30x20" in limit.err


def test_a_name_breaks_no_line_and_steers_no_terminal(probe, photos, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "two\nlines.png").write_bytes((photos / "a.png").read_bytes())
    (folder / "red\x1b[31m.png").write_bytes(b"")
    done = probe(folder, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 1
    assert one_line(done.err) == f"probe: refused {folder}/red\\x1b[31m.png: empty file"
    assert f"{folder}/two\\nlines.png" in done.out.splitlines()
    assert [entry["file"] for entry in results(tmp_path / "out")["images"]] == [f"{folder}/two\nlines.png"]


def test_same_stems_animations_and_archives(probe, photos, tmp_path):
    (tmp_path / "x").mkdir(), (tmp_path / "y").mkdir()
    for place in ("x/p.png", "y/p.png", "y/q.png"):
        (tmp_path / place).write_bytes((photos / "a.png").read_bytes())
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "y" / "moving.gif", save_all=True, append_images=frames[1:])
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("in/p.png", (photos / "a.png").read_bytes())
        archive.writestr("in/readme.txt", "x")
        archive.writestr("in/bad.png", b"bad")
    done = probe(
        f"{tmp_path / 'x'},{tmp_path / 'y'}",
        tmp_path / "z.zip",
        tmp_path / "x",
        f"--output_dir={tmp_path / 'out'}",
    )
    assert done.returncode == 1
    report = results(tmp_path / "out")
    files = [f for entry in report["images"] for f in entry["files"]]
    assert len(set(files)) == len(files) == 5 and all((tmp_path / "out" / f).exists() for f in files)
    assert "q_negative.png" in files and "in/p_negative.png" in files
    assert any("first of 2" in " ".join(e.get("notes", [])) for e in report["images"])
    assert "first of 2" in done.err
    assert [e["file"] for e in report["refused"]] == [str(tmp_path / "z.zip/in/bad.png")]


def test_a_trainer_resumes_refuses_and_finishes(probe, tmp_path):
    out = tmp_path / "run"

    def train(*arguments, **options):
        return probe(f"--output_dir={out}", *arguments, name="trainer", **options)

    process = probe.start("--steps=400", f"--output_dir={out}", name="trainer")
    assert process.stdout.readline() == "resumed at 0\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75 and "stopped by a signal" in err
    step = int((out / "step").read_text())
    assert 0 < step < 400 and results(out)["finished"] is False

    other = train("--steps=3", "--seed=1")
    assert other.returncode == 2
    assert "--steps=400 there" in one_line(other.err) and "--seed=1 here" in other.err
    assert "resume=false" in other.err and int((out / "step").read_text()) == step

    going_on = train("--steps=400", "--threads=1", "--quiet")
    assert going_on.returncode == 0 and f"resumed at {step}" in going_on.out
    finished = train("--steps=400")
    assert finished.returncode == 0 and "resumed" not in finished.out and "finished" in finished.out
    assert results(out)["metrics"] == {"step": 400}

    refused = train("--resume=false", "--overwrite=false", "--steps=4")
    assert refused.returncode == 2 and "--overwrite=false" in refused.err
    anew = train("--resume=false", "--steps=4")
    assert anew.returncode == 0 and "resumed at 0" in anew.out and results(out)["metrics"] == {"step": 4}
    killed = probe.start("--resume=false", "--steps=400", f"--output_dir={out}", name="trainer")
    assert killed.stdout.readline() == "resumed at 0\n"
    killed.kill()
    killed.communicate()
    assert not (out / "results.json").exists()  # the finished run's would speak for the killed one
    again = train("--steps=400")
    assert again.returncode == 0 and re.search(r"resumed at \d+", again.out)
    assert probe(tmp_path / "x.png", name="trainer", cwd=tmp_path).returncode == 2
    foreign = probe(f"--output_dir={out}", "--images", str(ROOT), "--fail=early")
    assert foreign.returncode == 2


def test_labels_that_cannot_be_read_are_said_before_any_work(probe, photos, tmp_path):
    (tmp_path / "names.txt").write_bytes("caf\u00e9\n".encode("cp1252"))
    for name, words in [("missing.txt", "No such file"), ("names.txt", "not UTF-8")]:
        done = probe(photos, f"--labels={tmp_path / name}", f"--output_dir={tmp_path / 'out'}")
        assert done.returncode == 2 and words in one_line(done.err)
        assert f"--labels={tmp_path / name}" in done.err and not (tmp_path / "out").exists()


def test_a_broken_pipe_is_no_traceback(probe, photos, tmp_path):
    process = probe.start("--help")
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.wait()
    buffer = io.BytesIO()
    Image.new("RGB", (3, 3)).save(buffer, "PNG")
    assert images.read(buffer.getvalue()).shape == (3, 3, 3)


def test_a_run_that_checks_output_dir_makes_no_folder(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise AssertionError("a run that starts at the same time would see this folder come and go")

    out = tmp_path / "out" / "deep"
    output = Output("probe", types.SimpleNamespace(output_dir=str(out), overwrite=True))
    monkeypatch.setattr(pathlib.Path, "mkdir", refused)
    output.check_output_dir()
    assert not list(tmp_path.iterdir())
    output.output_dir = tmp_path / ("n" * 300) / "deep"
    with pytest.raises(InputError, match="name too long"):
        output.check_output_dir()


def test_a_picture_whose_files_would_have_too_long_a_name_is_refused(tmp_path, capsys):
    output = Output("probe", types.SimpleNamespace(output_dir=str(tmp_path), save_images=True, quiet=True))
    with Item(output, 0, "a.png", "n" * 250, {}) as item:
        item.save(np.zeros((4, 4, 3), np.uint8), "negative")
    assert "a.png" in capsys.readouterr().err and output.refused[0]["file"] == "a.png"
