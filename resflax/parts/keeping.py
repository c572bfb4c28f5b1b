"""Keeps copies of the code of a user's own classes, and finds them again."""

from collections.abc import Sequence
from pathlib import Path

from resflax.errors import UsageError
from resflax.files import write_atomically
from resflax.parts.source import Source, read_source


def keep(source: Source, folder: Path) -> None:
    """Copies the files that a class needs into a folder, unless it has this code already.

    A file never replaces another one of the same name: then the copies are put into a folder of
    their own, named by the hash of the code.

    Raises `OSError` if they cannot be written.
    """
    shared, separate = _places(folder, source.sha256)
    for place in (shared.absolute(), separate.absolute()):
        copy = _read_copy(place, source.files[0].path, source.name)
        if copy is not None and copy.sha256 == source.sha256:
            return
    place = shared if _fits(source, shared) else separate
    for file in source.files:
        path = place / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, file.content)


def _places(folder: Path, code_sha256: str) -> tuple[Path, Path]:
    return folder, folder / code_sha256[:12]


def _fits(source: Source, folder: Path) -> bool:
    """Whether each file is missing in the folder, or is there with the same text."""
    for file in source.files:
        path = folder / file.path
        if path.exists() and path.read_bytes() != file.content:
            return False
    return True


def kept_source(
    file: Path,
    name: str,
    code_sha256: str,
    paths: Sequence[str],
    folder: Path | None,
    trusted: bool,
) -> Source:
    """The code of a class, from the file where it came from or from a kept copy.

    Args:
      file: the file where it came from.
      name: the name of the class.
      code_sha256: the hash that the code must have.
      paths: the paths of the files below their root, that of `file` first.
      folder: the folder with the copies that a run or a sweep kept; None: there is none.
      trusted: whether a copy may be run although the file has changed or is gone.

    Raises `UsageError`, which names the file, if no code of that hash may be run.
    """
    fault = "is gone"
    if _belongs_to_a_run(file):
        fault = "lies in the folder of a run or a sweep"
    elif _is_file(file):
        try:
            source = read_source(file, name, root=_root(file, paths[0]))
        except UsageError as error:
            fault = f"has changed ({error})"
        else:
            if source.sha256 == code_sha256:
                return source
            fault = "has changed"
    if folder is None:
        raise UsageError(f"the code of {name} in {file} {fault}")
    for place in _places(folder.absolute(), code_sha256):
        copy = _read_copy(place, paths[0], name)
        if copy is None or copy.sha256 != code_sha256:
            continue
        if trusted:
            return copy
        raise UsageError(
            f"{place / paths[0]} is not run: {file}, from which it was copied, {fault}; bring that "
            "back, or let the copy run with --trust-code (from Python: trust_code=True)"
        )
    raise UsageError(f"{name} of {file} {fault}, and {folder} has no whole copy of its code")


def _read_copy(folder: Path, path: str, name: str) -> Source | None:
    """The code of a class in a folder of copies; None if there is none that can be read."""
    file = folder / path
    try:
        return read_source(file, name, root=folder) if _is_file(file) else None
    except UsageError:
        return None


def _root(file: Path, path: str) -> Path:
    """The folder to which `path` is relative, if it is the path of `file`."""
    return file.parents[path.count("/")]


def _is_file(file: Path) -> bool:
    try:
        return file.is_absolute() and file.is_file()
    except OSError:  # the name is too long
        return False


def _belongs_to_a_run(file: Path) -> bool:
    """Whether a file lies in the folder of a run or a sweep, which may come from anywhere."""
    try:
        folders = file.resolve().parents
        return any((f / n).exists() for f in folders for n in ("experiment.json", "sweep.json"))
    except OSError:
        return False
