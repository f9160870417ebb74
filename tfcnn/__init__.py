"""tfcnn: what convolutional nets can do beyond naming a picture.

The package is lazy: TensorFlow is imported by the first part that needs it, so `import tfcnn` costs nothing.
"""

import importlib
import importlib.util

from tfcnn.version import __version__

__all__ = ["__version__", "load_model"]


def __getattr__(name):
    if name == "load_model":
        return importlib.import_module(".loading", __name__).load_model
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
