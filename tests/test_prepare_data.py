"""Preparation: sets made from folders, interruptions, sums of files, and published sets."""

import errno
import hashlib
import importlib.util
import io
import json
import os
import resource
import shutil
import signal
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from photos import encode, photo
from PIL import ExifTags, Image

from resflax import ImageFolder, ImageNet, Streamed, TrainingError, UsageError
from resflax.commands import prepare_data
from resflax.data.class_names import class_names
from resflax.data.encoded import open_splits
from resflax.data.image_folder import FolderExamples
from resflax.data.preparation import picture_folders
from resflax.data.preparation.one_at_a_time import preparing
from resflax.data.preparation.picture_folders import prepare_folder
from resflax.data.preparation.published_sets import prepare_published
from resflax.data.preparation.set_names import check_set_name
from resflax.data.prepared_sets import open_prepared_set
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


def test_files_are_checked_by_their_sums(pictures: Path, tmp_path: Path, monkeypatch):
    folder, _ = prepare(pictures, tmp_path)
    rows = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    sums = {name: expected for expected, name in rows}
    assert len(sums) == 2
    for name, expected in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.setattr(os, "access", lambda *arguments: False)  # a set may lie on a read-only disk
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
        for number in range(3):
            encoded = encode(photo(20, 20, seed=number))
            bad = split == "train" and number == 1
            content = encoded[: len(encoded) // 2] if bad else encoded
            path = tmp_path / "from" / split / "aab"[number] / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    _, lines = prepare(tmp_path / "from", tmp_path, "few")
    assert [line.split(": ")[0] for line in lines] == [str(tmp_path / "from" / "train/a/1.jpg")]
    splits = open_splits(Streamed("few", str(tmp_path), test_split="val"))
    assert (len(splits.train), len(splits.test)) == (2, 3)


def test_another_folder_under_the_same_name_is_refused(pictures, tmp_path: Path):
    prepare(pictures, tmp_path)
    for name in ("train/a", "train/b", "val/a"):
        (tmp_path / "other" / name).mkdir(parents=True)
        (tmp_path / "other" / name / "1.jpg").write_bytes(encode(photo()))
    with pytest.raises(UsageError, match="has other pictures; give the set another name"):
        prepare(tmp_path / "other", tmp_path)


def test_an_unfinished_set_of_other_pictures_is_begun_anew(pictures, tmp_path: Path, monkeypatch):
    source = tmp_path / "pictures"
    shutil.copytree(pictures, source)
    monkeypatch.setattr(picture_folders, "write_sums", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path)
    monkeypatch.undo()
    folder = tmp_path / "animals" / "1.0.0"
    (folder / ".source.json.tmp").write_bytes(b"half")
    (source / "train" / "dog" / "99.jpg").write_bytes(encode(photo()))
    _, lines = prepare(source, tmp_path)
    assert lines == [f"{folder} was begun with other pictures; it is begun anew"]
    splits = open_splits(Streamed("animals", str(tmp_path), test_split="val"))
    assert (len(splits.train), len(splits.test)) == (15, 6)
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_a_folder_of_other_files_is_not_touched(pictures, tmp_path: Path):
    mine = tmp_path / "animals" / "1.0.0" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("chapter 1")
    with pytest.raises(UsageError, match="has other pictures; give the set another name"):
        prepare(pictures, tmp_path)
    assert [path.name for path in mine.parent.iterdir()] == ["thesis.txt"]


def test_metadata_that_were_cut_off_are_written_again(pictures, prepared, tmp_path: Path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    info = tmp_path / "animals" / "1.0.0" / "dataset_info.json"
    whole = info.read_text()
    info.write_text(whole[:40])
    prepare(pictures, tmp_path)
    assert json.loads(info.read_text()) == json.loads(whole)


# --- Messy folders


def test_a_messy_folder_and_the_set_made_from_it_have_the_same_pictures(tmp_path: Path):
    source, picture = tmp_path / "from", encode(photo(20, 20))
    for split in ("train", "val"):
        for path in (
            b"cat/1.jpg",
            b"cat/.ipynb_checkpoints/1.jpg",
            b"caf\xe9/\xff.jfif",
            b"\xc3\xa9/2",
        ):
            place = os.path.join(os.fsencode(source), split.encode(), path)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "wb") as file:
                file.write(picture)
    folder, lines = prepare(source, tmp_path, "messy")
    assert lines == [
        f"{source}/{split}: left out 1 hidden or system file or folder (cat/.ipynb_checkpoints)"
        for split in ("train", "val")
    ]
    declared = Streamed("messy", str(tmp_path), test_split="val")
    assert class_names(declared) == [r"caf\xe9", "cat", "é"]
    of_folder = open_splits(ImageFolder(data_dir=str(source)))
    of_set = open_splits(declared)
    for name in ("train", "test"):
        examples, set_examples = getattr(of_folder, name), getattr(of_set, name)
        assert [examples[i] for i in range(3)] == [set_examples[i] for i in range(3)]
    source_of_records = tfds.builder_from_directory(folder).as_data_source(
        "train", decoders={"image": tfds.decode.SkipDecoding()}
    )
    file_names = [source_of_records[i]["file_name"].decode() for i in range(3)]
    assert file_names == [r"caf\xe9/\xff.jfif", "cat/1.jpg", "é/2"]


def test_pictures_are_copied_with_their_orientation(tmp_path: Path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = encode(photo(20, 30), exif=exif)
    for path in ("train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg"):
        (tmp_path / "from" / path).parent.mkdir(parents=True)
        (tmp_path / "from" / path).write_bytes(turned)
    prepare(tmp_path / "from", tmp_path, "turned")
    splits = open_splits(Streamed("turned", str(tmp_path), test_split="val"))
    assert splits.train[0] == (turned, 0)


# --- Names and places


@pytest.mark.parametrize(
    ("name", "proposal"),
    [
        *(("Photos", "photos"), ("my-photos", "my_photos"), ("2024", "my_2024")),
        *(("my photos", "my_photos"), ("a.b", "a_b"), ("../up", "up"), ("MyPhotos", "my_photos")),
        *(("", "my_pictures"), ("..", "my_pictures"), ("写真", "my_pictures"), ("Café", "cafe")),
        *(("photos\n", "photos"), ("x" * 101, "x" * 90), ("_a", "a"), ("cifar10", "my_cifar10")),
        *(
            ("digits", "my_digits"),
            ("mnist:1.0.0", "mnist_1_0_0"),
            (os.fsdecode(b"\xff"), "my_pictures"),
        ),
    ],
)
def test_a_name_that_would_not_open_is_refused_with_one_that_does(tmp_path, name, proposal):
    with pytest.raises(UsageError, match=r"^--name is ") as refused:
        prepare_folder(tmp_path / "nowhere", name, tmp_path / "sets", print, show_nothing)
    message = str(refused.value)
    assert message.endswith(f"such as --name {proposal}")
    message.encode()
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "sets").exists()
    check_set_name(proposal)


@pytest.mark.parametrize("name", ["photos", "a", "x2", "a_b__c", "x" * 100])
def test_a_set_of_an_allowed_name_opens(prepared: Path, tmp_path: Path, name: str):
    check_set_name(name)
    shutil.copytree(prepared / "animals", tmp_path / name)
    assert open_prepared_set(Streamed(name, str(tmp_path))).name == "animals"


@pytest.mark.parametrize("split", ["../val", "a b", "val/", "val[:9]", "", "all", "é", "x" * 101])
def test_a_test_split_that_would_not_open_is_refused(tmp_path: Path, split: str):
    (tmp_path / "from" / split).mkdir(parents=True, exist_ok=True)
    with pytest.raises(
        UsageError, match=r"^--test-split is .*; it must name a folder beside train"
    ):
        prepare_folder(
            tmp_path / "from", "photos", tmp_path / "sets", print, show_nothing, test_split=split
        )
    assert not (tmp_path / "sets").exists()


def test_a_place_where_no_set_can_be_is_refused_before_pictures_are_listed(
    pictures, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(picture_folders, "open_folder", None)
    (tmp_path / "file").write_text("x")
    (tmp_path / "animals" / "2.0.0").mkdir(parents=True)
    refused = {
        tmp_path / "file": "file is a file",
        tmp_path / "file" / "sets": "file is a file",
        pictures / "train" / "cat": "train; name another folder with --data-dir",
        tmp_path: "animals already has 2.0.0; give the set another name with --name",
        tmp_path / os.fsdecode(b"\xff"): "its path is not UTF-8; .*PYTHONUTF8=1",
    }
    for data_dir, message in refused.items():
        with pytest.raises(UsageError, match=f"{message}$"):
            prepare(pictures, data_dir)

    def forbid(**arguments: object) -> None:  # root may write anywhere
        raise PermissionError(errno.EACCES, "")

    monkeypatch.setattr(tempfile, "TemporaryFile", forbid)
    with pytest.raises(UsageError, match=r"--data-dir is .* cannot be written to"):
        prepare(pictures, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["animals", "file"]


def test_classes_whose_names_tfds_would_change_are_refused(tmp_path: Path):
    for path in ("train/ cat/1.jpg", "train/cat/1.jpg", "val/cat/1.jpg"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(encode(photo(20, 20)))
    with pytest.raises(UsageError, match="the class ' cat' has a blank before or after its name"):
        prepare(tmp_path, tmp_path / "sets")
    assert not (tmp_path / "sets").exists()


# --- Disks


@pytest.fixture
def largest_file() -> Iterator[Callable[[int], None]]:
    """Lets no file of this process grow beyond so many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_after_a_full_disk_the_same_command_does_the_rest(
    pictures, prepared, tmp_path: Path, monkeypatch, largest_file
):
    whole = prepared / "animals" / "1.0.0"
    for size in (5, 300, 2000):
        largest_file(size)
        with pytest.raises(TrainingError, match=r"could not be written: .*File too large"):
            prepare(pictures, tmp_path)
        assert not list(tmp_path.rglob("*.part"))
    largest_file(resource.RLIM_INFINITY)
    folder, _ = prepare(pictures, tmp_path)
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    assert (folder / "SHA256SUMS").read_bytes() == (whole / "SHA256SUMS").read_bytes()


def test_a_full_disk_is_said_in_one_line(pictures, tmp_path: Path, monkeypatch):
    class Writer:
        def __init__(self, path: str, options: str) -> None:
            Path(path).write_bytes(b"half")

        def write(self, record: bytes) -> None:
            raise RuntimeError("write() failed: No space left on device; writing /x; at byte 0")

    monkeypatch.setattr(array_record_module, "ArrayRecordWriter", Writer)
    with pytest.raises(TrainingError) as failure:
        prepare(pictures, tmp_path)
    path = tmp_path / "animals" / "1.0.0" / "animals-train.array_record-00000-of-00001"
    assert str(failure.value) == (
        f"{path} could not be written: the disk is full; the files that are finished are kept, and "
        "the same command continues"
    )
    assert [path.name for path in path.parent.iterdir()] == ["source.json"]


def test_a_picture_that_cannot_be_read_ends_the_preparation(pictures, tmp_path, monkeypatch):
    def fail(self: FolderExamples, index: int) -> tuple[bytes, int]:
        raise OSError(errno.EIO, "Input/output error", self.name(index))

    monkeypatch.setattr(FolderExamples, "__getitem__", fail)
    with pytest.raises(TrainingError, match=r"cat/00.jpeg could not be read: Input/output error; "):
        prepare(pictures, tmp_path)


# --- Published sets


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
    sets = tmp_path / "é"
    done = script("prepare_data", pictures, "--name", "animals", "--data-dir", sets)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(
        f"is ready: --data.name animals --data.data-dir {sets} --data.test-split val\n"
        'an experiment file declares it as Streamed("animals"), not as an ImageFolder\n'
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}"], "{} is a folder; name the new set with --name, such as --name snapshots"),
        (["{}", "--name", "My-Photos"], "--name is 'My-Photos'; the name of a set begins with a"),
        (
            ["{}", "--name", "photos"],
            "there is no folder {}/val; the pictures must lie in {}/val/C",
        ),
        (["{}/none", "--name", "photos"], "there is no folder {}/none"),
        (["~nobody-at-all/x"], "~nobody-at-all/x: the home folder ~nobody-at-all is not known"),
        (["no set"], "no set is neither a folder nor the name of a set"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path: Path, arguments, message):
    source = tmp_path / "Snapshots"
    (source / "train" / "cat").mkdir(parents=True)
    arguments = [argument.replace("{}", str(source)) for argument in arguments]
    with pytest.raises(UsageError) as refused:
        prepare_data.main([*arguments, "--data-dir", str(tmp_path / "sets")])
    assert str(refused.value).startswith(message.replace("{}", str(source)))
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "sets").exists()
