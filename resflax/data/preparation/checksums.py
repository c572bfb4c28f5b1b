"""The sha256 sums of a prepared set's files, in the format that `sha256sum` writes and checks."""

import re
from collections.abc import Callable
from pathlib import Path

from resflax.errors import UsageError
from resflax.files import sha256_of, write_atomically

SUMS = "SHA256SUMS"
"""Name of the file with the sums."""

_DATA_FILE = re.compile(r".*array_record-[\d-]+of-\d+")


def write_sums(folder: Path) -> None:
    """Writes the sums of all files that hold pictures in a prepared set's folder."""
    paths = sorted(path for path in folder.iterdir() if _DATA_FILE.fullmatch(path.name))
    lines = [f"{sha256_of(path)}  {path.name}\n" for path in paths]
    write_atomically(folder / SUMS, "".join(lines))


def check_sums(folder: Path, say: Callable[[str], None]) -> None:
    """Compares the files of a prepared set with their sums, and says that they agree.

    If the set has no file of sums, it says so instead. Raises `UsageError` if files are damaged or
    missing; the message names them.
    """
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        say(f"{folder} is prepared; it has no {SUMS} to compare its files with")
        return
    wrong = []
    for line in lines:
        expected, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file() or sha256_of(path) != expected:
            wrong.append(name)
    if wrong:
        raise UsageError(
            f"{folder}: {', '.join(wrong)} damaged or missing; remove that folder and give the "
            "same command again"
        )
    say(f"{folder} is prepared, and its {len(lines)} files agree with their sha256 sums")
