"""Streamed sets and folders: their pictures, what is held out, and what is refused."""

import dataclasses
from pathlib import Path

import pytest
from streamed import CLASSES, declared
from test_pictures import encode, photo

from resflax import ImageFolder, ImageNet, Streamed, UsageError
from resflax.data.records import open_records
from resflax.data.source import describe, training_examples


def write_folder(root: Path, data: Streamed) -> None:
    """The splits of a prepared set as folders of files, in the set's order."""
    opened = open_records(data)
    for split, records in (("train", opened.train), ("val", opened.test)):
        for number in range(len(records)):
            encoded, label = records[number]
            folder = root / split / f"class {label}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:03}.jpg").write_bytes(encoded)


def test_a_folder_has_the_pictures_of_its_files(prepared: Path, tmp_path: Path):
    write_folder(tmp_path, declared(prepared))
    (tmp_path / "train" / "class 0" / "notes.txt").write_text("no picture")
    (tmp_path / "train" / ".hidden").mkdir()
    data = ImageFolder(data_dir=str(tmp_path), image_size=16)
    opened, other = open_records(data), open_records(declared(prepared))
    assert (opened.num_classes, len(opened.train), len(opened.test)) == (CLASSES, 23, 9)
    for records, same in ((opened.train, other.train), (opened.test, other.test)):
        assert sorted(records[i] for i in range(len(records))) == sorted(
            same[i] for i in range(len(same))
        )
        labels = [records[i][1] for i in range(len(records))]
        assert labels == sorted(labels)
    assert describe(data).num_classes == CLASSES
    assert training_examples(data) == 23


@pytest.mark.parametrize("kind", ["set", "folder"])
def test_validation_examples_are_held_out(prepared: Path, tmp_path: Path, kind: str):
    data = declared(prepared, validation=5)
    if kind == "folder":
        write_folder(tmp_path, declared(prepared))
        data = ImageFolder(data_dir=str(tmp_path), validation=5, image_size=16)
    opened = open_records(data)
    assert opened.validation is not None
    kept, held_out = (
        [records[i] for i in range(len(records))] for records in (opened.train, opened.validation)
    )
    whole = open_records(dataclasses.replace(data, validation=0)).train
    assert (len(kept), len(held_out)) == (18, 5)
    assert sorted(kept + held_out) == sorted(whole[i] for i in range(23))
    again = open_records(data).validation
    assert again is not None
    assert [again[i] for i in range(5)] == held_out


def test_wrong_folders_are_refused_in_one_line(prepared: Path, tmp_path: Path):
    def opened(**fields):
        return open_records(ImageFolder(data_dir=str(tmp_path), image_size=16, **fields))

    with pytest.raises(UsageError, match="name the folder of the pictures with"):
        open_records(ImageFolder())
    with pytest.raises(UsageError, match=r"there is no folder .*train; the pictures must lie in"):
        opened()
    (tmp_path / "train").mkdir()
    (tmp_path / "val" / "other").mkdir(parents=True)
    with pytest.raises(UsageError, match="train has no folders; it needs one for each class"):
        opened()
    (tmp_path / "train" / "cat").mkdir()
    with pytest.raises(UsageError, match="train has no pictures"):
        opened()
    (tmp_path / "train" / "cat" / "1.PNG").write_bytes(encode(photo(), "png"))
    with pytest.raises(UsageError, match="val has the class other, and train has not"):
        opened()
    (tmp_path / "val" / "other").rename(tmp_path / "val" / "cat")
    (tmp_path / "val" / "cat" / "2.jpeg").write_bytes(encode(photo()))
    assert len(opened().test) == 1
    with pytest.raises(UsageError, match="validation is 1; it must be below the 1 training"):
        opened(validation=1)


def test_imagenet_needs_not_be_there_to_be_described():
    facts = describe(ImageNet())
    assert (facts.num_classes, facts.image_shape) == (1000, (224, 224, 3))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image_size": 0}, "image_size is 0; it must be at least 1"),
        ({"training_sizes": (64, 5000)}, "each must be at least 1 and at most 4096"),
        ({"shorter_side": (200, 300)}, "it must be at least image_size, 224"),
        ({"shorter_side": (300, 256)}, "two sizes, the smaller one first"),
        ({"shorter_side": (256,)}, "two sizes, the smaller one first"),
        ({"test_shorter_side": 200}, "it must be at least image_size, 224"),
        ({"crop": "none"}, "must be one of random_resized, scale, center"),
        ({"bad_pictures": -1}, "it must be at least 0"),
    ],
)
def test_wrong_declarations_are_refused(fields, said):
    with pytest.raises(UsageError, match=said):
        ImageNet(**fields)
