"""What a network takes for what, and where it is sure and wrong."""

from dataclasses import dataclass

import jax
import numpy as np

from resflax.diagnostics.network import Network, apply
from resflax.training.compilation import compile_fast


@dataclass(frozen=True)
class Mistake:
    """A picture that was classified wrongly."""

    picture: int
    """Place in the network's pictures."""
    label: int
    guess: int
    confidence: float
    """Softmax probability of the guess."""


def probabilities(network: Network) -> np.ndarray:
    """(N, classes) softmax of the pictures' logits."""
    run = compile_fast(
        lambda v, images: jax.nn.softmax(apply(network.module, v, images, train=False))
    )
    return np.asarray(run(network.variables, network.images))


def confusion(labels: np.ndarray, guessed: np.ndarray) -> np.ndarray:
    """(classes, classes) counts: row the true class, column the guess.

    Args:
      labels: (N,) true classes.
      guessed: (N, classes) probabilities.
    """
    found = np.zeros((guessed.shape[1],) * 2, np.int64)
    np.add.at(found, (labels, guessed.argmax(1)), 1)
    return found


def surest_mistakes(labels: np.ndarray, guessed: np.ndarray, count: int) -> list[Mistake]:
    """The wrong guesses with the greatest probability, surest first."""
    guess = guessed.argmax(1)
    wrong = np.flatnonzero(guess != labels)
    order = wrong[np.argsort(-guessed[wrong, guess[wrong]], kind="stable")]
    return [
        Mistake(int(i), int(labels[i]), int(guess[i]), float(guessed[i, guess[i]]))
        for i in order[:count]
    ]
