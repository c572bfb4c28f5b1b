"""Which training examples a step takes, which depends only on the seed and the step.

Training runs through an endless sequence of epochs. Each epoch is a permutation of all examples,
drawn from (seed, epoch); it is the same with every version of the libraries. Step t takes the
positions from t * batch_size to (t + 1) * batch_size - 1. A batch may span two epochs, and every
example is seen exactly once in each epoch.
"""

from functools import lru_cache

import numpy as np

from resflax.data.cipher import shuffled
from resflax.data.draws import permutation

KEPT = 2**17
"""The largest number of examples whose permutations are kept in memory. For more examples, a block
cipher on the numbers from 0 to examples - 1 computes each entry of a permutation when it is needed.
The cipher is slow for few examples and fast for many."""


class ExampleOrder:
    """The order in which training takes its examples."""

    def __init__(self, examples: int, batch_size: int, seed: int) -> None:
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        self._permutation = lru_cache(maxsize=2)(self._draw)
        self._cipher_key = lru_cache(maxsize=2)(self._draw_key)

    def _draw(self, epoch: int) -> np.ndarray:
        return permutation(self.examples, (self.seed, epoch)).astype(np.int32)

    def _draw_key(self, epoch: int) -> int:
        return int(np.random.SeedSequence((self.seed, epoch)).generate_state(1)[0])

    def example(self, position: int) -> int:
        """The index of the example at a position of the sequence."""
        epoch, offset = divmod(position, self.examples)
        if self.examples <= KEPT:
            return int(self._permutation(epoch)[offset])
        return shuffled(offset, self.examples, self._cipher_key(epoch))

    def batch(self, step: int) -> np.ndarray:
        """The indices (batch_size,) int32 of the examples of a step, counted from 0."""
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
        """The number of passes over the examples that are done before a step; may be fractional."""
        return step * self.batch_size / self.examples
