"""Training in rounds: a stopped one goes on to the same weights, another one's checkpoints are refused; what a full
memory of negatives forgets."""

import dataclasses

import numpy as np
import pytest

from tfcnn import datasets
from tfcnn.datasets.classes import restricted
from tfcnn.detection import hog_objects, rounds
from tfcnn.detection.dpm_training import DpmConfig, train_dpm
from tfcnn.detection.hog_svm_training import HogSvmConfig, steps_of, train_hog_svm
from tfcnn.errors import InputError
from tfcnn.runtime import Interrupted, Stop

HOG = HogSvmConfig(
    image_size=64, largest=1.0, per_octave=1, rounds=1, pictures=6, aspects=1, negatives=60, area=12
)
DPM = DpmConfig(
    image_size=64, largest=1.0, per_octave=1, rounds=1, pictures=4, aspects=1, parts=2, side=3, area=12
)


@pytest.fixture(scope="module")
def rings():
    whole = restricted(datasets.open("shapes", split="train"), ["ring"])
    return dataclasses.replace(whole, examples=whole.examples[:16])


def stopping(stop, what, times):
    """A progress that asks for the end after so many pictures of a kind."""
    seen = []

    def progress(done, kind):
        seen.append(kind)
        stop.requested = stop.requested or seen.count(what) == times

    return progress


@pytest.mark.parametrize(
    ("train", "config", "ends"),
    [
        (train_hog_svm, HOG, [("round 0", 1), ("round 1", 4), ("round 2", 1)]),
        (train_dpm, DPM, [("round 0", 1), ("round 1", 6), ("round 1", 1)]),
    ],
    ids=["hog", "dpm"],
)
def test_a_stopped_training_goes_on_to_the_same_weights(rings, tmp_path, train, config, ends):
    """Stopped within each round, at objects, and begun again each time."""
    expected = train(rings, config).get_weights()
    interrupted = 0
    for what, times in ends:
        stop = Stop()
        keeping = rounds.Keeping(tmp_path, minutes=1e9, stop=stop)
        try:
            train(rings, config, progress=stopping(stop, what, times), keeping=keeping)
        except Interrupted:
            interrupted += 1
    assert interrupted >= 3
    heard = []
    keeping = rounds.Keeping(tmp_path)
    found = train(rings, config, say=heard.append, keeping=keeping).get_weights()
    assert any("goes on in round" in sentence for sentence in heard)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(file.suffix == ".npz" for file in tmp_path.rglob("*") if file.is_file())
    done = []
    again = train(rings, config, progress=lambda n, what: done.append(what), keeping=keeping).get_weights()
    assert set(done) == {"before"}  # a finished training reads no picture
    np.testing.assert_array_equal(again[0], expected[0])


def test_another_training_is_refused_and_a_new_one_may_begin(rings, tmp_path):
    config = dataclasses.replace(HOG, rounds=1, calibrated=False)
    train_hog_svm(rings, config, keeping=rounds.Keeping(tmp_path))
    keeping = rounds.Keeping(tmp_path)
    with pytest.raises(InputError, match=r"other settings \(c: 0.01 then, 0.5 now\)"):
        train_hog_svm(rings, dataclasses.replace(config, c=0.5), keeping=keeping)
    fewer = dataclasses.replace(rings, examples=rings.examples[:12])
    with pytest.raises(InputError, match="other data"):
        train_hog_svm(fewer, config, keeping=keeping)
    with pytest.raises(InputError, match="another kind"):
        rounds.Checkpoints(keeping, "dpm", config, rings)
    anew = rounds.Checkpoints(rounds.Keeping(tmp_path, resume=False), "dpm", config, rings)
    assert anew.arrays is None and not tmp_path.exists()


