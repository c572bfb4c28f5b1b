"""Writes files whole or not at all, and makes the errors for files that cannot be written."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from resflax.errors import TrainingError
from resflax.text import one_line

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that readers see either the old content or the new, and never a part.

    Raises `OSError` if the file cannot be written; it then still has its old content.
    """
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with open(draft, "wb") as file:
            file.write(
                content.encode(errors="surrogateescape") if isinstance(content, str) else content
            )
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an `OSError` that occurs while a run writes `path` into a `TrainingError`."""
    try:
        yield
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: Path, error: Exception) -> TrainingError:
    """The error for a run that could not write `path`."""
    return TrainingError(
        f"{path} could not be written: {reason_of(error)}; what was saved before is whole, and the "
        "same command continues from there"
    )


def reason_of(error: Exception) -> str:
    """The reason why something could not be read or written, in a few words."""
    text = one_line(error)
    number = error.errno if isinstance(error, OSError) else None
    if number in _DISK_FULL or any(os.strerror(full) in str(error) for full in _DISK_FULL):
        return "the disk is full"
    return (number and os.strerror(number)) or text or type(error).__name__
