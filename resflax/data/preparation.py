"""Sets prepared for training: by TensorFlow Datasets, or from a folder of pictures.

Both end as DATA_DIR/NAME/VERSION/ with array_record files and their sha256 sums in SHA256SUMS, as
the command `sha256sum` writes and checks them. What was done before an interruption is kept.
"""

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python import array_record_module

from resflax.data.folder import FolderRecords, classes_of
from resflax.data.pictures import BadPicture, decode
from resflax.declarations.data import ImageFolder
from resflax.errors import UsageError

SUMS = "SHA256SUMS"
VERSION = "1.0.0"
"""Of a set made from a folder."""

SHARD_BYTES = 2**28
"""About how much of the pictures one file has."""

Say = Callable[[str], None]
Progress = Callable[[Sequence[int], str], Iterable[int]]
"""Goes through a sequence, described by a text, and shows how far it is."""

_IMAGENET = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")


def default_data_dir() -> Path:
    """Where TFDS keeps its sets: TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return Path(os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR).expanduser()


# --- Sets of the TFDS catalogue


def prepare_published(name: str, data_dir: Path, say: Say) -> Path:
    """Downloads a set of the TFDS catalogue, checked by its sums there, and prepares it.

    A set that is prepared already is checked instead. Returns its folder.

    Raises:
      UsageError: if TensorFlow is not installed, there is no such set or no network, a file has to
        be downloaded by hand, or one of the prepared files is damaged.
    """
    ready = sorted((data_dir / name).glob("*.*.*/dataset_info.json"))
    if ready:
        check_sums(ready[-1].parent, say)
        return ready[-1].parent
    if importlib.util.find_spec("tensorflow") is None:
        raise UsageError(
            f"preparing {name} needs TensorFlow (training does not): "
            "pip install -e '.[prepare]', or prepare it on a machine that has it and copy the "
            f"folder {data_dir / name}"
        )
    if name == "imagenet2012":
        _check_imagenet(data_dir)
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        say(f"preparing {name} in {data_dir}")
        builder.download_and_prepare()
    except Exception as error:  # TFDS, its downloader and TensorFlow raise many kinds
        raise UsageError(_explain(name, data_dir, error)) from None
    folder = Path(os.fspath(builder.data_path))
    write_sums(folder)
    return folder


def _check_imagenet(data_dir: Path) -> None:
    manual = data_dir / "downloads" / "manual"
    missing = [name for name in _IMAGENET if not (manual / name).is_file()]
    if missing:
        raise UsageError(
            f"ImageNet has to be downloaded by hand: with an account at https://image-net.org, "
            f"agree to its terms, take {' and '.join(missing)} (ILSVRC 2012, tasks 1 and 2), put "
            f"them into {manual} as they are, and give the same command again"
        )


def _explain(name: str, data_dir: Path, error: Exception) -> str:
    kind, said = type(error).__name__, " ".join(str(error).split())[:300]
    if "NotFound" in kind and "ataset" in kind:
        return f"TensorFlow Datasets has no set {name}"
    network = ("ConnectionError", "Timeout", "ProxyError", "URLError", "HTTPError", "gaierror")
    if any(part in kind + said for part in network):
        return (
            f"{name} could not be downloaded ({kind}: {said}); without a network, prepare it on a "
            f"machine that has one and copy the folder {data_dir / name}"
        )
    return f"{name} could not be prepared ({kind}: {said})"


# --- A folder of pictures


def prepare_folder(
    source: Path, name: str, data_dir: Path, say: Say, progress: Progress, test_split: str = "val"
) -> Path:
    """Makes a prepared set of SOURCE/train/CLASS/* and SOURCE/val/CLASS/*, in order of names.

    Pictures are copied as they are; those that cannot be decoded are named and left out. Files
    that an interrupted preparation has finished are not made again. Returns the set's folder.

    Raises:
      UsageError: if there are no such pictures, the set is there with other ones, or one of its
        files is damaged.
    """
    data = ImageFolder(data_dir=str(source), test_split=test_split)
    classes = classes_of(data)
    splits = {
        split: FolderRecords(data, split, classes) for split in (data.train_split, data.test_split)
    }
    folder = data_dir / name / VERSION
    plan = _fingerprint(classes, splits)
    _check_same(folder, plan)
    if (folder / "dataset_info.json").exists():
        check_sums(folder, say)
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "source.json", json.dumps({"sha256": plan}))
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=classes),
            "file_name": tfds.features.Text(),
        }
    )
    infos = [
        _write_split(folder, name, split, records, features, say, progress)
        for split, records in splits.items()
    ]
    write_sums(folder)
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, check_data=False
    )
    for note in folder.glob("*.array_record-*.json"):
        note.unlink()
    return folder


def _fingerprint(classes: list[str], splits: dict[str, FolderRecords]) -> str:
    facts = [*classes, *(fact for records in splits.values() for fact in records.facts())]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _check_same(folder: Path, plan: str) -> None:
    """Raises `UsageError` if the folder has a set, or a part of one, of other pictures."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    try:
        found = json.loads((folder / "source.json").read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found != plan:
        raise UsageError(f"{folder} has other pictures; give the set another name with --name")


def _write_split(
    folder: Path,
    name: str,
    split: str,
    records: FolderRecords,
    features: Any,
    say: Say,
    progress: Progress,
) -> Any:
    """Writes the files of one split that are not there yet; returns what TFDS is to know of it."""
    total = sum((records.root / path).stat().st_size for path, _ in records.files)
    shards = max(1, round(total / SHARD_BYTES))
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=name, split=split, filetype_suffix="array_record"
    )
    lengths, size = [], 0
    for shard in progress(range(shards), f"{split}: {len(records):,} pictures"):
        path = Path(os.fspath(template.sharded_filepath(shard_index=shard, num_shards=shards)))
        chosen = range(shard * len(records) // shards, (shard + 1) * len(records) // shards)
        note = path.with_name(path.name + ".json")
        if not (path.exists() and note.exists()):
            made = _write_shard(path, records, chosen, features, say)
            _write(note, json.dumps(made))
        count, written = json.loads(note.read_text())
        lengths.append(count)
        size += written
    if not sum(lengths):
        raise UsageError(f"none of the pictures in {records.root} can be decoded")
    return tfds.core.SplitInfo(
        name=split, shard_lengths=lengths, num_bytes=size, filename_template=template
    )


def _write_shard(
    path: Path, records: FolderRecords, chosen: range, features: Any, say: Say
) -> tuple[int, int]:
    """Writes one file, whole or not at all; returns its number of examples and their bytes."""
    part = path.with_name(path.name + ".part")
    writer = array_record_module.ArrayRecordWriter(str(part), "group_size:1")
    count, size = 0, 0
    for index in chosen:
        encoded, label = records[index]
        try:
            decode(encoded)
        except BadPicture as error:
            say(f"{records.name(index)}: {error}; left out")
            continue
        example = {"image": encoded, "label": label, "file_name": records.files[index][0]}
        record = features.serialize_example(features.encode_example(example))
        writer.write(record)
        count, size = count + 1, size + len(record)
    writer.close()
    part.rename(path)
    return count, size


# --- Sums


def write_sums(folder: Path) -> None:
    """Writes the sha256 sums of the pictures' files."""
    files = sorted(
        p for p in folder.iterdir() if re.fullmatch(r".*array_record-[\d-]+of-\d+", p.name)
    )
    _write(folder / SUMS, "".join(f"{_sha256(path)}  {path.name}\n" for path in files))


def check_sums(folder: Path, say: Say) -> None:
    """Compares the files with their sums, if they have any, and says so.

    Raises `UsageError` that names the files which are damaged or missing.
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
        if not path.is_file() or _sha256(path) != expected:
            wrong.append(name)
    if wrong:
        raise UsageError(
            f"{folder}: {', '.join(wrong)} damaged or missing; remove that folder and give the "
            "same command again"
        )
    say(f"{folder} is prepared, and its {len(lines)} files are as they were written")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.rename(path)
