"""Plain folders of pictures: ROOT/SPLIT/CLASS/..., with one folder for each class.

Names are compared, sorted and shown in the Unicode form NFC. macOS stores them in another form
(NFD), so a copy from there would otherwise have other classes, in another order.
"""

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from resflax.data.listing import (
    Kind,
    LeftOut,
    Listing,
    PictureFile,
    entries_of,
    first_of,
    looks_like_picture,
    pictures_below,
)
from resflax.declarations.checks import refuse
from resflax.declarations.data import ImageFolder
from resflax.errors import UsageError
from resflax.paths import user_path
from resflax.text import path_text

SPLIT_OPTIONS = "--data.train-split and --data.test-split"


class LabelledFile(NamedTuple):
    """A picture of a split."""

    path: str
    """Relative to the folder of the split, as the system spells it."""
    label: int
    size: int
    """In bytes."""


@dataclass(frozen=True)
class FolderExamples:
    """The pictures of one split, sorted by class and then by path."""

    root: Path
    """The folder of the split."""
    files: Sequence[LabelledFile]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        path, label, _ = self.files[index]
        with open(os.path.join(self.root, path), "rb") as file:
            return file.read(), label

    def name(self, index: int) -> str:
        """The path of the example's file, as text that can be printed."""
        return path_text(self.root / self.files[index].path)

    def facts(self) -> list[str]:
        """Names and sizes of the files, which identify the pictures without reading them."""
        return [f"{_canonical(path)} {size}" for path, _, size in self.files]


@dataclass(frozen=True)
class PictureFolder:
    """The listed splits of a folder of pictures."""

    classes: list[str]
    """The names of the classes in order."""
    train: FolderExamples
    test: FolderExamples
    notes: tuple[str, ...]
    """Lines for the user about what was left out of the splits."""

    def facts(self) -> list[str]:
        """The names of the classes, and names and sizes of all files."""
        return [*self.classes, *self.train.facts(), *self.test.facts()]


def open_folder(data: ImageFolder, split_options: str = SPLIT_OPTIONS) -> PictureFolder:
    """Lists the pictures of both splits.

    Hidden files, links that lead nowhere and files that are no pictures are left out.

    Args:
      data: the declared folder.
      split_options: the options that name the splits, for messages.

    Raises:
      UsageError: if a folder is missing or cannot be read; if there are fewer than two classes; if
        a class has no training pictures; if the test split has none or has another class; or if a
        folder belongs to both splits.
    """
    root = root_of(data, split_options)
    train, test = (_list_split(root / split) for split in (data.train_split, data.test_split))
    classes = _checked_classes(train.root, train.folders_of_class)
    _check_apart(train, test)
    unknown = test.folders_of_class.keys() - {*classes}
    if unknown:
        raise UsageError(
            f"{path_text(test.root)} has the class {min(unknown)}, which {data.train_split} does "
            "not have"
        )
    without = [name for name in classes if not train.pictures_of_class.get(name)]
    if without:
        raise UsageError(_no_training_pictures(train, without))
    if not test.pictures_of_class:
        raise UsageError(f"{path_text(test.root)} has no pictures{_but_left_out(test)}")
    notes = (*_notes(train, classes), *_notes(test, classes))
    return PictureFolder(classes, _labelled(train, classes), _labelled(test, classes), notes)


class SplitFolder(NamedTuple):
    """A folder of pictures by class, which need not be a split of a whole set."""

    classes: list[str]
    """The names of its classes in order."""
    examples: FolderExamples
    notes: tuple[str, ...]
    """Lines for the user about what was left out."""


def open_split_folder(folder: Path) -> SplitFolder:
    """Lists the pictures in FOLDER/CLASS/.

    Raises `UsageError` if the folder cannot be read, or has no folders or no pictures.
    """
    split = _list_split(folder)
    classes = sorted(split.folders_of_class)
    if not classes:
        raise UsageError(f"{path_text(folder)} has no folders; it needs one for each class")
    if not split.pictures_of_class:
        raise UsageError(f"{path_text(folder)} has no pictures{_but_left_out(split)}")
    return SplitFolder(classes, _labelled(split, classes), tuple(_notes(split, classes)))


def classes_of(data: ImageFolder) -> list[str]:
    """The names of the classes in alphabetical order, found without listing their pictures.

    Raises `UsageError` if there are fewer than two, or if a folder is missing or cannot be read.
    """
    train = root_of(data) / data.train_split
    return _checked_classes(train, _class_folders(train, LeftOut())[0])


def root_of(data: ImageFolder, split_options: str = SPLIT_OPTIONS) -> Path:
    """The folder that holds the folders of the splits. Raises `UsageError` if one is missing."""
    if data.data_dir is None:
        refuse(data, "data_dir", "name the folder of the pictures with --data.data-dir")
    root = user_path(data.data_dir)
    if os.path.exists(root) and not os.path.isdir(root):
        raise UsageError(f"{path_text(root)} is a file; it must be a folder of pictures")
    for split in (data.train_split, data.test_split):
        if not os.path.isdir(root / split):
            place = path_text(root / split)
            raise UsageError(
                f"there is no folder {place}; the pictures must lie in {place}/CLASS/, or name "
                f"other splits with {split_options}{_folders_there(data, root)}"
            )
    return root


