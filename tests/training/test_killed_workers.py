"""Whichever of two workers is killed, and wherever: the other says so, and the same command ends with equal weights."""

import json
import re
import signal

import numpy as np
import pytest
from pairs import LOCALIZER, SHAPES, Pair, newest

# One life after the other; between two of them a checkpoint of each second step is gone on with.
LIVES = [
    (1, "step:1"),  # nothing is kept yet
    (0, "step-:2"),  # the chief, which has written the second checkpoint beside its place
    (1, "step:2"),  # in mid-training
    (0, "figures:1"),  # the chief, while it validates and the other one waits in the next step
    (1, "validation:1"),  # the other, while the chief validates
    (0, "step:4"),
    (0, "card.json:1"),  # the chief, with half of the release written
]


@pytest.mark.slow
def test_killed_at_any_place_the_same_command_goes_on_to_the_same_weights(servers, ports, tmp_path):
    flags = [
        "--steps=20",
        "--freeze_batch_norm=false",
        "--validate_epochs=1.5",
    ]  # live: two sets of statistics
    done = Pair(servers, ports, [*flags, f"--output_dir={tmp_path / 'whole'}"]).ended()
    assert [each.returncode for each in done] == [0, 0], done[0].stderr + done[1].stderr

    again, reached = tmp_path / "again", []
    for rank, place in LIVES:
        done = Pair(servers, ports, [*flags, f"--output_dir={again}"], killed=(rank, place)).ended()
        assert done[rank].returncode == -signal.SIGKILL, (place, done[rank].stderr)
        other = done[1 - rank]
        if place.startswith("card"):
            assert other.returncode in (0, 75), (place, other.stderr)  # its work was over
        else:
            assert other.returncode == 75, (place, other.stderr)
            last = other.stderr.splitlines()[-1]
            assert re.search(rf"worker {rank} \(127.0.0.1:\d+\) is gone; the same command goes on", last), (
                place,
                other.stderr,
            )
        went_on = re.search(r"Going on from step (\d+)", done[0].stderr)
        reached.append(int(went_on[1]) if went_on else 0)
    assert reached == sorted(reached) and reached[:2] == [0, 0] and reached[-1] < 20

    done = Pair(servers, ports, [*flags, f"--output_dir={again}"]).ended()
    assert [each.returncode for each in done] == [0, 0], done[0].stderr + done[1].stderr
    assert "Going on from step 20." in done[0].stderr
    expected, found = newest(tmp_path / "whole"), newest(again)
    assert any("@1" in name for name in expected)  # the second worker's statistics are in the checkpoint
    assert expected.keys() == found.keys()
    assert [n for n in expected if n != "header" and not np.array_equal(expected[n], found[n])] == []
    figures = [json.loads(each["header"].tobytes()) for each in (expected, found)]
    assert figures[0]["best"] == figures[1]["best"] and figures[0]["last"] == figures[1]["last"]
    released = [(tmp_path / name / "release/model.keras").read_bytes() for name in ("whole", "again")]
    assert released[0] == released[1]
    assert json.loads((again / "release/card.json").read_text())["steps"] == 20
    assert not list(again.rglob("*.part*"))  # what a kill left half written is gone


@pytest.mark.slow
def test_the_chief_killed_while_the_other_waits_for_its_features(servers, ports, tmp_path, localizer):
    flags = [*LOCALIZER, localizer, f"--output_dir={tmp_path / 'out'}"]
    pair = {"app": "train_localizer", "base": SHAPES}
    done = Pair(servers, ports, flags, killed=(0, "features:1"), **pair).ended()
    assert [each.returncode for each in done] == [-signal.SIGKILL, 75], done[1].stderr
    assert re.search(r"worker 0 \(127.0.0.1:\d+\) is gone", done[1].stderr.splitlines()[-1]), done[1].stderr
    done = Pair(servers, ports, flags, **pair).ended()
    assert [each.returncode for each in done] == [0, 0], done[0].stderr + done[1].stderr
    assert (tmp_path / "out/release/card.json").exists() and not (tmp_path / "out/features").exists()
