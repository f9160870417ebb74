import json
import pathlib

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def printed(warm):
    """A function from a script of this folder and its arguments to what it prints."""

    def printed(script, *arguments):
        done = warm.run(script, list(arguments), HERE, {"PYTHONPATH": str(HERE.parents[1])}, 600)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    return printed


@pytest.fixture(scope="module")
def apart(printed):
    return printed("replicas")


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("norm", ["absent", "frozen"])
def test_two_devices_end_with_the_weights_of_one(apart, optimizer, norm):
    assert apart[f"{optimizer} {norm}"] < 1e-6


def test_live_batch_norm_is_the_same_only_when_synchronized(apart):
    assert apart["momentum synchronized"] < 1e-5
    assert apart["momentum live"] > 1e-4


def test_a_data_sets_batches_are_cut_for_two_devices(apart):
    """The classifier's five pictures a step are two and three, each read by a pipeline of its own."""
    assert apart["classifier"] < 1e-5


@pytest.mark.parametrize(
    "kinds",
    [["yolo"], pytest.param(["one_stage", "faster_rcnn", "mask_rcnn"], marks=pytest.mark.slow)],
    ids=" ".join,
)
def test_two_devices_end_with_the_detector_of_one(printed, kinds):
    """What is drawn (YOLO's object of a cell, anchors, regions) belongs to the picture, not to the device."""
    found = printed("replicas_of_detectors", *kinds)
    assert [*found] == kinds
    for kind, numbers in found.items():
        assert numbers["apart"] < 1e-6 and numbers["moved"] > 1e-3, (kind, numbers)
