"""Make one result of what the shards of a run have found."""

from __future__ import annotations

import os
import pathlib
import sys

from absl import flags

from tfcnn import cli
from tfcnn.cli import shards
from tfcnn.errors import InputError

GROUP, SUMMARY = "start", "make one result of the shards of a run"

SHARDS = flags.DEFINE_multi_string(
    "shards",
    [],
    "Folders that hold shards, or are shards, repeated or as plain arguments, e.g. --shards=out/classify",
)


def main(run: cli.Run) -> None:
    if not SHARDS.value:
        raise InputError(
            "which shards: a folder that holds those of a run, e.g. tfcnn merge out/classify, or each by itself"
        )
    roots = [pathlib.Path(path) for path in SHARDS.value]
    found = shards.belonging(shards.find(roots))
    if run.flags["output_dir"].using_default_value and len(roots) == 1 and found[0].folder != roots[0]:
        (run.output_dir,) = roots
    run.check_output_dir()
    folder = run.output_dir
    app, *command = shards.command(found, folder, pathlib.Path(__file__).parent)
    run.say(f"{len(found)} shards of {app}, into {folder}")
    run.begin()
    shards.gather(found, folder)
    command += [f"--{name}" for name in ("quiet", "debug") if run.flags[name].value]
    sys.stdout.flush()
    # which ends what the shards began
    os.execv(sys.executable, [sys.executable, "-m", f"{__package__}.{app}", *command])


if __name__ == "__main__":
    cli.start(main, pictures=False, arguments="shards", finds_folder=True)
