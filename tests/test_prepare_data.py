"""Preparation: sets made from folders, interruptions, sums of files, and published sets."""

import hashlib
import importlib.util
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from photos import encode, photo

from resflax import ImageFolder, ImageNet, Streamed, UsageError
from resflax.data.encoded import open_splits
from resflax.data.preparation import picture_folders
from resflax.data.preparation.one_at_a_time import preparing
from resflax.data.preparation.picture_folders import prepare_folder
from resflax.data.preparation.published_sets import prepare_published
from resflax.data.progress import show_nothing
from resflax.feeding.decoding import ShuffledPictures
from resflax.feeding.order import ExampleOrder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 14 training and 6 test pictures in two classes, one gray, one a PNG."""
    root = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 14), ("val", 6)):
        for number in range(count):
            folder = root / split / ("cat", "dog")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            picture = photo(30 + number, 40, 1 if number == 3 else 3, seed=number)
            file_format = "png" if number == 5 else "jpeg"
            encoded = encode(picture[..., 0] if number == 3 else picture, file_format)
            (folder / f"{number:02}.{file_format}").write_bytes(encoded)
    return root


def prepare(pictures: Path, data_dir: Path, name: str = "animals") -> tuple[Path, list[str]]:
    """Prepares a set; returns its folder and the lines that were printed."""
    lines: list[str] = []
    folder = prepare_folder(pictures, name, data_dir, lines.append, show_nothing)
    return folder, lines


def batch_arrays(data: Streamed) -> list[np.ndarray]:
    """Images and labels of the first four batches."""
    splits = open_splits(data)
    order = ExampleOrder(len(splits.train), 5, 1)
    pictures = ShuffledPictures(splits.train, data, splits.num_classes, order, 10)
    coming = pictures.batches(0, 2, lambda batch: batch)
    batches = [next(coming) for _ in range(4)]
    coming.close()
    return [array for batch in batches for array in (batch.images, batch.labels)]


@pytest.fixture(scope="module")
def prepared(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data_dir; not to be changed."""
    data_dir = tmp_path_factory.mktemp("prepared")
    prepare(pictures, data_dir)
    return data_dir


def test_a_folder_and_the_set_made_from_it_give_the_same_batches(pictures, prepared):
    in_folder = ImageFolder(data_dir=str(pictures), image_size=16)
    in_set = Streamed("animals", str(prepared), test_split="val", image_size=16)
    pairs = zip(batch_arrays(in_folder), batch_arrays(in_set), strict=True)
    assert all(np.array_equal(of_folder, of_set) for of_folder, of_set in pairs)
    builder = tfds.builder_from_directory(prepared / "animals" / "1.0.0")
    assert builder.info.features["label"].names == ["cat", "dog"]
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 14,
        "val": 6,
    }
    source = builder.as_data_source("val", decoders={"image": tfds.decode.SkipDecoding()})
    assert source[0]["image"] == (pictures / "val" / "cat" / "00.jpeg").read_bytes()
    assert source[0]["file_name"] == b"cat/00.jpeg"


def test_files_are_checked_by_their_sums(pictures: Path, tmp_path: Path):
    folder, _ = prepare(pictures, tmp_path)
    rows = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    sums = {name: expected for expected, name in rows}
    assert len(sums) == 2
    for name, expected in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    _, lines = prepare(pictures, tmp_path)
    assert lines == [f"{folder} is prepared, and its 2 files agree with their sha256 sums"]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before

    name = sorted(sums)[0]
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UsageError, match=rf"{name} damaged or missing"):
        prepare(pictures, tmp_path)


