import json
import os
import resource
import signal

import keras
import numpy as np
import pytest
import small_training as small
import tensorflow as tf

from tfcnn.errors import InputError, NotFinite
from tfcnn.runtime import Interrupted, Stop
from tfcnn.training import checkpoints, freezing, loop, memory
from tfcnn.training.loop import train
from tfcnn.training.optimizers import SGD
from tfcnn.training.schedules import constant


def run(trainee, folder, source=None, **settings):
    settings = {"steps": 10, "schedule": constant(0.01), "optimizer": SGD(), "tensorboard": False} | settings
    return train(trainee, source or small.batches(), folder=folder, **settings)


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_it_learns_validates_and_keeps_the_best(tmp_path):
    trainee = small.SmallTrainee()
    shown = []
    result = run(
        trainee,
        tmp_path,
        steps=200,
        average=0.9,
        validate_steps=50,
        best="accuracy",
        progress=lambda step, numbers: shown.append((step, numbers)),
    )
    assert result.step == result.trained == 200 and result.skipped == 0
    assert result.best["accuracy"] >= 0.95
    assert trainee.validate()["accuracy"] == result.best["accuracy"]  # the best weights are handed over
    log = lines(tmp_path / "log.jsonl")
    assert [line["step"] for line in log if "validation" in line] == [50, 100, 150, 200]
    losses = [line["losses"]["softmax"] for line in log if "losses" in line]
    assert len(losses) == 200 and np.mean(losses[-10:]) < 0.3 * np.mean(losses[:10])
    assert [step for step, _ in shown] == list(range(201))  # once before the first step
    assert set(shown[-1][1]) == {"losses", "examples_per_second", "waiting", "seconds_left"}
    assert shown[-1][1]["seconds_left"] == 0 and 0 < shown[-1][1]["waiting"] < 1
    kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert kept == ["best.npz"] + [f"step-{s:09d}.npz" for s in (160, 180, 200)]

    again = small.SmallTrainee()
    finished = run(again, tmp_path, steps=200, average=0.9, validate_steps=50, best="accuracy")
    assert finished.trained == 0 and finished.best == result.best
    assert again.validate() == trainee.validate()


def test_the_lowest_figure_can_be_the_best(tmp_path):
    trainee = small.SmallTrainee()
    figures = iter([3.0, float("nan"), 1.0, 2.0])
    trainee.validate = lambda: {"error": next(figures)}
    result = run(trainee, tmp_path, steps=4, validate_steps=1, best="-error")
    assert result.best == {"step": 3, "error": 1.0} and result.last == {"step": 4, "error": 2.0}


def test_a_validation_with_a_figure_that_is_not_finite_is_never_the_best(tmp_path):
    trainee = small.SmallTrainee()
    figures = iter([{"accuracy": 1.0, "loss": np.nan}, {"accuracy": 0.9, "loss": 0.1}])
    trainee.validate = lambda: next(figures)
    result = run(trainee, tmp_path, steps=2, validate_steps=1, best="accuracy")
    assert result.best["accuracy"] == 0.9


def test_a_run_whose_last_figures_are_not_finite_and_none_before_ends_as_diverged(tmp_path):
    trainee = small.SmallTrainee()
    figures = iter([{"accuracy": 1.0, "loss": np.nan}, {"accuracy": 0.9, "loss": np.inf}])
    trainee.validate = lambda: next(figures)
    with pytest.raises(
        InputError, match=r"diverged: loss of the last validation \(step 2\) is not finite.*learning rate"
    ):
        run(trainee, tmp_path, steps=2, validate_steps=1, best="accuracy")
    with pytest.raises(InputError, match="diverged"):  # and so does the same call again
        run(trainee, tmp_path, steps=2, validate_steps=1, best="accuracy")


