"""Small sets of pictures for the tests of streams, and batches taken of them."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from test_pictures import encode, photo
from test_source import prepare

from resflax import ImageFolder, Streamed
from resflax.data.feed import Order
from resflax.data.records import open_records
from resflax.data.stream import Pictures, Shuffled

CLASSES = 4


def made(count: int, seed: int = 0) -> list[tuple[bytes, int]]:
    """Pictures of different sizes, gray ones and PNGs among them, and classes in turn."""
    draw = np.random.default_rng(seed)
    found = []
    for number in range(count):
        height, width = draw.integers(20, 60, 2).tolist()
        image = Image.fromarray(photo(height, width, seed=1000 * seed + number))
        image = image.convert("L") if number % 7 == 3 else image
        found.append((encode(image, "png" if number % 5 == 4 else "jpeg"), number % CLASSES))
    return found


def small_set(data_dir: Path) -> Path:
    """Prepares a set of 23 training and 9 test pictures in a folder, and returns that."""
    prepare(data_dir, {"train": made(23), "test": made(9, seed=1)})
    return data_dir


def damaged_folder(root: Path) -> Path:
    """Fills a folder with 23 and 9 pictures of which two and one are damaged, and returns it."""
    for split, count, bad in (("train", 23, (4, 11)), ("val", 9, (2,))):
        for number, (encoded, label) in enumerate(made(count)):
            folder = root / split / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            content = encoded[: len(encoded) // 3] if number in bad else encoded
            (folder / f"{number:02}.jpg").write_bytes(content)
    return root


SMALL: dict[str, Any] = {"image_size": 16, "shorter_side": (18, 30), "test_shorter_side": 18}


def declared(data_dir: Path, **fields: Any) -> Streamed:
    return Streamed("pictures", str(data_dir), **(SMALL | fields))


def training(data: Streamed, batch_size: int = 6, steps: int = 100, seed: int = 3, **more):
    opened = open_records(data)
    order = Order(len(opened.train), batch_size, seed)
    return Shuffled(opened.train, data, opened.num_classes, order, steps, **more)


def take(row: Shuffled, first: int, count: int, threads: int = 2) -> list[Pictures]:
    coming = row.batches(first, threads, lambda pictures: pictures)
    found = [next(coming) for _ in range(count)]
    coming.close()
    return found


def assert_equal(one: list[Pictures], other: list[Pictures]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))
        assert a.bad == b.bad


def of_folder(root: Path, **fields: Any) -> ImageFolder:
    return ImageFolder(data_dir=str(root), **(SMALL | fields))
