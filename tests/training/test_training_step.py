"""The step against plain NumPy."""

import keras
import numpy as np
import pytest
import small_training as small
import tensorflow as tf

from tfcnn.training import freezing
from tfcnn.training.optimizers import SGD, Adagrad, AdamW
from tfcnn.training.step import Step

RATE = 0.05


@pytest.fixture
def policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def one_batch(count=8, start=0):
    return {k: tf.constant(v[start : start + count]) for k, v in small.arrays().items() if k != "image_id"}


def moved(optimizer, steps=1, net=None, parts=None, **settings):
    """Weights before and after some steps on the same batch (or on `parts` of one, accumulated)."""
    trainee = small.SmallTrainee(net)
    before = trainee.weights()
    parts = parts or [one_batch()]
    step = Step(trainee, optimizer, accumulate=len(parts), **settings)
    step.compile({k: tf.TensorSpec([None, *v.shape[1:]], v.dtype) for k, v in parts[0].items()})
    reports = [step(parts, RATE, [(0, k) for k in range(len(parts))]) for _ in range(steps)]
    return before, trainee.weights(), step, [told(step, report) for report in reports]


def told(step, report):
    """A step's report by name, losses summed over its examples."""
    *losses, examples, norm, counts = report.numbers.numpy()
    losses = dict(zip(step.loss_names, losses, strict=True))
    return {"losses": losses, "examples": examples, "gradient_norm": norm, "counts": bool(counts)}


def plainly_moved(update, steps):
    """The same in NumPy: the gradient of the mean loss, and `update(w, g, memory, t)` for each weight."""
    trainee = small.SmallTrainee()
    net, batch = trainee.networks["net"], one_batch()
    memories = [{} for _ in net.trainable_variables]
    for t in range(1, steps + 1):
        with tf.GradientTape() as tape:
            loss = tf.add_n(list(trainee.losses(batch).values())) / 8
        gradients = tape.gradient(loss, net.trainable_variables)
        for w, g, memory in zip(net.trainable_variables, gradients, memories, strict=True):
            w.assign(update(w.numpy(), g.numpy(), memory, t))
    return trainee.weights()


def momentum(w, g, memory, t):
    memory["v"] = 0.9 * memory.get("v", 0) - RATE * g
    return w + memory["v"]


def nesterov(w, g, memory, t):
    memory["v"] = 0.9 * memory.get("v", 0) - RATE * g
    return w + 0.9 * memory["v"] - RATE * g


def adamw(decay):
    def update(w, g, memory, t):
        memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
        memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * g**2
        m_hat, v_hat = memory["m"] / (1 - 0.9**t), memory["v"] / (1 - 0.999**t)
        return w - RATE * (m_hat / (np.sqrt(v_hat) + 1e-8) + decay * w * (w.ndim > 1))

    return update


def adagrad(w, g, memory, t):
    memory["sum"] = memory.get("sum", 0) + g**2
    return w - RATE * g / (np.sqrt(memory["sum"]) + 1e-8)


def assert_equal(one, other, tolerance=1e-6):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=tolerance, err_msg=name)


@pytest.mark.parametrize(
    "ours, plain",
    [
        (SGD(momentum=0.9), momentum),
        (SGD(momentum=0.9, nesterov=True), nesterov),
        (Adagrad(), adagrad),
        (AdamW(), adamw(0.0)),
        (AdamW(weight_decay=0.3), adamw(0.3)),
    ],
    ids=["momentum", "nesterov", "adagrad", "adam", "adamw"],
)
def test_five_steps_equal_the_papers_formulas(ours, plain):
    before, after, _, _ = moved(ours, steps=5)
    assert_equal(after, plainly_moved(plain, 5), 2e-5)
    assert max(abs(after[n] - before[n]).max() for n in after) > 0.01


def test_sgd_decays_kernels_only():
    before, plain, _, _ = moved(SGD(momentum=0.0))
    _, decayed, _, _ = moved(SGD(momentum=0.0, weight_decay=0.5))
    for name in before:
        expected = plain[name] - RATE * 0.5 * before[name] * (before[name].ndim > 1)
        np.testing.assert_allclose(decayed[name], expected, atol=1e-6)


