"""The wheel works outside the checkout: commands, packaged data, an app through the installed package."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PARTS = ("apps", "saved_models", "tfcnn", "LICENSE", "README.md", "pyproject.toml", "requirements.txt")


def call(*command, cwd, timeout=600):
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=variables,
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy so that nothing is left in the checkout."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, copy / part)
    call(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "-w",
        out,
        copy,
        cwd=out,
    )
    (found,) = out.glob("tfcnn-*.whl")
    return found


def test_the_wheel_holds_packages_data_and_releases_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("apps", "tfcnn"):
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT).as_posix()
            inside = f"tfcnn/{inside}" if folder == "apps" else inside
            if path.is_file() and path.suffix in (".py", ".tsv", ".json", ".csv"):
                assert inside in names, inside
    for path in (ROOT / "saved_models").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert f"tfcnn/{path.relative_to(ROOT).as_posix()}" in names, path
    assert {name.split("/")[0].split("-")[0] for name in names} == {"tfcnn"}
    assert not [name for name in names if "/tests/" in name or "conftest" in name]
    assert wheel.stat().st_size < 110e6


def test_commands_run_from_the_installed_wheel_outside_the_checkout(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    bin_dir = tmp_path / "env" / "bin"
    python = bin_dir / "python"
    site = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    call(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        wheel,
        cwd=tmp_path,
    )
    # dependencies are the parent's: their folder is put behind the new one, without its .pth files
    (pathlib.Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    where = call(
        python, "-c", "import tfcnn, tfcnn.apps; print(tfcnn.__file__, tfcnn.apps.__file__)", cwd=tmp_path
    )
    assert all(path.startswith(site) for path in where.split())
    assert call(bin_dir / "tfcnn", "--version", cwd=tmp_path).startswith("tfcnn ")
    assert "  classify" in call(bin_dir / "tfcnn", cwd=tmp_path)
    assert call(bin_dir / "tfcnn", "saliency", "--help", cwd=tmp_path).startswith("tfcnn saliency: ")
    call(bin_dir / "tfcnn", "demo", "--apps=saliency,nets", cwd=tmp_path)
    made = tmp_path / "out" / "demo"
    assert (made / "index.html").exists() and (made / "saliency" / "chelsea_saliency.png").exists()


STAND_IN = """#!/bin/sh
# A Python whose pip warns as the real one does, on both streams, unless it is asked twice to be quiet.
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip") case " $* " in *" -qq "*) ;; *) seq 60 | sed 's/$/: SetuptoolsWarning/' | tee /dev/stderr ;; esac ;;
esac
"""


def test_setting_up_is_a_line_a_step_and_no_warning(tmp_path):
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    alone = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}  # not a part of make test
    done = subprocess.run(
        ["make", "setup", f"PYTHON={python}"],
        cwd=tmp_path,
        env=alone,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and all(line.startswith("setup: ") for line in done.stdout.splitlines())
    assert 1 <= len(done.stdout.splitlines()) <= 3 and (tmp_path / ".venv" / ".installed").exists()


@pytest.mark.slow
def test_the_demo_runs_in_an_empty_environment(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    pip = [tmp_path / "env" / "bin" / "python", "-m", "pip"]
    try:
        call(*pip, "download", "--quiet", "--no-deps", "absl-py", "-d", tmp_path / "probe", cwd=tmp_path)
    except AssertionError:
        pytest.skip("no package index can be reached")
    call(*pip, "install", "--quiet", wheel, cwd=tmp_path, timeout=1800)
    call(tmp_path / "env" / "bin" / "tfcnn", "demo", cwd=tmp_path, timeout=1800)
    assert (tmp_path / "out" / "demo" / "index.html").exists()
