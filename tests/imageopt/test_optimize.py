"""The loop on small nets: it goes up and down, a batch equals its members, one trace a signature, L-BFGS."""

import logging.handlers

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcnn.backbones import tap
from tfcnn.errors import InputError
from tfcnn.imageopt import (
    Phase,
    Problem,
    constraints,
    lbfgs,
    maximize,
    minimize,
    objectives,
    optimizers,
    parameters,
    through,
    transforms,
)

START = np.random.default_rng(0).uniform(60, 200, (3, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1, name="preprocessing")(image)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="swish", name="stem_conv")(x)
    y = keras.layers.Conv2D(12, 3, padding="same", activation="swish", name="block_conv")(x)
    z = keras.layers.Dense(5, name="head")(keras.layers.GlobalAveragePooling2D(name="pool")(y))
    return keras.Model(image, {"logits": z, "low/stem": x}, name="small")


def test_up_and_down(net):
    problem = Problem(net, objectives.logit([0, 1, 2]), optimizer=optimizers.Adam(2.0))
    up, down = maximize(problem, START, 15), minimize(problem, START, 15)
    assert (up.value[-1] > up.value[0]).all() and (down.value[-1] < down.value[0]).all()
    np.testing.assert_allclose(up.value[0], down.value[0], rtol=1e-6)
    np.testing.assert_allclose(up.final["logits"], tap(net, ["logits"])(up.image)["logits"].numpy()[
        [0, 1, 2], [0, 1, 2]], rtol=1e-5)  # fmt: skip


def test_traces_of_many_problems_are_not_counted_as_those_of_one(net):
    heard = logging.handlers.BufferingHandler(1000)
    tf.get_logger().addHandler(heard)
    try:
        for _ in range(7):  # TensorFlow warns of five traces of one function
            minimize(Problem(net, objectives.logit([0, 1, 2])), START, 1)
    finally:
        tf.get_logger().removeHandler(heard)
    assert heard.buffer == []


