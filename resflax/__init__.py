"""Residual and dense networks in JAX/Flax, from a declaration to tables and figures.

The names below are for experiment files, and the functions among them for Python programs and
notebooks (docs/python.md). Importing them does not import JAX.
"""

from resflax.api import evaluate, load, results, train
from resflax.declarations.augmentation import Augmentation
from resflax.declarations.data import (
    CIFAR10,
    CIFAR100,
    TFDS,
    Digits,
    ImageFolder,
    ImageNet,
    Streamed,
)
from resflax.declarations.models import Custom, DenseNet, ResNet
from resflax.declarations.optimization import LAMB, LARS, SGD, AdamW, Cosine, Polynomial, StepDecay
from resflax.declarations.own import Own
from resflax.declarations.sweeps import Choice, Grid, Integers, LogUniform, Search, Uniform
from resflax.errors import TrainingError, UsageError
from resflax.experiment import Experiment

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "LAMB",
    "LARS",
    "SGD",
    "TFDS",
    "AdamW",
    "Augmentation",
    "Choice",
    "Cosine",
    "Custom",
    "DenseNet",
    "Digits",
    "Experiment",
    "Grid",
    "ImageFolder",
    "ImageNet",
    "Integers",
    "LogUniform",
    "Own",
    "Polynomial",
    "ResNet",
    "Search",
    "StepDecay",
    "Streamed",
    "TrainingError",
    "Uniform",
    "UsageError",
    "evaluate",
    "load",
    "results",
    "train",
]
