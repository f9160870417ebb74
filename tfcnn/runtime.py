"""What a run computes on: device, threads, precision, seed, determinism, strategy, and the signals that stop it.

TensorFlow is imported by `start`, not by this module: flags are read before, and its chatter is silenced.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import glob
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tfcnn.errors import InputError
from tfcnn.workers import Workers

if TYPE_CHECKING:
    import tensorflow as tf

LARGEST_SEED = 2**31 - 1  # seeds are the int32 of TensorFlow's stateless random ops
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


@dataclasses.dataclass(frozen=True)
class Runtime:
    """A TensorFlow that is ready.

    Attributes:
        device: "cpu", or "gpu", or "gpu:1" where one of several was asked for.
        description: the device in words, for results.json.
        precision: Keras' policy: float32, mixed_float16 or mixed_bfloat16.
        note: a line for the person on what was taken, and why if that is not plain.
        over_workers: the strategy over several processes, where there are some.
    """

    device: str
    description: str
    precision: str
    note: str
    over_workers: tf.distribute.Strategy | None = None

    @functools.cached_property
    def strategy(self) -> tf.distribute.Strategy:
        """tf.distribute's default strategy on one device; MirroredStrategy on several (also logical CPUs).

        MultiWorkerMirroredStrategy in one of several processes, on all devices of each.
        """
        import tensorflow as tf

        if self.over_workers:
            return self.over_workers

        devices = tf.config.list_logical_devices("GPU" if self.device.startswith("gpu") else "CPU")
        if len(devices) > 1:
            return tf.distribute.MirroredStrategy([device.name for device in devices])
        return tf.distribute.get_strategy()


def start(
    device: str = "auto",
    precision: str = "float32",
    threads: int = 0,
    seed: int = 0,
    verbosity: int = -1,
    deterministic: bool = True,
    workers: Workers | None = None,
) -> Runtime:
    """Import TensorFlow and set it up.

    Args:
        device: "auto" takes the GPUs that TensorFlow sees, else the CPU; "cpu"; "gpu"; "gpu:1", one of them.
        precision: one of PRECISIONS; set as Keras' global policy.
        threads: for TensorFlow's CPU work; 0 takes all.
        seed: of Python, NumPy, TensorFlow and Keras, 0..LARGEST_SEED.
        verbosity: above -1 TensorFlow's own start-up messages are shown.
        deterministic: every op gives the same bits in every run. A CPU always computes so; on a GPU False allows
            faster kernels whose sums differ in their last bits from run to run.
        workers: the processes of a training of which this is one; all of them must be about to start. None: alone.

    Raises:
        InputError: the device is not there, or a value is not of the kinds above.
    """
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "gpu") or (index and (kind != "gpu" or not index.isdigit())):
        raise InputError(f"device {device} is none of auto, cpu, gpu, gpu:N")
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision} is none of {', '.join(PRECISIONS)}")
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"seed {seed} is not in 0..{LARGEST_SEED}")
    if verbosity < 0:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet() if verbosity < 0 else contextlib.nullcontext():
        import keras
        import tensorflow as tf

        if verbosity < 0:
            tf.get_logger().setLevel("ERROR")  # what it says of retracing is no news for a person
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        gpus = tf.config.list_physical_devices("GPU")
        if kind == "gpu" and not gpus:
            raise InputError(f"device {device}: {_why_no_gpu(tf)}; device cpu works without one")
        if index and int(index) >= len(gpus):
            raise InputError(f"device {device}: TensorFlow sees {len(gpus)} GPU(s), counted from gpu:0")
        used = [] if kind == "cpu" else [gpus[int(index)]] if index else gpus
        _show_only(tf, gpus, used)
        keras.config.set_dtype_policy(precision)
        keras.utils.set_random_seed(seed)
        if deterministic or not used:
            tf.config.experimental.enable_op_determinism()
        strategy = _over_workers(tf, workers) if workers else None  # before any device is initialised
        tf.config.list_logical_devices()  # initialises the devices while their messages are silenced
        if used:
            names = [tf.config.experimental.get_device_details(g).get("device_name", "GPU") for g in used]
            description = " + ".join(names)
            note = f"on {len(used)} GPU(s): {description}"
            if not deterministic:
                note += "; results may differ in their last bits from run to run"
        else:
            description = _cpu()
            note = f"on the CPU: {description}"
            if kind == "auto" and shutil.which("nvidia-smi"):
                note += f" ({_why_no_gpu(tf)})"
        if workers:
            note = f"{workers.name(workers.rank)} of {len(workers.addresses)} {note}"
    return Runtime(device if index else "gpu" if used else "cpu", description, precision, note, strategy)


def _over_workers(tf: types.ModuleType, workers: Workers) -> tf.distribute.Strategy:
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(workers.addresses)}),
        task_type="worker",
        task_id=workers.rank,
        rpc_layer="grpc",
    )
    return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)


def _show_only(tf: types.ModuleType, gpus: list, used: list) -> None:
    try:
        if len(used) < len(gpus):
            tf.config.set_visible_devices(used, "GPU")
        for gpu in used:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:
        raise InputError(f"the device must be chosen before TensorFlow computes ({error})") from error


def _cpu() -> str:
    name = "CPU"
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {cores()} cores"


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _why_no_gpu(tf: types.ModuleType) -> str:
    """Why TensorFlow sees no GPU, in a clause."""
    if not shutil.which("nvidia-smi"):
        return "TensorFlow sees no GPU, and there is no nvidia-smi: no driver is installed"
    if not tf.test.is_built_with_cuda():
        return "there is an nvidia-smi, but this TensorFlow is built without CUDA: pip install 'tfcnn[gpu]'"
    build = tf.sysconfig.get_build_info()
    cuda = build.get("cuda_version", "12").split(".")[0]
    libraries = ["libcuda.so.1", f"libcudart.so.{cuda}", f"libcublas.so.{cuda}", "libcufft.so.11"]
    libraries += [
        "libcusolver.so.11",
        f"libcusparse.so.{cuda}",
        f"libcudnn.so.{build.get('cudnn_version', '9')}",
    ]
    missing = [name for name in libraries if not _loads(name)]
    if missing:
        return f"there is an nvidia-smi, but TensorFlow lacks {', '.join(missing)}: pip install 'tfcnn[gpu]'"
    return "there is an nvidia-smi, but TensorFlow sees no GPU (CUDA_VISIBLE_DEVICES may hide it)"


def _loads(library: str) -> bool:
    wheels = [path for folder in sys.path for path in glob.glob(f"{folder}/nvidia/*/lib/{library}")]
    for name in [library, *wheels]:
        with contextlib.suppress(OSError):
            ctypes.CDLL(name)
            return True
    return False


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what libraries write to file descriptor 2 off the screen, unless the block fails with a bug."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as hidden:
        saved = os.dup(2)
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except InputError:
            raise
        except Exception:
            hidden.seek(0)
            os.write(saved, hidden.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)


class Interrupted(Exception):
    """A training loop raises this once it has stopped for a signal and saved a checkpoint (status 75)."""


class Stop:
    """Whether the run was asked to stop; a training loop looks at `requested` between two steps."""

    def __init__(self) -> None:
        self.requested = False

    def __bool__(self) -> bool:
        return self.requested

    def listen(self) -> Stop:
        """From now on SIGTERM and SIGUSR1 (SLURM's warning) ask the run to stop instead of ending it."""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._request)
        return self

    def _request(self, number: int, frame: types.FrameType | None) -> None:
        self.requested = True
