"""Several hosts that work together: the same command runs on each, and the first one writes.

All hosts must make the same decisions. So whatever a decision depends on must be equal on all of
them, such as what the first host sees in the run's folder, or whether any of them received a
signal. A single host does not communicate.
"""

import json
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from resflax.errors import TrainingError, UsageError
from resflax.text import one_line

T = TypeVar("T")

AUTO = "auto"

_SHUTDOWN = 20  # seconds that a failed host waits for the others


def join(hosts: str) -> None:
    """Makes this process one of several hosts.

    Args:
      hosts: `auto` if SLURM or Open MPI (one process for each GPU) or a TPU pod tells JAX about the
        other hosts; otherwise ADDRESS:PORT,COUNT,NUMBER with the address of the first host, the
        number of hosts, and the number of this host, counted from 0.

    Raises:
      UsageError: if `hosts` has neither form, or the other hosts are not found.
    """
    address, count, number = _parse(hosts) if hosts != AUTO else (None, None, None)
    jax.config.update("jax_enable_preemption_service", False)  # it would handle SIGTERM itself
    try:
        jax.distributed.initialize(
            address,
            count,
            number,
            # Otherwise JAX would detect SLURM, if present, and give this process a single device.
            cluster_detection_method=None if hosts == AUTO else "deactivate",
            shutdown_timeout_seconds=_SHUTDOWN,
        )
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"--hosts {hosts}: the other hosts were not found: {one_line(error)}"
        ) from None


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
    """Whether there are other hosts."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def first() -> bool:
    """Whether this is the first host, which alone writes files."""
    return not several() or jax.process_index() == 0


def check_same(what: str, value: str) -> None:
    """Raises `UsageError` on all hosts unless the value is equal on all of them."""
    if len(set(_gather_texts(value))) > 1:
        raise UsageError(f"the hosts have different {what}; all need the same")


def on_first(make: Callable[[], T]) -> T:
    """Calls a function on the first host alone and returns its result on all hosts.

    Args:
      make: the function; its result must be a JSON value.

    Raises:
      UsageError, TrainingError: on all hosts, if the function raises it on the first.
    """
    results: list[T] = []

    def make_here() -> None:
        if first():
            results.append(make())

    on_all(make_here)
    if not several():
        return results[0]
    result: T = json.loads(_text_of_first(json.dumps(results[0]) if first() else ""))
    return result


def on_all(make: Callable[[], T]) -> T:
    """Calls a function on every host and returns this host's own result.

    Args:
      make: the function, which must not communicate with other hosts.

    Raises:
      UsageError, TrainingError: on all hosts, if the function raises it on any.
    """
    if not several():
        return make()
    try:
        value = make()
    except BaseException as error:  # after any error, the others must not go on waiting
        kind = "UsageError" if isinstance(error, UsageError) else "TrainingError"
        _gather_texts(json.dumps([kind, str(error) or type(error).__name__]))
        raise
    for text in filter(None, _gather_texts("")):
        kind, message = json.loads(text)
        raise UsageError(message) if kind == "UsageError" else TrainingError(message)
    return value


def highest(number: int) -> int:
    """The highest of all hosts' numbers."""
    return int(_gather(np.array([number])).max()) if several() else number


def united(own: dict[int, str]) -> dict[int, str]:
    """One dictionary with the entries of all hosts' dictionaries."""
    if not several():
        return own
    parts = map(json.loads, _gather_texts(json.dumps(list(own.items()))))
    return {key: text for part in parts for key, text in part}


def part(count: int) -> range:
    """This host's part of the numbers below `count`, which the hosts share; it is consecutive."""
    if not several():
        return range(count)
    host, hosts = jax.process_index(), jax.process_count()
    return range(count * host // hosts, count * (host + 1) // hosts)


def joined(own: np.ndarray) -> np.ndarray:
    """The arrays of all hosts, concatenated along the first axis in the order of the hosts."""
    if not several():
        return own
    lengths = _gather(np.array([len(own)]))[:, 0]
    padded = np.zeros((lengths.max(), *own.shape[1:]), own.dtype)
    padded[: len(own)] = own
    rows = zip(_gather(padded), lengths, strict=True)
    return np.concatenate([array[:length] for array, length in rows])


def _text_of_first(own: str) -> str:
    """The text of the first host, on all hosts."""
    content = np.frombuffer(own.encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    padded = content if first() else np.zeros(length, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes().decode()


def _gather(array: np.ndarray) -> np.ndarray:
    """The arrays of all hosts, which must have the same shape, stacked as (hosts, ...)."""
    gathered: np.ndarray = multihost_utils.process_allgather(array)
    return np.asarray(gathered).reshape(jax.process_count(), *array.shape)


def _gather_texts(own: str) -> list[str]:
    """The texts of all hosts, in the order of the hosts."""
    if not several():
        return [own]
    content = np.frombuffer(own.encode(), np.uint8)
    padded = np.zeros(highest(len(content)) + 1, np.uint8)
    padded[: len(content)] = content
    return [array.tobytes().rstrip(b"\0").decode() for array in _gather(padded)]
