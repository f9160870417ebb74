"""Apps run in forks of a process that has TensorFlow imported."""

import json
import subprocess

import pytest

from tfcnn.cli.warm import Warm

PROGRAM = """
import os, sys, time
assert __name__ == "__main__" and "tensorflow" in sys.modules
print(sys.argv[1:], os.environ["GREETING"], os.path.basename(os.getcwd()))
print("to standard error", file=sys.stderr)
if "sleep" in sys.argv:
    time.sleep(60)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A folder with the module `program`."""
    folder = tmp_path_factory.mktemp("there")
    (folder / "program.py").write_text(PROGRAM)
    return folder


def test_a_program_runs_as_from_a_shell_again_and_again(program):
    with Warm() as warm:
        variables = {"PYTHONPATH": "", "GREETING": "hello"}
        for status in (0, 3):
            done = warm.run("program", [str(status), "a b"], program, variables)
            assert done.returncode == status and done.stderr == "to standard error\n"
            assert done.stdout == f"['{status}', 'a b'] hello {program.name}\n"
        broken = warm.run("program", ["x"], program, variables)
        assert broken.returncode == 1 and "ValueError" in broken.stderr
        with pytest.raises(subprocess.TimeoutExpired):
            warm.run("program", ["sleep"], program, variables, timeout=0.5)
        assert warm.run("program", ["0"], program, variables).returncode == 0


def test_flags_of_tensorflow_are_no_flags_of_an_app(run_app, tmp_path):
    assert run_app("nets", f"--output_dir={tmp_path}").returncode == 0
    flags = json.loads((tmp_path / "results.json").read_text())["flags"]
    assert "seed" in flags and not {name for name in flags if name.startswith(("tt_", "test_", "hbm_"))}
