"""Locks on files, which keep processes from using the same thing at the same time.

They are kernel locks (flock). A lock ends with the process that holds it, however the process ends,
so there are no stale locks. Locks work across hosts on shared filesystems that support flock
between hosts (NFSv4, Lustre mounted with flock, GPFS); on others they work between the processes of
one host.

The library filelock is not used, because it lacks two things that are needed: a lock that a child
process inherits and goes on holding, and a locked file that says who holds it.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from resflax.errors import UsageError
from resflax.files import reason_of, writing

WAIT_SECONDS = 60.0
"""How long `in_turn` waits for the other processes. Each holds the lock for milliseconds."""

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_POLL_SECONDS = 0.005


def take_lock(path: Path, say: Callable[[str], None] = lambda text: None) -> int | None:
    """Locks a file, which is made if it does not exist.

    Returns the descriptor of the open file, or None if a living process holds the lock. Closing the
    descriptor ends the lock. A child process that inherits the descriptor holds the lock as long as
    it lives, even if its parent is killed.

    Args:
      path: the file.
      say: is called with a warning if the filesystem has no locks. The file is then open, but
        nothing keeps others from opening it too.

    Raises `OSError` if the file cannot be opened or locked for another reason.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(descriptor)
            raise
        say(f"{path.parent} cannot be locked there: see that no other process runs in it")
    return descriptor


def close_all(descriptors: list[int]) -> None:
    """Ends the locks of these descriptors, and empties the list."""
    while descriptors:
        os.close(descriptors.pop())


@contextlib.contextmanager
def hold(path: Path, say: Callable[[str], None], in_use: str, wait: float = 0.0) -> Iterator[None]:
    """Holds the lock of a file, which meanwhile says which process has it.

    Args:
      path: the file; its folder must exist.
      say: is called with a warning if the filesystem has no locks; then no lock is held.
      in_use: what is in use while another process holds the lock.
      wait: how many seconds to wait for the other process.

    Raises:
      UsageError: if the file cannot be locked. If another process holds the lock, the error names
        that process and since when it has held the lock.
      TrainingError: if the disk is full.
    """
    deadline = time.monotonic() + wait
    try:
        while (descriptor := take_lock(path, say)) is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    except OSError as error:
        raise UsageError(f"cannot lock {path}: {reason_of(error)}") from None
    if descriptor is None:
        raise UsageError(f"{in_use} is in use by {_holder(path)}")
    try:
        if not _is_at(descriptor, path):  # its last holder has just removed the folder
            raise UsageError(f"{in_use} was in use until now: start again")
        with writing(path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(_this_process()).encode())
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def in_turn(path: Path, say: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Lets processes change the same files one after another, by the lock of the file `path`.

    Raises as `hold` does; `UsageError` too if the other processes do not end within a minute.
    """
    with hold(path, say, str(path.parent), WAIT_SECONDS):
        yield


def _this_process() -> dict[str, str | int]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
