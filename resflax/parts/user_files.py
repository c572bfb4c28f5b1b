"""The experiment file and the user's own modules that it imported, of which runs keep copies.

They are kept for people to read. Only the code of a user's own classes is ever run from a copy, and
that is found by `parts.keeping`.
"""

import contextlib
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resflax.files import write_atomically
from resflax.parts.source import is_installed

MOST_BYTES = 2**20
"""Longer files are not copied."""

_OURS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class UserFiles:
    """Python files of the user's own, as they were when they were read."""

    root: Path
    """The folder of the experiment file, as an absolute path."""
    contents: Mapping[str, bytes]
    """The content of each file by its path below the root; the experiment file comes first."""

    @property
    def main(self) -> Path:
        """The experiment file, as an absolute path."""
        return self.root / next(iter(self.contents))

    @property
    def hashes(self) -> dict[str, str]:
        """The sha256 of each file by its path below the root."""
        return {path: hashlib.sha256(text).hexdigest() for path, text in self.contents.items()}


def read_user_files(file: Path) -> UserFiles | None:
    """Reads an experiment file that has been run, and the modules beside it or below it.

    These are the .py files that this process has imported from the folder of the experiment file,
    except installed packages and resflax.

    Args:
      file: the experiment file. None is returned unless it is a .py file.
    """
    if file.suffix != ".py" or not file.is_file():
        return None
    root = file.absolute().parent
    paths = [file.absolute(), *sorted(imported_files(root))]
    contents: dict[str, bytes] = {}
    for path in paths:
        with contextlib.suppress(OSError):  # it is gone since
            contents.setdefault(path.relative_to(root).as_posix(), path.read_bytes())
    return UserFiles(root, contents)


def imported_files(root: Path) -> set[Path]:
    """The user's own .py files below a folder that this process has imported."""
    imported = {
        Path(path).absolute()
        for name, module in list(sys.modules.items())
        if name != "__main__" and isinstance(path := getattr(module, "__file__", None), str)
    }
    return {path for path in imported if _is_users(path, root)}


def read_program() -> UserFiles | None:
    """Reads the program that this process runs, and its modules; None if it is not the user's."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if not isinstance(path, str) or not _is_users(Path(path).absolute(), Path(path).anchor):
        return None
    return read_user_files(Path(path))


def _is_users(path: Path, root: Path | str) -> bool:
    """Whether a file is a Python file below a folder, and belongs to no package and not to us."""
    if path.suffix != ".py" or not path.is_relative_to(root):
        return False
    resolved = path.resolve()
    return not is_installed(resolved) and not resolved.is_relative_to(_OURS)


def keep_user_files(files: UserFiles, folder: Path) -> Path:
    """Copies the files into a folder, and returns the folder where the copies are.

    A file never replaces another one of the same name: then the copies are put into a folder of
    their own, named by a hash of the files. Raises `OSError` if they cannot be written.
    """
    small = {path: text for path, text in files.contents.items() if len(text) <= MOST_BYTES}
    fits = all(_read(folder / path) in (None, text) for path, text in small.items())
    digest = hashlib.sha256(repr(sorted(files.hashes.items())).encode()).hexdigest()
    place = folder if fits else folder / digest[:12]
    for path, text in small.items():
        if _read(place / path) != text:
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place / path, text)
    return place


def described(files: UserFiles, kept: Path) -> dict[str, Any]:
    """What is recorded of the files whose copies are in the folder `kept`, as plain JSON values."""
    return {"folder": str(files.root), "kept": kept.as_posix(), "files": files.hashes}


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def changes(before: Mapping[str, str], files: UserFiles) -> list[str]:
    """The files that are new, gone or different.

    Args:
      before: the sha256 of each earlier file by its path.
      files: the files now.
    """
    now = files.hashes
    return sorted(p for p in before.keys() | now.keys() if before.get(p) != now.get(p))
