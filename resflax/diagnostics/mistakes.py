"""Which classes a network confuses, and its most confident mistakes."""

from dataclasses import dataclass

import jax
import numpy as np

from resflax.devices.compilation import compile_fast
from resflax.diagnostics.inspected import InspectedNetwork, apply


@dataclass(frozen=True)
class Mistake:
    """A picture that was classified wrongly."""

    picture: int
    """Number of the picture among the network's pictures."""
    label: int
    """Number of the true class."""
    guess: int
    """Number of the class that the network finds most probable."""
    confidence: float
    """Softmax probability of the guess."""


def probabilities(network: InspectedNetwork) -> np.ndarray:
    """Softmax probabilities (N, classes) of the network's pictures."""
    run = compile_fast(
        lambda v, images: jax.nn.softmax(apply(network.module, v, images, train=False))
    )
    return np.asarray(run(network.variables, network.images))


def confusion(labels: np.ndarray, guessed: np.ndarray) -> np.ndarray:
    """The confusion matrix (classes, classes) int64, which counts pictures.

    A row is a true class, and a column is a guess: the most probable class.

    Args:
      labels: (N,) true classes.
      guessed: (N, classes) probabilities.
    """
    counts = np.zeros((guessed.shape[1],) * 2, np.int64)
    np.add.at(counts, (labels, guessed.argmax(1)), 1)
    return counts


def surest_mistakes(labels: np.ndarray, guessed: np.ndarray, count: int) -> list[Mistake]:
    """The wrong guesses with the greatest probabilities, greatest first.

    Args:
      labels: (N,) true classes.
      guessed: (N, classes) probabilities.
      count: the largest number of mistakes to return.
    """
    guess = guessed.argmax(1)
    wrong = np.flatnonzero(guess != labels)
    order = wrong[np.argsort(-guessed[wrong, guess[wrong]], kind="stable")]
    return [
        Mistake(int(i), int(labels[i]), int(guess[i]), float(guessed[i, guess[i]]))
        for i in order[:count]
    ]
