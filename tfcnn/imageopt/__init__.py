"""Optimising an image: one loop for class models, inversion, dreams, style and attacks."""

from tfcnn.imageopt import constraints, objectives, optimizers, parameters, transforms
from tfcnn.imageopt.lbfgs import lbfgs
from tfcnn.imageopt.objectives import IMAGE, Objective
from tfcnn.imageopt.optimize import Moment, Problem, Result, maximize, minimize
from tfcnn.imageopt.stages import Stage, through
from tfcnn.imageopt.taps import any_size, layer_names, tapped

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
    "optimizers",
    "tapped",
    "through",
    "transforms",
]
