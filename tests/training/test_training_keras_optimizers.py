"""Keras' optimizers and learning-rate schedules in the place of ours."""

import json

import keras
import numpy as np
import pytest
import small_training as small
import tensorflow as tf

from tfcnn.training.loop import train
from tfcnn.training.schedules import constant

STEPS = 6


def run(trainee, folder, optimizer, schedule=None, **settings):
    settings = {"steps": STEPS, "tensorboard": False, "say": lambda text: None} | settings
    batches = settings.pop("batches", small.batches())
    return train(trainee, batches, folder=folder, schedule=schedule, optimizer=optimizer, **settings)


def by_hand(optimizer):
    """The same steps by Keras alone."""
    trainee = small.SmallTrainee()
    net = trainee.networks["net"]
    for batch in small.batches()(0).take(STEPS):
        with tf.GradientTape() as tape:
            loss = tf.add_n(list(trainee.losses(batch).values())) / float(len(batch["label"]))
        optimizer.apply(tape.gradient(loss, net.trainable_variables), net.trainable_variables)
    return trainee.weights()


def falling():
    return keras.optimizers.schedules.PolynomialDecay(0.1, STEPS)


@pytest.mark.parametrize(
    ("make", "schedule"),
    [
        (lambda: keras.optimizers.Adam(0.02), None),
        (lambda: keras.optimizers.RMSprop(falling()), None),
        (lambda: keras.optimizers.SGD(0.5, momentum=0.9), falling),
    ],
    ids=["its own rate", "its own schedule", "a schedule beside it"],
)
def test_it_moves_the_weights_as_keras_does(tmp_path, make, schedule):
    trainee = small.SmallTrainee()
    run(trainee, tmp_path, make(), schedule and schedule())
    alone = make() if schedule is None else keras.optimizers.SGD(falling(), momentum=0.9)
    for name, expected in by_hand(alone).items():
        np.testing.assert_allclose(trainee.weights()[name], expected, atol=1e-5)


def test_our_optimizer_takes_a_schedule_of_keras(tmp_path):
    from tfcnn.training.optimizers import SGD

    ours, same = small.SmallTrainee(), small.SmallTrainee()
    run(ours, tmp_path / "a", SGD(), falling())
    run(same, tmp_path / "b", SGD(), lambda step: 0.1 * (1 - step / STEPS) + 1e-4 * step / STEPS)
    for name, weight in ours.weights().items():
        np.testing.assert_allclose(weight, same.weights()[name], atol=1e-6)


def test_its_own_rate_is_logged(tmp_path):
    run(small.SmallTrainee(), tmp_path, keras.optimizers.SGD(falling()))
    rates = [json.loads(line)["rate"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(rates) == STEPS and rates[0] > rates[-1] > 0


def test_it_goes_on_to_the_bit(tmp_path):
    whole, first, second = small.SmallTrainee(), small.SmallTrainee(), small.SmallTrainee()
    run(whole, tmp_path / "whole", keras.optimizers.Adam(0.02))
    run(first, tmp_path / "parts", keras.optimizers.Adam(0.02), steps=3)
    run(second, tmp_path / "parts", keras.optimizers.Adam(0.02))
    for name, weight in whole.weights().items():
        np.testing.assert_array_equal(weight, second.weights()[name])


def test_a_skipped_step_spares_its_state(tmp_path):
    image = small.arrays()["image"].copy()
    image[8:16] = np.inf
    trainee, optimizer = small.SmallTrainee(), keras.optimizers.Adam(0.02)
    result = run(trainee, tmp_path, optimizer, batches=small.batches(8, {"image": image}), steps=4)
    assert result.skipped == 1 and int(optimizer.iterations) == 3
    assert all(np.isfinite(v.numpy()).all() for v in optimizer.variables)


def test_what_does_not_hold_then_is_said(tmp_path):
    said = []
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    factors = {"kernel": 1.0, "bias": 0.3}
    run(small.SmallTrainee(), tmp_path, optimizer, multiplier=lambda v: factors[v.name], say=said.append)
    assert (
        "With Keras' AdamW every layer has the same learning rate, and weight decay takes biases" in said[0]
    )


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match="learning-rate schedule of its own"):
        run(small.SmallTrainee(), tmp_path, keras.optimizers.SGD(falling()), constant(0.1))
    with pytest.raises(ValueError, match="schedule is needed"):
        run(small.SmallTrainee(), tmp_path, None)
    with pytest.raises(ValueError, match="scales float16 losses itself"):
        inner = keras.optimizers.SGD(0.1)
        run(small.SmallTrainee(), tmp_path, keras.optimizers.LossScaleOptimizer(inner))
