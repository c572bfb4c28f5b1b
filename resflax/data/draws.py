"""Random numbers that stay the same with every version of NumPy.

NumPy promises the raw output of its bit generators and of `SeedSequence`, but not what `Generator`
makes of it (NumPy Enhancement Proposal 19). A continued run must draw what it would have drawn
before, so everything here is computed from raw output. The results are those of `Generator` in
NumPy 1.17 to 2.4, to the bit.
"""

from collections.abc import Sequence
from operator import length_hint

import numpy as np


def permutation(examples: int, entropy: int | Sequence[int]) -> np.ndarray:
    """The numbers below `examples`, (examples,) int64, in random order.

    It equals `numpy.random.default_rng(entropy).permutation(examples)`: Fisher and Yates's shuffle,
    from the last place to the first. Each place is swapped with one that is not after it. That one
    is drawn from as many bits as its largest value has, until it is not too large. 32 bits come at
    a time: the lower half of PCG64's output, then the upper half.

    Args:
      examples: number of examples, below 2**32.
      entropy: one or more numbers of at least 0, which seed the order.
    """
    bits = np.random.PCG64(np.random.SeedSequence(entropy))
    order = list(range(examples))
    halves = np.empty(0, np.uint32)
    last = examples - 1
    while last > 0:
        # All places down to `lowest` have the same number of bits.
        mask = (1 << last.bit_length()) - 1
        lowest = mask // 2 + 1
        if not halves.size:
            halves = bits.random_raw((last - lowest) // 2 + 1).astype("<u8").view("<u4")
        left = iter((halves & mask).tolist())
        for place in left:
            if place <= last:
                order[last], order[place] = order[place], order[last]
                last -= 1
                if last < lowest:
                    break
        halves = halves[halves.size - length_hint(left) :]
    return np.array(order, np.int64)


class Doubles:
    """Numbers that are uniform in [0, 1), as `numpy.random.Generator.random` draws them."""

    def __init__(self, bits: np.random.BitGenerator) -> None:
        """`bits` is the source of all bits; 64 make a number."""
        self._bits = bits

    def draw(self, count: int) -> list[float]:
        """The next `count` numbers, which are multiples of 2**-53."""
        return ((self._bits.random_raw(count) >> np.uint64(11)) * 2.0**-53).tolist()
