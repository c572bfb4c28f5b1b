"""Sets that cannot be used: each is refused in one line that says what is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from photos import encode
from small_sets import Example, examples, pixels, prepare_30_and_8, prepare_set

from resflax import TFDS, UsageError
from resflax.data.in_memory import load_dataset, load_split

Damage = Callable[[Path], object]
"""Damages a set, whose folder is the argument."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data_dir of a set of 30 training and 8 test pictures."""
    return prepare_30_and_8(tmp_path_factory.mktemp("prepared"))


def edit_json(name: str, change: Callable[[Any], object]) -> Damage:
    """Changes the content of one of the JSON files."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return damage


def edit_info(change: Callable[[Any], object]) -> Damage:
    return edit_json("dataset_info.json", change)


def edit_feature(name: str, change: Callable[[Any], object]) -> Damage:
    return edit_json(
        "features.json", lambda content: change(content["featuresDict"]["features"][name])
    )


def edit_records(change: Callable[[bytes], bytes]) -> Damage:
    """Changes the bytes of the training pictures' file."""

    def damage(folder: Path) -> None:
        (path,) = folder.glob("*-train.array_record*")
        path.write_bytes(change(path.read_bytes()))

    return damage


def invert_ten_bytes(content: bytes) -> bytes:
    return content[:3000] + bytes(255 - byte for byte in content[3000:3010]) + content[3010:]


def nothing(folder: Path) -> None:
    pass


REFUSED: list[tuple[Damage, dict[str, Any], str]] = [
    # damage to the set, fields of the declaration, beginning of the message
    (nothing, {"name": "picture"}, "TFDS.name is 'picture'; no prepared set of that name in "),
    (nothing, {"name": "pictures:2.0.0"}, "TFDS.name is 'pictures:2.0.0'; no prepared set of "),
    (nothing, {"name": "../pictures"}, "TFDS.name is '../pictures'; no prepared set of that "),
    (nothing, {"name": "a b"}, "TFDS.name is 'a b'; no prepared set of that name in "),
    (nothing, {"name": "pictures", "data_dir": "/nowhere"}, "TFDS.name is 'pictures'; no prepared"),
    (nothing, {"data_dir": None}, "TFDS.name is 'pictures'; no prepared set of that name in "),
    (nothing, {"image_key": "photo"}, "TFDS.image_key is 'photo'; pictures has the features image"),
    (nothing, {"label_key": "kind"}, "TFDS.label_key is 'kind'; pictures has the features image"),
    (nothing, {"image_key": "label"}, "TFDS.image_key is 'label'; it must name a picture"),
    (nothing, {"label_key": "image"}, "TFDS.label_key is 'image'; it must name a class label"),
    (nothing, {"train_split": "trian"}, "TFDS.train_split is 'trian'; pictures has the splits tr"),
    (nothing, {"test_split": "train[:9]"}, r"TFDS.test_split is 'train\[:9\]'; pictures has the"),
    (nothing, {"validation": 30}, "TFDS.validation is 30; it must be below the 30 examples of tr"),
    (shutil.rmtree, {}, "TFDS.name is 'pictures'; no prepared set of that name in "),
    (
        lambda folder: (folder / "features.json").unlink(),
        {},
        "TFDS.name is 'pictures'; no prepared",
    ),
    (lambda folder: (folder / "features.json").write_text("{"), {}, "TFDS.name is 'pictures'; no"),
    (
        edit_info(lambda content: content.update(fileFormat="tfrecord")),
        {},
        "TFDS.name is 'pictures'; the set is stored as tfrecord; it must be array_record",
    ),
    (
        edit_info(lambda content: content["splits"][1].update(shardLengths=["0"])),
        {},
        "TFDS.test_split is 'test'; that split of pictures has no examples",
    ),
    (
        edit_info(lambda content: content["splits"][0].update(shardLengths=["31"])),
        {},
        "pictures, train: its files cannot be read",
    ),
    (
        edit_feature("label", lambda content: content["classLabel"].update(numClasses="3")),
        {},
        r"pictures, train, example \d+: its label is 3; it must be at least 0 and below 3",
    ),
    (
        edit_feature("image", lambda content: content["image"].update(dtype="uint16")),
        {},
        "TFDS.image_key is 'image'; it must name a picture of 8-bit values",
    ),
    (
        edit_feature(
            "image", lambda content: content["image"]["shape"].update(dimensions=["6", "5", "2"])
        ),
        {},
        "TFDS.image_key is 'image'; its pictures have 2 channels, not 1, 3 or 4",
    ),
    (edit_records(lambda content: content[:100]), {}, "pictures, train: its files cannot be read"),
    (edit_records(lambda content: b""), {}, "pictures, train: its files cannot be read"),
    (edit_records(invert_ten_bytes), {}, "pictures, train: its files cannot be read"),
]


@pytest.mark.parametrize(("damage", "fields", "message"), REFUSED)
def test_refuses_in_one_line_a_set_that(prepared, tmp_path, damage, fields, message):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / "pictures" / "1.0.0")
    data = TFDS(**{"name": "pictures", "data_dir": str(tmp_path)} | fields)
    with pytest.raises(UsageError, match=f"^{message}") as refusal:
        load_dataset(data)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ((b"not a picture", 0), r"pictures, test, example \d: its picture cannot be decoded"),
        ((b"", 0), r"pictures, test, example \d: its picture cannot be decoded"),
        (
            (encode(pixels(1)[0], "png")[:60], 0),
            r"pictures, test, example \d: its picture cannot be dec",
        ),
        (
            (encode(pixels(1)[0], "png"), -1),
            r"pictures, test, example \d: its label is -1; it must be",
        ),
        (
            (encode(pixels(1, shape=(6, 6, 3))[0], "png"), 0),
            r"pictures, test, example \d: its picture is \(6, \d, 3\), the first one \(6, \d, 3\);",
        ),
    ],
    ids=["no picture", "no bytes", "cut off", "no label", "other size"],
)
def test_names_the_example_that_is_wrong(tmp_path: Path, bad: Example, message: str):
    prepare_set(tmp_path, {"train": examples(5), "test": [*examples(3, seed=1), bad]})
    with pytest.raises(UsageError, match=f"^{message}") as refusal:
        load_dataset(TFDS("pictures", data_dir=str(tmp_path)))
    assert len(str(refusal.value).splitlines()) == 1
    swapped = TFDS(
        "pictures",
        data_dir=str(tmp_path),
        train_split="test",
        test_split="train",
        image_key="image",
    )
    assert len(load_split(swapped, "test")) == 5  # the other split can still be read


def test_training_and_test_pictures_have_one_shape(tmp_path: Path):
    larger = [(encode(picture, "png"), 0) for picture in pixels(3, shape=(6, 6, 3))]
    prepare_set(tmp_path, {"train": examples(5), "test": larger})
    with pytest.raises(UsageError, match=r"training pictures are \(6, 5, 3\) and test pictures"):
        load_dataset(TFDS("pictures", data_dir=str(tmp_path)))
