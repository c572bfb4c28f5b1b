"""A random order of any number of examples, of which each entry is computed on its own.

It is `index_shuffle` of the library grain, which calls it experimental, so it may change there. A
continued run needs the same order as before, so it is computed here, with the same results. They
differ only for 2**16 + 1, 2**18 + 1, 2**20 + 1, ... examples, of which grain repeats one.
"""

from functools import lru_cache

_ROUNDS = 4
_LEAST_BITS = 16
_WORD = 2**32 - 1


def shuffled(index: int, examples: int, seed: int) -> int:
    """The entry at a place of a random order of the numbers below `examples`.

    A block cipher on numbers of as many bits as the largest one has is a permutation of these
    numbers. Where it gives one that is too large, it is applied again (Black and Rogaway 2002,
    "Ciphers with arbitrary finite domains", section 4). The cipher is that of Beaulieu et al. 2013,
    "The SIMON and SPECK families of lightweight block ciphers", with four rounds and other keys.

    Args:
      index: the place, at least 0 and below `examples`.
      examples: length of the order.
      seed: chooses the order; at least 0 and below 2**32.
    """
    last = examples - 1
    if last == 0:
        return 0
    half = (max(last.bit_length(), _LEAST_BITS) + 1) // 2
    mask = (1 << half) - 1
    keys = _keys(seed)
    while True:
        left, right = index >> half & mask, index & mask
        for key in keys:
            turned = right << 1 | right >> half - 1
            by_eight = right << 8 | right >> half - 8
            by_two = right << 2 | right >> half - 2
            left, right = right, (left ^ turned & by_eight ^ by_two ^ key) & mask
        index = left << half | right
        if index <= last:
            return index


@lru_cache(maxsize=64)
def _keys(seed: int) -> tuple[int, ...]:
    """The keys of the rounds, from `std::seed_seq` of the C++ standard (rand.util.seedseq)."""
    keys = [0x8B8B8B8B] * _ROUNDS
    for k in range(_ROUNDS):
        mixed = _mix(keys[k] ^ keys[(k + 1) % _ROUNDS] ^ keys[k - 1]) * 1664525 & _WORD
        added = mixed + (1 if k == 0 else k + seed if k == 1 else k) & _WORD
        keys[(k + 1) % _ROUNDS] = keys[(k + 1) % _ROUNDS] + mixed & _WORD
        keys[(k + 2) % _ROUNDS] = keys[(k + 2) % _ROUNDS] + added & _WORD
        keys[k] = added
    for k in range(_ROUNDS):
        total = keys[k] + keys[(k + 1) % _ROUNDS] + keys[k - 1] & _WORD
        mixed = _mix(total) * 1566083941 & _WORD
        subtracted = mixed - k & _WORD
        keys[(k + 1) % _ROUNDS] ^= mixed
        keys[(k + 2) % _ROUNDS] ^= subtracted
        keys[k] = subtracted
    return tuple(keys)


def _mix(word: int) -> int:
    return word ^ word >> 27
