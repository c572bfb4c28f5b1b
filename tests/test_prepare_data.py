"""Sets made from folders: the same batches, gone on with after an interruption, checked by sums."""

import hashlib
import importlib.util
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from test_pictures import encode, photo

from resflax import ImageFolder, ImageNet, Streamed, UsageError
from resflax.data import preparation
from resflax.data.feed import Order
from resflax.data.preparation import prepare_folder, prepare_published
from resflax.data.records import open_records
from resflax.data.stream import Shuffled


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 14 training and 6 test pictures in two classes, one gray, one a PNG."""
    root = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 14), ("val", 6)):
        for number in range(count):
            folder = root / split / ("cat", "dog")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            picture = photo(30 + number, 40, 1 if number == 3 else 3, seed=number)
            kind = "png" if number == 5 else "jpeg"
            encoded = encode(picture[..., 0] if number == 3 else picture, kind)
            (folder / f"{number:02}.{kind}").write_bytes(encoded)
    return root


def prepare(pictures: Path, data_dir: Path, name: str = "animals") -> tuple[Path, list[str]]:
    said: list[str] = []
    folder = prepare_folder(pictures, name, data_dir, said.append, lambda items, text: items)
    return folder, said


def batches(data: Streamed) -> list[np.ndarray]:
    opened = open_records(data)
    row = Shuffled(opened.train, data, opened.num_classes, Order(len(opened.train), 5, 1), 10)
    coming = row.batches(0, 2, lambda pictures: pictures)
    found = [next(coming) for _ in range(4)]
    coming.close()
    return [array for batch in found for array in (batch.images, batch.labels)]


@pytest.fixture(scope="module")
def prepared(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data_dir; not to be changed."""
    data_dir = tmp_path_factory.mktemp("prepared")
    prepare(pictures, data_dir)
    return data_dir


def test_a_folder_and_the_set_made_from_it_give_the_same_batches(pictures, prepared):
    of_folder = ImageFolder(data_dir=str(pictures), image_size=16)
    of_set = Streamed("animals", str(prepared), test_split="val", image_size=16)
    for one, other in zip(batches(of_folder), batches(of_set), strict=True):
        assert np.array_equal(one, other)
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
    lines = [x.split("  ") for x in (folder / "SHA256SUMS").read_text().splitlines()]
    sums = {name: expected for expected, name in lines}
    assert len(sums) == 2
    for name, expected in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    _, said = prepare(pictures, tmp_path)
    assert said == [f"{folder} is prepared, and its 2 files are as they were written"]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before

    name = sorted(sums)[0]
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UsageError, match=rf"{name} damaged or missing"):
        prepare(pictures, tmp_path)


def test_an_interrupted_preparation_goes_on(pictures, prepared, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(preparation, "SHARD_BYTES", 2_000)
    whole, _ = prepare(pictures, tmp_path / "whole")
    names = sorted(path.name for path in whole.iterdir())
    assert len(names) > 6

    written: list[str] = []
    write = preparation._write_shard

    def interrupted(path: Path, *arguments):
        if len(written) == 3:
            path.with_name(path.name + ".part").write_bytes(b"half of it")
            raise KeyboardInterrupt
        written.append(path.name)
        return write(path, *arguments)

    monkeypatch.setattr(preparation, "_write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(pictures, tmp_path / "cut")
    cut = tmp_path / "cut" / "animals" / "1.0.0"
    assert not (cut / "dataset_info.json").exists()
    again: list[str] = []

    def counted(path: Path, *arguments):
        again.append(path.name)
        return write(path, *arguments)

    monkeypatch.setattr(preparation, "_write_shard", counted)
    prepare(pictures, tmp_path / "cut")
    assert not set(again) & set(written)
    assert sorted(path.name for path in cut.iterdir()) == names
    for name in names:
        if "array_record" in name or name == "SHA256SUMS":
            assert (cut / name).read_bytes() == (whole / name).read_bytes()
    one, other = (
        batches(Streamed("animals", str(d), test_split="val", image_size=16))
        for d in (prepared, tmp_path / "cut")
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_damaged_pictures_are_named_and_left_out(tmp_path: Path):
    for split in ("train", "val"):
        (tmp_path / "from" / split / "a").mkdir(parents=True)
        for number in range(3):
            encoded = encode(photo(20, 20, seed=number))
            bad = split == "train" and number == 1
            content = encoded[: len(encoded) // 2] if bad else encoded
            (tmp_path / "from" / split / "a" / f"{number}.jpg").write_bytes(content)
    _, said = prepare(tmp_path / "from", tmp_path, "few")
    assert [text.split(": ")[0] for text in said] == [str(tmp_path / "from" / "train/a/1.jpg")]
    opened = open_records(Streamed("few", str(tmp_path), test_split="val"))
    assert (len(opened.train), len(opened.test)) == (2, 3)


def test_another_folder_under_the_same_name_is_refused(pictures, tmp_path: Path):
    prepare(pictures, tmp_path)
    for split in ("train", "val"):
        (tmp_path / "other" / split / "a").mkdir(parents=True)
        (tmp_path / "other" / split / "a" / "1.jpg").write_bytes(encode(photo()))
    with pytest.raises(UsageError, match="has other pictures; give the set another name"):
        prepare(tmp_path / "other", tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="it is there")
def test_published_sets_need_tensorflow(tmp_path: Path):
    with pytest.raises(UsageError, match=r"needs TensorFlow .*pip install -e '\.\[prepare\]'"):
        prepare_published("cifar10", tmp_path, print)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tensorflow(monkeypatch):
    """As if it were installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


def test_imagenet_has_to_be_downloaded_by_hand(tmp_path: Path, tensorflow):
    with pytest.raises(UsageError) as refused:
        prepare_published("imagenet2012", tmp_path, print)
    said = str(refused.value)
    assert "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar" in said
    assert f"put them into {tmp_path}/downloads/manual" in said
    assert "\n" not in said


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow")
def test_imagenet_is_prepared_from_its_archives(tmp_path: Path, script):
    """Two of its classes: the numbers of their labels are those of all thousand in order."""
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    of_class = {"n01440764": 0, "n15075141": 999}
    with tarfile.open(manual / "ILSVRC2012_img_train.tar", "w") as archive:
        for name in of_class:
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
    opened = open_records(ImageNet(data_dir=str(tmp_path)))
    assert opened.num_classes == 1000
    assert sorted(opened.train[i][1] for i in range(6)) == sorted(3 * list(of_class.values()))
    # The first two lines of the set's validation labels: n01751748 and n09193705.
    assert sorted(opened.test[i][1] for i in range(2)) == [65, 970]
    again = script("prepare_data", "imagenet2012", "--data-dir", tmp_path)
    assert "its 2 files are as they were written" in again.stdout


def test_no_network_is_said_with_what_to_do(tmp_path: Path, tensorflow, monkeypatch):
    class Builder:
        def download_and_prepare(self):
            raise ConnectionError("Failed to resolve\n'www.cs.toronto.edu'")

    monkeypatch.setattr(tfds, "builder", lambda *a, **k: Builder())
    with pytest.raises(UsageError) as refused:
        prepare_published("cifar10", tmp_path, lambda text: None)
    said = str(refused.value)
    assert "cifar10 could not be downloaded" in said
    assert "prepare it on a machine that has one and copy the folder" in said
    assert "\n" not in said


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
    assert "say with --name what to call the set" in refused.stderr
    assert refused.stderr.count("\n") == 1
