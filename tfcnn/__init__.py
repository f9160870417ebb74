"""tfcnn implements the methods of a lecture on convolutional neural networks in TensorFlow and Keras 3: localization
and pose, object detection, looking inside a trained network, DeepDream and neural style, and fooling.

The package is lazy: TensorFlow is imported by the first part that needs it, so `import tfcnn` costs nothing.
"""

import importlib
import importlib.util
import pkgutil
from typing import TYPE_CHECKING, Any

from tfcnn.version import __version__

if TYPE_CHECKING:
    from tfcnn.kinds import detector, localizer, pose_estimator
    from tfcnn.loading import load_model

__all__ = ["__version__", "detector", "load_model", "localizer", "pose_estimator"]

_HOME = {"detector": "kinds", "load_model": "loading", "localizer": "kinds", "pose_estimator": "kinds"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(module.name for module in pkgutil.iter_modules(__path__))})
