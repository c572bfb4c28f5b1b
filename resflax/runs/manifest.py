"""The sha256 manifest of a checkpoint, which shows whether the checkpoint is whole.

Orbax does not notice a flipped bit. The manifest is written when a save is finished and its files
are on the disk, so a folder without one comes from a save that was cut off.
"""

import json
from pathlib import Path

from resflax.files import sha256_of, sync_file, sync_folder, write_atomically, writing

NAME = "sha256.json"


def exists(folder: Path) -> bool:
    """Whether the save of the checkpoint in a folder was finished."""
    return (folder / NAME).exists()


def write(folder: Path) -> None:
    """Writes the manifest of the files in a folder, once all of them are on the disk.

    Raises `TrainingError` if that fails.
    """
    with writing(folder):
        for path in folder.rglob("*"):
            (sync_folder if path.is_dir() else sync_file)(path)
        sync_folder(folder.parent)
        hashes = json.dumps(_hashes(folder), indent=1, sort_keys=True)
        write_atomically(folder / NAME, hashes)


def fault(folder: Path) -> str | None:
    """What is wrong with a finished checkpoint, or None if its files match the manifest."""
    try:
        expected = json.loads((folder / NAME).read_text(encoding="utf-8"))
        actual = _hashes(folder)
    except (OSError, ValueError) as error:
        return f"it cannot be read ({error})"
    if not isinstance(expected, dict):
        return f"its {NAME} is damaged"
    for name in sorted(expected.keys() | actual.keys()):
        if name not in actual:
            return f"its file {name} is missing"
        if name not in expected:
            return f"its file {name} does not belong to it"
        if actual[name] != expected[name]:
            return f"its file {name} is damaged"
    return None


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / NAME)
    return {p.relative_to(folder).as_posix(): sha256_of(p) for p in files}