def test_weights_that_are_not_finite_have_no_figures_whatever_validate_says(tmp_path):
    trainee = small.SmallTrainee()
    trainee.validate = lambda: {
        "map": 0.0
    }  # as of a detector that finds nothing: finite, and no answer at all
    for net in trainee.networks.values():
        net.set_weights([np.full_like(array, np.nan) for array in net.get_weights()])
    with pytest.raises(InputError, match="diverged: map of the last validation"):
        run(trainee, tmp_path, steps=2, validate_steps=1, best="map")
    assert not (tmp_path / "checkpoints" / "best.npz").exists()


def test_answers_that_are_not_finite_are_no_end_where_a_validation_before_was_good(tmp_path):
    trainee = small.SmallTrainee()
    figures = iter([{"iou": 0.5}])

    def validate():
        for found in figures:
            return found
        raise NotFinite

    trainee.validate = validate
    result = run(trainee, tmp_path, steps=3, validate_steps=1, best="iou")
    assert result.best == {"step": 1, "iou": 0.5} and np.isnan(result.last["iou"])


def test_a_figure_that_no_truth_stands_behind_is_none_and_the_run_ends_well(tmp_path):
    trainee = small.SmallTrainee()
    trainee.validate = lambda: {"map": None}
    result = run(trainee, tmp_path, steps=2, validate_steps=0, best="map")
    assert result.metrics["best"] is None and result.step == 2
    assert lines(tmp_path / "log.jsonl")[-1] == {"step": 2, "validation": {"map": None}}


def test_losses_are_fetched_at_the_pace_of_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_LINES", 4)
    fetched = []
    plain = loop.RunState.fetch
    monkeypatch.setattr(
        loop.RunState, "fetch", lambda self, *a: fetched.append(len(self.unread)) or plain(self, *a)
    )
    run(small.SmallTrainee(), tmp_path, steps=40, checkpoint_minutes=60)
    assert [line["step"] for line in lines(tmp_path / "log.jsonl")] == [10, 20, 30, 40]
    assert (
        sum(fetched) == 40 and max(fetched) > 1 and sum(n > 0 for n in fetched) <= 13
    )  # checkpoints fetch, too


def test_skipped_steps_in_a_row_that_are_found_late_still_end_the_run_and_leave_no_trace(
    tmp_path, monkeypatch
):
    """Steps 4 to 6 see NaN; all ten losses are fetched at once, after step 10."""
    monkeypatch.setattr(loop, "LOG_LINES", 1)
    image = np.ones((80, small.SIDE, small.SIDE, 3), np.float32)
    image[24:48] = np.nan
    data = {"image": image, "label": np.zeros(80, np.int32)}
    trainee = Brightness(small.small_net(batch_norm=True))
    with pytest.raises(InputError, match="step 6: 3 steps in a row were skipped"):
        run(trainee, tmp_path, small.batches(8, data | {"image_id": np.arange(80)}), steps=400)
    assert len(lines(tmp_path / "skipped.jsonl")) == 3
    assert all(np.isfinite(w).all() for w in trainee.weights().values())


def test_losses_are_means_over_the_examples_of_the_step(tmp_path):
    """Epochs of 37 in batches of 8 end with one of 5, and logged losses are means over just these."""
    trainee = small.SmallTrainee()
    data, expected = small.arrays(), []
    for first in (0, 8, 16, 24, 32):
        part = {k: tf.constant(v[first : first + 8]) for k, v in data.items()}
        expected.append(float(trainee.losses(part)["softmax"]) / len(part["label"]))
    run(trainee, tmp_path, steps=5, multiplier=lambda variable: 0.0)
    found = [line["losses"]["softmax"] for line in lines(tmp_path / "log.jsonl")]
    assert found == pytest.approx(expected, rel=1e-5)


class Brightness(small.SmallTrainee):
    """Has losses that are NaN where a picture has one (the net's ReLU makes 0 of it)."""

    def losses(self, batch):
        return super().losses(batch) | {"brightness": tf.reduce_sum(batch["image"])}


def bad_data(places):
    image = small.arrays()["image"].copy()
    image[places] = np.nan
    return small.batches(8, {"image": image})


