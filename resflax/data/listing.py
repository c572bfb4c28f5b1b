"""Lists the pictures in a folder and in all folders below it, and counts what it leaves out."""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import PurePath
from typing import NamedTuple

from resflax.data.pictures.signatures import is_picture
from resflax.errors import UsageError
from resflax.files import reason_of
from resflax.text import path_text

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff"),
)
"""Endings, in lower or upper case, of files that are taken for pictures without opening them.
Opening every file of a large set would take too long. Other files are recognised by content."""

_OF_SYSTEMS = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("__macosx", "icon\r", "lost+found", "__pycache__"),
    *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),
}
"""Names, in lower case, of what Windows, macOS, Linux, Python and network storage (Synology, QNAP)
leave in folders. Hidden names, which begin with a dot, are not listed."""


class Kind(Enum):
    """Names each kind of thing that a listing leaves out, in words for one and for several."""

    HIDDEN = "hidden or system file or folder", "hidden or system files and folders"
    UNKNOWN = "file in no known picture format", "files in no known picture format"
    HEIC = "HEIC picture to be converted to JPEG", "HEIC pictures to be converted to JPEG"
    BESIDE = "picture beside the class folders", "pictures beside the class folders"
    BROKEN = "link that leads nowhere", "links that lead nowhere"
    AGAIN = "folder that links reach again", "folders that links reach again"
    SPECIAL = "pipe, socket or device", "pipes, sockets and devices"
    UNREADABLE = "file that cannot be read", "files that cannot be read"
    VANISHED = "file that has just vanished", "files that have just vanished"


class LeftOut:
    """Counts what is left out of a listing, and keeps the first path of each kind."""

    def __init__(self) -> None:
        self._counts: dict[Kind, int] = {}
        self._first: dict[Kind, str] = {}

    def add(self, kind: Kind, path: str) -> None:
        """Counts a path, which is relative to the folder that is listed."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        self._first.setdefault(kind, path)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __str__(self) -> str:
        """How many of each kind there were, and the first of each."""
        return ", ".join(
            f"{count} {kind.value[count > 1]} ({first_of([self._first[kind]], count)})"
            for kind, count in self._counts.items()
        )


def first_of(paths: list[str], count: int) -> str:
    """The first of `count` paths as text, and whether there are others."""
    return path_text(paths[0]) + (" and others" if count > 1 else "")


class PictureFile(NamedTuple):
    """A file that has the name or the first bytes of a picture."""

    path: str
    """Relative to the folder of the split, as the system spells it."""
    size: int
    """In bytes."""


class Listing(NamedTuple):
    """The pictures in a folder."""

    pictures: list[PictureFile]
    """In no particular order."""
    folders: dict[str, str]
    """The path of each folder that was listed, relative to the root, by its real path."""


class Entry(NamedTuple):
    """A regular file, or a folder, that is not hidden. Links are followed."""

    name: str
    is_folder: bool
    is_link: bool
    size: int


def entries_of(root: str, folder: str, left_out: LeftOut) -> Iterator[Entry]:
    """Yields the files and folders in ROOT/FOLDER by name; others are counted in `left_out`.

    Raises `UsageError` if the folder cannot be read.
    """
    place = os.path.join(root, folder)
    try:
        with os.scandir(place) as scanned:
            found = sorted(scanned, key=lambda entry: entry.name)
        for entry in found:
            looked_up = _look_up(entry)
            if isinstance(looked_up, Kind):
                left_out.add(looked_up, os.path.join(folder, entry.name))
            else:
                yield looked_up
    except OSError as error:
        unreadable = error.filename or place
        raise UsageError(f"{path_text(unreadable)} cannot be read: {reason_of(error)}") from None


def _look_up(entry: "os.DirEntry[str]") -> Entry | Kind:
    if entry.name.startswith(".") or entry.name.lower() in _OF_SYSTEMS:
        return Kind.HIDDEN
    try:
        status = entry.stat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return Kind.BROKEN if entry.is_symlink() else Kind.VANISHED
    is_folder = stat.S_ISDIR(status.st_mode)
    if not is_folder and not stat.S_ISREG(status.st_mode):
        return Kind.SPECIAL  # opening a pipe would wait for ever
    return Entry(entry.name, is_folder, entry.is_symlink(), status.st_size)


def looks_like_picture(root: str, path: str, left_out: LeftOut) -> bool:
    """Whether a file is taken for a picture, by its ending or its content.

    If not, it is counted in `left_out`.
    """
    if path.lower().endswith(ENDINGS):
        return True
    try:
        known = is_picture(os.path.join(root, path))
    except OSError:
        left_out.add(Kind.UNREADABLE, path)
        return False
    if not known:
        of_phones = path.lower().endswith((".heic", ".heif"))
        left_out.add(Kind.HEIC if of_phones else Kind.UNKNOWN, path)
    return known


def pictures_below(root: str, tops: Sequence[str], left_out: LeftOut) -> Listing:
    """Lists the pictures in the folders ROOT/TOP and in all folders below them.

    Links to folders are followed after everything else, and no folder is listed twice, so that
    loops end. A link to a folder above `root` is not followed.

    Raises `UsageError` if a folder cannot be read, or if two of `tops` are the same folder.
    """
    real_root = os.path.realpath(root)
    above = {real_root, *map(str, PurePath(real_root).parents)}
    folders = _real_folders(root, tops)
    pictures: list[PictureFile] = []
    waiting, links = [(top, real) for real, top in reversed(folders.items())], deque[str]()
    while waiting or links:
        if not waiting:
            path = links.popleft()
            real = os.path.realpath(os.path.join(root, path))
            if real in folders or real in above:
                left_out.add(Kind.AGAIN, path)
                continue
            folders[real] = path
            waiting.append((path, real))
        folder, real_folder = waiting.pop()
        below = []
        for entry in entries_of(root, folder, left_out):
            path, real = f"{folder}/{entry.name}", os.path.join(real_folder, entry.name)
            if not entry.is_folder:
                if looks_like_picture(root, path, left_out):
                    pictures.append(PictureFile(path, entry.size))
            elif entry.is_link:
                links.append(path)
            elif real in folders:
                left_out.add(Kind.AGAIN, path)
            else:
                folders[real] = path
                below.append((path, real))
        waiting += reversed(below)
    return Listing(pictures, folders)


def _real_folders(root: str, tops: Sequence[str]) -> dict[str, str]:
    """The folders ROOT/TOP by their real paths. Raises `UsageError` if two are the same."""
    folders: dict[str, str] = {}
    for top in tops:
        real = os.path.realpath(os.path.join(root, top))
        if real in folders:
            raise UsageError(
                f"{path_text(root)}: the folders {path_text(folders[real])} and {path_text(top)} "
                "are the same one; each class needs pictures of its own"
            )
        folders[real] = top
    return folders
