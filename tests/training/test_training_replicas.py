import json
import pathlib

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def apart(warm):
    done = warm.run("replicas", [], HERE, {"PYTHONPATH": str(HERE.parents[1])}, 600)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


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
