"""Small sets of pictures for the tests of streamed data, and batches taken from them."""

from pathlib import Path
from typing import Any

import numpy as np
from photos import encode, photo
from PIL import Image
from small_sets import Example, prepare_set

from resflax import ImageFolder, Streamed
from resflax.data.encoded import open_splits
from resflax.feeding.decoding import DecodedPictures, ShuffledPictures
from resflax.feeding.order import ExampleOrder

CLASSES = 4

SMALL: dict[str, Any] = {"image_size": 16, "shorter_side": (18, 30), "test_shorter_side": 18}
"""Fields of declarations for small pictures."""


def mixed_examples(count: int, seed: int = 0) -> list[Example]:
    """Pictures of different sizes, some of them gray and some PNGs, with the classes in turn."""
    generator = np.random.default_rng(seed)
    examples = []
    for number in range(count):
        height, width = generator.integers(20, 60, 2).tolist()
        image = Image.fromarray(photo(height, width, seed=1000 * seed + number))
        image = image.convert("L") if number % 7 == 3 else image
        encoded = encode(image, "png" if number % 5 == 4 else "jpeg")
        examples.append((encoded, number % CLASSES))
    return examples


def small_set(data_dir: Path) -> Path:
    """Prepares a set of 23 training and 9 test pictures in a folder, and returns the folder."""
    prepare_set(data_dir, {"train": mixed_examples(23), "test": mixed_examples(9, seed=1)})
    return data_dir


def sharded_set(data_dir: Path, shards: int) -> Path:
    """Prepares a set with so many files of one picture in each split, and returns the folder."""
    splits = {"train": mixed_examples(shards), "test": mixed_examples(shards, seed=1)}
    prepare_set(data_dir, splits, shards=shards)
    return data_dir


def damaged_folder(root: Path) -> Path:
    """Fills a folder with 23 and 9 pictures, of which two and one are damaged, and returns it."""
    for split, count, bad in (("train", 23, (4, 11)), ("val", 9, (2,))):
        for number, (encoded, label) in enumerate(mixed_examples(count)):
            folder = root / split / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            content = encoded[: len(encoded) // 3] if number in bad else encoded
            (folder / f"{number:02}.jpg").write_bytes(content)
    return root


def declare_set(data_dir: Path, **fields: Any) -> Streamed:
    """The declaration of a set that `small_set` has prepared."""
    return Streamed("pictures", str(data_dir), **(SMALL | fields))


def declare_folder(root: Path, **fields: Any) -> ImageFolder:
    """The declaration of a folder of pictures."""
    return ImageFolder(data_dir=str(root), **(SMALL | fields))


def training_pictures(
    data: Streamed, batch_size: int = 6, steps: int = 100, seed: int = 3
) -> ShuffledPictures:
    """The training pictures of a declaration in their order."""
    splits = open_splits(data)
    order = ExampleOrder(len(splits.train), batch_size, seed)
    return ShuffledPictures(splits.train, data, splits.num_classes, order, steps)


def take_batches(
    pictures: ShuffledPictures, first: int, count: int, threads: int = 2
) -> list[DecodedPictures]:
    """The batches of `count` steps from `first` on."""
    coming = pictures.batches(first, threads, lambda batch: batch)
    batches = [next(coming) for _ in range(count)]
    coming.close()
    return batches


def assert_same_batches(batches: list[DecodedPictures], expected: list[DecodedPictures]) -> None:
    """Checks that two lists of batches are equal, bad pictures included, and not empty."""
    assert len(batches) == len(expected) > 0
    for batch, expected_batch in zip(batches, expected, strict=True):
        for array, expected_array in zip(batch[:3], expected_batch[:3], strict=True):
            assert np.array_equal(array, expected_array)
        assert batch.bad == expected_batch.bad
