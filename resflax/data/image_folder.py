"""Plain folders of pictures: ROOT/SPLIT/CLASS/..., with one folder for each class."""

import os
from pathlib import Path

from resflax.declarations.checks import refuse
from resflax.declarations.data import ImageFolder
from resflax.errors import UsageError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".tif", ".tiff")
"""Endings of the names of picture files, in lower or upper case."""


def root_of(data: ImageFolder, *splits: str) -> Path:
    """The folder that holds the folders of the splits.

    Raises `UsageError` if one of `splits` is missing; of the two declared splits if none is named.
    """
    if data.data_dir is None:
        refuse(data, "data_dir", "name the folder of the pictures with --data.data-dir")
    root = Path(data.data_dir).expanduser()
    for split in splits or (data.train_split, data.test_split):
        if not (root / split).is_dir():
            raise UsageError(
                f"there is no folder {root / split}; the pictures must lie in "
                f"{root / split}/CLASS/, or name other splits with --data.train-split and "
                "--data.test-split"
            )
    return root


def classes_of(data: ImageFolder) -> list[str]:
    """The names of the classes in alphabetical order. Raises `UsageError` if there are none."""
    return folders_of_classes(root_of(data) / data.train_split)


def folders_of_classes(folder: Path) -> list[str]:
    """The names of a split's folders of classes in alphabetical order.

    Raises `UsageError` if there are none.
    """
    names = sorted(path.name for path in folder.iterdir() if _is_class(path))
    if not names:
        raise UsageError(f"{folder} has no folders; it needs one for each class")
    return names


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


class FolderExamples:
    """The pictures of one split, sorted by class and then by path."""

    def __init__(self, data: ImageFolder, split: str, classes: list[str]) -> None:
        """Lists the pictures.

        Raises `UsageError` if a class is not among `classes`, or if there are no pictures.
        """
        self.root = root_of(data, split) / split
        unknown = {path.name for path in self.root.iterdir() if _is_class(path)} - {*classes}
        if unknown:
            raise UsageError(
                f"{self.root} has the class {min(unknown)}, which {data.train_split} does not have"
            )
        self.files: list[tuple[str, int]] = []
        """The path of each picture relative to `root`, with its label."""
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
        """The path of the example's file."""
        return str(self.root / self.files[index][0])

    def facts(self) -> list[str]:
        """Names and sizes of the files, which identify the pictures without reading them."""
        return [f"{path} {(self.root / path).stat().st_size}" for path, _ in self.files]


def _pictures(root: Path, name: str) -> list[str]:
    """Paths of the pictures of the class `name`, relative to the root."""
    paths = []
    for folder, _, files in os.walk(root / name):
        below = Path(folder).relative_to(root)
        paths += [(below / f).as_posix() for f in files if f.lower().endswith(ENDINGS)]
    return paths