def test_a_batch_that_is_not_finite_is_skipped_and_its_ids_are_written(tmp_path):
    said = []
    trainee = Brightness()
    result = run(trainee, tmp_path, bad_data([9]), steps=13, say=said.append)
    assert result.skipped == 3 and result.step == 13  # three of them, but not in a row
    assert all(np.isfinite(w).all() for w in trainee.weights().values())
    first, second, third = lines(tmp_path / "skipped.jsonl")
    assert (second["step"], third["step"]) == (7, 12)
    assert first["step"] == 2 and first["image_ids"] == [f"picture{k}" for k in range(8, 16)]
    assert first["why"] == "loss brightness is nan"
    assert "Step 2 skipped" in said[0]


def test_a_gradient_that_is_not_finite_is_named_by_its_weight(tmp_path):
    class Steep(small.SmallTrainee):
        def losses(self, batch):
            bias = self.networks["net"].get_layer("logits").bias
            return super().losses(batch) | {"steep": tf.reduce_sum(tf.sqrt(bias.value[:1] * 0.0))}

    with pytest.raises(InputError, match="gradient of net/logits/bias is not finite"):
        run(Steep(), tmp_path)


def test_the_third_skipped_step_in_a_row_ends_the_run_with_the_last_good_checkpoint(tmp_path):
    good = small.batches(8)
    run(small.SmallTrainee(), tmp_path, good, steps=10)
    weights, header = checkpoints.newest(tmp_path / "checkpoints")
    with pytest.raises(InputError, match=r"step 13: 3 steps in a row .*loss brightness is nan.*intact"):
        run(Brightness(), tmp_path, bad_data(slice(None)), steps=1000, checkpoint_minutes=60)
    after, header_after = checkpoints.newest(tmp_path / "checkpoints")
    assert header_after == header and all(np.array_equal(weights[n], after[n]) for n in weights)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_ends_the_run_after_a_checkpoint(tmp_path, number):
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]

    def progress(step, numbers):
        if step == 4:
            os.kill(os.getpid(), number)

    wanted = KeyboardInterrupt if number == signal.SIGINT else Interrupted
    with pytest.raises(wanted, match="step 4"):
        run(small.SmallTrainee(), tmp_path, steps=1000, progress=progress, checkpoint_minutes=60)
    assert checkpoints.newest(tmp_path / "checkpoints")[1]["step"] == 4
    assert handlers == [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]


def test_a_stop_that_the_app_noticed_ends_the_run(tmp_path):
    stop = Stop()
    stop.requested = True
    with pytest.raises(Interrupted):
        run(small.SmallTrainee(), tmp_path, stop=stop)
    assert checkpoints.newest(tmp_path / "checkpoints")[1]["step"] == 1


def test_a_checkpoint_of_another_net_is_refused(tmp_path):
    run(small.SmallTrainee(), tmp_path, steps=1)
    wider = small.SmallTrainee(small.small_net(width=5))
    with pytest.raises(InputError, match=r"net/conv/kernel \(3, 3, 3, 5\) here.*\(3, 3, 3, 4\) there"):
        run(wider, tmp_path, steps=2)


DATA = {
    "classes": ["a", "b"],
    "training": {"images": 9, "boxes": 3, "fingerprint": "x"},
    "validation": {"images": 2, "boxes": 0, "fingerprint": "y"},
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"classes": ["a", "c"]}, "class b is gone, class c is new"),
        ({"classes": ["b", "a"]}, "the classes stand in another order"),
        ({"training": DATA["training"] | {"images": 10}}, "9 images for training then, 10 now"),
        ({"validation": DATA["validation"] | {"fingerprint": "z"}}, "other pictures or boxes for validation"),
    ],
)
def test_a_run_does_not_go_on_with_other_data(tmp_path, changed, words):
    run(small.SmallTrainee(), tmp_path, steps=2, data=DATA)
    assert run(small.SmallTrainee(), tmp_path, steps=3, data=DATA).trained == 1
    with pytest.raises(InputError, match=words):
        run(small.SmallTrainee(), tmp_path, steps=4, data=DATA | changed)
    assert run(small.SmallTrainee(), tmp_path, steps=4, data=DATA | changed, resume=False).trained == 4


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_that_would_wrap_is_refused(tmp_path, seed):
    with pytest.raises(InputError, match="must be from 0 to 2147483647"):
        run(small.SmallTrainee(), tmp_path, seed=seed)


