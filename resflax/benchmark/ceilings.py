"""Measures the limits of this device: its speed in matrix products and in copies."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from resflax.benchmark.contender import Precision

_REPETITIONS = 7


@dataclass(frozen=True)
class Ceilings:
    """The measured limits of one device in one precision."""

    flops_per_second: float
    """Operations per second in a product of two square matrices; a multiply-add counts as 2."""
    bytes_per_second: float
    """Bytes read and written per second while a large array is copied."""


def measure_ceilings(precision: Precision) -> Ceilings:
    """Measures the limits of the first device. This takes a few seconds."""
    on_cpu = jax.default_backend() == "cpu"
    side, length = (2048, 2**26) if on_cpu else (8192, 2**30)
    matrix = jnp.ones((side, side), precision)
    product_seconds = _median_seconds(jax.jit(lambda a: a @ a), matrix)
    array = jnp.ones((length // matrix.itemsize,), precision)
    copy_seconds = _median_seconds(jax.jit(lambda a: a + 1), array)
    return Ceilings(2 * side**3 / product_seconds, 2 * array.nbytes / copy_seconds)


def _median_seconds(function: Callable[[Any], Any], argument: Any) -> float:
    """The median time of a call, after a first one that compiles the function."""
    function(argument).block_until_ready()
    times = []
    for _ in range(_REPETITIONS):
        start = time.perf_counter()
        function(argument).block_until_ready()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
