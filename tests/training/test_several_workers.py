"""Two processes train one net: as one process does, stopped or killed and gone on with, and with one voice."""

import json
import os
import pathlib
import signal
import socket
import threading
import time

import numpy as np
import pytest

from tfcnn.cli.warm import Warm

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = [
    "--dataset=digits",
    "--net=tiny",
    "--image_size=16",
    "--batch_size=8",
    "--limit=48",
    "--validate_epochs=0",
]
TINY += ["--threads=1", "--tensorboard=false", "--checkpoint_minutes=100", "--learning_rate=0.0001"]


@pytest.fixture(scope="module")
def servers(warm):
    with Warm() as other:
        yield [warm, other]


@pytest.fixture(scope="module")
def ports():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1] % 20000 + 2000


class Pair:
    """Two workers of a training at work in forks of two servers."""

    def __init__(self, servers, port, flags, own=lambda k: [], app="train_classifier", base=TINY):
        self.servers, self.done, self.app = servers, [None, None], app
        addresses = ",".join(f"127.0.0.1:{port + k}" for k in (0, 1))
        every = [*base, *flags, f"--workers={addresses}"]
        self.threads = [
            threading.Thread(target=self._run, args=(k, [*every, f"--worker={k}", *own(k)])) for k in (0, 1)
        ]
        for thread in self.threads:
            thread.start()

    def _run(self, k, arguments):
        environment = {"PYTHONPATH": str(ROOT)}
        self.done[k] = self.servers[k].run(f"apps.{self.app}", arguments, ROOT, environment, 120)

    def signal(self, k, number):
        """Send a signal to a worker, a child of its server."""
        server = self.servers[k]._server.pid
        child = pathlib.Path(f"/proc/{server}/task/{server}/children").read_text().split()[-1]
        os.kill(int(child), number)

    def ended(self):
        for thread in self.threads:
            thread.join()
        return self.done


def newest(folder):
    paths = sorted((folder / "checkpoints").glob("step-*.npz"))
    return dict(np.load(paths[-1])) if paths else {}


def wait_for(folder, step):
    """Until the log says that so many steps are done; it has a line a step."""
    deadline = time.monotonic() + 100
    while (
        f'"step": {step},' not in (folder / "log.jsonl").read_text()
        if (folder / "log.jsonl").exists()
        else True
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_workers_end_with_the_weights_of_one(servers, run_app, ports, tmp_path):
    flags = ["--steps=6", "--freeze_batch_norm"]
    done = Pair(servers, ports, [*flags, f"--output_dir={tmp_path / 'two'}"]).ended()
    assert [each.returncode for each in done] == [0, 0], done[0].stderr + done[1].stderr
    assert done[1].stdout == "" and done[1].stderr == ""  # the chief alone speaks
    assert "worker 0 (127.0.0.1:" in done[0].stderr and "see " in done[0].stdout
    assert run_app("train_classifier", *TINY, *flags, f"--output_dir={tmp_path / 'one'}").returncode == 0
    two, one = newest(tmp_path / "two"), newest(tmp_path / "one")
    weights = [name for name in one if name.startswith(("weights/", "average/"))]
    assert len(weights) > 20 and set(weights) <= set(two)
    assert max(np.abs(two[name] - one[name]).max() for name in weights) < 1e-6
    assert (tmp_path / "two/release/model.keras").exists()


SHAPES = ["--dataset=shapes", "--net=tiny", "--validate_epochs=0", "--learning_rate=0.0001", "--threads=1"]
SHAPES += [
    "--tensorboard=false",
    "--freeze=*norm*",
    "--limit=32",
    "--batch_size=4",
    "--checkpoint_minutes=100",
]


LOCALIZER = ["--steps=4", "--image_size=64"]  # trained on: batch norm of random layers is live


@pytest.fixture(scope="module")
def localizer(run_app, tmp_path_factory):
    folder = tmp_path_factory.mktemp("localizer")
    flags = [*SHAPES, *LOCALIZER, "--classifier_epochs=1", f"--output_dir={folder}"]
    assert run_app("train_localizer", *flags).returncode == 0
    return f"--init={folder / 'release'}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("app", "base", "flags", "tolerance"),
    [
        ("train_localizer", SHAPES, LOCALIZER, 1e-4),  # one process reads features of 16 bits
        ("train_localizer", SHAPES, [*LOCALIZER, "--fine_tune", "--loss=giou"], 1e-5),
        ("train_robust", TINY, ["--steps=4", "--eps=16", "--freeze_batch_norm"], 1e-5),
        (
            "train_pose",
            ["--dataset=figures", *SHAPES[1:]],
            ["--image_size=64", "--steps=4", "--stages=1"],
            1e-5,
        ),
    ],
)
def test_two_workers_of_other_trainers_end_with_the_weights_of_one(
    servers, run_app, ports, tmp_path, localizer, app, base, flags, tolerance
):
    base = [*base, localizer] if app == "train_localizer" else base
    done = Pair(servers, ports, [*flags, f"--output_dir={tmp_path / 'two'}"], app=app, base=base).ended()
    assert [each.returncode for each in done] == [0, 0], done[0].stderr + done[1].stderr
    assert run_app(app, *base, *flags, f"--output_dir={tmp_path / 'one'}").returncode == 0
    two, one = newest(tmp_path / "two"), newest(tmp_path / "one")
    weights = [name for name in one if name.startswith("weights/")]
    assert weights and set(weights) <= set(two)
    assert max(np.abs(two[name] - one[name]).max() for name in weights) < tolerance


