"""Two processes train one net: as one process does, stopped or killed and gone on with, and with one voice."""

import json
import signal

import numpy as np
import pytest
from pairs import LOCALIZER, SHAPES, TINY, Pair, newest, wait_for


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


SGD = ["--optimizer=sgd", "--learning_rate=0.001"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("app", "base", "flags", "tolerance"),
    [
        ("train_localizer", SHAPES, LOCALIZER, 1e-6),
        ("train_localizer", SHAPES, [*LOCALIZER, "--fine_tune", "--loss=giou"], 1e-6),
        ("train_robust", TINY, ["--steps=4", "--eps=16", "--freeze_batch_norm"], 1e-6),
        # AdamW would move by its rate the few weights whose first gradient is nothing but rounding.
        ("train_detector", SHAPES, ["--image_size=64", "--steps=4", *SGD], 1e-6),
        (
            "train_pose",
            ["--dataset=figures", *SHAPES[1:]],
            ["--image_size=64", "--steps=4", "--stages=2", *SGD],
            1e-6,
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
    """What is drawn of a picture is the same wherever it is computed: each of the four nets is that of one process."""
    flags = ["--image_size=96", "--steps=8", "--training=alternating"]
    pair = Pair(
        servers, ports, [*flags, f"--output_dir={tmp_path / 'two'}"], app="train_detector", base=SHAPES
    )
    done = pair.ended()
    assert [each.returncode for each in done] == [0, 0], done[0].stderr + done[1].stderr
    assert run_app("train_detector", *SHAPES, *flags, f"--output_dir={tmp_path / 'one'}").returncode == 0
    for number in (1, 2, 3, 4):
        two, one = (newest(tmp_path / name / f"step{number}") for name in ("two", "one"))
        weights = [name for name in one if name.startswith("weights/")]
        assert weights and max(np.abs(two[name] - one[name]).max() for name in weights) < 1e-6, number
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
