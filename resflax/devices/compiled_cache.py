"""Checks the compiled programs that JAX keeps between processes.

JAX writes them in place. If the process is killed meanwhile, or the disk is full, half a program
stays. JAX then compiles the program at every start, with a warning, and never writes it again.

Nothing here imports JAX.
"""

import contextlib
import importlib
import os
import time
import zlib
from pathlib import Path

from resflax.files import sync_file

_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_CHECKED = ".checked"


def remove_damaged(folder: Path) -> None:
    """Removes the programs in a folder that were not written to their end.

    Each program is checked once, at the first start after it was written, and is then on the disk.
    A program that another process is just writing may be removed too; it is compiled again.

    Raises `OSError` if the folder cannot be written to.
    """
    note, now = folder / _CHECKED, time.time()
    last = note.stat().st_mtime if note.exists() else 0.0
    for path in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process removes it
            status = path.stat()
            if status.st_size and status.st_mtime < last:
                continue
            if _is_whole(path.read_bytes()):
                sync_file(path)
            else:
                path.unlink()
    note.touch()
    os.utime(note, (now, now))


def _is_whole(content: bytes) -> bool:
    """Whether a compressed program can be read; True if no library here can read it."""
    if not content.startswith(_ZSTANDARD):
        try:
            zlib.decompress(content)
        except zlib.error:
            return False
        return True
    for name in ("compression.zstd", "zstandard"):  # as JAX does
        with contextlib.suppress(ImportError):
            library = importlib.import_module(name)
            try:
                library.decompress(content)
            except Exception:  # each library has its own type of error
                return False
            return True
    return True
