"""What all tests share: where real data lies, and TensorFlow kept quiet and small."""

import importlib.metadata
import os
import pathlib
import re
import signal

# A shell's background job cannot hear Ctrl-C, nor can the programs that it starts; the tests need it.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as the apps set it for a person
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

import hypothesis  # noqa: E402
import pytest  # noqa: E402

from tfcnn.cli.warm import Warm  # noqa: E402

# `make test` draws the same examples everywhere; `make test-all` others each time.
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.load_profile("same")
ROOT = pathlib.Path(__file__).resolve().parents[1]
# TensorFlow 2.18 writes some lines whatever TF_CPP_MIN_LOG_LEVEL says.
TALKS = importlib.metadata.version("tensorflow").startswith("2.18.")
CHATTER = re.compile(r"^(WARNING: All log messages|[IWEF]\d{4} |\d{4}-\d\d-\d\d .*\.cc:\d+)", re.M)


def _shared(variable, default):
    return pathlib.Path(os.environ.get(variable, ROOT.parent / "shared" / default))


@pytest.fixture(scope="session")
def data():
    """A function from a file's name to its path under $TFCNN_DATA; the test is skipped where the file is absent."""

    def find(name):
        path = _shared("TFCNN_DATA", "data") / name
        if not path.exists():
            pytest.skip(f"real data absent: {name} (say where with TFCNN_DATA)")
        return path

    return find


@pytest.fixture(scope="session")
def weights():
    """A function from a file's name to its path under $TFCNN_WEIGHTS; the test is skipped where the file is absent."""

    def find(name):
        path = _shared("TFCNN_WEIGHTS", "weights") / name
        if not path.exists():
            pytest.skip(f"weights absent: {name} (say where with TFCNN_WEIGHTS)")
        return path

    return find


@pytest.fixture(scope="session")
def warm():
    """A process that has TensorFlow imported and runs programs in forks of itself."""
    with Warm() as server:
        yield server


@pytest.fixture(scope="session")
def light():
    """As `warm`, without TensorFlow: for programs that need none, or are to show that they import none."""
    with Warm(["absl.flags", "numpy", "PIL.Image", "tfcnn.cli"]) as server:
        yield server


@pytest.fixture(scope="session")
def run_source(warm, tmp_path_factory):
    """A function from a program's source and its arguments to the finished process, run as `run_app` does."""

    def run(source, *arguments, timeout=600):
        folder = tmp_path_factory.mktemp("source")
        (folder / "program.py").write_text(source)
        variables = {"PYTHONPATH": str(ROOT)}
        return warm.run("program", [*map(str, arguments)], folder, variables, timeout)

    return run


@pytest.fixture(scope="session")
def run_app(warm):
    """A function from an app's name and its arguments to the finished process, its output as text."""

    def run(name, *arguments, cwd=ROOT, timeout=900, **environment):
        variables = {"PYTHONPATH": str(ROOT), **environment}
        done = warm.run(f"apps.{name}", [*map(str, arguments)], cwd, variables, timeout)
        assert TALKS or not CHATTER.search(done.stderr), done.stderr
        return done

    return run
