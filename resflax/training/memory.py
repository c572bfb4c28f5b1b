"""Memory: what a compiled step needs, what its devices have left, and what to do if it is short."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from resflax.errors import TrainingError, UsageError

_ADVICE = "reduce batch_size or the network's depth, or set precision to bfloat16"


def check_fits(needed: int, devices: Sequence[jax.Device]) -> None:
    """Raises `UsageError` if `needed` more bytes a device are known to be too many."""
    left = available(devices)
    if left is not None and needed > left:
        raise UsageError(
            f"a step needs {_gib(needed)} of memory on each of {len(devices)} devices, and "
            f"{_gib(left)} are left; {_ADVICE}"
        )


def step_bytes(compiled: Any) -> int | None:
    """What a compiled step takes on one device, arguments and all; None where XLA cannot say."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    return (
        found.temp_size_in_bytes
        + found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
    )


def available(devices: Sequence[jax.Device]) -> int | None:
    """Bytes left on a device, the least of all; None if unknown. CPU devices share the machine."""
    if devices[0].platform == "cpu":
        left = [found for found in (_machine(), _control_group()) if found is not None]
        return min(left) // len(devices) if left else None
    stats = [device.memory_stats() or {} for device in devices]
    if not all("bytes_limit" in found for found in stats):
        return None
    return min(found["bytes_limit"] - found.get("bytes_in_use", 0) for found in stats)


def _machine() -> int | None:
    """Linux's own estimate of what a new program can have."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def _control_group() -> int | None:
    """What a container or a batch system's job has left (control groups, version 2)."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        own = next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
    except (OSError, StopIteration):
        return None
    left = []
    for group in (root / own, *(root / own).parents):
        with contextlib.suppress(OSError, ValueError, KeyError):
            limit = int((group / "memory.max").read_text())  # "max" where there is none
            used = int((group / "memory.current").read_text())
            stat = dict(x.split() for x in (group / "memory.stat").read_text().splitlines())
            left.append(limit - used + int(stat["file"]))  # files are dropped on demand
    return min(left) if left else None


@contextlib.contextmanager
def exhaustion(kind: type[UsageError] | type[TrainingError]) -> Iterator[None]:
    """Turns a failed allocation, on a device or the host, into an error of one line."""
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
