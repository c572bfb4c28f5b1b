"""Memory of batches is used again, but never while something refers to it."""

import gc

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax.feeding.buffers import BufferPool


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_when_its_array_is_gone():
    pool = BufferPool()
    first = pool.array(4, 8, 8, 3)
    first_address = address(first)
    assert address(pool.array(4, 8, 8, 3)) != first_address
    del first
    later = [pool.array(4, 8, 8, 3) for _ in range(2)]
    assert first_address in {address(array) for array in later}


def test_arrays_are_writable_and_have_the_requested_shape():
    array = BufferPool().array(2, 5, 5, 3)
    array[...] = 7
    assert (array.shape, array.dtype) == ((2, 5, 5, 3), np.uint8)
    assert array.flags.c_contiguous


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([64, 96]), st.integers(0, 5)), max_size=60))
def test_arrays_in_use_are_never_overwritten(requests: list[tuple[int, int]]):
    pool = BufferPool()
    kept: dict[int, tuple[np.ndarray, int]] = {}
    for number, (size, slot) in enumerate(requests):
        array = pool.array(2, size)
        array[...] = number
        kept[slot] = array[1, size // 2 :], number  # a view keeps the memory, too
        for view, content in kept.values():
            assert (view == content).all()


def test_arrays_on_a_device_are_never_overwritten():
    pool = BufferPool()
    on_device = []  # where the device is the host, these may use the memory of the pool itself
    for number in range(20):
        array = pool.array(64, 64)
        array[...] = number
        on_device.append(jax.device_put(array))
        del array
        gc.collect(0)  # all generations of a long test session take seconds
    for number, array in enumerate(on_device):
        assert (np.asarray(array) == number).all()
