"""Several hosts that work together: the same command on each, and the first one writes.

All of them take the same decisions, so whatever decides must be the same on all: what the first
one finds in the run's folder, and whether a signal came to any. Alone, a host asks nobody.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from resflax.errors import TrainingError, UsageError

T = TypeVar("T")

AUTO = "auto"


def join(hosts: str) -> None:
    """Makes this process one of several hosts.

    Args:
      hosts: `auto` where SLURM, Open MPI or a TPU pod tells JAX who the others are; else
        ADDRESS:PORT,COUNT,NUMBER: of the first host, how many there are, and which this one is.

    Raises:
      UsageError: if that is not understood, or the others are not found.
    """
    try:
        if hosts == AUTO:
            jax.distributed.initialize()
        else:
            address, count, number = _parse(hosts)
            jax.distributed.initialize(address, count, number)
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


def check_same(value: str) -> None:
    """Raises `UsageError` on all hosts unless they were all given the same."""
    if several():
        own = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)
        if (_gather(own) != own).any():
            raise UsageError("the hosts were given different experiments, files or fields")


def by_first(make: Callable[[], T]) -> T:
    """What the first host makes, on all of them.

    Args:
      make: gives something that JSON can hold; it is called on the first host alone.

    Raises:
      UsageError, TrainingError: on all hosts, if it does so on the first.
    """
    if not several():
        return make()
    if not first():
        kind, found = json.loads(_broadcast(b""))
        if kind == "value":
            made: T = found
            return made
        raise UsageError(found) if kind == "UsageError" else TrainingError(found)
    try:
        value = make()
    except (UsageError, TrainingError) as error:
        kind = "UsageError" if isinstance(error, UsageError) else "TrainingError"
        _broadcast(json.dumps([kind, str(error)]).encode())
        raise
    _broadcast(json.dumps(["value", value]).encode())
    return value


def highest(number: int) -> int:
    """The highest of all hosts' numbers."""
    return int(_gather(np.array([number])).max()) if several() else number


def united(own: dict[int, str]) -> dict[int, str]:
    """All that any host has."""
    if not several():
        return own
    text = np.frombuffer(json.dumps(list(own.items())).encode(), np.uint8)
    longest = highest(len(text))
    padded = np.full(longest, ord(" "), np.uint8)
    padded[: len(text)] = text
    parts = [json.loads(found.tobytes()) for found in _gather(padded)]
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


def _broadcast(content: bytes) -> bytes:
    """The first host's bytes, on all hosts."""
    length = highest(len(content))  # the others have none
    padded = np.zeros(length, np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    found: Any = multihost_utils.broadcast_one_to_all(padded)
    return np.asarray(found, np.uint8).tobytes()
