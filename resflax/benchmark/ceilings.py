"""What this device can do at most, measured: matrix products and copies."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from resflax.benchmark.contender import Precision


@dataclass(frozen=True)
class Ceilings:
    """Of one device and precision."""

    flops_per_second: float
    """Of a product of two square matrices; 1 multiply-add counts 2."""
    bytes_per_second: float
    """Read and written while a large array is copied."""


def measure_ceilings(precision: Precision) -> Ceilings:
    """Measures the first device; a few seconds."""
    on_cpu = jax.default_backend() == "cpu"
    side, length = (2048, 2**26) if on_cpu else (8192, 2**30)
    matrix = jnp.ones((side, side), precision)
    product = _seconds(jax.jit(lambda a: a @ a), matrix)
    array = jnp.ones((length // matrix.itemsize,), precision)
    copy = _seconds(jax.jit(lambda a: a + 1), array)
    return Ceilings(2 * side**3 / product, 2 * array.nbytes / copy)


def _seconds(function: Callable[[Any], Any], argument: Any) -> float:
    function(argument).block_until_ready()
    found = []
    for _ in range(7):
        start = time.perf_counter()
        function(argument).block_until_ready()
        found.append(time.perf_counter() - start)
    return statistics.median(found)