RULES = {
    "plain": dict(optimizer=optimizers.Plain(300.0)),
    "normalised": dict(optimizer=optimizers.Normalized(1.5), transform=transforms.jitter(4)),
    "sign": dict(optimizer=optimizers.Sign(1.0), constraint=constraints.linf_ball(START, 3.0)),
    "momentum": dict(optimizer=optimizers.Momentum(50.0), constraint=constraints.in_range()),
    "adam, fourier": dict(optimizer=optimizers.Adam(0.05), parameters=parameters.Fourier(16, 16)),
    "adam, tanh": dict(
        optimizer=optimizers.Adam(0.05), parameters=parameters.TanhBox(), transform=transforms.rotate([-9, 9])
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_pictures_at_once_equal_runs_alone(net, rule):
    def pictures(index):
        chosen = dict(RULES[rule])
        if "linf" in str(chosen.get("constraint")):
            chosen["constraint"] = constraints.linf_ball(START[index], 3.0)
        objective = objectives.logit(np.array([0, 1, 2])[index]) - 1e-4 * objectives.l2()
        return maximize(Problem(net, objective, **chosen), START[index], 4, seed=7)

    together = pictures(slice(0, 3))
    for i in range(3):
        alone = pictures(slice(i, i + 1))
        np.testing.assert_allclose(together.image[i], alone.image[0], atol=2e-2)
        np.testing.assert_allclose(together.value[:, i], alone.value[:, 0], rtol=1e-4, atol=1e-5)


def test_same_seed_same_picture_other_seed_another(net):
    problem = Problem(
        net, objectives.logit(0), optimizer=optimizers.Normalized(1.0), transform=transforms.jitter(5)
    )
    first, again = (maximize(problem, START, 5, seed=1).image for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - maximize(problem, START, 5, seed=2).image).max() > 0.1


def test_the_largest_seed_draws_as_any_other(net):
    problem = Problem(
        net, objectives.logit(0), optimizer=optimizers.Normalized(1.0), transform=transforms.jitter(5)
    )
    largest = 2**31 - 1
    assert not np.array_equal(*(maximize(problem, START, 3, seed=s).image for s in (largest, largest - 1)))
    through([Phase(problem, 1, 16), Phase(problem, 1, 16)], START, minimize, seed=largest)
    parameters.normal_noise([largest, largest + 1], 4, 4)
    lbfgs(problem, START, 2, seed=largest)


def test_a_net_of_whole_numbers_is_refused_before_any_work():
    image = keras.Input((16, 16, 3), dtype="uint8")
    whole = keras.Model(image, keras.layers.Rescaling(1 / 255.0, name="unit")(image), name="whole")
    with pytest.raises(InputError, match="whole takes uint8 pictures: no gradient reaches them"):
        Problem(whole, objectives.mean_square("unit"))


def test_history_has_an_entry_a_step_and_its_terms_add_up(net):
    problem = Problem(
        net, objectives.logit(1) - 1e-3 * objectives.total_variation(), optimizer=optimizers.Adam(1.0)
    )
    moments = []
    result = maximize(problem, START, 6, callback=lambda m: moments.append((m.step, m.value, m.image())))
    entries = result.history(2)
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4, 5, 6] == [m[0] for m in moments]
    for entry, (_, value, _) in zip(entries, moments, strict=True):
        np.testing.assert_allclose(entry["value"], entry["logits"] + entry["total_variation"], rtol=1e-5)
        np.testing.assert_allclose(entry["value"], value[2], rtol=1e-6)
    np.testing.assert_array_equal(moments[-1][2], result.image)
    assert set(result.final_entry(0)) == {"value", "logits", "total_variation"}
    assert result.final_entry(2)["value"] > entries[-1]["value"] - 1e-3


def test_a_callback_stops_the_run(net):
    problem = Problem(net, objectives.logit(1))
    assert len(maximize(problem, START, 50, callback=lambda m: m.step == 3).history()) == 3
    assert len(lbfgs(problem, START, 50, callback=lambda m: m.step == 3).history()) == 3


def test_no_step_gives_the_start_back(net):
    result = minimize(Problem(net, objectives.logit(1)), START, 0)
    np.testing.assert_array_equal(result.image, START)
    assert result.history() == []


def test_one_trace_a_signature_and_targets_by_variable(net):
    traces = []

    def counted(logits):
        traces.append(1)
        return logits[:, 0]

    target = tf.Variable(tf.zeros([1, 8, 8, 12]))
    objective = objectives.of("counted", "logits", counted) + objectives.feature_match("block_conv", target)
    problem = Problem(net, objective, optimizer=optimizers.Adam(1.0), transform=transforms.jitter(2))
    first = minimize(problem, START, 5)
    assert first.final
    running, evaluating = 1, 1
    assert len(traces) == running + evaluating
    target.assign(tf.ones([1, 8, 8, 12]))
    second = minimize(problem, START + 1, 5, seed=3)
    assert second.final
    assert len(traces) == 2
    assert abs(second.value[0, 0] - first.value[0, 0]) > 0.3, "the new target was not seen"


def test_any_number_of_sizes_costs_two_traces(net):
    traces = []
    objective = objectives.of("counted", "logits", lambda logits: traces.append(1) or logits[:, 0])
    problem = Problem(net, objective)
    for size in (8, 10, 12, 14, 16):
        assert minimize(problem, START[:, :size, :size], 1).final
    assert len(traces) == 4  # the step and the last evaluation, each for one size and then for any


def test_gradient_against_differences(net):
    objective = objectives.logit([0, 1, 2]) - 1e-3 * objectives.total_variation()
    problem = Problem(net, objective)
    x = tf.constant(START)
    _, gradient = problem.value_and_gradient(x, tf.constant([0, 0], tf.int64))
    direction = np.random.default_rng(1).normal(size=START.shape).astype(np.float32)
    up, down = (
        sum(problem.evaluate(START + sign * 0.5 * direction).values()).astype(np.float64) for sign in (1, -1)
    )
    np.testing.assert_allclose((gradient * direction).numpy().sum((1, 2, 3)), up - down, rtol=2e-2, atol=1e-4)


def test_constraint_holds_whatever_is_optimised(net):
    for way in (parameters.Pixels(), parameters.TanhBox()):
        problem = Problem(
            net,
            objectives.logit(0),
            parameters=way,
            optimizer=optimizers.Adam(3.0),
            constraint=constraints.in_range(50, 210),
        )
        image = maximize(problem, START, 5).image
        assert image.min() >= 49.9 and image.max() <= 210.1


def test_lbfgs_solves_a_square_exactly(net):
    problem = Problem(net, objectives.distance(START[::-1].copy()))
    result = lbfgs(problem, START, 30)
    np.testing.assert_allclose(result.image, START[::-1], atol=1e-2)


def test_lbfgs_beats_adam_and_keeps_its_bounds(net):
    target = tap(net, ["block_conv"])(START)["block_conv"]
    problem = Problem(net, objectives.feature_match("block_conv", target), optimizer=optimizers.Adam(4.0))
    grey = np.full_like(START, 127.5)
    by_lbfgs, by_adam = lbfgs(problem, grey, 40, bounds=(70.0, 190.0)), minimize(problem, grey, 40)
    assert len(by_lbfgs.history()) <= 40
    assert by_lbfgs.image.min() >= 70 and by_lbfgs.image.max() <= 190
    assert (by_lbfgs.value.min(0) < by_adam.value.min(0)).all()
    final = by_lbfgs.final_entry(1)["value"]
    np.testing.assert_allclose(final, by_lbfgs.value[:, 1].min(), rtol=1e-4)


def test_lbfgs_of_a_batch_equals_runs_alone(net):
    goal = START[[1, 2, 0]]
    together = lbfgs(Problem(net, objectives.distance(goal)), START, 6)
    for i in range(3):
        alone = lbfgs(Problem(net, objectives.distance(goal[i : i + 1])), START[i : i + 1], 6)
        np.testing.assert_allclose(together.image[i], alone.image[0], atol=1e-2)


def test_an_error_in_one_evaluation_ends_all_runs(net):
    def fail(moment):
        raise RuntimeError("broken callback")

    with pytest.raises(RuntimeError, match="broken callback"):
        lbfgs(Problem(net, objectives.l2()), START, 5, callback=fail)
