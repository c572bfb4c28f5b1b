"""A plain folder of pictures: ROOT/SPLIT/CLASS/..., a folder for each class."""

import os
from pathlib import Path

from resflax.declarations.checks import refuse
from resflax.declarations.data import ImageFolder
from resflax.errors import UsageError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".tif", ".tiff")
"""Of files that are taken for pictures, in small or capital letters."""


def root_of(data: ImageFolder) -> Path:
    """The folder that holds those of the splits. Raises `UsageError` if there is none."""
    if data.data_dir is None:
        refuse(data, "data_dir", "name the folder of the pictures with --data.data-dir")
    root = Path(data.data_dir).expanduser()
    for split in (data.train_split, data.test_split):
        if not (root / split).is_dir():
            raise UsageError(
                f"there is no folder {root / split}; the pictures must lie in "
                f"{root / split}/CLASS/, or name other splits with --data.train-split and "
                "--data.test-split"
            )
    return root


def classes_of(data: ImageFolder) -> list[str]:
    """The names of the classes in order. Raises `UsageError` if there are none."""
    train = root_of(data) / data.train_split
    names = sorted(path.name for path in train.iterdir() if _is_class(path))
    if not names:
        raise UsageError(f"{train} has no folders; it needs one for each class")
    return names


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


class FolderRecords:
    """The pictures of one split, by class and then by path: (encoded, label)."""

    def __init__(self, data: ImageFolder, split: str, classes: list[str]) -> None:
        """Raises `UsageError` for a class that is not among `classes`, or no pictures at all."""
        self.root = root_of(data) / split
        unknown = {path.name for path in self.root.iterdir() if _is_class(path)} - {*classes}
        if unknown:
            raise UsageError(
                f"{self.root} has the class {min(unknown)}, and {data.train_split} has not"
            )
        self.files: list[tuple[str, int]] = []
        """Paths below the root, and labels."""
        for label, name in enumerate(classes):
            self.files += [(path, label) for path in sorted(_pictures(self.root, name))]
        if not self.files:
            raise UsageError(f"{self.root} has no pictures ({', '.join(ENDINGS)})")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        path, label = self.files[index]
        return (self.root / path).read_bytes(), label

    def name(self, index: int) -> str:
        """Which file an example is."""
        return str(self.root / self.files[index][0])

    def facts(self) -> list[str]:
        """What tells these files from others without reading them: names and sizes."""
        return [f"{path} {(self.root / path).stat().st_size}" for path, _ in self.files]


def _pictures(root: Path, name: str) -> list[str]:
    found = []
    for folder, _, files in os.walk(root / name):
        below = Path(folder).relative_to(root)
        found += [(below / f).as_posix() for f in files if f.lower().endswith(ENDINGS)]
    return found
