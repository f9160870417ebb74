"""Who the workers of a training are, by SLURM's variables; that they meet, and that one that goes is named."""

import socket
import subprocess
import sys
import threading
import time

import pytest

from tfcnn import workers
from tfcnn.errors import InputError


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("n1", ["n1"]),
        ("n[1-2]", ["n1", "n2"]),
        ("n[01-03,7],gpu1", ["n01", "n02", "n03", "n7", "gpu1"]),
        ("c[1-2]-[08-10].x", [f"c{a}-{b}.x" for a in (1, 2) for b in ("08", "09", "10")]),
        ("a,b[3]", ["a", "b3"]),
    ],
)
def test_lists_of_nodes(text, hosts):
    assert workers.expanded(text) == hosts


@pytest.mark.parametrize("text", ["", "n[1-", "n[2-1]", "n[a]", "n[1-2", "n[]"])
def test_what_is_no_list_of_nodes(text):
    with pytest.raises(InputError, match="no list"):
        workers.expanded(text)


def test_tasks_of_each_node():
    assert workers.tasks_per_node("2(x3),1") == [2, 2, 2, 1]
    with pytest.raises(InputError):
        workers.tasks_per_node("2x3")


def test_slurms_variables_give_hosts_in_the_order_of_ranks_and_ports_of_job_and_rank():
    step = {"SLURM_JOB_ID": "1234", "SLURM_STEP_ID": "2", "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3"}
    step |= {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_TASKS_PER_NODE": "2,1"}
    found = workers.from_environment(step)
    port = 20000 + (16 * 1234 + 2) % 10000
    assert found.addresses == (f"n1:{port}", f"n1:{port + 1}", f"n2:{port + 2}")
    assert found.rank == 2 and not found.chief and found.name(2) == f"worker 2 (n2:{port + 2})"
    plain = {name: value for name, value in step.items() if "NODELIST" not in name and "PER_NODE" not in name}
    found = workers.from_environment(plain | {"SLURM_JOB_NODELIST": "a,b,c"})
    assert [address[0] for address in found.addresses] == ["a", "b", "c"]
    with pytest.raises(InputError, match="3 tasks"):
        workers.from_environment(step | {"SLURM_STEP_TASKS_PER_NODE": "1(x2)"})
    assert workers.from_environment({**step, "SLURM_STEP_NUM_TASKS": "1"}) is None
    assert (
        workers.from_environment({"SLURM_NTASKS": "3", "SLURM_PROCID": "0"}) is None
    )  # a batch script, no step


def test_tf_config_is_read():
    text = '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}'
    assert workers.from_environment({"TF_CONFIG": text}) == workers.Workers(("a:1", "b:2"), 1)
    with pytest.raises(InputError, match="TF_CONFIG"):
        workers.from_environment({"TF_CONFIG": "{}"})


@pytest.mark.parametrize(
    ("addresses", "rank"),
    [(["a", "b:1"], 0), (["a:1", "a:1"], 0), (["a:1", "b:1"], 2), (["a:1", "b:1"], None)],
)
def test_workers_that_are_none(addresses, rank):
    with pytest.raises(InputError):
        workers.named(addresses, rank)


@pytest.fixture
def both():
    """The two workers of a training on this machine."""
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1] % 20000 + 2000
    return [workers.Workers((f"localhost:{port}", f"localhost:{port + 1}"), rank) for rank in (0, 1)]


def meet(both, works=({"seed": 1}, {"seed": 1}), seconds=20.0):
    """What came of both meetings: a Meeting or the InputError."""
    found = [None, None]

    def differs(ours, theirs):
        return "" if ours == theirs else f"seed {theirs['seed']} there"

    def one(rank):
        try:
            found[rank] = workers.Meeting(both[rank], works[rank], differs, seconds)
        except InputError as error:
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_workers_meet_and_leave(both):
    chief, other = meet(both)
    other.leave()
    chief.leave()
    time.sleep(0.1)
    assert (chief.lost, other.lost) == ("", "")


def test_who_has_left_stays_until_the_others_have_left(both):
    chief, other = meet(both)
    other.leave("the disk is full")
    begin = time.monotonic()
    other.linger(0.3)
    assert 0.3 <= time.monotonic() - begin < 2  # the chief is still at work
    threading.Timer(0.3, chief.leave).start()
    other.linger(20)
    assert 0.5 < time.monotonic() - begin < 5


def test_other_work_is_said_to_both(both):
    for error in meet(both, ({"seed": 1}, {"seed": 2})):
        assert isinstance(error, InputError) and "seed 2 there" in str(error) and "worker 1" in str(error)


def test_a_worker_that_never_comes_is_named(both):
    with pytest.raises(InputError, match=r"worker 1 \(localhost:\d+\) did not come within 0 s"):
        workers.Meeting(both[0], {}, lambda ours, theirs: "", seconds=0.1)
    with pytest.raises(InputError, match=r"the chief, worker 0 \(localhost:\d+\), did not come"):
        workers.Meeting(both[1], {}, lambda ours, theirs: "", seconds=0.1)


def test_a_worker_that_fails_is_named_with_its_reason(both):
    chief, other = meet(both)
    other.leave("the disk is full")
    deadline = time.monotonic() + 5
    while not chief.lost and time.monotonic() < deadline:
        time.sleep(0.01)
    assert chief.lost.startswith("worker 1 (localhost:") and chief.lost.endswith("ended: the disk is full")
    chief.leave()


WAITS = """
import sys, time
from tfcnn import workers
workers.{grace} = 0.2
found = workers.Workers(("localhost:{port}", "localhost:{other}"), 0)
workers.Meeting(found, {{}}, lambda ours, theirs: "")
print("met", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("grace", "reason", "sentence"),
    [("GRACE", None, "is gone"), ("GRACE_AFTER_WORDS", "the disk is full", "ended: the disk is full")],
)
def test_a_process_that_waits_for_a_lost_worker_ends_with_a_sentence(both, grace, reason, sentence):
    port, other = (address.rpartition(":")[2] for address in both[0].addresses)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    code = WAITS.format(port=port, other=other, grace=grace)
    chief = subprocess.Popen([sys.executable, "-c", code], **pipes)
    meeting = workers.Meeting(both[1], {}, lambda ours, theirs: "", seconds=20)
    assert chief.stdout.readline() == "met\n"
    if reason:
        meeting.leave(reason)
    else:
        meeting._links[0].close()  # as when the process is killed
    _, error = chief.communicate(timeout=15)
    meeting.leave()  # else this process, too, would end for the lost one
    assert chief.returncode == 75 and error.startswith("worker 1 (localhost:") and sentence in error
