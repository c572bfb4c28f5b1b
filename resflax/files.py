"""Writes files whole or not at all, and makes the errors for files that cannot be written."""

import contextlib
import errno
import functools
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from resflax.errors import TrainingError
from resflax.text import one_line

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_OF_SYSTEM = (
    *_DISK_FULL,
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
)

_DRAFT = re.compile(r"\..*\.\d+-[0-9a-f]{16}\.tmp")
_DRAFT_SECONDS = 3600.0
"""After so long without a change, a draft is taken to be that of a writer that was killed."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that readers see either the old content or the new, and never a part.

    That holds even if the power fails, and if several processes write the file at the same time:
    each has a draft of its own, and the last one wins. On return, the file is on the disk.

    Raises `OSError`, which names `path`, if the file cannot be written; it then still has its old
    content.
    """
    encoded = content.encode(errors="surrogateescape") if isinstance(content, str) else content
    try:
        with draft_of(path) as draft:
            with open(draft, "xb") as file:
                file.write(encoded)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
            sync_folder(path.parent)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # not that of the draft
        raise


@contextlib.contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """A path beside `path` that no other writer has, for a file that is then renamed.

    If there is still a file at the end, it is removed. Files that killed writers left in the folder
    are removed after an hour.
    """
    _remove_old_drafts(path.parent.absolute())
    # The whole name might make the draft's name too long.
    unique = f"{os.getpid()}-{secrets.token_hex(8)}"
    draft = path.with_name(f".{path.name[:40]}.{unique}.tmp")
    try:
        yield draft
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


@functools.cache  # each folder once in a process
def _remove_old_drafts(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if _DRAFT.fullmatch(path.name):
                with contextlib.suppress(OSError):  # another process removes it too
                    if time.time() - path.stat().st_mtime > _DRAFT_SECONDS:
                        path.unlink()


def sync_file(path: Path) -> None:
    """Waits until what was written to a file is on the disk. Raises `OSError` if that fails."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, where the filesystem allows that.

    Raises `OSError` if the disk fails.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # the folder can be written to, but not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


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


def is_of_system(error: OSError) -> bool:
    """Whether a disk, a permission or a limit is at fault, and not what the program asked for."""
    return error.errno in _OF_SYSTEM


def reason_of(error: Exception) -> str:
    """The reason why something could not be read or written, in a few words."""
    text = one_line(error)
    number = error.errno if isinstance(error, OSError) else None
    if number in _DISK_FULL or any(os.strerror(full) in str(error) for full in _DISK_FULL):
        return "the disk is full"
    return (number and os.strerror(number)) or text or type(error).__name__
