"""README's commands, from README's own text: run where they need nothing, checked flag by flag elsewhere."""

import ast
import importlib
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from apps import cli

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
QUICK = {"classify", "saliency", "nets", "download"}  # run by `make test`; the others by `make test-all`
LONG = re.compile(r"^train_|^demo$")  # train for more than a minute, or run by a test of their own

# Parses an app's flags as the app would, without its work.
PARSE = """
import importlib, sys
name = sys.argv[1]
app = importlib.import_module(f"apps.{name}")
from absl import flags
rest = flags.FLAGS(["app", *sys.argv[2:]])
assert not [each for each in rest[1:] if each.startswith("-")], rest
"""


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands():
    """Every command of README's shell blocks, continued lines joined, without comments and variables."""
    for block in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words:
                yield words


def app_commands():
    """(app, its arguments) of every command that runs an app."""
    for words in commands():
        if words[0] == "tfcnn" and len(words) > 1 and not words[1].startswith("-"):
            yield words[1], words[2:]
        elif words[:2] == ["python", "-m"] and words[2].startswith("apps."):
            yield words[2].removeprefix("apps."), words[3:]


def needs_the_readers_own(arguments):
    """Whether an argument names a file, folder, video, model or data that the repository does not have."""
    values = [value for each in arguments for value in each.rpartition("=")[2].split(",")]
    return any(re.search(r"[/*]|\.\w{2,5}$", value) and not (ROOT / value).exists() for value in values)


APPS = list(app_commands())


def test_readme_shows_commands_that_exist():
    assert len(APPS) >= 3
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for words in commands():
        if words[0] == "make":
            assert set(words[1:]) <= targets, words
    named = set(re.findall(r"^\| `(\w+)` \|", README, re.M))
    assert set(cli.apps()) <= named, "the table of apps lacks some"


@pytest.mark.parametrize(("app", "arguments"), APPS, ids=[f"{a}-{i}" for i, (a, _) in enumerate(APPS)])
def test_apps_flags_and_values_are_known(app, arguments):
    assert app in cli.apps()
    code = [sys.executable, "-c", PARSE, app, *arguments]
    done = subprocess.run(code, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr.splitlines()[-1]


RUNNABLE = [(a, args) for a, args in APPS if not LONG.search(a) and not needs_the_readers_own(args)]
QUICKLY = [pair for pair in RUNNABLE if pair[0] in QUICK]
SLOWLY = [pair for pair in RUNNABLE if pair[0] not in QUICK]


def run(app, arguments, folder):
    command = [sys.executable, "-m", f"apps.{app}", *arguments, f"--output_dir={folder}"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (folder / "index.html").exists() and (folder / "results.json").exists()


@pytest.mark.parametrize(("app", "arguments"), QUICKLY, ids=[a for a, _ in QUICKLY])
def test_quick_commands_run(app, arguments, tmp_path):
    run(app, arguments, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("app", "arguments"), SLOWLY, ids=[a for a, _ in SLOWLY])
def test_the_other_commands_run(app, arguments, tmp_path):
    run(app, arguments, tmp_path)


def test_python_examples_name_what_exists():
    for block in blocks("python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    found = hasattr(module, alias.name)
                    assert found or importlib.import_module(f"{node.module}.{alias.name}"), alias.name


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target
