"""Files that are written whole or not at all, and what is said where that fails."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from resflax.errors import TrainingError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes to `path`; whoever reads sees the old content or the new, never a part."""
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with open(draft, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an `OSError` while `path` is written into a `TrainingError`."""
    try:
        yield
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: Path, error: Exception) -> TrainingError:
    """The error of a run that could not write `path`."""
    return TrainingError(
        f"{path} could not be written: {in_words(error)}; what was saved before is whole, and the "
        "same command continues from there"
    )


def in_words(error: Exception) -> str:
    """Why something could not be written or read."""
    text = " ".join(str(error).split())
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL or any(os.strerror(full) in text for full in _FULL):
        return "the disk is full"
    return (number and os.strerror(number)) or text[:200] or type(error).__name__
