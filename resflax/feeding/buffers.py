"""Reusable memory for batches of pictures."""

import math
from typing import Any

import numpy as np


class BufferPool:
    """Gives out arrays, and reuses their memory once nothing refers to them any more.

    The operating system clears each page of new memory, which takes a few percent of the time that
    it takes to decode pictures into it. Only one thread at a time may ask for arrays; any thread
    may drop them.
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []

    def array(self, *shape: int) -> np.ndarray:
        """A uint8 array of the given shape with arbitrary content."""
        size = math.prod(shape)
        while self._free:
            memory = self._free.pop()
            if memory.size == size:
                break  # memory of another size goes back to the operating system
        else:
            memory = np.empty(size, np.uint8)
        return np.asarray(_Lease(memory.reshape(shape), self._free))


class _Lease:
    """The base object of an array and its views. Once all of them are gone, the memory is free."""

    def __init__(self, array: np.ndarray, free: list[np.ndarray]) -> None:
        self._array, self._free = array, free

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._array.__array_interface__

    def __del__(self) -> None:
        self._free.append(self._array.reshape(-1))
