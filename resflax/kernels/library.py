"""Loads the library of kernels and makes its functions known to JAX, once in a process.

The library is optional: a process in which it is off, was not built or cannot be loaded has none.
Importing this module does not import JAX.
"""

import ctypes
import functools
import os
import re
import threading
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from resflax.errors import UsageError
from resflax.kernels.threads import allowed_threads
from resflax.text import one_line

VERSION: int = 1
"""The version of the functions' arguments and results.

It is part of their names, because the key of a kept compiled program has these names in it, and
nothing else of the library."""

TARGETS: tuple[str, ...] = ("Forward", "Backward")
"""The functions of the library that compiled programs call."""

LIBRARY = Path(__file__).with_name("libresflax_kernels.so")

NOT_BUILT = "they were not built"

_SWITCH = "RESFLAX_KERNELS"
_LOCK = threading.Lock()


@dataclass(frozen=True)
class State:
    """Whether this process has the kernels."""

    instruction_set: str | None = None
    """That of their loops: `avx512`, `avx2` or `baseline`. None if the process has no kernels."""
    fault: str | None = None
    """Why it has none; None if it has them, or if RESFLAX_KERNELS is off."""

    def to_json(self) -> dict[str, Any]:
        """The version and the instruction set, or why there are no kernels."""
        if self.instruction_set is not None:
            return {"version": VERSION, "instruction_set": self.instruction_set}
        return {"without": self.fault or f"{_SWITCH} is off"}


def state() -> State:
    """Whether this process has the kernels; the first call loads them.

    Raises `UsageError` if RESFLAX_KERNELS is neither on nor off.
    """
    switch = os.environ.get(_SWITCH, "")
    if switch not in ("", "on", "off"):
        raise UsageError(f"{_SWITCH} is {switch!r}; it must be on or off (not set: on)")
    if switch == "off":
        return State()
    with _LOCK:
        return _loaded(LIBRARY)


def load() -> bool:
    """Whether programs can call the functions of the library; the first call loads it."""
    return state().instruction_set is not None


def target(symbol: str) -> str:
    """The name by which programs call a function of the library."""
    return f"resflax_{re.sub('(?<!^)(?=[A-Z])', '_', symbol).lower()}_v{VERSION}"


@functools.cache
def _loaded(path: Path) -> State:
    if not path.exists():
        return State(fault=NOT_BUILT)
    try:
        _check_whole(path)
        library = ctypes.CDLL(str(path))
        functions = {target(symbol): getattr(library, symbol) for symbol in TARGETS}
        version = library.resflax_kernels_version()
        if version != VERSION:
            raise ValueError(f"it has version {version}, and this resflax needs {VERSION}")
        return _known_to_jax(library, functions)
    except (OSError, AttributeError, ValueError) as error:
        return State(fault=f"{path.name} cannot be loaded: {one_line(error)}")


def _check_whole(path: Path) -> None:
    """Raises `ValueError` if the end of the file is missing: loading it would end the process."""
    with path.open("rb") as file:
        header = file.read(64)
    if header.startswith(b"\x7fELF\x02\x01"):  # little-endian, of 64 bits; its last part is a table
        start = int.from_bytes(header[40:48], "little")
        size, count = (int.from_bytes(header[at : at + 2], "little") for at in (58, 60))
        if path.stat().st_size < start + size * count:
            raise ValueError("its end is missing")


def _known_to_jax(library: ctypes.CDLL, functions: dict[str, Any]) -> State:
    """Registers the functions with JAX, unless the library was made for a later version.

    JAX would notice that only when it looks for its devices, and find none.
    """
    import jax

    headers = Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h").read_text(
        encoding="utf-8"
    )
    of_jax = tuple(
        int(re.findall(rf"#define XLA_FFI_API_{part} (\d+)", headers)[0])
        for part in ("MAJOR", "MINOR")
    )
    made_for = divmod(library.resflax_kernels_ffi_version(), 1000)
    if made_for[0] != of_jax[0] or made_for > of_jax:
        raise ValueError(
            f"it was made for another version of jaxlib than {metadata.version('jaxlib')}"
        )
    for name, function in functions.items():
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(function), platform="cpu")
    library.resflax_kernels_set_threads(allowed_threads())
    library.resflax_kernels_instruction_set.restype = ctypes.c_char_p
    return State(library.resflax_kernels_instruction_set().decode())
