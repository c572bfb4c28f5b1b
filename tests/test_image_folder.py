"""Folders of pictures: what is listed in which order, what is left out and named, and refusals."""

import hashlib
import io
import os
import shutil
import socket
import unicodedata
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from photos import encode, photo
from PIL import Image
from rich.console import Console

from resflax import CIFAR10, Experiment, ImageFolder, ResNet, UsageError
from resflax.data.class_names import class_names
from resflax.data.description import describe
from resflax.data.encoded import open_splits
from resflax.data.image_folder import open_folder
from resflax.data.pictures.decoding import decode
from resflax.data.pictures.signatures import is_picture
from resflax.declarations.crop_notes import crop_notes
from resflax.devices.parallel import Devices
from resflax.evaluation.split_reader import open_split
from resflax.feeding.feeds import open_feeds
from resflax.terminal.display import Display
from resflax.text import path_text

JPEG = encode(photo(12, 16))
NFC, NFD = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


def write(root: Path, *paths: str, content: bytes = JPEG) -> None:
    """Writes files, and the folders that they lie in."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


def clean_folder(root: Path) -> Path:
    """A folder of two pictures of each of two classes in both splits."""
    write(root, *(f"{s}/{c}/{n}.jpg" for s in ("train", "val") for c in "ab" for n in (1, 2)))
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return clean_folder(tmp_path / "pictures")


def declared(root: Path, **fields: object) -> ImageFolder:
    return ImageFolder(**{"data_dir": str(root), "image_size": 16, **fields})  # type: ignore[arg-type]


def listed(root: Path, split: str = "train") -> list[str]:
    """The listed paths of a split in their order."""
    opened = open_folder(declared(root))
    return [file.path for file in (opened.train if split == "train" else opened.test).files]


def notes(root: Path) -> tuple[str, ...]:
    return open_splits(declared(root)).notes


def refusal(root: Path, **fields: object) -> str:
    """The message with which a folder is refused, which is one line that can be printed."""
    with pytest.raises(UsageError) as refused:
        open_splits(declared(root, **fields))
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    message.encode()
    return message


CLEAN = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"]

# --- What is listed, and in which order


def test_order_and_hash_of_a_clean_folder_never_change(tmp_path: Path):
    """Runs of old folders continue: order and hash are those of paths that are sorted as text."""
    paths = ["B/x/1.jpg", "B/x-1.JPG", "B/x.png", "a/10.jpeg", "a/9.bmp", "a b/é.gif", "ß/1.webp"]
    sizes = {path: 10 + number for number, path in enumerate(paths)}
    for split in ("train", "val"):
        for path, size in sizes.items():
            write(tmp_path, f"{split}/{path}", content=bytes(size))
    in_order = [
        "B/x-1.JPG",
        "B/x.png",
        "B/x/1.jpg",
        "a/10.jpeg",
        "a/9.bmp",
        "a b/é.gif",
        "ß/1.webp",
    ]
    assert listed(tmp_path) == listed(tmp_path, "val") == in_order
    facts = ["B", "a", "a b", "ß", *(2 * [f"{path} {sizes[path]}" for path in in_order])]
    splits = open_splits(declared(tmp_path))
    assert splits.sha256 == hashlib.sha256("\n".join(facts).encode()).hexdigest()
    assert splits.sha256 == "a1856256f3a389c779aaf117dd535e1e032faffbafdc3ecba5a4f7e83e1ab01d"
    assert [splits.train[i][1] for i in range(7)] == [0, 0, 0, 1, 1, 2, 3]
    assert splits.notes == ()


def test_a_folder_is_the_same_however_its_path_is_spelled(folder: Path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "link").symlink_to("pictures")
    spellings = (
        folder,
        f"{folder}/",
        "pictures",
        "./pictures//",
        "link",
        "../" + "/".join(folder.parts[-2:]),
    )
    opened = [
        open_splits(declared(Path(s)) if s == folder else ImageFolder(data_dir=str(s)))
        for s in spellings
    ]
    assert {splits.sha256 for splits in opened} == {opened[0].sha256}
    assert all(splits.train[3] == (JPEG, 1) for splits in opened)


@pytest.mark.parametrize(
    "litter",
    [
        "a/.ipynb_checkpoints/1-checkpoint.jpg",
        "a/._1.jpg",
        "a/.hidden.jpg",
        "a/deep/.git/1.jpg",
        ".ipynb_checkpoints/1.jpg",
        "__MACOSX/a/1.jpg",
        "a/__MACOSX/1.jpg",
        "a/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
        "$RECYCLE.BIN/1.jpg",
        "lost+found/1.jpg",
        "a/Thumbs.db",
        "b/deep/desktop.ini",
        ".DS_Store",
    ],
)
def test_hidden_files_and_those_of_systems_are_counted_and_left_out(folder: Path, litter: str):
    before = open_splits(declared(folder))
    for split in ("train", "val"):
        write(folder, f"{split}/{litter}")
    assert listed(folder) == listed(folder, "val") == CLEAN
    after = open_splits(declared(folder))
    assert (after.sha256, class_names(declared(folder))) == (before.sha256, ["a", "b"])
    named = litter[: litter.index(next(p for p in litter.split("/") if p in HIDDEN or p[0] == "."))]
    assert [note.split(": ", 1)[0] for note in after.notes] == [
        str(folder / split) for split in ("train", "val")
    ]
    assert all(
        f": left out 1 hidden or system file or folder ({named}" in note for note in after.notes
    )


HIDDEN = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found", "Thumbs.db", "desktop.ini"}


def test_what_is_left_out_is_said_in_one_line_for_each_split(folder: Path):
    write(folder, "train/a/.x.jpg", "train/b/.y.jpg", "train/stray.jpg")
    write(folder, "train/a/labels.txt", "train/labels.csv", content=b"1.jpg,a\n")
    write(folder, "train/b/photo.heic", content=b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (folder / "train" / "a" / "gone.jpg").symlink_to("nowhere.jpg")
    assert notes(folder) == (
        f"{folder}/train: left out 2 files in no known picture format (labels.csv and others), "
        "1 picture beside the class folders (stray.jpg), 2 hidden or system files and folders "
        "(a/.x.jpg and others), 1 link that leads nowhere (a/gone.jpg), 1 HEIC picture to be "
        "converted to JPEG (b/photo.heic)",
    )
    assert listed(folder) == CLEAN


@pytest.mark.parametrize(
    ("image_size", "shorter_side", "advised"),
    [(224, 256, None), (64, 128, None), (64, 129, 73), (32, 256, 36), (2000, 4096, 2285)],
)
def test_tests_that_see_little_of_a_picture_are_noted(image_size, shorter_side, advised):
    sizes = {"image_size": image_size, "test_shorter_side": shorter_side}
    notes = crop_notes(ImageFolder(data_dir="photos", shorter_side=(4096, 4096), **sizes))
    assert [note.rpartition(" ")[2] for note in notes] == ([str(advised)] if advised else [])
    assert all(f" {image_size}x{image_size} " in note for note in notes)
    assert crop_notes(CIFAR10()) == []


def test_training_and_evaluation_say_once_what_was_left_out(folder: Path):
    write(folder, "train/a/.x.jpg")
    data = declared(folder)
    shown = io.StringIO()
    with Display(Console(file=shown, width=200)) as display:
        open_split(data, "test", display)
        experiment = Experiment(name="x", model=ResNet(8), data=data, batch_size=2, steps=1)
        open_feeds(experiment, Devices("pmap", jax.devices()[:1]), display)
    assert shown.getvalue().splitlines() == [*notes(folder), *notes(folder)]


# --- What is a picture


def picture_file(ending: str, folder: Path) -> bytes:
    path = folder / f"picture{ending}"
    Image.fromarray(photo(12, 16)).save(path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("ending", "saved_as"),
    [
        *((".jfif", ".jpg"), (".jpe", ".jpg"), (".pgm", ".pgm"), (".ppm", ".ppm")),
        *((".avif", ".avif"), (".jp2", ".jp2"), (".ico", ".ico"), (".tga", ".tga")),
        *((".JFIF", ".jpg"), ("", ".png"), (".png~", ".png"), (".5", ".webp"), (".txt", ".gif")),
    ],
)
def test_pictures_with_any_ending_are_listed(folder: Path, tmp_path: Path, ending, saved_as):
    content = picture_file(saved_as, tmp_path)
    decode(content)
    write(folder, f"train/a/0{ending}", content=content)
    assert listed(folder) == [f"a/0{ending}", *CLEAN]
    assert notes(folder) == ()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"B",
        b"a label\n",
        b"P1 was taken in May\n",
        b"BMW and others, which begin like a bitmap",
        b"GIF89a is a format of 1989",
        b"#define X 1\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\x89HDF\r\n\x1a\n" + bytes(100),
        b"\x00\x00\x01\xb3" + bytes(100),
        JPEG[:12],
        bytes(1000),
    ],
)
def test_other_files_are_no_pictures(tmp_path: Path, content: bytes):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert not is_picture(str(path))


def test_pictures_with_a_well_known_ending_are_not_opened(folder: Path, monkeypatch):
    monkeypatch.setattr("builtins.open", None)
    assert listed(folder) == CLEAN


def test_a_picture_larger_than_pillow_likes_is_a_picture(tmp_path: Path, monkeypatch):
    (tmp_path / "large").write_bytes(JPEG)
    for limit in (12 * 16 - 1, 12 * 16 // 2 - 1):  # a warning, an error
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert is_picture(str(tmp_path / "large"))


# --- Links, and what cannot be read


def test_links_to_files_and_folders_are_followed(folder: Path, tmp_path: Path):
    write(tmp_path, "elsewhere/3.jpg", "elsewhere/deep/4.jpg", "pool/5.jpg", "pool/c/6.jpg")
    (folder / "train/a/linked").symlink_to(tmp_path / "elsewhere")
    (folder / "train/b/5.jpg").symlink_to(tmp_path / "pool" / "5.jpg")
    (folder / "train/c").symlink_to(tmp_path / "pool" / "c", target_is_directory=True)
    assert listed(folder) == [
        *("a/1.jpg", "a/2.jpg", "a/linked/3.jpg", "a/linked/deep/4.jpg"),
        *("b/1.jpg", "b/2.jpg", "b/5.jpg", "c/6.jpg"),
    ]
    assert class_names(declared(folder)) == ["a", "b", "c"]
    assert notes(folder) == (f"{folder}/val: no pictures for 1 class (c)",)


@pytest.mark.parametrize("target", [".", "..", "../..", "../../..", "../b", "real", "/"])
def test_loops_of_links_are_cut_and_named(folder: Path, target: str):
    write(folder, "train/a/real/3.jpg")
    (folder / "train" / "a" / "again").symlink_to(target)
    (folder / "train" / "a" / "real" / "up").symlink_to("..")
    assert listed(folder) == ["a/1.jpg", "a/2.jpg", "a/real/3.jpg", "b/1.jpg", "b/2.jpg"]
    assert notes(folder) == (
        f"{folder}/train: left out 2 folders that links reach again (a/again and others)",
    )


def test_links_that_lead_to_each_other_are_cut(folder: Path, tmp_path: Path):
    write(tmp_path, "one/1.jpg", "two/2.jpg")
    (tmp_path / "one" / "other").symlink_to("../two")
    (tmp_path / "two" / "other").symlink_to("../one")
    (folder / "train" / "a" / "x").symlink_to(tmp_path / "one")
    assert listed(folder)[2:4] == ["a/x/1.jpg", "a/x/other/2.jpg"]
    assert "1 folder that links reach again (a/x/other/other)" in notes(folder)[0]


@pytest.mark.parametrize("target", ["nowhere", "gone.jpg", "1.jpg/x"])
def test_links_that_lead_nowhere_are_left_out_and_named(folder: Path, target: str):
    (folder / "train" / "a" / "gone.jpg").symlink_to(target)
    assert listed(folder) == CLEAN
    assert notes(folder) == (f"{folder}/train: left out 1 link that leads nowhere (a/gone.jpg)",)


def test_pipes_sockets_and_devices_are_not_opened(folder: Path, monkeypatch):
    os.mkfifo(folder / "train" / "a" / "0.jpg")
    os.mkfifo(folder / "train" / "pipe")
    (folder / "train" / "b" / "null.png").symlink_to(os.devnull)
    monkeypatch.chdir(folder / "train" / "b")  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    assert listed(folder) == CLEAN
    assert notes(folder) == (
        f"{folder}/train: left out 4 pipes, sockets and devices (pipe and others)",
    )


def test_a_file_that_vanishes_while_it_is_listed_is_left_out(folder: Path, monkeypatch):
    forget(monkeypatch, "2.jpg", FileNotFoundError(2, "No such file or directory"))
    assert listed(folder) == ["a/1.jpg", "b/1.jpg"]
    assert "2 files that have just vanished (a/2.jpg and others)" in notes(folder)[0]


def forget(monkeypatch: pytest.MonkeyPatch, name: str, error: OSError) -> None:
    """Makes looking up any file or folder of this name fail."""
    scandir = os.scandir

    class EntryOfName:
        def __init__(self, entry: "os.DirEntry[str]") -> None:
            self.name, self.is_symlink = entry.name, entry.is_symlink
            self._stat = entry.stat

        def stat(self) -> os.stat_result:
            if self.name == name:
                raise error
            return self._stat()

    class Scanned:
        def __init__(self, place: str) -> None:
            with scandir(place) as entries:
                self.entries = [EntryOfName(entry) for entry in entries]

        def __enter__(self) -> list[EntryOfName]:
            return self.entries

        def __exit__(self, *reason: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Scanned)


@pytest.mark.parametrize("place", ["train", "train/a", "train/a/deep", "val/b"])
def test_a_folder_that_cannot_be_read_is_refused_by_name(folder: Path, monkeypatch, place: str):
    write(folder, "train/a/deep/3.jpg")
    scandir = os.scandir

    def forbid(path: str):
        if os.path.normpath(path) == str(folder / place):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbid)
    assert refusal(folder).startswith(f"{folder / place}")
    assert refusal(folder).endswith(" cannot be read: Permission denied")


def test_a_folder_whose_files_cannot_be_looked_up_is_refused_by_name(folder: Path, monkeypatch):
    forget(monkeypatch, "2.jpg", PermissionError(13, "Permission denied", "pictures/a/2.jpg"))
    assert refusal(folder) == "pictures/a/2.jpg cannot be read: Permission denied"


def test_a_file_that_may_not_be_read_is_named(folder: Path, monkeypatch):
    write(folder, "train/a/secret", "train/a/secret.jpg")

    def forbid(path: str) -> bool:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("resflax.data.listing.is_picture", forbid)
    assert notes(folder) == (f"{folder}/train: left out 1 file that cannot be read (a/secret)",)
    assert "a/secret.jpg" in listed(folder)  # its reader will count it as a bad picture


# --- Names


def test_names_that_are_no_text_are_listed_read_and_printed(folder: Path):
    for split in ("train", "val"):
        folder_bytes = os.path.join(os.fsencode(folder), split.encode(), b"caf\xe9")
        os.mkdir(folder_bytes)
        for name in (b"\xff.jpg", b"a\nb.jpg"):
            with open(os.path.join(folder_bytes, name), "wb") as file:
                file.write(JPEG)
    splits = open_splits(declared(folder))
    assert class_names(declared(folder)) == ["a", "b", r"caf\xe9"]
    assert splits.train[4] == splits.train[5] == (JPEG, 2)
    assert [splits.train.name(i) for i in (4, 5)] == [
        rf"{folder}/train/caf\xe9/\xff.jpg",
        rf"{folder}/train/caf\xe9/a\nb.jpg",
    ]
    facts = open_folder(declared(folder)).train.facts()
    assert facts[4:] == [rf"caf\xe9/\xff.jpg {len(JPEG)}", rf"caf\xe9/a\nb.jpg {len(JPEG)}"]


def test_messages_about_names_that_are_no_text_can_be_printed(folder: Path):
    with open(os.path.join(os.fsencode(folder), b"train/a/\xff.txt"), "wb") as file:
        file.write(b"no picture")
    assert notes(folder)[0].endswith(r"1 file in no known picture format (a/\xff.txt)")
    os.mkdir(os.path.join(os.fsencode(folder), b"train/\xfe"))
    assert r"no pictures for the class \xfe" in refusal(folder)
    os.mkdir(os.path.join(os.fsencode(folder), b"val/\xfd"))
    assert r"has the class \xfd" in refusal(folder)
    missing = folder / os.fsdecode(b"\xfc")
    assert rf"there is no folder {folder}/\xfc/train" in refusal(missing)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a/é", "a/é"),
        (NFD, NFD),
        (os.fsdecode(b"\xe9\x80"), r"\xe9\x80"),
        ("a\n\x1b[31m\x85\u2028b", r"a\n\x1b[31m\x85\u2028b"),
    ],
)
def test_path_text(path: str, text: str):
    assert path_text(path) == text
    assert path_text(Path(path)) == text


def test_a_copy_with_names_in_the_other_unicode_form_is_the_same_data(tmp_path: Path):
    """A folder that was copied from macOS has its names in NFD, where é sorts before f."""
    names = (f"{NFC}cole", "fork", "zoo", f"n/{NFC}.jpg")
    for form in ("NFC", "NFD"):
        for split in ("train", "val"):
            for number, name in enumerate(names):
                path = name if name.endswith(".jpg") else f"{name}/1.jpg"
                path = unicodedata.normalize(form, path)
                write(tmp_path / form, f"{split}/{path}", content=bytes(number + 1))
    assert [path.isascii() for path in listed(tmp_path / "NFD")].count(False) == 2
    nfc, nfd = (open_splits(declared(tmp_path / form)) for form in ("NFC", "NFD"))
    assert nfc.sha256 == nfd.sha256
    assert [nfc.train[i] for i in range(4)] == [nfd.train[i] for i in range(4)]
    for form in ("NFC", "NFD"):
        assert class_names(declared(tmp_path / form)) == ["fork", "n", "zoo", f"{NFC}cole"]


def test_classes_are_the_same_in_both_unicode_forms(folder: Path):
    write(folder, f"train/{NFC}/1.jpg", f"val/{NFD}/1.jpg")
    splits = open_splits(declared(folder))
    assert splits.train[4] == splits.test[4] == (JPEG, 2)
    assert splits.notes == ()


def test_two_folders_of_one_class_are_merged_and_named(folder: Path):
    write(folder, f"train/{NFC}/2.jpg", f"train/{NFD}/1.jpg", f"val/{NFC}/1.jpg")
    assert listed(folder)[4:] == [f"{NFD}/1.jpg", f"{NFC}/2.jpg"]
    assert describe(declared(folder)).num_classes == 3
    assert notes(folder) == (
        f"{folder}/train: folders whose names look the same count as one class ({NFD})",
    )


def test_classes_that_differ_in_case_stay_apart(folder: Path):
    write(folder, "train/A/1.jpg")
    assert class_names(declared(folder)) == ["A", "a", "b"]


# --- What is refused


def remove(*paths: Path) -> None:
    for path in paths:
        shutil.rmtree(path)


def rename(path: Path, new: str) -> None:
    path.rename(path.parent / new)


def unpack_train(folder: Path) -> None:
    """Moves the classes out of their split, and removes the other split."""
    for name in "ab":
        shutil.move(folder / "train" / name, folder)
    remove(folder / "train", folder / "val")


def empty_train(folder: Path) -> None:
    for path in folder.glob("train/*/*.jpg"):
        path.unlink()


def hide_tests(folder: Path) -> None:
    remove(folder / "val" / "b")
    for path in folder.glob("val/a/*.jpg"):
        rename(path, f".{path.name}")


def link(path: Path, target: str) -> None:
    if path.exists():
        remove(path)
    path.symlink_to(target)


Change = Callable[[Path], None]

REFUSED: list[tuple[Change, dict[str, object], str]] = [
    # what is done to a folder of two classes, fields of the declaration, part of the message
    (lambda f: (f / "train/c").mkdir(), {}, "/train has no pictures for the class c; put some"),
    (
        lambda f: write(f, "train/c/1.heic", "train/d/.x.jpg", content=b"x"),
        {},
        "/train has no pictures for the class c nor for 1 more; put some there, or remove the "
        "folder (left out: 1 HEIC picture to be converted to JPEG (c/1.heic), 1 hidden",
    ),
    (lambda f: remove(f / "train/b"), {}, "/train has only the class a; there must be at least"),
    (lambda f: write(f, "val/c/1.jpg"), {}, "/val has the class c, which train does not have"),
    (lambda f: link(f / "val", "train"), {}, "/train and {}/val are the same folder; test pict"),
    (lambda f: link(f / "val/b", "../train/b"), {}, "/train/b and {}/val/b are the same folder"),
    (
        lambda f: link(f / "train/a/more", "../../val/b"),
        {},
        "/train/a/more and {}/val/b are the same folder; test pictures must not be training",
    ),
    (lambda f: link(f / "train/c", "b"), {}, "/train: the folders b and c are the same one; each"),
    (
        lambda f: write(f, "train/more/a/1.jpg", "train/more/b/1.jpg"),
        {"test_split": "train/more"},
        "/train/more and {}/train/more are the same folder; test pictures must not",
    ),
    (
        lambda f: rename(f / "val", "test"),
        {},
        "there is no folder {}/val; the pictures must lie in {}/val/CLASS/, or name other splits "
        "with --data.train-split and --data.test-split; {} has the folders test, train",
    ),
    (
        unpack_train,
        {},
        "{} has the folders a, b; if these are the classes, move them into train, and some "
        "pictures of each into val/CLASS/",
    ),
    (lambda f: None, {"data_dir": "{}/train/a/1.jpg"}, "/train/a/1.jpg is a file; it must be a fo"),
    (
        lambda f: None,
        {"data_dir": "~nobody-at-all/x"},
        "the home folder ~nobody-at-all is not known",
    ),
    (lambda f: link(f / "train", "nowhere"), {}, "there is no folder {}/train; the pictures"),
    (remove, {}, "there is no folder {}/train; the pictures must lie in {}/train/CLASS/, or name"),
    (lambda f: None, {"data_dir": None}, "name the folder of the pictures with --data.data-dir"),
    (lambda f: None, {"validation": 4}, "validation is 4; it must be below the 4 training exa"),
    (
        lambda f: remove(f / "train" / "a", f / "train" / "b"),
        {},
        "{}/train has no folders; it needs one for each class",
    ),
    (
        hide_tests,
        {},
        "{}/val has no pictures (left out: 2 hidden or system files and folders (a/.1.jpg and",
    ),
    (empty_train, {}, "{}/train has no pictures"),
]


@pytest.mark.parametrize(("change", "fields", "message"), REFUSED)
def test_refuses_in_one_line_a_folder(folder: Path, change: Change, fields, message: str):
    change(folder)
    if isinstance(fields.get("data_dir"), str):
        fields = {"data_dir": fields["data_dir"].replace("{}", str(folder))}
    assert message.replace("{}", str(folder)) in refusal(folder, **fields)


def test_splits_may_be_links(folder: Path, tmp_path: Path):
    (folder / "val").rename(tmp_path / "tests")
    (folder / "val").symlink_to(tmp_path / "tests")
    assert listed(folder, "val") == CLEAN
