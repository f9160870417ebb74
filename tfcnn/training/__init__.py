"""Training as functions: a config and a folder in, a release out.

    from tfcnn import datasets, training
    trained = training.train_classifier(model, datasets.open("digits"), datasets.open("digits", split="val"),
                                        training.ClassifierConfig(epochs=3), "out/digits")

`fit` runs any trainee by a config, `train` is the loop beneath it. TensorFlow is imported by the first function
that is asked for.
"""

import importlib
from typing import TYPE_CHECKING

from tfcnn.training.config import ClassifierConfig, TrainingConfig

if TYPE_CHECKING:
    from tfcnn.training.classifier import train_classifier
    from tfcnn.training.loop import Result, train
    from tfcnn.training.run import Trained, fit

__all__ = ["ClassifierConfig", "Result", "Trained", "TrainingConfig", "fit", "train", "train_classifier"]

_HOME = {
    "train_classifier": "classifier",
    "Result": "loop",
    "train": "loop",
    "Trained": "run",
    "fit": "run",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