def test_batches_gathered_are_one_large_batch_though_their_sizes_differ():
    _, whole, _, _ = moved(AdamW(), steps=3)
    _, parts, _, results = moved(AdamW(), steps=3, parts=[one_batch(5), one_batch(2, 5), one_batch(1, 7)])
    assert_equal(whole, parts, 1e-5)
    assert results[0]["examples"] == 8


def test_a_multiplier_scales_a_weights_own_rate_and_zero_leaves_it_alone():
    factors = {"kernel": 0.25, "bias": 0.0}
    before, plain, _, _ = moved(SGD(momentum=0.0))
    _, scaled, _, _ = moved(SGD(momentum=0.0), multiplier=lambda v: factors[v.name])
    for name in before:
        factor = factors[name.split("/")[-1]]
        np.testing.assert_allclose(
            scaled[name] - before[name], factor * (plain[name] - before[name]), atol=1e-7
        )


def test_clipping_bounds_the_norm_of_all_gradients_together():
    before, after, _, results = moved(SGD(momentum=0.0), clip_norm=0.1)
    move = np.sqrt(sum(((after[n] - before[n]) ** 2).sum() for n in before))
    assert move == pytest.approx(RATE * 0.1, rel=1e-4)
    assert results[0]["gradient_norm"] > 0.2  # as it was before clipping
    _, unclipped, _, _ = moved(SGD(momentum=0.0), clip_norm=1e3)
    assert_equal(unclipped, moved(SGD(momentum=0.0))[1], 1e-8)


def test_the_average_follows_the_weights_and_batch_norms_statistics():
    trainee = small.SmallTrainee(small.small_net(batch_norm=True))
    step = Step(trainee, SGD(), average=0.9)
    batch = one_batch()
    step.compile({k: tf.TensorSpec(v.shape, v.dtype) for k, v in batch.items()})
    expected = trainee.weights()
    for t in range(1, 13):
        step([batch], RATE, [(0, t)])
        decay = min(0.9, (1 + t) / (10 + t))
        expected = {n: decay * a + (1 - decay) * trainee.weights()[n] for n, a in expected.items()}
    last = trainee.weights()
    with step.averaged():
        assert_equal(trainee.weights(), expected, 1e-5)
    assert_equal(trainee.weights(), last, 0.0)
    assert abs(expected["norm/moving_mean"] - last["norm/moving_mean"]).max() > 1e-3


def test_frozen_layers_and_frozen_batch_norm_stay():
    net = small.small_net(batch_norm=True)
    assert freezing.freeze(net, ["conv"]) == ["conv"]
    freezing.freeze_batch_norm(net)
    before, after, _, _ = moved(AdamW(), net=net, average=0.9)
    still = {n for n in before if np.array_equal(before[n], after[n])}
    assert still == {n for n in before if n.startswith(("conv/", "norm/"))}


