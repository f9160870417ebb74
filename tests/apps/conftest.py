"""Apps as a person runs them: in a process of their own."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def run_app():
    """A function from an app's name and its arguments to the finished process, its output as text."""

    def run(name, *arguments, cwd=ROOT, timeout=900, **environment):
        variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        command = [sys.executable, "-m", f"apps.{name}", *map(str, arguments)]
        return subprocess.run(
            command, cwd=cwd, env=variables, timeout=timeout, capture_output=True, text=True, check=False
        )

    return run
