"""Which examples a step sees: decided by the seed and the step alone.

Training is one endless row of epochs, each a permutation of all examples drawn from (seed,
epoch); step t takes positions t * batch_size onwards. A batch may span two epochs, and every
example is seen exactly once in each. No more than KEPT numbers of a permutation are in memory.
"""

import math
from functools import lru_cache

import numpy as np
from grain.experimental import index_shuffle

KEPT = 2**17
"""Permutations of up to so many examples are kept; of more, each place is computed when asked for,
by a block cipher on the numbers below the count. That is slow for few numbers, fast for many."""


class Order:
    """The order in which training takes its examples."""

    def __init__(self, examples: int, batch_size: int, seed: int) -> None:
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        self._permutation = lru_cache(maxsize=2)(self._draw)
        self._cipher_key = lru_cache(maxsize=2)(self._draw_key)

    def _draw(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(self.examples).astype(np.int32)

    def _draw_key(self, epoch: int) -> int:
        return int(np.random.SeedSequence((self.seed, epoch)).generate_state(1)[0])

    def example(self, position: int) -> int:
        """Index of the example at a position of the row."""
        epoch, offset = divmod(position, self.examples)
        if self.examples <= KEPT:
            return int(self._permutation(epoch)[offset])
        return index_shuffle(offset, self.examples - 1, seed=self._cipher_key(epoch), rounds=4)

    def batch(self, step: int) -> np.ndarray:
        """Indices (batch_size,) int32 of the examples of a step, counted from 0."""
        if self.examples > KEPT:
            first = step * self.batch_size
            return np.array([self.example(first + i) for i in range(self.batch_size)], np.int32)
        position, end = step * self.batch_size, (step + 1) * self.batch_size
        parts = []
        while position < end:
            epoch, offset = divmod(position, self.examples)
            parts.append(self._permutation(epoch)[offset : offset + end - position])
            position += len(parts[-1])
        return np.concatenate(parts)

    def epoch(self, step: int) -> float:
        """Passes over the examples made before a step."""
        return step * self.batch_size / self.examples

    def steps(self, epochs: float) -> int:
        """Steps that make at least so many passes."""
        return math.ceil(epochs * self.examples / self.batch_size)


def evaluation_batches(examples: int, batch_size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every example once: indices (batch_size,) int32 and weights (batch_size,) float32.

    The last batch is filled up with examples of weight 0.
    """
    batches = []
    for start in range(0, examples, batch_size):
        positions = np.arange(start, start + batch_size)
        weights = (positions < examples).astype(np.float32)
        batches.append((np.minimum(positions, examples - 1).astype(np.int32), weights))
    return batches
