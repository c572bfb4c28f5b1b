"""Memory: how much a compiled step needs, and how much its devices have left."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from resflax.errors import TrainingError, UsageError

_ADVICE = "reduce batch_size or the network's depth, or set precision to bfloat16"


def check_fits(needed: int, devices: Sequence[jax.Device]) -> None:
    """Raises `UsageError` if a device is known to have fewer than `needed` bytes left."""
    left = available(devices)
    if left is not None and needed > left:
        raise UsageError(
            f"a step needs {_gib(needed)} of memory on each of {len(devices)} devices, and "
            f"{_gib(left)} are left; {_ADVICE}"
        )


def step_bytes(compiled: Any) -> int | None:
    """Bytes that a compiled step and its arguments need on one device; None if XLA cannot tell."""
    sizes = compiled.memory_analysis()
    if sizes is None:
        return None
    needed: int = (
        sizes.temp_size_in_bytes
        + sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        - sizes.alias_size_in_bytes
    )
    return needed


def available(devices: Sequence[jax.Device]) -> int | None:
    """Bytes left on the device that has the least; None if unknown.

    CPU devices are counted as having equal shares of the machine's memory.
    """
    if devices[0].platform == "cpu":
        left = [count for count in (_machine(), _control_group()) if count is not None]
        return min(left) // len(devices) if left else None
    stats = [device.memory_stats() or {} for device in devices]
    if not all("bytes_limit" in stat for stat in stats):
        return None
    return min(stat["bytes_limit"] - stat.get("bytes_in_use", 0) for stat in stats)


def _machine() -> int | None:
    """Linux's own estimate of the bytes that a new program can have."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def _control_group() -> int | None:
    """Bytes that a container or a batch job has left (control groups, version 2)."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        own = next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
    except (OSError, StopIteration):
        return None
    left = []
    for group in (root / own, *(root / own).parents):
        with contextlib.suppress(OSError, ValueError, KeyError):
            limit = int(
                (group / "memory.max").read_text("ascii")
            )  # the text is "max" if there is none
            used = int((group / "memory.current").read_text("ascii"))
            stat = dict(x.split() for x in (group / "memory.stat").read_text("ascii").splitlines())
            left.append(limit - used + int(stat["file"]))  # cached files are dropped on demand
    return min(left) if left else None


@contextlib.contextmanager
def exhaustion(kind: type[UsageError] | type[TrainingError]) -> Iterator[None]:
    """Turns a failed allocation, on a device or the host, into a one-line error of type `kind`."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise kind(f"the device is out of memory; {_ADVICE}") from error
    except MemoryError as error:
        raise kind(f"this machine is out of memory; {_ADVICE}") from error


def _gib(count: int) -> str:
    return f"{count / 2**30:,.2f} GiB"
