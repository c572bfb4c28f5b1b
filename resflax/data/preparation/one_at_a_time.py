"""Lets only one process at a time prepare a data set."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from resflax.locks import hold


@contextlib.contextmanager
def preparing(data_dir: Path, name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock of a set that is prepared in `data_dir`, which is made if it does not exist.

    Args:
      data_dir: the folder that holds all sets.
      name: the set's name.
      say: is called with a warning if the filesystem has no locks; then no lock is held.

    Raises `UsageError` at once if another process holds the lock; it names that process.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / f".{name.replace('/', '-')}.lock"
    with hold(path, say, str(data_dir / name)):
        yield