@pytest.mark.slow
def test_two_workers_go_through_the_alternation(servers, run_app, ports, tmp_path):
    """Each draws background for itself; objects, and so the first loss of boxes, are those of one process."""
    flags = ["--image_size=96", "--steps=8", "--training=alternating"]
    pair = Pair(
        servers, ports, [*flags, f"--output_dir={tmp_path / 'two'}"], app="train_detector", base=SHAPES
    )
    done = pair.ended()
    assert [each.returncode for each in done] == [0, 0], done[0].stderr + done[1].stderr
    assert run_app("train_detector", *SHAPES, *flags, f"--output_dir={tmp_path / 'one'}").returncode == 0
    first = [
        json.loads((tmp_path / name / "step1/log.jsonl").read_text().splitlines()[0])["losses"]["rpn_box"]
        for name in ("one", "two")
    ]
    assert first[1] == pytest.approx(first[0], rel=1e-4) and first[0] > 0
    assert (tmp_path / "two/release/model.keras").exists()


@pytest.mark.slow
def test_stopped_and_killed_the_same_command_goes_on_to_the_same_weights(servers, ports, tmp_path):
    """With live batch norm, whose statistics each worker has its own of."""
    flags = ["--steps=200", "--freeze_batch_norm=false"]
    done = Pair(servers, ports, [*flags, f"--output_dir={tmp_path / 'whole'}"]).ended()
    assert [each.returncode for each in done] == [0, 0], done[0].stderr + done[1].stderr

    again = tmp_path / "again"
    pair = Pair(servers, ports, [*flags, f"--output_dir={again}"])
    wait_for(again, 15)
    pair.signal(1, signal.SIGTERM)
    done = pair.ended()
    assert [each.returncode for each in done] == [75, 75], done[0].stderr + done[1].stderr
    steps = [each.stderr.rpartition("at step ")[2].split(",")[0] for each in done]
    stopped = json.loads(newest(again)["header"].tobytes())["step"]
    assert steps == [str(stopped)] * 2 and 15 <= stopped < 200

    pair = Pair(servers, ports, [*flags, f"--output_dir={again}"])
    wait_for(again, stopped + 15)
    pair.signal(1, signal.SIGKILL)
    done = pair.ended()
    assert done[0].returncode == 75 and done[1].returncode == -signal.SIGKILL
    assert "worker 1 (127.0.0.1:" in done[0].stderr and "is gone" in done[0].stderr.splitlines()[-1]

    done = Pair(servers, ports, [*flags, f"--output_dir={again}"]).ended()
    assert [each.returncode for each in done] == [0, 0], done[0].stderr + done[1].stderr
    assert "Going on from step" in done[0].stderr
    expected, found = newest(tmp_path / "whole"), newest(again)
    assert any("@1" in name for name in expected)  # the second worker's statistics are in the checkpoint
    assert expected.keys() == found.keys()
    assert [
        name for name in expected if name != "header" and not np.array_equal(expected[name], found[name])
    ] == []


def test_other_work_is_said_before_any_step(servers, ports, tmp_path):
    flags = ["--steps=5", f"--output_dir={tmp_path / 'out'}"]
    for each in Pair(servers, ports, flags, lambda k: [f"--seed={k}"]).ended():
        (line,) = each.stderr.splitlines()
        assert each.returncode == 2 and "--seed=1 there" in line and "worker 1" in line
    assert not (tmp_path / "out").exists()


def test_an_output_dir_of_ones_own_is_said_before_any_step(servers, ports, tmp_path):
    done = Pair(servers, ports, ["--steps=5"], lambda k: [f"--output_dir={tmp_path / str(k)}"]).ended()
    assert [each.returncode for each in done] == [1, 2]  # the chief has written a picture, the other nothing
    assert "Worker 1 does not see what worker 0 writes" in done[0].stderr
    assert not list(tmp_path.glob("*/checkpoints/*"))
