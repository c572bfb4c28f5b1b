"""Paths as users write them: `~` is expanded, and an output is checked before the work for it."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from resflax.errors import UsageError
from resflax.files import reason_of
from resflax.text import path_text

PathLike = str | os.PathLike[str]

_LONGEST_NAME = 255
"""Bytes that the name of a file may have, on every filesystem that is common."""


def user_path(path: PathLike) -> Path:
    """The path that a user wrote, in which `~` and `~NAME` at the start are home folders.

    Every path from a command line, an experiment, an environment variable or a call passes through
    this function where it is used. What is recorded is the path as it was written.

    Raises `UsageError` if the home folder is not known, or if no file can have such a path.
    """
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise UsageError(
            f"{path}: the encoding of file names here, that of the locale, lacks some of these "
            "characters; set PYTHONUTF8=1"
        ) from None
    written = os.fspath(path)
    if "\0" in written:
        raise UsageError(f"{written!r} is not a path: it has a zero byte")
    expanded = os.path.expanduser(written)
    if written.startswith("~") and expanded == written:
        raise UsageError(
            f"{path}: the home folder {Path(path).parts[0]} is not known here; write the path "
            f"without it, or ./{path} if that is meant"
        )
    return Path(expanded)


def check_output_file(option: str, path: Path, *, in_new_folder: bool = False) -> None:
    """Raises `UsageError` if it is known beforehand that no file can be written at `path`.

    Args:
      option: the option that names the file, such as `--output`.
      path: the file, which is replaced if it exists.
      in_new_folder: whether the folder of the file will be made if it does not exist.
    """
    named = f"{option} is {path}"
    if not path.name:
        raise UsageError(f"{named}; that names no file")
    checked = path.parent if os.path.exists(path) else path  # False for a name that is too long
    fault = output_fault(checked) if in_new_folder or _is_folder(path.parent) else None
    if fault is not None:
        raise UsageError(f"{named}; {fault}")
    if not in_new_folder and not _is_folder(path.parent):
        raise UsageError(f"{named}; there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"{named}; that is a folder")
    if path.exists() and not path.is_file():
        raise UsageError(f"{named}; that is a device or a pipe, and the file would replace it")


def check_output_folder(option: str, path: Path) -> None:
    """Raises `UsageError` if it is known beforehand that no file can be written below `path`."""
    fault = output_fault(path)
    if fault is not None:
        raise UsageError(f"{option} is {path}; {fault}")


@contextlib.contextmanager
def writing_output(path: Path) -> Iterator[None]:
    """Turns an `OSError` that occurs while a command writes `path` into a `UsageError`."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {reason_of(error)}") from None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # the name is too long, or a folder above cannot be searched
        return False


def check_utf8(path: Path) -> None:
    """Raises `UsageError` unless a path is UTF-8, as libraries that are written in C++ need it."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{path_text(path)} cannot be used, because its path is not UTF-8; rename it, or, if "
            "the locale is not UTF-8, set PYTHONUTF8=1"
        ) from None


def output_fault(path: Path) -> str | None:
    """Why nothing can be written at or below `path`; None if that is not known beforehand.

    The nearest folder that exists is tried: it must take a file, which has no name, or is removed
    at once.
    """
    try:
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
            raise OSError(errno.ENAMETOOLONG, "")
        there = next(p for p in (path, *path.absolute().parents) if p.exists())
    except OSError as error:
        return f"{path} cannot be written to: {reason_of(error)}"
    if not there.is_dir():
        return f"{there} is a file"
    try:
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as error:
        return f"{there} cannot be written to: {reason_of(error)}"
