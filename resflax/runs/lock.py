"""Locks on files, and the lock of a run folder, which lets one process at a time use the folder.

The lock is a kernel lock (flock). It ends with the process that holds it, however the process ends,
so there are no stale locks. It works across hosts on shared filesystems that support flock between
hosts (NFSv4, Lustre mounted with flock, GPFS); on others it works between the processes of one
host.

The library filelock is not used, because it lacks two things that are needed: a lock that a child
process inherits and goes on holding, and a locked file that says who holds it.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from resflax.errors import UsageError
from resflax.files import reason_of, writing

NAME = "run.lock"

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


def take_lock(path: Path) -> int | None:
    """Locks a file, which is made if it does not exist.

    Returns the descriptor of the open file, or None if a living process holds the lock. Closing the
    descriptor ends the lock. A child process that inherits the descriptor holds the lock as long as
    it lives, even if its parent is killed.

    Raises `OSError` if the file cannot be opened or its filesystem has no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def locked(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock of a run folder.

    Args:
      folder: the run's folder, which must exist.
      say: is called with a warning if the filesystem has no locks; then no lock is held.

    Raises:
      UsageError: if the file cannot be locked. If another process holds the lock, the error comes
        at once and names that process and since when it has held the lock.
      TrainingError: if the disk is full.
    """
    path = folder / NAME
    try:
        descriptor = take_lock(path)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise UsageError(f"cannot lock {path}: {reason_of(error)}") from None
        say(f"{folder} cannot be locked there: see that no other process runs in it")
        yield
        return
    if descriptor is None:
        raise UsageError(f"{folder} is in use by {_holder(path)}")
    try:
        if not _is_at(descriptor, path):  # its last holder has just removed the folder
            raise UsageError(f"{folder} was in use until now: start again")
        with writing(path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(_this_process()).encode())
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_anew(folder: Path, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Makes a folder and holds its lock; yields a function that makes the folder stay.

    If that function was not called, the end of the context removes the lock file and the folders
    that were made.

    Raises:
      UsageError: if the folder cannot be made or locked.
      TrainingError: if the disk is full.
    """
    made = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {folder}: {reason_of(error)}") from None
    stays: list[bool] = []
    with locked(folder, say):
        try:
            yield lambda: stays.append(True)
        finally:
            if not stays:
                (folder / NAME).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # another process has begun to use it
                    for path in made:
                        path.rmdir()


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