def spec(batch):
    return {name: tf.TensorSpec(array.shape, array.dtype) for name, array in batch.items()}


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
@pytest.mark.parametrize("parts", [1, 2], ids=["whole", "accumulated"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_skipped_step_changes_nothing_though_batch_norm_is_live(bad, parts, precision, policy):
    """Weights, slots, average, batch norm's statistics, and the seeds of Dropout and of the trainee."""
    policy(precision)

    class Drawing(small.SmallTrainee):
        seeds = None

        def losses(self, batch):
            noise = keras.random.uniform((), seed=self.seeds)
            return super().losses(batch) | {"noise": tf.cast(noise, tf.float32)}

    trainee = Drawing(small.small_net(batch_norm=True, dropout=0.3))
    trainee.seeds = keras.random.SeedGenerator(1)
    step = Step(trainee, AdamW(weight_decay=0.1), average=0.9, accumulate=parts)
    good = one_batch()
    step.compile(spec(good))
    step([good] * parts, RATE, [(0, 0)] * parts)
    before = step.state()
    broken = good | {"image": good["image"] + tf.constant([bad] + [0.0] * 7)[:, None, None, None]}
    assert not told(step, step([broken, good][:parts], RATE, [(0, 1)] * parts))["counts"]
    after = step.state()
    changed = {n for n in before if not np.array_equal(before[n], after[n])}
    assert changed == ({"loss_scale", "good_steps"} if precision == "mixed_float16" else set())
    assert told(step, step([good] * parts, RATE, [(0, 2)] * parts))["counts"]
    assert all(np.isfinite(w).all() for w in trainee.weights().values())
    assert not np.array_equal(
        step.state()["weights/net/norm/moving_mean"], before["weights/net/norm/moving_mean"]
    )


def test_statistics_that_are_not_finite_skip_the_step_though_the_losses_are():
    """A branch whose batch norm sees infinity while no loss does."""

    class Idle(small.SmallTrainee):
        def losses(self, batch):
            self.networks["idle"](batch["image"] * np.inf, training=True)
            return super().losses(batch)

    trainee = Idle()
    image = keras.Input((small.SIDE, small.SIDE, 3))
    trainee.networks["idle"] = keras.Model(image, keras.layers.BatchNormalization(name="norm")(image))
    step, batch = Step(trainee, SGD()), one_batch()
    step.compile(spec(batch))
    before = step.state()
    assert not told(step, step([batch], RATE, [(0, 0)]))["counts"]
    assert all(np.array_equal(before[n], array) for n, array in step.state().items())


def test_each_step_and_batch_has_a_seed_of_its_own():
    seen = []

    class Seeing(small.SmallTrainee):
        def losses(self, batch):
            tf.py_function(lambda seed: seen.append(tuple(seed.numpy())), [batch["seed"]], [])
            return super().losses(batch)

    trainee, batch = Seeing(), one_batch()
    step = Step(trainee, SGD(), accumulate=2)
    step.compile({k: tf.TensorSpec(v.shape, v.dtype) for k, v in batch.items()})
    step([batch, batch], RATE, [(5, 0), (5, 1)])
    assert seen == [(5, 0), (5, 1)]


def test_each_example_has_a_seed_of_its_own_where_the_data_say_its_position():
    seen = []

    class Seeing(small.SmallTrainee):
        def losses(self, batch):
            tf.py_function(lambda seed: seen.append(seed.numpy().tolist()), [batch["seed"]], [])
            return super().losses(batch)

    trainee, batch = Seeing(), one_batch()
    count = len(batch["image"])
    batch["position"] = tf.range(40, 40 + count, dtype=tf.int64)
    step = Step(trainee, SGD())
    step.compile(spec(batch))
    step([batch], RATE, [(5, 3)])
    assert seen == [[[5, 40 + row] for row in range(count)]]


def test_a_weight_without_a_gradient_is_left_alone_and_named():
    trainee, batch = small.SmallTrainee(), one_batch()
    image = keras.Input((4,))
    trainee.networks["idle"] = keras.Model(image, keras.layers.Dense(2, name="unused")(image))
    step = Step(trainee, AdamW(weight_decay=0.5))
    step.compile({k: tf.TensorSpec(v.shape, v.dtype) for k, v in batch.items()})
    before = step.state()
    step([batch], RATE, [(0, 0)])
    after = step.state()
    assert step.unreached == ["idle/unused/kernel", "idle/unused/bias"]
    moved = {n for n in before if n.startswith("weights/") and not np.array_equal(before[n], after[n])}
    assert moved == {f"weights/net/{layer}/{w}" for layer in ("conv", "logits") for w in ("kernel", "bias")}


def test_bfloat16_trains_float32_weights(policy):
    policy("mixed_bfloat16")
    before, after, _, results = moved(AdamW(), steps=20)
    assert after["conv/kernel"].dtype == np.float32
    assert results[-1]["losses"]["softmax"] < 0.5 * results[0]["losses"]["softmax"]


def test_float16_scales_its_loss_and_halves_the_scale_at_an_overflow(policy):
    policy("mixed_float16")
    trainee, batch = small.SmallTrainee(), one_batch()
    step = Step(trainee, SGD(momentum=0.0))
    step.compile({k: tf.TensorSpec(v.shape, v.dtype) for k, v in batch.items()})
    step.load({"loss_scale": np.float32(2.0**40)})  # sure to overflow
    before = trainee.weights()
    assert told(step, step([batch], RATE, [(0, 0)]))["counts"]  # no fault of the batch
    assert_equal(trainee.weights(), before, 0.0)
    assert step.state()["loss_scale"] == 2.0**39
    step.load({"loss_scale": np.float32(2.0**10)})
    step([batch], RATE, [(0, 1)])
    policy("float32")
    _, exact, _, _ = moved(SGD(momentum=0.0))
    assert_equal(trainee.weights(), exact, 2e-3)
    assert abs(exact["conv/kernel"] - before["conv/kernel"]).max() > 5e-3
