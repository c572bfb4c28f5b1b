"""Compiled programs kept between processes, so that a second start need not compile again."""

import hashlib
import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from resflax.cache import cache_folder


def compile_fast(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` for what runs once: compiling it well would take longer than running it.

    What it works on is to be passed in: of constants XLA would compute the results itself, slowly.
    """
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def keep_compiled() -> None:
    """Turns on JAX's persistent compilation cache, in a folder of this JAX and this processor.

    JAX's key has its version, the program, its options and the kind of device, but not the
    instructions of the processor it was compiled for, and home folders are shared between
    machines. A cache that the user has set, or a folder that cannot be made, is left alone.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    folder = cache_folder("compiled") / f"{metadata.version('jaxlib')}-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _processor() -> str:
    """8 hex digits for the kind of processor and its instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts = sorted({x for x in lines if x.startswith(("model name", "flags", "Features"))})
    except OSError:
        facts = [platform.machine(), platform.processor()]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]
