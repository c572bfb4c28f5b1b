"""Residual and dense networks in JAX/Flax, from a declaration to a table and pictures.

The names below are what an experiment file imports. None of them imports JAX.
"""

from resflax.declarations.augmentation import Augmentation
from resflax.declarations.data import CIFAR10, CIFAR100, TFDS, Digits
from resflax.declarations.models import DenseNet, ResNet
from resflax.declarations.optimization import SGD, Cosine, StepDecay
from resflax.declarations.sweeps import Choice, Grid, Integers, LogUniform, Search, Uniform
from resflax.errors import TrainingError, UsageError
from resflax.experiment import Experiment

__all__ = [
    "Augmentation",
    "CIFAR10",
    "CIFAR100",
    "SGD",
    "TFDS",
    "Choice",
    "Cosine",
    "DenseNet",
    "Digits",
    "Experiment",
    "Grid",
    "Integers",
    "LogUniform",
    "ResNet",
    "Search",
    "StepDecay",
    "TrainingError",
    "Uniform",
    "UsageError",
]
