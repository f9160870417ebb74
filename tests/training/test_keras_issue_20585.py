"""The docs' answer to Keras issue 20585 works as it is printed, in two processes that TF_CONFIG joins."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_block_trains_one_net_in_two_processes(tmp_path):
    text = (ROOT / "docs/models_and_cluster.md").read_text().partition("keras/issues/20585")[2]
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    code += (
        "\nnp.save(f'{strategy.cluster_resolver.task_id}.npy', trainee.networks['net'].get_weights()[0])\n"
    )
    with socket.create_server(("", 0)) as one, socket.create_server(("", 0)) as other:
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in (one, other)]
    processes = []
    for rank in (0, 1):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CONFIG": json.dumps(config)}
        command = [sys.executable, "-c", code]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(command, cwd=tmp_path, env=variables, text=True, **pipes))
    ended = [process.communicate(timeout=400) for process in processes]
    for process, (output, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors[-2000:]
        assert output.splitlines()[-1] == "[1. 1. 1.]"
    first, second = (np.load(tmp_path / f"{rank}.npy") for rank in (0, 1))
    assert np.array_equal(first, second)
    assert len(list(tmp_path.glob("line/checkpoints/step-*.npz"))) == 3
