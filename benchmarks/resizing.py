"""How much the ways of resizing differ: the pixels of test crops, and the time for a picture.

usage: python benchmarks/resizing.py [--name NAME] [--data-dir FOLDER] [--count COUNT]
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import get_args

import numpy as np
import tyro

from resflax import ImageNet
from resflax.data.crops import central_square, random_square
from resflax.data.draws import Doubles
from resflax.data.encoded import open_splits
from resflax.declarations.data import Resizing

WAYS: tuple[Resizing, ...] = get_args(Resizing)


def main(name: str = "imagenet2012", data_dir: str | None = None, count: int = 1000) -> None:
    """Prints a table.

    Args:
      name: a prepared set whose test pictures are used.
      data_dir: the folder of prepared sets.
      count: the most pictures that are used.
    """
    data = ImageNet(name=name, data_dir=data_dir)
    examples = open_splits(data).test
    pictures = [examples[index][0] for index in range(min(count, len(examples)))]
    declared = {way: dataclasses.replace(data, resize=way) for way in WAYS}
    side = data.image_size
    crops = {
        way: np.stack([central_square(picture, declared[way], side) for picture in pictures])
        for way in WAYS
    }
    print(f"{len(pictures)} test pictures of {name}")
    for number, way in enumerate(WAYS):
        for other in WAYS[:number]:
            difference = np.abs(crops[way].astype(int) - crops[other])
            print(
                f"{way} and {other}: pixels differ by {difference.mean():.2f} of 255 levels on "
                f"average, by more than 8 in {100 * (difference > 8).mean():.1f} %"
            )
    for way, declaration in declared.items():
        crop = partial(central_square, data=declaration, side=side)
        doubles = Doubles(np.random.PCG64(0))
        training_crop = partial(random_square, data=declaration, side=side, doubles=doubles)
        test, training = seconds(crop, pictures), seconds(training_crop, pictures)
        print(f"{way}: {1000 * test:.2f} ms for a test crop, {1000 * training:.2f} for training")


def seconds(crop: Callable[[bytes], np.ndarray], pictures: Sequence[bytes]) -> float:
    """Processor time for a picture; the least of three passes over all pictures."""
    times = []
    for _ in range(3):
        start = time.process_time()
        for picture in pictures:
            crop(picture)
        times.append(time.process_time() - start)
    return min(times) / len(pictures)


if __name__ == "__main__":
    tyro.cli(main)
