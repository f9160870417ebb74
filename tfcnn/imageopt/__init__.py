"""Optimising an image: one loop for class models, inversion, dreams, style and attacks."""

from . import constraints, objectives, parameters, steps, transforms
from .lbfgs import lbfgs
from .objectives import IMAGE, Objective
from .optimize import Moment, Problem, Result, maximize, minimize
from .stages import Stage, through
from .taps import any_size, layer_names, tapped

__all__ = [
    "IMAGE",
    "Moment",
    "Objective",
    "Problem",
    "Result",
    "Stage",
    "any_size",
    "constraints",
    "layer_names",
    "lbfgs",
    "maximize",
    "minimize",
    "objectives",
    "parameters",
    "steps",
    "tapped",
    "through",
    "transforms",
]
