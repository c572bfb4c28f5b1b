"""Streamed sets and folders: their pictures, what is held out, and what is refused."""

import dataclasses
from pathlib import Path

import pytest
from streamed import CLASSES, declare_set

from resflax import ImageFolder, ImageNet, Streamed, UsageError
from resflax.data.description import describe, training_examples
from resflax.data.encoded import EncodedExamples, open_splits


def read_all(examples: EncodedExamples) -> list[tuple[bytes, int]]:
    return [examples[index] for index in range(len(examples))]


def write_folder(root: Path, data: Streamed) -> None:
    """Writes the splits of a prepared set as folders of files, in the set's order."""
    splits = open_splits(data)
    for split, examples in (("train", splits.train), ("val", splits.test)):
        for number, (encoded, label) in enumerate(read_all(examples)):
            folder = root / split / f"class {label}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:03}.jpg").write_bytes(encoded)


def test_a_folder_has_the_pictures_of_its_files(prepared: Path, tmp_path: Path):
    write_folder(tmp_path, declare_set(prepared))
    data = ImageFolder(data_dir=str(tmp_path), image_size=16)
    in_folder, in_set = open_splits(data), open_splits(declare_set(prepared))
    sizes = (in_folder.num_classes, len(in_folder.train), len(in_folder.test))
    assert sizes == (CLASSES, 23, 9)
    pairs = ((in_folder.train, in_set.train), (in_folder.test, in_set.test))
    for folder_examples, set_examples in pairs:
        assert sorted(read_all(folder_examples)) == sorted(read_all(set_examples))
        labels = [label for _, label in read_all(folder_examples)]
        assert labels == sorted(labels)
    assert describe(data).num_classes == CLASSES
    assert training_examples(data) == 23


@pytest.mark.parametrize("source", ["set", "folder"])
def test_validation_examples_are_held_out(prepared: Path, tmp_path: Path, source: str):
    data = declare_set(prepared, validation=5)
    if source == "folder":
        write_folder(tmp_path, declare_set(prepared))
        data = ImageFolder(data_dir=str(tmp_path), validation=5, image_size=16)
    splits = open_splits(data)
    assert splits.validation is not None
    kept, held_out = read_all(splits.train), read_all(splits.validation)
    all_train = open_splits(dataclasses.replace(data, validation=0)).train
    assert (len(kept), len(held_out), len(all_train)) == (18, 5, 23)
    assert sorted(kept + held_out) == sorted(read_all(all_train))
    again = open_splits(data).validation
    assert again is not None
    assert read_all(again) == held_out


def test_imagenet_is_described_without_being_prepared():
    facts = describe(ImageNet())
    assert (facts.num_classes, facts.image_shape) == (1000, (224, 224, 3))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 0}, "image_size is 0; it must be at least 1"),
        ({"training_sizes": (64, 5000)}, "each must be at least 1 and at most 4096"),
        ({"shorter_side": (200, 300)}, "it must be at least image_size, 224"),
        ({"shorter_side": (300, 256)}, "two sizes, the smaller one first"),
        ({"shorter_side": (256,)}, "two sizes, the smaller one first"),
        ({"test_shorter_side": 200}, "it must be at least image_size, 224"),
        ({"crop": "none"}, "must be one of random_resized, scale, center"),
        ({"bad_pictures": -1}, "it must be at least 0"),
        ({"resize": "pillow"}, "it must be one of opencv, pillow_bilinear, pillow_bicubic"),
    ],
)
def test_wrong_declarations_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        ImageNet(**fields)