def test_a_seed_of_the_trainees_own_is_kept(tmp_path):
    class Drawing(small.SmallTrainee):
        def __init__(self):
            super().__init__()
            self.seeds = keras.random.SeedGenerator(1)

        def losses(self, batch):
            noise = keras.random.normal((), seed=self.seeds)
            return {name: loss * noise for name, loss in super().losses(batch).items()}

    whole, first, second = Drawing(), Drawing(), Drawing()
    run(whole, tmp_path / "whole", steps=6)
    run(first, tmp_path / "parts", steps=3)
    run(second, tmp_path / "parts", steps=6)
    for name, weight in whole.weights().items():
        np.testing.assert_array_equal(weight, second.weights()[name])


def test_data_that_end_are_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="ended after 2 of 10 steps"):
        run(small.SmallTrainee(), tmp_path, lambda start: small.batches()(start).take(2))


def test_everything_frozen_is_a_mistake(tmp_path):
    trainee = small.SmallTrainee()
    trainee.networks["net"].trainable = False
    with pytest.raises(ValueError, match="nothing to train"):
        run(trainee, tmp_path)


def test_too_little_memory_is_refused_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 10_000)
    trainee = small.SmallTrainee()
    before = trainee.weights()
    with pytest.raises(InputError, match="0.0 GiB are free: lower batch_size"):
        run(trainee, tmp_path)
    assert all(np.array_equal(before[n], w) for n, w in trainee.weights().items())


def test_the_estimate_of_memory_is_overruled(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 10_000)
    assert run(small.SmallTrainee(), tmp_path, steps=1, check_memory=False).step == 1


def test_a_batch_of_known_size_that_cannot_fit_is_not_even_read(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 10_000)
    read = []

    def batches(start):
        def note(step):
            read.append(step)
            return {n: a[:8] for n, a in small.arrays().items() if n != "image_id"}.values()

        def load(step):
            image, label = tf.numpy_function(note, [step], [tf.float32, tf.int32])
            return {"image": tf.ensure_shape(image, (8, 6, 6, 3)), "label": tf.ensure_shape(label, (8,))}

        return tf.data.Dataset.range(start, 100).map(load)

    with pytest.raises(InputError, match="lower batch_size"):
        run(small.SmallTrainee(), tmp_path, batches)
    assert not read


def test_exhausted_memory_says_what_to_lower():
    with pytest.raises(InputError, match="lower batch_size"), memory.explained():
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def test_the_peak_of_a_graph_by_hand():
    """Of arrays of 1000 floats an example, two live at the peak, or three where the first is read once more."""

    @tf.function(input_signature=[tf.TensorSpec([None, 1000])])
    def chain(x):
        a = tf.tanh(x)  # x and a
        b = tf.reshape(a, [-1, 10, 100])  # a view of a
        c = tf.tanh(b)  # a and c
        return tf.reduce_sum(c * b)  # in the place of c

    @tf.function(input_signature=[tf.TensorSpec([None, 1000])])
    def longer(x):
        a = tf.tanh(x)
        b = tf.tanh(a)  # x, a and b
        return tf.reduce_sum(b * a) + tf.reduce_sum(x)

    for function, arrays in ((chain, 2), (longer, 3)):
        peak = memory.peak_bytes(function.get_concrete_function().graph, examples=50)
        assert arrays * 50 * 4000 <= peak < arrays * 50 * 4000 + 100


def test_memory_is_known_here():
    assert memory.available_bytes() > 1e8


