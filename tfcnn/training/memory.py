"""How much memory a step of training takes, told before the first one."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator

import tensorflow as tf

from tfcnn.errors import InputError
from tfcnn.training.step import Step

ADVICE = "lower batch_size or image_size, or keep the batch in parts with accumulate"


class MemoryEstimate(InputError):
    """A step would take more memory than is free, by an estimate that may be overruled."""


# Operations whose result is their first argument's memory, and those that write over an argument that nobody
# reads after them.
VIEWS = {"Identity", "Reshape", "StopGradient", "ExpandDims", "Squeeze", "PreventGradient", "CheckNumerics"}
IN_PLACE = {
    "Add",
    "AddV2",
    "Sub",
    "Mul",
    "Relu",
    "Relu6",
    "Relu6Grad",
    "ReluGrad",
    "BiasAdd",
    "Exp",
    "Square",
}
# What a step took beyond its tensors, measured for six nets: some for threads that run ahead, some for
# workspaces.
SLACK, WORKSPACE = 1.35, 150 * 2**20
READ_AHEAD = 4  # batches that wait or are being read while one is computed


def peak_bytes(graph: tf.Graph, examples: int) -> int:
    """Estimates the most memory that the tensors of a compiled step take at once.

    The operations are gone through in the order in which they were made, which is one that can be run: a
    result lives from its operation to the last one that reads it.

    Args:
        graph: the step's graph.
        examples: number of examples in the batch of one device: the first side where the graph leaves it open;
            others that are open count as 1.

    Returns:
        Bytes, without weights and slots, which are there before.
    """
    operations = graph.get_operations()
    owner = {}  # of each tensor: the tensor in whose memory it lies
    last_reader = {}
    for place, operation in enumerate(operations):
        for tensor in operation.inputs:
            last_reader[owner[tensor.ref()]] = place
        for tensor in operation.outputs:
            view = operation.type in VIEWS and operation.inputs
            owner[tensor.ref()] = owner[operation.inputs[0].ref()] if view else tensor.ref()
    live = peak = 0
    size_of = {}
    ending: dict[int, list] = {}
    for place, operation in enumerate(operations):
        free = [owner[t.ref()] for t in operation.inputs if last_reader[owner[t.ref()]] == place]
        for tensor in operation.outputs:
            key = tensor.ref()
            if owner[key] != key:
                continue
            size_of[key] = _bytes(tensor, examples)
            same = [k for k in free if size_of.get(k) == size_of[key]]
            if operation.type in IN_PLACE and same:
                live -= size_of.pop(same[0])
            live += size_of[key]
            ending.setdefault(last_reader.get(key, place), []).append(key)
        peak = max(peak, live)
        live -= sum(size_of.pop(key, 0) for key in ending.pop(place, []))
    return peak


def available_bytes() -> int | None:
    """Memory that is free on this machine or in its container, or None where that is not known."""
    found = []
    meminfo = pathlib.Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    elif "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    group = pathlib.Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        found.append(int(limit.read_text()) - int(used.read_text()))
    return min(found) if found else None


def check(step: Step, examples: int, say: Callable[[str], None]) -> None:
    """Refuses a step that will not fit, before it is run. A GPU's own memory is left to `explained`.

    Args:
        step: compiled.
        examples: number of examples in a batch.
        say: called with a sentence when more than half of the memory will be taken.

    Raises:
        MemoryEstimate: the estimate is above what is available.
    """
    device = next(iter(step.weights.values())).value.device
    if step.strategy.num_replicas_in_sync > 1 or "GPU" in device:
        return
    graph = step.move.get_concrete_function().graph
    batch = sum(_bytes(tensor, examples) for tensor in graph.inputs)
    needed = SLACK * peak_bytes(graph, examples) + READ_AHEAD * batch + WORKSPACE
    needed += step.state_bytes  # a copy waits while a checkpoint is written
    available = available_bytes()
    if available is None:
        return
    if needed > available:
        raise MemoryEstimate(
            f"A step of training takes about {_gib(needed)} of memory, and {_gib(available)} are free: {ADVICE}."
        )
    if needed > available / 2:
        say(
            f"A step of training takes about {_gib(needed)} of the {_gib(available)} of memory that are free."
        )


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Says what to lower where a device's memory is exhausted."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise InputError(f"A step of training does not fit into the device's memory: {ADVICE}.") from error


def _bytes(tensor: tf.Tensor, examples: int) -> int:
    if tensor.shape.rank is None or tensor.dtype in (tf.resource, tf.variant, tf.string):
        return 0
    sizes = tensor.shape.as_list()
    if sizes and sizes[0] is None:
        sizes[0] = examples
    count = 1
    for size in sizes:
        count *= 1 if size is None else size
    return count * tensor.dtype.size


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