def _folders_there(data: ImageFolder, root: Path) -> str:
    """What else is in the root: perhaps the classes themselves."""
    if not os.path.isdir(root):
        return ""
    there = [entry.name for entry in entries_of(str(root), "", LeftOut()) if entry.is_folder]
    if not there:
        return f"; {path_text(root)} has no folders"
    names = ", ".join(map(path_text, there[:5])) + (", ..." if len(there) > 5 else "")
    text = f"; {path_text(root)} has the folders {names}"
    if not {data.train_split, data.test_split} & {*there}:
        text += (
            f"; if these are the classes, move them into {data.train_split}, and some pictures of "
            f"each into {data.test_split}/CLASS/"
        )
    return text


class _Split(NamedTuple):
    """What was found in the folder of a split."""

    root: Path
    folders_of_class: dict[str, list[str]]
    pictures_of_class: dict[str, list[PictureFile]]
    """The sorted pictures of each class; classes without pictures are missing."""
    listing: Listing
    left_out: LeftOut


def _list_split(root: Path) -> _Split:
    left_out = LeftOut()
    folders_of_class, beside = _class_folders(root, left_out)
    for name in beside:
        if looks_like_picture(str(root), name, left_out):
            left_out.add(Kind.BESIDE, name)
    tops = {folder: name for name, folders in folders_of_class.items() for folder in folders}
    listing = pictures_below(str(root), list(tops), left_out)
    pictures: dict[str, list[PictureFile]] = {}
    for file in listing.pictures:
        pictures.setdefault(tops[file.path.partition("/")[0]], []).append(file)
    for files in pictures.values():
        files.sort(key=lambda file: (_canonical(file.path), file.path))
    return _Split(root, folders_of_class, pictures, listing, left_out)


def _class_folders(root: Path, left_out: LeftOut) -> tuple[dict[str, list[str]], list[str]]:
    """The folders of each class, which are several if they differ in their Unicode form alone.

    Also returns the names of the files beside them.
    """
    folders: dict[str, list[str]] = {}
    files = []
    for entry in entries_of(str(root), "", left_out):
        if entry.is_folder:
            folders.setdefault(_canonical(entry.name), []).append(entry.name)
        else:
            files.append(entry.name)
    return folders, files


def _canonical(path: str) -> str:
    return path if path.isascii() and path.isprintable() else _normalized(path)


def _normalized(path: str) -> str:
    return unicodedata.normalize("NFC", path_text(path))


def _checked_classes(train: Path, folders_of_class: dict[str, list[str]]) -> list[str]:
    """The sorted names of the classes. Raises `UsageError` if there are fewer than two."""
    classes = sorted(folders_of_class)
    if not classes:
        raise UsageError(f"{path_text(train)} has no folders; it needs one for each class")
    if len(classes) == 1:
        raise UsageError(
            f"{path_text(train)} has only the class {classes[0]}; there must be at least two"
        )
    return classes


def _check_apart(train: _Split, test: _Split) -> None:
    """Raises `UsageError` if the splits share a folder: they would share its pictures."""
    of_train, of_test = (
        {os.path.realpath(split.root): "", **split.listing.folders} for split in (train, test)
    )
    for real, path in of_test.items():
        if real in of_train:
            shared = train.root / of_train[real], test.root / path
            raise UsageError(
                f"{path_text(shared[0])} and {path_text(shared[1])} are the same folder; test "
                "pictures must not be training pictures"
            )


def _no_training_pictures(train: _Split, classes: list[str]) -> str:
    place = path_text(train.root)
    if not train.pictures_of_class:
        return f"{place} has no pictures{_but_left_out(train)}"
    others = f" nor for {len(classes) - 1} more" if len(classes) > 1 else ""
    return (
        f"{place} has no pictures for the class {classes[0]}{others}; put some there, or remove "
        f"the folder{_but_left_out(train)}"
    )


def _but_left_out(split: _Split) -> str:
    return f" (left out: {split.left_out})" if split.left_out else ""


def _notes(split: _Split, classes: list[str]) -> list[str]:
    place, notes = path_text(split.root), []
    if split.left_out:
        notes.append(f"{place}: left out {split.left_out}")
    without = [name for name in classes if name not in split.pictures_of_class]
    if without:
        count = len(without)
        noun = "class" if count == 1 else "classes"
        notes.append(f"{place}: no pictures for {count} {noun} ({first_of(without, count)})")
    twice = [folders for folders in split.folders_of_class.values() if len(folders) > 1]
    if twice:
        notes.append(
            f"{place}: folders whose names look the same count as one class "
            f"({first_of(twice[0], len(twice))})"
        )
    return notes


def _labelled(split: _Split, classes: list[str]) -> FolderExamples:
    files = [
        LabelledFile(path, label, size)
        for label, name in enumerate(classes)
        for path, size in split.pictures_of_class.get(name, ())
    ]
    return FolderExamples(split.root, files)
