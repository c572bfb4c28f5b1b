"""Memory of batches is used again, and never while something refers to it."""

import gc

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax.data.memory import Memory


def where(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_when_its_array_is_gone():
    memory = Memory()
    first = memory.array(4, 8, 8, 3)
    place = where(first)
    assert where(memory.array(4, 8, 8, 3)) != place
    del first
    assert place in {where(array) for array in (memory.array(4, 8, 8, 3), memory.array(4, 8, 8, 3))}


def test_memory_is_writable_and_of_the_shape_that_was_asked_for():
    array = Memory().array(2, 5, 5, 3)
    array[...] = 7
    assert (array.shape, array.dtype) == ((2, 5, 5, 3), np.uint8)
    assert array.flags.c_contiguous


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([64, 96]), st.integers(0, 5)), max_size=60))
def test_what_is_kept_is_never_overwritten(asked: list[tuple[int, int]]):
    memory = Memory()
    kept: dict[int, tuple[np.ndarray, int]] = {}
    for number, (size, slot) in enumerate(asked):
        array = memory.array(2, size)
        array[...] = number
        kept[slot] = array[1, size // 2 :], number  # a view is enough to keep it
        for part, content in kept.values():
            assert (part == content).all()


def test_what_is_on_a_device_is_never_overwritten():
    memory = Memory()  # devices that are the host may take the array's memory as it is
    on_device = []
    for number in range(20):
        array = memory.array(64, 64)
        array[...] = number
        on_device.append(jax.device_put(array))
        del array
        gc.collect()
    for number, array in enumerate(on_device):
        assert (np.asarray(array) == number).all()
