"""The user's cache folder, for files that can be made again but take time to make."""

import functools
import logging
import os
import stat
import tempfile
from pathlib import Path

from resflax.errors import UsageError
from resflax.files import reason_of
from resflax.paths import check_utf8, output_fault, user_path


def cache_folder(kind: str) -> Path:
    """The path of `resflax/KIND` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache).

    If nothing can be written there, it is in a folder for temporary files that belongs to this user
    alone, and a warning says so once. As the XDG specification demands, a relative XDG_CACHE_HOME
    is passed over.
    """
    declared, home = os.environ.get("XDG_CACHE_HOME", ""), os.environ.get("HOME")
    return _base(declared, home) / "resflax" / kind


@functools.cache
def _base(declared: str, home: str | None) -> Path:
    """The folder of the caches of all programs, for these values of XDG_CACHE_HOME and HOME."""
    try:
        folder = user_path(declared)
        folder = folder if folder.is_absolute() else _below_home()
        check_utf8(folder)
        fault = output_fault(folder)
    except UsageError as error:
        fault = str(error)
    if fault is None:
        return folder
    temporary = _temporary_folder()
    logging.getLogger("resflax").warning("%s: caches are kept in %s", fault, temporary)
    return temporary


def _below_home() -> Path:
    try:
        return user_path("~/.cache")
    except UsageError:
        raise UsageError("the home folder is not known") from None


def _temporary_folder() -> Path:
    """A folder for temporary files that later processes of this user find again.

    Compiled programs are read from it, so nobody else may write to it. If a folder of its name is
    not this user's own, it is a new folder.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"resflax-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
        own = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()
        if own and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return folder
        return Path(tempfile.mkdtemp(prefix="resflax-"))
    except OSError as error:
        raise UsageError(
            f"there is no folder for caches ({reason_of(error)}): set XDG_CACHE_HOME or TMPDIR to "
            "one that can be written to"
        ) from None
