"""One process to a run folder.

The lock is the kernel's (flock) on a file in the folder, so it ends with the process that holds
it, however that ends, and a stale one cannot be. Across hosts it holds on shared filesystems that
pass flock on (NFSv4, Lustre mounted with flock, GPFS); on others, between processes of one host.
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
from resflax.training.files import in_words, writing

NAME = "run.lock"

_UNABLE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextlib.contextmanager
def locked(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Holds the folder's lock.

    Args:
      folder: must exist.
      say: is told where the filesystem has no locks; then nothing is held.

    Raises:
      UsageError: at once, saying who has it since when, if another process holds it.
      TrainingError: if the disk is full.
    """
    path = folder / NAME
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write to {path}: {in_words(error)}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UsageError(f"{folder} is in use by {_holder(file.read())}") from None
        except OSError as error:
            if error.errno not in _UNABLE:
                raise UsageError(f"cannot lock {path}: {in_words(error)}") from None
            say(f"{folder} cannot be locked there: see that no other process runs in it")
        if not _is_at(file.fileno(), path):  # its holder has just taken the folder away
            raise UsageError(f"{folder} was in use until now: start again")
        with writing(path):
            file.truncate(0)
            json.dump(
                {
                    "host": socket.gethostname(),
                    "pid": os.getpid(),
                    "since": datetime.now(UTC).isoformat(timespec="seconds"),
                },
                file,
            )
            file.flush()
        yield


@contextlib.contextmanager
def locked_anew(folder: Path, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Makes a folder and holds its lock; gives a function to call when the folder is to stay.

    Before that call, whatever ends the context takes away what was made, lock and folders.

    Raises:
      UsageError: if it cannot be made, or as `locked` does.
    """
    made = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {folder}: {in_words(error)}") from None
    stays: list[bool] = []
    with locked(folder, say):
        try:
            yield lambda: stays.append(True)
        finally:
            if not stays:
                (folder / NAME).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # another has begun to use it
                    for path in made:
                        path.rmdir()


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(text: str) -> str:
    try:
        found = json.loads(text)
        return f"process {found['pid']} on {found['host']}, since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
