import json
import pathlib
import resource
import subprocess
import sys
import threading

import numpy as np
import pytest

from tfcnn.errors import InputError
from tfcnn.training import checkpoints

ARRAYS = {
    "weights/net/conv/kernel": np.arange(54, dtype=np.float32).reshape(3, 3, 3, 2),
    "weights/net/conv/bias": np.zeros(2, np.float32),
    "updates": np.int64(7),
}


def test_round_trip_keeps_order_types_and_header(tmp_path):
    checkpoints.write(tmp_path / "c.npz", ARRAYS, {"step": 7, "best": {"map": 0.25}})
    arrays, header = checkpoints.read(tmp_path / "c.npz")
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
    assert header == {"step": 7, "best": {"map": 0.25}}
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_damaged_one_is_noticed_and_the_one_before_it_taken(tmp_path, harm):
    for step in (8, 9, 10):
        checkpoints.write(checkpoints.path_of(tmp_path, step), ARRAYS, {"step": step})
    newest = checkpoints.path_of(tmp_path, 10)
    content = bytearray(newest.read_bytes())
    place = bytes(content).index(ARRAYS["weights/net/conv/kernel"].tobytes()) + 20
    content[place] ^= 1
    newest.write_bytes({"flip": content, "cut": content[: len(content) // 2], "empty": b""}[harm])
    with pytest.raises(InputError, match="not a whole checkpoint"):
        checkpoints.read(newest)
    assert checkpoints.newest(tmp_path)[1] == {"step": 9}


class Harmful:
    """Would make a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_nothing_is_unpickled(tmp_path):
    header = np.frombuffer(b'{"step": 1}', np.uint8)
    harmful = np.array([Harmful(tmp_path / "made")], dtype=object)
    np.savez(tmp_path / "step-1.npz", header=header, weight=harmful)
    with pytest.raises(InputError):
        checkpoints.read(tmp_path / "step-1.npz")
    assert not (tmp_path / "made").exists()


def test_only_the_newest_are_kept_and_the_best_stays(tmp_path):
    for step in (5, 50, 500):
        checkpoints.write(checkpoints.path_of(tmp_path, step), ARRAYS, {"step": step})
    checkpoints.write(tmp_path / "best.npz", ARRAYS, {"step": 5})
    (tmp_path / ".step-000000051.7-7.part.npz").write_bytes(b"half")
    checkpoints.keep_newest(tmp_path, 2)
    kept = sorted(p.name for p in tmp_path.iterdir())
    assert kept == ["best.npz", "step-000000050.npz", "step-000000500.npz"]


def test_another_architecture_is_refused_with_the_difference():
    other = dict(ARRAYS) | {"weights/net/conv/bias": np.zeros(5, np.float32)}
    with pytest.raises(InputError, match=r"conv/bias \(2,\) here, .*conv/bias \(5,\) there"):
        checkpoints.compare(other, ARRAYS, "out/checkpoints")
    with pytest.raises(InputError, match="3 arrays here, 2 there"):
        checkpoints.compare({n: a for n, a in ARRAYS.items() if n != "updates"}, ARRAYS, "out/checkpoints")


def test_layers_that_keras_numbered_anew_are_the_same_architecture():
    found = {n.replace("conv", "conv_1"): a for n, a in ARRAYS.items()}
    found["weights/net/conv_1/bias@1"] = np.ones(2, np.float32)
    same = checkpoints.compare(found, ARRAYS, "x")
    assert set(same) == {*ARRAYS, "weights/net/conv/bias@1"}


def test_a_full_disk_leaves_the_last_good_one(tmp_path):
    """The limit of a file's size stands in for the full disk; both come as OSError from a write."""
    checkpoints.write(checkpoints.path_of(tmp_path, 1), ARRAYS, {"step": 1})
    program = f"""
import pathlib, resource, numpy as np
from tfcnn.errors import InputError
from tfcnn.training import checkpoints
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    folder = pathlib.Path({str(tmp_path)!r})
    checkpoints.write(checkpoints.path_of(folder, 2), {{"w": np.zeros(100_000)}}, {{"step": 2}})
except InputError as error:
    print(error)
"""
    root = pathlib.Path(checkpoints.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert "last good one is kept; make room" in done.stdout, done.stderr
    assert checkpoints.newest(tmp_path)[1] == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000001.npz"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_the_header_is_plain_json_in_bytes(tmp_path):
    checkpoints.write(tmp_path / "c.npz", {}, {"step": 3})
    with np.load(tmp_path / "c.npz", allow_pickle=False) as file:
        assert json.loads(file["header"].tobytes()) == {"step": 3}


def test_a_writer_works_beside_training_one_at_a_time(tmp_path, monkeypatch):
    """Training goes on while a checkpoint is written; the next one waits for it."""
    begun, go_on = threading.Event(), threading.Event()
    plain = checkpoints.write

    def slow(*arguments):
        begun.set()
        assert go_on.wait(10)
        plain(*arguments)

    monkeypatch.setattr(checkpoints, "write", slow)
    with checkpoints.Writer() as writer:
        writer.write(checkpoints.path_of(tmp_path, 1), ARRAYS, {"step": 1}, 1)
        assert begun.wait(10) and writer.busy and not list(tmp_path.glob("step-*"))
        go_on.set()
        writer.write(checkpoints.path_of(tmp_path, 2), ARRAYS, {"step": 2}, 1)
        writer.wait()
        assert not writer.busy
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000002.npz"]


def test_a_writer_says_at_the_next_step_what_went_wrong(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with checkpoints.Writer() as writer:
        writer.write(tmp_path / "file" / "step-1.npz", ARRAYS, {"step": 1})
        with pytest.raises(InputError, match="Could not write the checkpoint"):
            writer.wait()


def test_the_newest_header_is_read_alone(tmp_path):
    assert checkpoints.newest_header(tmp_path) is None
    for step in (1, 2):
        checkpoints.write(checkpoints.path_of(tmp_path, step), ARRAYS, {"step": step})
    checkpoints.path_of(tmp_path, 2).write_bytes(b"cut")
    assert checkpoints.newest_header(tmp_path) == {"step": 1}


def test_a_run_of_an_older_version_is_refused_in_a_sentence():
    older = {"classes": ["a"], "train": 3}
    with pytest.raises(InputError, match="out/run holds a run of another version of tfcnn"):
        checkpoints.compare_data(older, {"classes": ["a"], "training": {}, "validation": {}}, "out/run")
