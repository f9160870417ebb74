"""Fooling: pictures changed too little to see, and yet classified as something else.

    from tfcnn import backbones, fooling
    result = fooling.attack(backbones.classifier("efficientnet_lite0"), images, labels, method="pgd", eps=4)
    print(result.success_rate, result.after, result.linf)

TensorFlow is imported by the first name that is asked for.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfcnn.fooling.attacks import METHODS, Attack, Attacked, attack

__all__ = ["METHODS", "Attack", "Attacked", "attack"]


def __getattr__(name: str):
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.attacks"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
