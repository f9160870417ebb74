"""The files of cluster/ without a cluster: `make test-cluster` tries them with the real Lmod and SLURM."""

import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

from tfcnn.version import __version__

CLUSTER = pathlib.Path(__file__).resolve().parents[1] / "cluster"
BATCH = ["one_gpu.sh", "one_node.sh", "several_nodes.sh", "array.sh"]


def test_the_module_file_is_of_this_version():
    assert [path.stem for path in (CLUSTER / "modules" / "tfcnn").iterdir()] == [__version__]


@pytest.mark.parametrize("path", sorted(CLUSTER.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_bash(path):
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def job(tmp_path, script, arguments, status=0, warned=False, **variables):
    """What a batch script calls, of stand-ins for SLURM's and Lmod's commands: (its status, their lines)."""
    waits = "trap 'exit 75' USR1; touch $0.begun; for _ in 1 2 3 4 5 6 7 8 9; do sleep 1; done"
    for name, ends in {"srun": status, "scontrol": 0, "module": 0}.items():
        wait = waits if name == "srun" and warned else ""
        (tmp_path / name).write_text(
            f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/called\n{wait}\nexit {ends}\n'
        )
        (tmp_path / name).chmod(0o755)
    paths = [str(tmp_path), *{str(pathlib.Path(shutil.which(name)).parent) for name in ("dirname", "sleep")}]
    environment = {
        "PATH": ":".join(paths),
        "TFCNN_HOME": str(CLUSTER.parent),
        "SLURM_JOB_ID": "7",
        **variables,
    }
    process = subprocess.Popen(["bash", str(CLUSTER / script), *arguments], env=environment)
    if warned:
        deadline = time.monotonic() + 30
        while not (tmp_path / "srun.begun").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
        process.send_signal(signal.SIGUSR1)
    return process.wait(), (tmp_path / "called").read_text().splitlines()


@pytest.mark.parametrize("script", BATCH[:3])
def test_a_training_goes_back_into_the_queue_before_the_time_limit(tmp_path, script):
    assert re.search(r"^#SBATCH --signal=B:USR1@\d+$", (CLUSTER / script).read_text(), re.M)
    status, called = job(tmp_path, script, ["train_pose", "--data=my data"], warned=True)
    assert status == 75 and called[-2:] == ["srun tfcnn train_pose --data=my data", "scontrol requeue 7"]
    assert called[0] == f"module use {CLUSTER / 'modules'}" and called[1] == "module load tfcnn"


def test_a_training_that_a_person_stops_stays_stopped(tmp_path):
    status, called = job(tmp_path, "one_gpu.sh", ["train_pose"], status=75)
    assert status == 75 and called[-1] == "srun tfcnn train_pose"


def test_a_job_that_failed_does_not(tmp_path):
    status, called = job(tmp_path, "one_gpu.sh", ["classify"], status=1)
    assert status == 1 and not any(line.startswith("scontrol") for line in called)


def test_a_task_of_an_array_is_a_shard(tmp_path):
    task = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "3"}
    assert (
        job(tmp_path, "array.sh", ["classify", "photos"], **task)[1][-1]
        == "srun tfcnn classify photos --shard=2/3"
    )
    again = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "1", "SHARDS": "3"}
    assert (
        job(tmp_path, "array.sh", ["classify", "photos"], **again)[1][-1]
        == "srun tfcnn classify photos --shard=2/3"
    )
