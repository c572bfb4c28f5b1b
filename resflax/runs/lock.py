"""The lock of a run folder, which lets one process at a time use the folder."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from resflax.errors import UsageError
from resflax.files import reason_of
from resflax.locks import hold

NAME = "run.lock"


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
    with hold(folder / NAME, say, str(folder)):
        yield


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
