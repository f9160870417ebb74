"""Optimising an image: one loop for class models, inversion, dreams, style and attacks."""

from tfcnn.imageopt import constraints, objectives, optimizers, parameters, transforms
from tfcnn.imageopt.lbfgs import lbfgs
from tfcnn.imageopt.objectives import IMAGE, Objective
from tfcnn.imageopt.optimize import Moment, Phase, Problem, Result, maximize, minimize, through
from tfcnn.imageopt.tiles import TiledProblem

__all__ = [
    "IMAGE",
    "Moment",
    "Objective",
    "Problem",
    "Result",
    "Phase",
    "TiledProblem",
    "constraints",
    "lbfgs",
    "maximize",
    "minimize",
    "objectives",
    "optimizers",
    "parameters",
    "through",
    "transforms",
]
