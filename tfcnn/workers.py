"""The processes of one training on several machines: who they are, that all came, and that all are still there.

Ranks are counted from 0, the chief, who alone writes files. Before TensorFlow starts all of them meet at the chief
by plain sockets: so a worker that never comes, or that does other work, is named, which TensorFlow's own start does
not do. The connections stay open. A worker that dies closes its connection, and the others end with a sentence
instead of waiting for it for ever.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from tfcnn.errors import InputError

SECONDS = 600.0  # that the workers wait for each other at the start
GRACE = 20.0  # seconds in which a process may end by itself once another is gone
GRACE_AFTER_WORDS = 3 * GRACE  # where that one has said why: this process may be about to say the same
LINGER = (
    5.0  # seconds in which a process that has left stays: others may still fetch their share of a last sum
)
CHIEFS_PORT = 1000  # above the chief's port for TensorFlow: where the workers meet
_MOST_BYTES = 2**20  # of a message
_RESUMABLE = 75


@dataclasses.dataclass(frozen=True)
class Workers:
    """All processes of a training.

    Attributes:
        addresses: host:port of each for TensorFlow, in the order of ranks.
        rank: which one this is, from 0.
    """

    addresses: tuple[str, ...]
    rank: int

    def __post_init__(self) -> None:
        for address in self.addresses:
            host, _, port = address.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 2**16 - CHIEFS_PORT:
                raise InputError(
                    f"{address!r} is no worker's address: host:port with a port below {2**16 - CHIEFS_PORT}, "
                    "e.g. node1:20000"
                )
        if len(set(self.addresses)) < len(self.addresses):
            raise InputError(f"two workers have one address in {', '.join(self.addresses)}")
        if not 0 <= self.rank < len(self.addresses):
            raise InputError(f"worker {self.rank} is none of 0 to {len(self.addresses) - 1}")

    @property
    def chief(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def name(self, rank: int) -> str:
        """What to call a worker: "worker 1 (node2:20001)"."""
        return f"worker {rank} ({self.addresses[rank]})"


def from_environment(variables: Mapping[str, str]) -> Workers | None:
    """The workers that SLURM's variables of a job step, or else TF_CONFIG, describe.

    Args:
        variables: of the environment.

    Returns:
        None where there is one process only.

    Raises:
        InputError: the variables contradict each other.
    """
    if int(variables.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in variables:
        return from_slurm(variables)
    if variables.get("TF_CONFIG"):
        try:
            config = json.loads(variables["TF_CONFIG"])
            addresses, rank = config["cluster"]["worker"], int(config["task"]["index"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"TF_CONFIG has no cluster.worker and task.index ({error!r})") from error
        return Workers(tuple(addresses), rank) if len(addresses) > 1 else None
    return None


def from_slurm(variables: Mapping[str, str]) -> Workers:
    """The workers of a job step, a task each.

    Hosts stand in the order of ranks (SLURM's block distribution, which is srun's default). Ports follow from the
    job's and the step's number and from the rank, so that neither two jobs nor two tasks on one host meet.

    Args:
        variables: SLURM_JOB_ID, SLURM_STEP_ID, SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_STEP_NODELIST and
            SLURM_STEP_TASKS_PER_NODE; without the last two SLURM_JOB_NODELIST and as many tasks on each node.

    Raises:
        InputError: the list of hosts and the number of tasks do not fit.
    """
    count = int(variables["SLURM_STEP_NUM_TASKS"])
    hosts = expanded(variables.get("SLURM_STEP_NODELIST") or variables.get("SLURM_JOB_NODELIST", ""))
    tasks = tasks_per_node(
        variables.get("SLURM_STEP_TASKS_PER_NODE") or f"{count // max(1, len(hosts))}(x{len(hosts)})"
    )
    ranked = [host for host, here in zip(hosts, tasks, strict=False) for _ in range(here)]
    if len(ranked) != count or len(tasks) != len(hosts):
        raise InputError(
            f"SLURM says {count} tasks, and {len(ranked)} on the nodes {', '.join(hosts)}: start them by srun"
        )
    job, step = (int(variables.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    base = 20000 + (16 * job + step) % 10000
    return Workers(
        tuple(f"{host}:{base + rank}" for rank, host in enumerate(ranked)), int(variables["SLURM_PROCID"])
    )


def expanded(hosts: str) -> list[str]:
    """The hosts of a SLURM node list: "n[01-03,7],gpu1" is n01, n02, n03, n7, gpu1.

    Raises:
        InputError: it is no such list.
    """
    found = []
    for part in re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", hosts):
        pieces = []
        for text, ranges in re.findall(r"([^\[\]]+)|\[([^\[\]]*)\]", part):
            pieces.append(
                [text] if text else [number for each in ranges.split(",") for number in _numbers(each, hosts)]
            )
        found += ["".join(choice) for choice in itertools.product(*pieces)]
    if not found or hosts.count("[") != hosts.count("]"):
        raise InputError(f"{hosts!r} is no list of SLURM's nodes, such as n[01-03,7]")
    return found


def _numbers(text, hosts):
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not match or int(match[2] or match[1]) - int(match[1]) not in range(2**16):
        raise InputError(f"{hosts!r} is no list of SLURM's nodes, such as n[01-03,7]")
    return [f"{number:0{len(match[1])}}" for number in range(int(match[1]), int(match[2] or match[1]) + 1)]


def tasks_per_node(text: str) -> list[int]:
    """How many tasks each node has: "2(x3),1" is 2, 2, 2, 1.

    Raises:
        InputError: it says no such thing.
    """
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if not match:
            raise InputError(f"{text!r} is no list of tasks a node, such as 2(x3),1")
        found += [int(match[1])] * int(match[2] or 1)
    return found


class Meeting:
    """The connections between the chief and the others; a context, at whose end this process has left.

    Args:
        workers: who they are.
        work: what this one is about to do, in JSON's types; all must say the same. `differs` words a difference.
        differs: (the chief's work, another one's) -> how they differ, in a clause; "" where they do not.
        seconds: that all have to come.
        say: is told whom the chief waits for.

    Attributes:
        lost: a sentence on the worker that is gone, or "".

    Raises:
        InputError: one did not come in time, or has other work.
    """

    def __init__(
        self,
        workers: Workers,
        work: Mapping,
        differs: Callable[[Mapping, Mapping], str],
        seconds: float = SECONDS,
        say: Callable[[str], None] = lambda sentence: None,
    ):
        self.workers, self.lost = workers, ""
        self._left, self._lock, self._say = False, threading.Lock(), say
        self._links: dict[int, _Link] = {}
        self._watching: list[threading.Thread] = []
        deadline = time.monotonic() + seconds
        if workers.chief:
            self._gather(dict(work), differs, deadline, seconds)
        else:
            self._join(dict(work), deadline, seconds)
        for rank, link in self._links.items():
            self._watching.append(threading.Thread(target=self._watch, args=(rank, link), daemon=True))
            self._watching[-1].start()

    def __enter__(self) -> Meeting:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self.leave("" if error is None else f"{type(error).__name__}: {error}")

    def leave(self, why: str = "") -> None:
        """Go, and say so; `why` is what failed, "" where nothing did."""
        with self._lock:
            self._left = True
        for link in self._links.values():
            link.send({"left": why})
            link.end_writing()  # still read, until the other has left too

    def linger(self, seconds: float = LINGER) -> None:
        """Wait until the others have left too, or the time is over.

        TensorFlow's sum of a step is over for one worker before it is for the next one, which still reads from the
        first: a process that ends at once would make the others believe that it was lost.
        """
        until = time.monotonic() + seconds
        for thread in self._watching:
            thread.join(max(0.0, until - time.monotonic()))

    def explained(self, error: BaseException) -> str:
        """The sentence on a worker that is gone, in the place of what TensorFlow says; "" where none is."""
        if "worker is gone" not in str(error):
            return ""
        until = time.monotonic() + 2.0
        while not self.lost and time.monotonic() < until:
            time.sleep(0.05)  # TensorFlow noticed it first
        return f"{self.lost}; the same command goes on from the last checkpoint" if self.lost else ""

    def _gather(self, work, differs, deadline, seconds):
        host, _, port = self.workers.addresses[0].rpartition(":")
        others = set(range(1, len(self.workers.addresses)))
        said = time.monotonic() + 10.0
        try:
            server = socket.create_server(("", int(port) + CHIEFS_PORT), backlog=len(others) + 8)
        except OSError as error:
            raise InputError(
                f"port {int(port) + CHIEFS_PORT} of {host}, where the workers meet, is taken: {error.strerror}"
            ) from error
        how = ""
        with server:
            while others - self._links.keys() and not how:
                missing = ", ".join(self.workers.name(rank) for rank in sorted(others - self._links.keys()))
                if time.monotonic() > deadline:
                    how = f"{missing} did not come within {seconds:.0f} s"
                    break
                if time.monotonic() > said:
                    said = deadline
                    self._say(f"waiting for {missing}")
                server.settimeout(1.0)
                try:
                    link = _Link(server.accept()[0])
                except TimeoutError:
                    continue
                message = link.receive(10.0) or {}
                rank = message.get("rank")
                if rank not in others or message.get("of") != len(self.workers.addresses):
                    link.close()  # a stranger
                    continue
                self._links[rank] = link
                difference = differs(work, message.get("work") or {})
                how = (
                    f"{self.workers.name(rank)} has other work than the chief: {difference}"
                    if difference
                    else ""
                )
        for link in self._links.values():
            link.send({"refused": how} if how else {"begin": True})
        if how:
            for link in self._links.values():
                link.close()
            raise InputError(how)

    def _join(self, work, deadline, seconds):
        host, _, port = self.workers.addresses[0].rpartition(":")
        link, why = None, "the time was over"
        while link is None:
            try:
                link = _Link(socket.create_connection((host, int(port) + CHIEFS_PORT), timeout=10.0))
            except OSError as error:
                why = error.strerror or str(error)
                if time.monotonic() > deadline:
                    raise InputError(
                        f"the chief, {self.workers.name(0)}, did not come within {seconds:.0f} s ({why})"
                    ) from error
                time.sleep(0.2)
        link.send({"rank": self.workers.rank, "of": len(self.workers.addresses), "work": work})
        answer = link.receive(max(1.0, deadline - time.monotonic()) + 10.0) or {}
        if not answer.get("begin"):
            link.close()
            raise InputError(str(answer.get("refused") or f"the chief, {self.workers.name(0)}, went away"))
        self._links[0] = link

    def _watch(self, rank, link):
        """In a thread of its own: wait for a worker's last word."""
        message = link.receive(None)
        if message is not None and message.get("left") == "":
            return
        with self._lock:
            if self._left or self.lost:
                return
            reason = (message or {}).get("left")
            self.lost = str((message or {}).get("lost") or "") or (
                f"{self.workers.name(rank)} ended: {reason}"
                if reason
                else f"{self.workers.name(rank)} is gone"
            )
        for other, each in self._links.items():
            if other != rank:
                each.send({"lost": self.lost})
        # TensorFlow may wait for the lost one for ever, in a call that no signal ends.
        timer = threading.Timer(GRACE_AFTER_WORDS if reason else GRACE, self._end)
        timer.daemon = True
        timer.start()

    def _end(self):
        with self._lock:
            if self._left:
                return
        print(f"{self.lost}; the same command goes on from the last checkpoint", file=sys.stderr, flush=True)
        os._exit(_RESUMABLE)


class _Link:
    """A connection that carries lines of JSON."""

    def __init__(self, connection: socket.socket):
        self._socket, self._rest = connection, b""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # notices a machine without power
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, message: dict) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float | None) -> dict | None:
        """The next message, or None where the connection ended or the time was over."""
        with contextlib.suppress(OSError, ValueError):
            self._socket.settimeout(seconds)
            while b"\n" not in self._rest and len(self._rest) < _MOST_BYTES:
                data = self._socket.recv(65536)
                if not data:
                    return None
                self._rest += data
            line, _, self._rest = self._rest.partition(b"\n")
            message = json.loads(line)
            return message if isinstance(message, dict) else None
        return None

    def end_writing(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.end_writing()
        self._socket.close()


def named(addresses: Sequence[str], rank: int | None) -> Workers | None:
    """The workers that a person lists; None where it is one alone.

    Raises:
        InputError: the rank is missing, or as `Workers`.
    """
    if len(addresses) < 2:
        return None
    if rank is None:
        raise InputError(f"which of the {len(addresses)} workers this one is must be said, from 0 on")
    return Workers(tuple(addresses), rank)
