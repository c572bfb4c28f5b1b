"""How programs are compiled, and where compiled programs are kept between processes."""

import hashlib
import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from resflax.cache import cache_folder
from resflax.devices.compiled_cache import remove_damaged
from resflax.errors import UsageError
from resflax.paths import user_path

_CPU_LIBRARY_OPTION = "xla_cpu_experimental_ynn_fusion_type"


def compile_fast(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` with little optimisation, for a function that runs once.

    Optimising such a function would take longer than it saves. Pass arrays as arguments and do not
    close over them, because XLA would compute what depends on constants while it compiles, slowly.
    """
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def compile_as_called(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` of a function that runs once, with the numbers of its operations called one by one.

    The lowest level of optimisation rounds differently, because it has no fused multiply-add. Each
    higher level takes longer to compile. XLA's algebra would join constants of several operations.
    """
    return jax.jit(
        function,
        compiler_options={"xla_backend_optimization_level": 1, "xla_disable_hlo_passes": "algsimp"},
    )


def compile_for(platform: str, lowered: Any) -> Any:
    """Compiles a lowered function with the compiler options that are fastest on a platform.

    If XLA does not know the options, it compiles without them.
    """
    try:
        return lowered.compile(compiler_options=_compiler_options(platform, lowered))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise
        return lowered.compile()


def _compiler_options(platform: str, lowered: Any) -> dict[str, str] | None:
    """The compiler options that are fastest on a platform; None for XLA's defaults.

    On CPUs, a library (YNNPACK) computes elementwise work and reductions, but no convolution on its
    own. ResNets train 2 to 4 times as fast with it (benchmarks/notes.md).
    """
    if platform != "cpu":
        return None
    if "bf16" in lowered.as_text():  # JAX 0.12 uses it by default, and bfloat16 becomes NaN
        return {_CPU_LIBRARY_OPTION: ""}
    return {_CPU_LIBRARY_OPTION: "LIBRARY_FUSION_TYPE_ELTWISE,LIBRARY_FUSION_TYPE_REDUCE"}


def keep_compiled() -> None:
    """Turns on JAX's persistent compilation cache, in a folder for this JAX and this processor.

    JAX's own cache key covers the version of JAX, the program, its options and the kind of device.
    It does not cover the processor's instruction set, and home folders may be shared between
    different machines. If the user has set a cache, it is kept. If the folder cannot be made or
    written to, the cache stays off.

    Raises `UsageError` if the user's cache is in a home folder that is not known.
    """
    users_own = jax.config.values["jax_compilation_cache_dir"]
    if users_own is not None:
        if users_own.startswith("~"):  # JAX would make a folder of that name
            jax.config.update("jax_compilation_cache_dir", str(user_path(users_own)))
        return
    try:
        folder = cache_folder("compiled") / f"{metadata.version('jaxlib')}-{_processor()}"
        folder.mkdir(parents=True, exist_ok=True)
        remove_damaged(folder)
    except (OSError, UsageError):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _processor() -> str:
    """8 hex digits that identify the model of the processor and its instruction set."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts = sorted({x for x in lines if x.startswith(("model name", "flags", "Features"))})
    except OSError:
        facts = [platform.machine(), platform.processor()]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]
