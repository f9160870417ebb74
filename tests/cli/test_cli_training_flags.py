"""A training's config from the flags of its fields' names."""

import pytest
from absl import flags
from absl.testing import flagsaver

from tfcnn.cli import training_flags
from tfcnn.errors import InputError
from tfcnn.training import ClassifierConfig, TrainingConfig


@pytest.fixture(autouse=True)
def parsed():
    before = flags.FLAGS.is_parsed()
    flags.FLAGS.mark_as_parsed()
    yield
    if not before:
        flags.FLAGS.unparse_flags()


def test_flags_are_the_fields_of_their_names():
    values = {
        "steps": 7,
        "batch_size": 3,
        "clip_norm": 0.0,
        "freeze": ["stem", "block*"],
        "seed": 5,
        "threads": 2,
    }
    with flagsaver.flagsaver(**values, optimizer="sgd", check_memory=False):
        config = training_flags.config(ClassifierConfig, image_size=64, resume=False)
    assert (config.steps, config.batch_size, config.clip_norm, config.seed) == (7, 3, 0.0, 5)
    assert (config.freeze, config.optimizer, config.threads) == (("stem", "block*"), "sgd", 2)
    assert (config.image_size, config.resume, config.check_memory) == (64, False, False)


def test_a_flag_that_is_not_given_leaves_the_fields_default():
    with flagsaver.flagsaver():
        config = training_flags.config(TrainingConfig, epochs=3.0)
    assert (config.epochs, config.steps, config.image_size, config.augment) == (3.0, None, None, None)
    defaults = TrainingConfig()
    for name in ("learning_rate", "schedule", "warmup", "weight_decay", "clip_norm", "average", "optimizer"):
        assert getattr(config, name) == getattr(defaults, name)


def test_steps_and_epochs_exclude_each_other():
    with flagsaver.flagsaver(steps=7, epochs=2.0), pytest.raises(InputError, match="give one of them"):
        training_flags.config(TrainingConfig)


def test_an_estimate_of_memory_names_the_flag_that_overrules_it():
    from tfcnn.training.memory import MemoryEstimate

    class Run:
        flags, flag_names, app, net, stop, say, runtime = flags.FLAGS, [], "x", None, None, None, None

    Run.runtime = type("Runtime", (), {"strategy": None})
    with pytest.raises(InputError, match="9 GiB.*--check_memory=false"), training_flags.told(Run):
        raise MemoryEstimate("A step of training takes about 9 GiB")