def test_a_damaged_checkpoint_is_passed_over(rings, tmp_path):
    class Counter:
        total = 0

        def begin(self, number, pause):
            pause()

        def look(self, record, number, place):
            self.total += 10**number
            return 1

        def end(self, number, pictures, count):
            return f"{count} of {pictures}"

        def state(self):
            return {"total": np.array(self.total)}

        def restore(self, arrays):
            self.total = int(arrays["total"])

    def run(stop=None, progress=lambda done, what: None):
        kept = rounds.Checkpoints(rounds.Keeping(tmp_path, minutes=0, stop=stop), "counter", HOG, rings)
        learner = Counter()
        rounds.over_rounds(learner, range(2), lambda n: rings.examples[:3], kept, print, progress)
        return learner.total

    stop = Stop()
    with pytest.raises(Interrupted, match="step 5"):
        run(stop, stopping(stop, "round 1", 2))
    newest = max(tmp_path.glob("step-*.npz"))
    newest.write_bytes(newest.read_bytes()[:-30])
    assert run() == 33 and len(list(tmp_path.iterdir())) == rounds.KEPT


def test_only_easy_negatives_are_forgotten():
    margins = np.array([-1.3, 0.5, -1.1, 2.0, -1.25, -0.2])
    assert rounds.hard_indices(margins, 10).tolist() == [1, 2, 3, 5]
    assert rounds.hard_indices(margins, 3).tolist() == [1, 3]  # 2.7: the hardest two, in their order


def test_a_full_memory_is_fitted_before_the_round_ends(rings, monkeypatch):
    from tfcnn.detection import hog_svm_training

    held = []
    plain = hog_svm_training.fit

    def fit(model, templates, config):
        held.extend(len(each.negatives) for each in templates)
        plain(model, templates, config)
        assert all(len(each.negatives) <= 0.9 * config.negatives for each in templates)

    monkeypatch.setattr(hog_svm_training, "fit", fit)
    train_hog_svm(rings, dataclasses.replace(HOG, negatives=30, calibrated=False))
    assert max(held) >= 30 and len(held) > 2  # a picture may pass the 30, no round does


def test_each_negative_is_counted_once():
    row = np.arange(4.0)
    negatives = rounds.Negatives([row])
    assert not negatives.add(row) and negatives.add(row + 1) and not negatives.add(np.float32(row + 1))
    assert len(negatives) == 2 and np.array(negatives, np.float32).tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]


@pytest.mark.parametrize(("method", "train"), [("hog_svm", train_hog_svm), ("dpm", train_dpm)])
def test_pictures_that_come_again_give_no_negative_twice(rings, monkeypatch, method, train):
    """Three rounds look at the same four pictures."""
    import importlib

    training = importlib.import_module(f"tfcnn.detection.{method}_training")
    fitted = []
    plain = training.fit

    def fit(first, second, *more):  # (model, templates, config) or (mixture, config)
        for each in [first] if method == "dpm" else second:
            fitted.append([np.asarray(row).tobytes() for row in each.negatives])
        return plain(first, second, *more)

    monkeypatch.setattr(training, "fit", fit)
    config = dataclasses.replace(HOG if method == "hog_svm" else DPM, rounds=3, pictures=4, calibrated=False)
    train(dataclasses.replace(rings, examples=rings.examples[:4]), config)
    assert max(map(len, fitted)) > 20
    assert all(len(set(rows)) == len(rows) for rows in fitted)


def test_objects_that_no_window_can_cover_are_left_out():
    record = datasets.Record("a", "a", 320, 240, lambda: b"")
    config = HogSvmConfig(
        largest=1.5
    )  # 40 cells of 64 pixels; half of them at 1.5 times the size: 568.9 pixels
    assert hog_objects.findable(record, np.array([0, 0, 24, 24]), config)  # 576
    assert not hog_objects.findable(record, np.array([0, 0, 23, 24]), config)  # 552
    twice = dataclasses.replace(record, width=640, height=480)
    assert not hog_objects.findable(twice, np.array([0, 0, 47, 48]), config)
    window = dataclasses.replace(config, window=(16, 8), margin=2)  # 12 x 4 cells: 682.7 pixels
    assert not hog_objects.findable(record, np.array([0, 0, 26, 26]), window)
    assert hog_objects.findable(record, np.array([0, 0, 27, 26]), window)


def test_the_steps_are_those_that_are_told(rings):
    done = []
    train_hog_svm(rings, HOG, progress=lambda count, what: done.append(count))
    assert sum(done) == steps_of(rings, HOG)
