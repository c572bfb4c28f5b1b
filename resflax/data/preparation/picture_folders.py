"""Preparation of a set from a folder of pictures, without TensorFlow.

The pictures are divided into files of about equal size, called shards. A note (a JSON
file) beside each finished shard lets an interrupted preparation continue after that shard. The
notes are removed at the end.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python import array_record_module

from resflax.data.encoded import open_splits
from resflax.data.image_folder import FolderExamples, PictureFolder, open_folder
from resflax.data.pictures.bad_picture import BadPicture
from resflax.data.pictures.decoding import decode
from resflax.data.preparation.checksums import SUMS, check_sums, write_sums
from resflax.data.preparation.one_at_a_time import preparing
from resflax.data.preparation.set_names import check_set_name, check_split_name
from resflax.data.preparation.writing import CONTINUES, not_written, writing
from resflax.data.progress import ShowProgress
from resflax.declarations.data import ImageFolder, Streamed
from resflax.errors import TrainingError, UsageError
from resflax.files import reason_of, sync_file, write_atomically
from resflax.paths import check_output_folder, check_utf8
from resflax.text import path_text

VERSION = "1.0.0"
"""Version of every set that is made from a folder."""

SHARD_BYTES = 2**28
"""Approximate number of bytes of pictures in one shard."""

_INFO = "dataset_info.json"
"""This file is written last, so a folder that has it whole holds a whole set."""

_UNFINISHED = re.compile(
    rf"\.?source\.json(\.tmp)?|\.?{SUMS}(\.tmp)?|features\.json|"
    rf"label\.labels\.txt|{re.escape(_INFO)}|\.?[a-z0-9_]+-[\w-]+\.array_record-.*"
)
"""Names of the files in the folder of a set that is not finished."""


def prepare_folder(
    source: Path,
    name: str,
    data_dir: Path,
    say: Callable[[str], None],
    progress: ShowProgress,
    test_split: str = "val",
) -> Path:
    """Makes a prepared set from the pictures SOURCE/train/CLASS/* and SOURCE/val/CLASS/*.

    The pictures are copied as they are, in the order of their names. Those that cannot be decoded
    are named and left out. Shards that an interrupted preparation finished are kept. At the end the
    set is opened as training opens it.

    Args:
      source: the folder of pictures.
      name: the name of the new set.
      data_dir: the folder that holds all sets.
      say: prints a line to the user.
      progress: shows the progress.
      test_split: the name of the folder of test pictures beside `train`.

    Returns:
      The folder of the prepared set.

    Raises:
      UsageError: if a name is not allowed, or nothing can be written to `data_dir`; if there are no
        such pictures, or a set of this name has others; if one of its files is damaged; or if
        another process prepares it now.
      TrainingError: if a picture cannot be read, or the disk is full.
    """
    check_set_name(name)
    check_split_name(test_split)
    data = ImageFolder(data_dir=str(source), test_split=test_split)
    folder = data_dir / name / VERSION
    _check_place(folder, [source / data.train_split, source / data.test_split])
    pictures = open_folder(data, split_options="--test-split")
    _check_class_names(pictures.classes)
    for note in pictures.notes:
        say(note)
    splits = {data.train_split: pictures.train, data.test_split: pictures.test}
    with writing(folder):
        if not _make(folder, name, pictures, splits, say, progress):
            _check_same_pictures(folder, pictures)
            check_sums(folder, say)
        for leftover in (*folder.glob("*.array_record-*.json"), *folder.glob("*.part")):
            leftover.unlink()
    _check_opens(Streamed(name, str(data_dir), test_split=test_split), pictures.classes)
    return folder


def _make(
    folder: Path,
    name: str,
    pictures: PictureFolder,
    splits: dict[str, FolderExamples],
    say: Callable[[str], None],
    progress: ShowProgress,
) -> bool:
    """Makes the set, unless it is there already; returns whether this made it."""
    if _noted(folder / _INFO) is not None:
        return False
    with preparing(folder.parents[1], name, say):
        if _noted(folder / _INFO) is not None:  # another process has just made it
            return False
        _begin(folder, pictures, say)
        _write_set(folder, name, pictures.classes, splits, say, progress)
        return True


def _check_place(folder: Path, sources: list[Path]) -> None:
    """Raises `UsageError` if the set cannot be written there, or would not be found there."""
    check_utf8(folder)
    if not (folder / _INFO).exists():
        check_output_folder("--data-dir", folder)
    for source in sources:
        if folder.resolve().is_relative_to(source.resolve()):
            raise UsageError(
                f"{path_text(folder)} lies among the pictures of {path_text(source)}; name another "
                "folder with --data-dir"
            )
    if folder.parent.is_dir():
        versions = {path.name for path in folder.parent.iterdir() if path.is_dir()} - {VERSION}
        if others := sorted(name for name in versions if not name.startswith(".")):
            raise UsageError(
                f"{path_text(folder.parent)} already has {path_text(others[0])}; give the set "
                "another name with --name"
            )


def _check_class_names(classes: list[str]) -> None:
    """Raises `UsageError` for a name with blanks around it, which TFDS would remove."""
    for name in classes:
        if name != name.strip():
            raise UsageError(
                f"the class {name!r} has a blank before or after its name; rename its folders"
            )


def _check_opens(data: Streamed, classes: list[str]) -> None:
    """Opens the set as training does. Raises `UsageError` if it cannot be used."""
    builder_classes = open_splits(data).num_classes
    if builder_classes != len(classes):
        raise UsageError(f"{data.name} has {builder_classes} classes in place of {len(classes)}")


def _begin(folder: Path, pictures: PictureFolder, say: Callable[[str], None]) -> None:
    """Makes the folder and notes in it what it is made from.

    Files that were made from other pictures, which have changed since, are removed. Raises
    `UsageError` if there are other files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = list(folder.iterdir())
    if there and _noted_fingerprint(folder) != _fingerprint(pictures):
        if not all(_UNFINISHED.fullmatch(path.name) for path in there):
            raise UsageError(_other_pictures(folder))
        say(f"{path_text(folder)} was begun with other pictures; it is begun anew")
        for path in there:
            path.unlink()
    write_atomically(folder / "source.json", json.dumps({"sha256": _fingerprint(pictures)}))


def _check_same_pictures(folder: Path, pictures: PictureFolder) -> None:
    """Raises `UsageError` if the folder holds a set of other pictures."""
    if _noted_fingerprint(folder) != _fingerprint(pictures):
        raise UsageError(_other_pictures(folder))


def _other_pictures(folder: Path) -> str:
    return f"{path_text(folder)} has other pictures; give the set another name with --name"


def _fingerprint(pictures: PictureFolder) -> str:
    """A hash of the classes and of the names and sizes of all pictures."""
    return hashlib.sha256("\n".join(pictures.facts()).encode()).hexdigest()


def _noted_fingerprint(folder: Path) -> object:
    """The fingerprint of the pictures that the folder's set is made from; None if unknown."""
    noted = _noted(folder / "source.json")
    return noted.get("sha256") if isinstance(noted, dict) else None


def _noted(path: Path) -> Any:
    """The content of a JSON file; None if it is missing or not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _write_set(
    folder: Path,
    name: str,
    classes: list[str],
    splits: dict[str, FolderExamples],
    say: Callable[[str], None],
    progress: ShowProgress,
) -> None:
    """Writes the splits, their sums, and last of all what makes the folder a set."""
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=classes),
            "file_name": tfds.features.Text(),
        }
    )
    split_infos = [
        _write_split(folder, name, split, examples, features, say, progress)
        for split, examples in splits.items()
    ]
    write_sums(folder)
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=split_infos, check_data=False
    )


def _write_split(
    folder: Path,
    name: str,
    split: str,
    examples: FolderExamples,
    features: Any,
    say: Callable[[str], None],
    progress: ShowProgress,
) -> Any:
    """Writes those shards of a split that are not finished yet; returns TFDS's `SplitInfo`."""
    total_bytes = sum(file.size for file in examples.files)
    shards = max(1, round(total_bytes / SHARD_BYTES))
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=name, split=split, filetype_suffix="array_record"
    )
    lengths, written_bytes = [], 0
    for shard in progress(range(shards), f"{split}: {len(examples):,} pictures"):
        path = Path(os.fspath(template.sharded_filepath(shard_index=shard, num_shards=shards)))
        indices = range(shard * len(examples) // shards, (shard + 1) * len(examples) // shards)
        note = path.with_name(path.name + ".json")
        if not (path.exists() and note.exists()):
            counts = _write_shard(path, examples, indices, features, say)
            write_atomically(note, json.dumps(counts))
        length, shard_bytes = json.loads(note.read_text(encoding="utf-8"))
        lengths.append(length)
        written_bytes += shard_bytes
    if not sum(lengths):
        raise UsageError(f"none of the pictures in {path_text(examples.root)} can be decoded")
    return tfds.core.SplitInfo(
        name=split, shard_lengths=lengths, num_bytes=written_bytes, filename_template=template
    )


def _write_shard(
    path: Path,
    examples: FolderExamples,
    indices: range,
    features: Any,
    say: Callable[[str], None],
) -> tuple[int, int]:
    """Writes one shard, whole or not at all.

    Returns its number of examples, and the number of bytes that their records have.
    """
    draft = path.with_name(path.name + ".part")
    length, shard_bytes = 0, 0
    try:
        writer = array_record_module.ArrayRecordWriter(str(draft), "group_size:1")
        for index in indices:
            record = _record(examples, index, features, say)
            if record is not None:
                writer.write(record)
                length, shard_bytes = length + 1, shard_bytes + len(record)
        writer.close()
        sync_file(draft)
        draft.rename(path)
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if type(error) is RuntimeError:  # what the writer raises when it cannot write
            raise not_written(path, error) from None
        raise
    return length, shard_bytes


def _record(
    examples: FolderExamples, index: int, features: Any, say: Callable[[str], None]
) -> bytes | None:
    """An example as it is stored; None if its picture cannot be decoded, which is said.

    Raises `TrainingError` if its file cannot be read.
    """
    name = examples.name(index)
    try:
        encoded, label = examples[index]
    except OSError as error:
        raise TrainingError(f"{name} could not be read: {reason_of(error)}; {CONTINUES}") from None
    try:
        decode(encoded)
    except BadPicture as error:
        say(f"{name}: {error}; left out")
        return None
    file_name = path_text(examples.files[index].path)
    example = {"image": encoded, "label": label, "file_name": file_name}
    record: bytes = features.serialize_example(features.encode_example(example))
    return record
