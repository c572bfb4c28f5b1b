"""Prepared sets in memory: their pictures, what is held out, and how they are described."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from photos import encode
from PIL import Image
from rich.console import Console
from small_sets import (
    CLASSES,
    examples,
    pixels,
    prepare_30_and_8,
    prepare_set,
    sorted_examples,
)

from resflax import CIFAR10, TFDS, Digits, Streamed, UsageError
from resflax.data import in_memory
from resflax.data.description import describe
from resflax.data.in_memory import Split, load_dataset, load_split
from resflax.evaluation.split_reader import open_split
from resflax.evaluation.views import PictureFormat, Views, view_maker
from resflax.terminal.display import Display


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data_dir of a set of 30 training and 8 test pictures."""
    return prepare_30_and_8(tmp_path_factory.mktemp("prepared"))


def test_reads_a_set_by_its_name_and_folder(prepared: Path):
    dataset = load_dataset(TFDS("pictures", data_dir=str(prepared)))
    labels = np.arange(30, dtype=np.int32) % CLASSES
    assert sorted_examples(dataset.train) == sorted_examples(Split(pixels(30), labels))
    assert sorted_examples(dataset.test) == sorted_examples(Split(pixels(8, seed=1), labels[:8]))
    assert (dataset.num_classes, dataset.image_shape) == (CLASSES, (6, 5, 3))


@pytest.mark.parametrize("name", ["pictures", "pictures:1.0.0", "pictures:1.*.*"])
def test_reads_the_version_that_is_named(prepared: Path, name: str):
    assert len(load_dataset(TFDS(name, data_dir=str(prepared))).train) == 30


def test_any_declaration_may_point_at_another_set(prepared: Path):
    data = replace(CIFAR10(), name="pictures", data_dir=str(prepared))
    assert load_dataset(data).num_classes == CLASSES


def test_reads_jpeg_and_gray_pictures_and_other_names(tmp_path: Path):
    gray = pixels(3, shape=(6, 5), seed=2)
    splits = {
        "learn": examples(5, "jpeg"),
        "judge": [(encode(picture, "png"), 1) for picture in gray],
    }
    prepare_set(tmp_path, splits, keys=("photo", "kind"))
    data = TFDS(
        "pictures",
        data_dir=str(tmp_path),
        train_split="learn",
        test_split="judge",
        image_key="photo",
        label_key="kind",
    )
    dataset = load_dataset(data)
    decoded = np.stack(
        [np.asarray(Image.open(io.BytesIO(encoded))) for encoded, _ in splits["learn"]]
    )
    labels = np.array([label for _, label in splits["learn"]])
    assert sorted_examples(dataset.train) == sorted_examples(Split(decoded, labels))
    as_rgb = np.repeat(gray[..., None], 3, axis=-1)  # the set declares three channels
    assert sorted_examples(dataset.test) == sorted_examples(Split(as_rgb, np.ones(3, int)))


def test_pictures_are_turned_as_their_exif_says(tmp_path: Path):
    upright, exif = pixels(8), Image.Exif()
    exif[274] = 6
    turned = [(encode(np.rot90(picture), "png", exif=exif), 1) for picture in upright]
    prepare_set(tmp_path, {"train": turned, "test": turned})
    resident = load_dataset(TFDS("pictures", data_dir=str(tmp_path))).train
    assert sorted_examples(resident) == sorted_examples(Split(upright, np.ones(8, np.int32)))
    data = Streamed(
        "pictures", str(tmp_path), image_size=5, shorter_side=(5, 5), test_shorter_side=5
    )
    reader = open_split(data, "test", Display(Console(file=io.StringIO())))
    maker = view_maker(Views(), PictureFormat((6, 5, 3), None, 0))  # whole pictures
    evaluated = [example.images[0].tobytes() for example in reader.read(maker, range(8))]
    assert sorted(evaluated) == sorted(picture.tobytes() for picture in upright)


def test_a_set_is_read_in_chunks_with_progress(prepared: Path, monkeypatch):
    at_once = load_dataset(TFDS("pictures", data_dir=str(prepared)))
    shown = []

    def progress(starts: Sequence[int], description: str) -> Sequence[int]:
        shown.append((description, list(starts)))
        return starts

    monkeypatch.setattr(in_memory, "_CHUNK", 7)
    in_chunks = load_dataset(TFDS("pictures", data_dir=str(prepared)), progress)
    assert np.array_equal(in_chunks.train.images, at_once.train.images)
    assert np.array_equal(in_chunks.train.labels, at_once.train.labels)
    assert shown == [
        ("reading pictures train", [0, 7, 14, 21, 28]),
        ("reading pictures test", [0, 7]),
    ]


@pytest.mark.parametrize("count", [1, 7, 29])
def test_held_out_examples_are_taken_from_the_training_ones(prepared: Path, count: int):
    without = load_dataset(TFDS("pictures", data_dir=str(prepared)))
    dataset = load_dataset(TFDS("pictures", data_dir=str(prepared), validation=count))
    assert dataset.validation is not None
    assert (len(dataset.validation), len(dataset.train)) == (count, 30 - count)
    # All pictures differ, so that no example is in both if the union is the training split.
    held_out, kept = sorted_examples(dataset.validation), sorted_examples(dataset.train)
    assert sorted(held_out + kept) == sorted_examples(without.train)
    assert len(set(sorted_examples(without.train))) == 30
    assert sorted_examples(dataset.test) == sorted_examples(without.test)
    again = load_dataset(TFDS("pictures", data_dir=str(prepared), validation=count))
    assert again.validation is not None
    assert np.array_equal(again.validation.images, dataset.validation.images)


def test_held_out_examples_are_a_random_sample():
    held_out = load_dataset(Digits(validation=500)).validation
    assert held_out is not None
    # 500 of 1,442 with about 144 a class: 50 each, with a standard deviation of about 5.5.
    assert np.all(np.abs(np.bincount(held_out.labels, minlength=10) - 50) < 25)


@pytest.mark.parametrize("validation", [0, 7])
def test_a_single_split_is_the_one_of_the_dataset(prepared: Path, validation: int):
    data = TFDS("pictures", data_dir=str(prepared), validation=validation)
    dataset = load_dataset(data)
    expected = {"train": dataset.train, "test": dataset.test, "validation": dataset.validation}
    for name, split in expected.items():
        if split is None:
            with pytest.raises(UsageError, match=r"TFDS.validation is 0; there are no held-out"):
                load_split(data, name)  # type: ignore[arg-type]
        else:
            single = load_split(data, name)  # type: ignore[arg-type]
            assert np.array_equal(single.images, split.images)
            assert np.array_equal(single.labels, split.labels)


def test_known_sets_are_described_without_being_prepared(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert describe(CIFAR10()).image_shape == (32, 32, 3)
    assert describe(TFDS("cifar100")).num_classes == 100
    facts = describe(Digits())
    assert list(tmp_path.iterdir()) == []
    dataset = load_dataset(Digits())
    assert (facts.image_shape, facts.num_classes) == (dataset.image_shape, dataset.num_classes)


def test_a_set_is_described_by_what_it_declares(prepared: Path):
    facts = describe(TFDS("pictures", data_dir=str(prepared)))
    assert (facts.num_classes, facts.channels) == (CLASSES, 3)
    with pytest.raises(UsageError, match="the pictures of pictures do not have one declared size"):
        _ = facts.image_shape
