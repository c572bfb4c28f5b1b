"""Preparation of a set from a folder of pictures, without TensorFlow.

The pictures are divided into files of about equal size, called shards. A note (a JSON
file) beside each finished shard lets an interrupted preparation continue after that shard. The
notes are removed at the end.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python import array_record_module

from resflax.data.image_folder import FolderExamples, classes_of
from resflax.data.pictures import BadPicture, decode
from resflax.data.preparation.checksums import check_sums, write_sums
from resflax.data.preparation.one_at_a_time import preparing
from resflax.data.progress import ShowProgress
from resflax.declarations.data import ImageFolder
from resflax.errors import UsageError
from resflax.files import sync_file, write_atomically

VERSION = "1.0.0"
"""Version of every set that is made from a folder."""

SHARD_BYTES = 2**28
"""Approximate number of bytes of pictures in one shard."""


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
    are named and left out. Shards that an interrupted preparation finished are kept.

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
      UsageError: if there are no such pictures, if a set of this name has other pictures, if one of
        its files is damaged, or if another process prepares it now.
    """
    data = ImageFolder(data_dir=str(source), test_split=test_split)
    classes = classes_of(data)
    splits = {
        split: FolderExamples(data, split, classes) for split in (data.train_split, data.test_split)
    }
    folder = data_dir / name / VERSION
    fingerprint = _fingerprint(classes, splits)
    if not (folder / "dataset_info.json").exists():
        with preparing(data_dir, name, say):
            _check_same_pictures(folder, fingerprint)
            if not (folder / "dataset_info.json").exists():  # nor just now by another process
                _write_set(folder, name, classes, splits, fingerprint, say, progress)
                return folder
    _check_same_pictures(folder, fingerprint)
    check_sums(folder, say)
    return folder


def _write_set(
    folder: Path,
    name: str,
    classes: list[str],
    splits: dict[str, FolderExamples],
    fingerprint: str,
    say: Callable[[str], None],
    progress: ShowProgress,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "source.json", json.dumps({"sha256": fingerprint}))
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
    for note in folder.glob("*.array_record-*.json"):
        note.unlink()


def _fingerprint(classes: list[str], splits: dict[str, FolderExamples]) -> str:
    """A hash of the classes and of the names and sizes of all pictures."""
    facts = [*classes, *(fact for examples in splits.values() for fact in examples.facts())]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _check_same_pictures(folder: Path, fingerprint: str) -> None:
    """Raises `UsageError` if the folder holds a set of other pictures, whole or in part."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    try:
        noted = json.loads((folder / "source.json").read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        noted = None
    if noted != fingerprint:
        raise UsageError(f"{folder} has other pictures; give the set another name with --name")


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
    total_bytes = sum((examples.root / path).stat().st_size for path, _ in examples.files)
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
        length, shard_bytes = json.loads(note.read_text())
        lengths.append(length)
        written_bytes += shard_bytes
    if not sum(lengths):
        raise UsageError(f"none of the pictures in {examples.root} can be decoded")
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
    draft = path.with_name(path.name + ".part")  # only one process prepares a set
    writer = array_record_module.ArrayRecordWriter(str(draft), "group_size:1")
    length, shard_bytes = 0, 0
    for index in indices:
        encoded, label = examples[index]
        try:
            decode(encoded)
        except BadPicture as error:
            say(f"{examples.name(index)}: {error}; left out")
            continue
        example = {"image": encoded, "label": label, "file_name": examples.files[index][0]}
        record = features.serialize_example(features.encode_example(example))
        writer.write(record)
        length, shard_bytes = length + 1, shard_bytes + len(record)
    writer.close()
    sync_file(draft)
    draft.rename(path)
    return length, shard_bytes
