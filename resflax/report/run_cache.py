"""Keeps what was read from files, so that a report can be renewed quickly."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Value = TypeVar("Value")


class RunCache:
    """What was read from the files of runs and sweeps, until these files change.

    A file has changed if its time, size or inode is another. This is safe for the files of a run,
    which are only added to or replaced as a whole.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Path, ...], tuple[list[Any], Any]] = {}

    def read(self, files: tuple[Path, ...], read: Callable[[], Value]) -> Value:
        """The value that `read` returns; it is called only if a file has changed since.

        Args:
          files: all files on which the value depends. They identify it, so that the same files
            must always be read in the same way. They need not exist.
          read: reads the files. An exception passes through, and nothing is kept.
        """
        # The stamps are older than the value, so a change in between is noticed the next time.
        stamps = [_stamp(file) for file in files]
        kept = self._kept.get(files)
        if kept is not None and kept[0] == stamps:
            value: Value = kept[1]
            return value
        value = read()
        self._kept[files] = stamps, value
        return value


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
