"""One process to a run folder.

The lock is the kernel's (flock) on a file in the folder, so it ends with the process that holds
it, however that ends, and a stale one cannot be. Across hosts it holds on shared filesystems that
pass flock on (NFSv4, Lustre mounted with flock, GPFS); on others, between processes of one host.
"""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from resflax.errors import UsageError

NAME = "run.lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock.

    Raises `UsageError` at once, saying who has it since when, if another process holds it.
    """
    with open(folder / NAME, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UsageError(f"{folder} is in use by {_holder(file.read())}") from None
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


def _holder(text: str) -> str:
    try:
        found = json.loads(text)
        return f"process {found['pid']} on {found['host']}, since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
