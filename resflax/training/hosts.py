"""Several hosts that work together: the same command on each, and the first one writes.

All of them take the same decisions, so whatever decides must be the same on all: what the first
one finds in the run's folder, and whether a signal came to any. Alone, a host asks nobody.
"""

import json
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from resflax.errors import TrainingError, UsageError

T = TypeVar("T")

AUTO = "auto"

_SHUTDOWN = 20  # seconds that a host that failed waits for the others


def join(hosts: str) -> None:
    """Makes this process one of several hosts.

    Args:
      hosts: `auto` where SLURM or Open MPI (a process for each GPU) or a TPU pod tells JAX who the
        others are; else ADDRESS:PORT,COUNT,NUMBER: of the first host, how many there are, and which
        this one is.

    Raises:
      UsageError: if that is not understood, or the others are not found.
    """
    address, count, number = _parse(hosts) if hosts != AUTO else (None, None, None)
    jax.config.update("jax_enable_preemption_service", False)  # it would keep SIGTERM from us
    try:
        jax.distributed.initialize(
            address,
            count,
            number,
            # Else SLURM's presence alone would leave this process one of its devices.
            cluster_detection_method=None if hosts == AUTO else "deactivate",
            shutdown_timeout_seconds=_SHUTDOWN,
        )
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"--hosts {hosts}: the other hosts were not found: {reason}") from None


def _parse(hosts: str) -> tuple[str, int, int]:
    parts = hosts.split(",")
    address, port = parts[0].rpartition(":")[::2]
    if len(parts) == 3 and address and all(p.isdecimal() for p in (port, *parts[1:])):
        count, number = map(int, parts[1:])
        if number < count:
            return parts[0], count, number
    raise UsageError(
        f"--hosts is {hosts}; it must be {AUTO}, or ADDRESS:PORT,COUNT,NUMBER with a number from 0 "
        "to COUNT - 1, such as node1:1234,2,0 on node1 and node1:1234,2,1 on the other"
    )


def several() -> bool:
    """Whether there are others."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def first() -> bool:
    """Whether this is the host that writes."""
    return not several() or jax.process_index() == 0


def check_same(what: str, value: str) -> None:
    """Raises `UsageError` on all hosts unless they all have the same of `what`."""
    if len(set(_texts(value))) > 1:
        raise UsageError(f"the hosts have different {what}; all need the same")


def by_first(make: Callable[[], T]) -> T:
    """What the first host makes, on all of them.

    Args:
      make: gives something that JSON can hold; it is called on the first host alone.

    Raises:
      UsageError, TrainingError: on all hosts, if it does so on the first.
    """
    value: list[T] = []

    def make_here() -> None:
        if first():
            value.append(make())

    by_all(make_here)
    found: T = value[0] if not several() else json.loads(_texts(json.dumps(value))[0])[0]
    return found


def by_all(make: Callable[[], T]) -> T:
    """What each host makes for itself.

    Args:
      make: asks no other host.

    Raises:
      UsageError, TrainingError: on all hosts, if it does so on any.
    """
    if not several():
        return make()
    try:
        value = make()
    except BaseException as error:  # whatever it is, the others must not wait
        kind = "UsageError" if isinstance(error, UsageError) else "TrainingError"
        _texts(json.dumps([kind, str(error) or type(error).__name__]))
        raise
    for text in filter(None, _texts("")):
        kind, said = json.loads(text)
        raise UsageError(said) if kind == "UsageError" else TrainingError(said)
    return value


def highest(number: int) -> int:
    """The highest of all hosts' numbers."""
    return int(_gather(np.array([number])).max()) if several() else number


def united(own: dict[int, str]) -> dict[int, str]:
    """All that any host has."""
    if not several():
        return own
    parts = map(json.loads, _texts(json.dumps(list(own.items()))))
    return {index: why for part in parts for index, why in part}


def part(count: int) -> range:
    """This host's part of so many things that are dealt out in order."""
    if not several():
        return range(count)
    host, of = jax.process_index(), jax.process_count()
    return range(count * host // of, count * (host + 1) // of)


def joined(own: np.ndarray) -> np.ndarray:
    """The arrays of all hosts, one behind the other along the first axis."""
    if not several():
        return own
    lengths = _gather(np.array([len(own)]))[:, 0]
    padded = np.zeros((lengths.max(), *own.shape[1:]), own.dtype)
    padded[: len(own)] = own
    found = _gather(padded)
    return np.concatenate([of[:length] for of, length in zip(found, lengths, strict=True)])


def _gather(array: np.ndarray) -> np.ndarray:
    """(hosts, ...): arrays of the same shape of all hosts."""
    found: np.ndarray = multihost_utils.process_allgather(array)
    return np.asarray(found).reshape(jax.process_count(), *array.shape)


def _texts(own: str) -> list[str]:
    """The texts of all hosts, in their order."""
    if not several():
        return [own]
    content = np.frombuffer(own.encode(), np.uint8)
    padded = np.zeros(highest(len(content)) + 1, np.uint8)
    padded[: len(content)] = content
    return [found.tobytes().rstrip(b"\0").decode() for found in _gather(padded)]