def test_freezing_by_endpoint_layer_and_pattern():
    image = keras.Input((8, 8, 3), name="image")
    one = keras.layers.Conv2D(2, 3, name="block1_conv")(image)
    norm = keras.layers.BatchNormalization(name="block1_norm")(one)
    two = keras.layers.Conv2D(2, 3, name="block2_conv")(norm)
    three = keras.layers.Conv2D(2, 3, name="block3_conv")(two)
    net = keras.Model(image, {"middle": two, "top": three})

    def trainable():
        return {layer.name for layer in net.layers if layer.trainable and layer.weights}

    assert freezing.freeze(net, ["middle"]) == ["block1_conv", "block1_norm", "block2_conv"]
    assert trainable() == {"block3_conv"}
    for layer in net.layers:
        layer.trainable = True
    freezing.freeze(net, ["*_norm", "block3_conv"])
    assert trainable() == {"block1_conv", "block2_conv"}
    with pytest.raises(InputError, match="'midle'; the nearest are middle"):
        freezing.freeze(net, ["midle"])


def net_with_norms():
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(2, 3, use_bias=False, name="conv1")(image)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm1")(x))
    x = keras.layers.Conv2D(2, 3, use_bias=False, name="conv2")(x)
    x = keras.layers.BatchNormalization(name="norm2")(x)
    return keras.Model(image, keras.layers.Dense(3, name="logits")(keras.layers.Flatten(name="flat")(x)))


def test_what_is_still_random_is_not_frozen():
    net = net_with_norms()
    assert freezing.trained_layers(net) == set()
    assert freezing.freeze_trained(net, ["conv1"]) == []
    assert all(layer.trainable for layer in net.layers)
    assert freezing.described(net) == "no layer with kernels is frozen; batch norm is live"


def test_what_has_been_trained_is_frozen_and_said():
    net = net_with_norms()
    net.get_layer("norm1").moving_mean.assign([0.5, 0.25])
    assert freezing.trained_layers(net) == {"conv1", "norm1"}
    assert freezing.freeze_trained(net, ["conv1", "conv2"]) == ["conv1", "norm1"]
    assert {layer.name for layer in net.layers if not layer.trainable} == {"conv1", "norm1"}
    words = "1 of 3 layers with kernels are frozen (conv1); batch norm is frozen in 1 layers of 2"
    assert freezing.described({"net": net}) == words


def test_tensorboard_gets_scalars_and_pictures(tmp_path):
    trainee = small.SmallTrainee()
    trainee.pictures = lambda: [np.zeros((4, 4, 3), np.uint8)]
    run(trainee, tmp_path, steps=4, validate_steps=2, tensorboard=True)
    (events,) = (tmp_path / "tensorboard").iterdir()
    tags = {v.tag for e in tf.compat.v1.train.summary_iterator(str(events)) for v in e.summary.value}
    assert {"losses/softmax", "rate", "validation/accuracy", "validation/0"} <= tags


def test_a_log_line_that_a_kill_cut_off_is_dropped(tmp_path):
    run(small.SmallTrainee(), tmp_path, steps=3)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 9, "losses": {}}\n{"step": 3, "losses": {"a": 1}')
    run(small.SmallTrainee(), tmp_path, steps=5)
    assert [line["step"] for line in lines(tmp_path / "log.jsonl")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("tensorboard", [False, True])
def test_a_full_disk_ends_the_run_with_a_sentence_and_the_last_good_checkpoint(tmp_path, tensorboard):
    """The limit of a file's size stands in for the full disk."""
    run(small.SmallTrainee(), tmp_path, steps=10, tensorboard=tensorboard)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(InputError, match="the last good (one|checkpoint) is kept; make room"):
            run(small.SmallTrainee(), tmp_path, steps=40, tensorboard=tensorboard, checkpoint_minutes=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoints.newest(tmp_path / "checkpoints")[1]["step"] == 10
    assert run(small.SmallTrainee(), tmp_path, steps=12).trained == 2
