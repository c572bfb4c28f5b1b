"""Memory for batches of pictures, used again and again."""

import math
from typing import Any

import numpy as np


class Memory:
    """Where arrays come from whose memory is used again once nothing refers to them.

    The system clears each page of new memory, which takes a few percent of the time to decode
    pictures into it. One thread at a time may ask for arrays; any may drop them.
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []

    def array(self, *shape: int) -> np.ndarray:
        """A new array of uint8; what is in it is left over from others."""
        size = math.prod(shape)
        while self._free:
            memory = self._free.pop()
            if memory.size == size:
                break  # what is of another size is given back to the system
        else:
            memory = np.empty(size, np.uint8)
        return np.asarray(_Lease(memory.reshape(shape), self._free))


class _Lease:
    """Holds memory for an array and its views, of which it is the base: it goes when all did."""

    def __init__(self, array: np.ndarray, free: list[np.ndarray]) -> None:
        self._array, self._free = array, free

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._array.__array_interface__

    def __del__(self) -> None:
        self._free.append(self._array.reshape(-1))