def test_an_interrupted_preparation_goes_on(pictures, prepared, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(picture_folders, "SHARD_BYTES", 2_000)
    uninterrupted, _ = prepare(pictures, tmp_path / "uninterrupted")
    names = sorted(path.name for path in uninterrupted.iterdir())
    assert len(names) > 6

    written: list[str] = []
    write_shard = picture_folders._write_shard

    def interrupt(path: Path, *arguments):
        if len(written) == 3:
            path.with_name(path.name + ".part").write_bytes(b"half of it")
            raise KeyboardInterrupt
        written.append(path.name)
        return write_shard(path, *arguments)

    monkeypatch.setattr(picture_folders, "_write_shard", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(pictures, tmp_path / "interrupted")
    interrupted = tmp_path / "interrupted" / "animals" / "1.0.0"
    assert not (interrupted / "dataset_info.json").exists()
    written_later: list[str] = []

    def count(path: Path, *arguments):
        written_later.append(path.name)
        return write_shard(path, *arguments)

    monkeypatch.setattr(picture_folders, "_write_shard", count)
    prepare(pictures, tmp_path / "interrupted")
    assert not set(written_later) & set(written)
    assert sorted(path.name for path in interrupted.iterdir()) == names
    for name in names:
        if "array_record" in name or name == "SHA256SUMS":
            assert (interrupted / name).read_bytes() == (uninterrupted / name).read_bytes()
    in_one_file, in_shards = (
        batch_arrays(Streamed("animals", str(data_dir), test_split="val", image_size=16))
        for data_dir in (prepared, tmp_path / "interrupted")
    )
    assert all(np.array_equal(a, b) for a, b in zip(in_one_file, in_shards, strict=True))


def test_only_one_process_at_a_time_prepares_a_set(pictures, tmp_path: Path):
    with (
        preparing(tmp_path, "animals", print),
        pytest.raises(UsageError, match=rf"animals is in use by process {os.getpid()} on"),
    ):
        prepare(pictures, tmp_path)
    folder, _ = prepare(pictures, tmp_path)
    with preparing(tmp_path, "animals", print):  # what is prepared can be checked at any time
        assert prepare(pictures, tmp_path)[0] == folder


def test_damaged_pictures_are_named_and_left_out(tmp_path: Path):
    for split in ("train", "val"):
        (tmp_path / "from" / split / "a").mkdir(parents=True)
        for number in range(3):
            encoded = encode(photo(20, 20, seed=number))
            bad = split == "train" and number == 1
            content = encoded[: len(encoded) // 2] if bad else encoded
            (tmp_path / "from" / split / "a" / f"{number}.jpg").write_bytes(content)
    _, lines = prepare(tmp_path / "from", tmp_path, "few")
    assert [line.split(": ")[0] for line in lines] == [str(tmp_path / "from" / "train/a/1.jpg")]
    splits = open_splits(Streamed("few", str(tmp_path), test_split="val"))
    assert (len(splits.train), len(splits.test)) == (2, 3)


def test_another_folder_under_the_same_name_is_refused(pictures, tmp_path: Path):
    prepare(pictures, tmp_path)
    for split in ("train", "val"):
        (tmp_path / "other" / split / "a").mkdir(parents=True)
        (tmp_path / "other" / split / "a" / "1.jpg").write_bytes(encode(photo()))
    with pytest.raises(UsageError, match="has other pictures; give the set another name"):
        prepare(tmp_path / "other", tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="it is installed")
def test_published_sets_need_tensorflow(tmp_path: Path):
    with pytest.raises(UsageError, match=r"needs TensorFlow .*pip install 'resflax\[prepare\]'"):
        prepare_published("cifar10", tmp_path, print)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tensorflow(monkeypatch):
    """Makes the preparation believe that TensorFlow is installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


def test_imagenet_has_to_be_downloaded_by_hand(tmp_path: Path, tensorflow):
    with pytest.raises(UsageError) as refused:
        prepare_published("imagenet2012", tmp_path, print)
    message = str(refused.value)
    assert "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar" in message
    assert f"put them into {tmp_path}/downloads/manual" in message
    assert "\n" not in message


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow")
def test_imagenet_is_prepared_from_its_archives(tmp_path: Path, script):
    """The archives have two of the classes, whose labels are their numbers among all thousand."""
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    labels = {"n01440764": 0, "n15075141": 999}
    with tarfile.open(manual / "ILSVRC2012_img_train.tar", "w") as archive:
        for name in labels:
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as pictures:
                for number in range(3):
                    picture = encode(photo(40, 50, seed=number), "jpeg")
                    add(pictures, f"{name}_{number}.JPEG", picture)
            add(archive, f"{name}.tar", inner.getvalue())
    with tarfile.open(manual / "ILSVRC2012_img_val.tar", "w") as archive:
        for number in (2, 1):  # the archive's order does not matter
            add(archive, f"ILSVRC2012_val_{number:08}.JPEG", encode(photo(40, 50), "jpeg"))
    done = script("prepare_data", "imagenet2012", "--data-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--data.name imagenet2012" in done.stdout
    splits = open_splits(ImageNet(data_dir=str(tmp_path)))
    assert splits.num_classes == 1000
    assert sorted(splits.train[i][1] for i in range(6)) == sorted(3 * list(labels.values()))
    # The first two lines of the set's validation labels: n01751748 and n09193705.
    assert sorted(splits.test[i][1] for i in range(2)) == [65, 970]
    again = script("prepare_data", "imagenet2012", "--data-dir", tmp_path)
    assert "its 2 files agree with their sha256 sums" in again.stdout


def test_without_a_network_the_message_says_what_to_do(tmp_path: Path, tensorflow, monkeypatch):
    class Builder:
        def download_and_prepare(self):
            raise ConnectionError("Failed to resolve\n'www.cs.toronto.edu'")

    monkeypatch.setattr(tfds, "builder", lambda *a, **k: Builder())
    with pytest.raises(UsageError) as refused:
        prepare_published("cifar10", tmp_path, lambda text: None)
    message = str(refused.value)
    assert "cifar10 could not be downloaded" in message
    assert "prepare it on a machine that has one and copy the folder" in message
    assert "\n" not in message


def test_an_unknown_set_is_refused(tmp_path: Path, tensorflow):
    with pytest.raises(UsageError, match="TensorFlow Datasets has no set no_such_set"):
        prepare_published("no_such_set", tmp_path, lambda text: None)


def test_the_command_prepares_a_folder_and_says_how_to_use_it(pictures, tmp_path, script):
    done = script("prepare_data", pictures, "--name", "animals", "--data-dir", tmp_path / "sets")
    assert done.returncode == 0, done.stderr
    assert f"--data.name animals --data.data-dir {tmp_path / 'sets'}" in done.stdout
    refused = script("prepare_data", pictures)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")
    assert f"{pictures} is a folder; name the new set with --name" in refused.stderr
    assert refused.stderr.count("\n") == 1
