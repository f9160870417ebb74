"""Devices, precision, seeds, silence and signals of a run."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tfcnn import runtime
from tfcnn.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Run where an nvidia-smi exists that TensorFlow has no GPU for.
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from tfcnn.errors import InputError
from tfcnn import runtime
begun = runtime.start(precision="mixed_bfloat16", threads=1, seed=7)
import keras, tensorflow as tf
assert tf.config.threading.get_intra_op_parallelism_threads() == 1
assert keras.config.dtype_policy().name == "mixed_bfloat16"
print(begun.device, begun.description, begun.strategy.num_replicas_in_sync, sep="|")
print(begun.note)
def drawn():
    ours = keras.random.uniform([3], seed=keras.random.SeedGenerator())
    return tf.random.uniform([3]).numpy().tolist(), ours.numpy().tolist()
first = drawn()
runtime.start(seed=7)
assert first == drawn()
try:
    runtime.start(device="gpu")
except InputError as error:
    print(error)
"""


def test_a_machine_whose_gpu_tensorflow_does_not_see(tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    variables = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": "-1"}
    variables.pop("TF_CPP_MIN_LOG_LEVEL", None)
    command = [sys.executable, "-c", SCRIPT, str(ROOT)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # none of TensorFlow's start-up messages
    device, note, refused = done.stdout.splitlines()
    assert device.startswith("cpu|") and device.endswith("|1") and " cores" in device
    assert note.startswith("on the CPU") and "nvidia-smi" in note
    assert any(word in note for word in ("lacks lib", "CUDA_VISIBLE_DEVICES", "without CUDA"))
    assert refused.startswith("device gpu: ") and "device cpu works" in refused


def test_names_that_are_no_device_or_precision_are_refused():
    for device in ("tpu", "gpu:x", "cpu:1", "gpu:1:2"):
        with pytest.raises(InputError, match="none of auto, cpu, gpu"):
            runtime.start(device=device)
    with pytest.raises(InputError, match="float16"):
        runtime.start(precision="float16")


@pytest.mark.parametrize("seed", [-1, runtime.LARGEST_SEED + 1])
def test_a_seed_outside_the_range_of_all_random_ops_is_refused(seed):
    with pytest.raises(InputError, match=r"seed .* is not in 0\.\.2147483647"):
        runtime.start(seed=seed)


@pytest.mark.parametrize(
    ("gpus", "asked", "expected"), [(0, True, True), (0, False, True), (1, True, True), (1, False, False)]
)
def test_a_cpu_is_deterministic_always_and_a_gpu_where_asked(monkeypatch, gpus, asked, expected):
    import tensorflow as tf
    from tensorflow.python.framework import config

    before = config.is_op_determinism_enabled()
    config.disable_op_determinism()
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"] * gpus)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda: [])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *_: None)
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda *_: None)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _: {"device_name": "Thing"})
    try:
        begun = runtime.start(deterministic=asked)
        assert config.is_op_determinism_enabled() == expected
        assert ("last bits" in begun.note) == (not expected)
    finally:
        (config.enable_op_determinism if before else config.disable_op_determinism)()


def test_file_descriptor_2_is_silent_inside_and_speaks_if_there_is_a_bug(capfd):
    with runtime.quiet():
        os.write(2, b"chatter")
    os.write(2, b"after ")
    with pytest.raises(ZeroDivisionError), runtime.quiet():
        os.write(2, b"why")
        1 / 0  # noqa: B018
    with pytest.raises(InputError), runtime.quiet():
        os.write(2, b"noise")
        raise InputError("said in a sentence")
    assert capfd.readouterr().err == "after why"


def test_signals_ask_a_run_to_stop():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        for number in before:
            stop = runtime.Stop().listen()
            assert not stop
            os.kill(os.getpid(), number)
            assert stop and stop.requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
