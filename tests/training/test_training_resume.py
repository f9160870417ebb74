"""A run killed at any moment goes on by itself, and ends with the same weights to the bit."""

import os
import pathlib
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent
STEPS = 60


def start(folder, pause):
    command = [sys.executable, "killed_run.py", str(folder), str(pause)]
    variables = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=HERE, env=variables, text=True, **pipes)


def last_step(process):
    return int(process.stdout.readline() or STEPS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    process = start(folder, 0)
    output, errors = process.communicate()
    assert process.returncode == 0, errors[-2000:]
    return np.load(folder / "final.npz"), (folder / "log.jsonl").read_text()


def test_killed_at_random_steps_it_ends_with_equal_weights(whole, tmp_path):
    expected, log = whole
    draw = random.Random()
    aims = sorted(draw.sample(range(3, STEPS - 3), 2))
    seen = [0]
    for aim, number in zip(aims, (signal.SIGKILL, signal.SIGTERM), strict=True):
        process = start(tmp_path, 0.05)
        while last_step(process) < aim:
            pass
        process.send_signal(number)
        rest, errors = process.communicate()
        assert process.returncode == (75 if number == signal.SIGTERM else -signal.SIGKILL), errors[-2000:]
        seen.append(aim)
    process = start(tmp_path, 0)
    first = last_step(process)
    _, errors = process.communicate()
    assert process.returncode == 0, errors[-2000:]
    assert first >= aims[1]  # SIGTERM left a checkpoint at the step where it came
    found = np.load(tmp_path / "final.npz")
    assert found["trained"] == STEPS - first + 1
    for name in expected.files:
        if name != "trained":
            assert np.array_equal(expected[name], found[name]), f"{name} differs, killed at {aims}"
    steps = [line.split(",")[0] for line in log.splitlines()]
    assert [line.split(",")[0] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == steps
