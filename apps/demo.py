"""Run a small, real example of every app, and show all of it on one page."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time

from absl import flags

from tfcnn import cli, report
from tfcnn.cli.output import PAGE
from tfcnn.errors import InputError, unknown

from . import cli as listing

GROUP, SUMMARY = "start", "run a small example of every app, and show all on one page"

ONLY = flags.DEFINE_list("apps", [], "Run these apps' examples only, e.g. --apps=classify,saliency")
AT_ONCE = flags.DEFINE_integer("at_once", 2, "How many run at the same time, e.g. --at_once=1", lower_bound=1)

# The objects in the packaged photographs.
TRUTH = pathlib.Path(report.__file__).parent / "datasets" / "packaged_photographs.json"

# A line an example. {NAME} is the folder of an earlier example, which is waited for: its app, or app_2 for the
# second of an app. Flags for where, how many threads and how loud are added.
EXAMPLES = [
    "classify",
    "classify --dense --image_size=640 --limit=4",
    "saliency",
    "train_classifier --dataset=digits --net=tiny --image_size=32 --epochs=6",
    "dataset_stats --dataset=shapes",
    "train_detector --dataset=shapes --net=tiny --image_size=128 --steps=30 --validate_epochs=0 --validate_images=16",
    "detect",
    f"evaluate --dataset=voc --annotations={shlex.quote(str(TRUTH))} --results={{detect}}/detections.json",
    "nets",
    "download",
    "class_model --class=pelican,volcano --steps=180",
    "invert --layer=stem,stage3,stage5,stage7 --steps=120",
    "deepdream --image_size=400 --limit=2",
    "style_transfer --image_size=288 --limit=1 --steps=40,30",
    "music --seconds=3 --steps=30",
]
SHOWN = 8  # pictures of an example on the page
RUNNING: list[subprocess.Popen] = []


def main(run: cli.Run) -> None:
    examples = chosen(ONLY.value)
    run.write_flags()  # makes output_dir before the examples write into it
    folders: dict[str, concurrent.futures.Future] = {}
    begun = time.monotonic()
    with run.progress(len(examples), "demo", "examples") as progress:
        pool = concurrent.futures.ThreadPoolExecutor(AT_ONCE.value)
        try:
            for name, command in examples.items():
                folders[name] = pool.submit(run_example, run, name, command, dict(folders))
            for name, future in folders.items():
                show(run, name, *future.result())
                progress.advance()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in RUNNING:
                process.terminate()
    run.results["seconds_of_examples"] = round(time.monotonic() - begun, 1)
    rows = [
        [item.entry["folder"], item.entry["status"], f"{item.entry['seconds']:.1f} s"]
        for item in run.entries.values()
    ]
    run.table(["example", "status", "time"], rows)


def chosen(names: list[str]) -> dict[str, str]:
    """The examples {folder: command} of these apps and of those they need; of all where none is named."""
    found: dict[str, str] = {}
    for command in EXAMPLES:
        app = command.split()[0]
        same = sum(other.split()[0] == app for other in found.values())
        found[f"{app}_{same + 1}" if same else app] = command
    for name in names:
        if name not in listing.apps():
            raise unknown("app", name, listing.apps())
    wanted = {folder for folder, command in found.items() if not names or command.split()[0] in names}
    for folder in reversed(found):
        if folder in wanted:
            wanted |= set(re.findall(r"{(\w+)}", found[folder]))
    return {folder: command for folder, command in found.items() if folder in wanted}


def run_example(run, name, command, earlier):
    """(command as a person would type it, its status, standard output and error, seconds)."""
    for needed in re.findall(r"{(\w+)}", command):
        if earlier[needed].result()[1]:
            return f"tfcnn {command}", 1, "", f"it needs the example {needed}, which failed", 0.0
    folder = run.output_dir / name
    filled = re.sub(r"{(\w+)}", lambda found: shlex.quote(str(run.output_dir / found[1])), command)
    app, *arguments = shlex.split(filled)
    shown = f"tfcnn {shlex.join([app, *arguments])}"
    arguments += [f"--output_dir={folder}", f"--threads={max(1, run.threads // AT_ONCE.value)}", "--quiet"]
    arguments += [f"--device={run.flags.device}", f"--seed={run.flags.seed}"]
    package = __package__ or "apps"
    home = pathlib.Path(__file__).resolve().parents[package.count(".") + 1]
    paths = os.pathsep.join(filter(None, [str(home), os.environ.get("PYTHONPATH")]))
    begun = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", f"{package}.{app}", *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        RUNNING.append(process)
        out, err = process.communicate()
        RUNNING.remove(process)
    return shown, process.returncode, out, err, time.monotonic() - begun


def show(run, name, command, status, out, err, seconds):
    """Put an example on the page: its pictures, its table, and a link to its own page."""
    entry = {"command": command, "status": status, "seconds": round(seconds, 2), "folder": name}
    with run.item(command, name, **entry) as item:
        if status:
            raise InputError(
                f"ended with status {status}: {(err.strip().splitlines() or ['no message'])[-1]}"
            )
        page = run.output_dir / name / PAGE
        item.link = f"{name}/{PAGE}"
        item.shown = report.pictures_of(page.read_text())[:SHOWN]
        item.lines = out.strip().splitlines()[:-1]  # the last says where the files are


if __name__ == "__main__":
    cli.start(main, pictures=False)
