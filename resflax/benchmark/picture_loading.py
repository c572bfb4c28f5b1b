"""Measures how fast pictures get from the disk into batches, here and in other libraries.

Every loader decodes the same pictures, crops them at random and resizes the crops to one size. The
speed counts all decoded pictures, including those that still wait in a buffer when the clock stops,
because decoding them took time too.
"""

import importlib
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from rich.table import Table

from resflax.benchmark.other_loaders import TF_DATA, TORCH, random_crop_by_pillow
from resflax.data.crops import random_square
from resflax.data.draws import Doubles
from resflax.data.encoded import EncodedExamples, open_splits
from resflax.data.faults import EncodedOrFault, read_example
from resflax.declarations.data import Streamed
from resflax.feeding.decoding import DecodedPictures, ShuffledPictures
from resflax.feeding.order import ExampleOrder

Loader = Callable[[int], int]
"""Decodes at least the given number of pictures, and returns how many it decoded."""

_BATCH_SIZE = 64
_JPEG_START = b"\xff\xd8"
_UNLIMITED = 2**31 - 1


@dataclass(frozen=True)
class LoadingSpeed:
    """The measured speed of one loader."""

    name: str
    """The name that tables show."""
    per_second: tuple[float, ...]
    """Pictures per second of wall time, one value for each repetition."""
    per_cpu_second: tuple[float, ...]
    """Pictures per second of processor time, on which other programs have little effect."""

    @property
    def median_per_second(self) -> float:
        """The median of `per_second`."""
        return statistics.median(self.per_second)

    @property
    def median_per_cpu_second(self) -> float:
        """The median of `per_cpu_second`."""
        return statistics.median(self.per_cpu_second)


def measure_loaders(
    data: Streamed, count: int, repetitions: int, tick: Callable[[], None]
) -> list[LoadingSpeed]:
    """Times all loaders in turn on pictures of the training split.

    Args:
      data: a set of encoded pictures.
      count: number of pictures that a loader decodes in one repetition.
      repetitions: number of times that each loader is timed.
      tick: is called after each timing of a loader.
    """
    loaders = make_loaders(data, count)
    wall: dict[str, list[float]] = {name: [] for name in loaders}
    cpu: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(repetitions):
        for name, load in loaders.items():
            start, cpu_start = time.perf_counter(), _cpu_seconds()
            decoded = load(count)
            wall[name].append(decoded / (time.perf_counter() - start))
            cpu[name].append(decoded / (_cpu_seconds() - cpu_start))
            tick()
    return [LoadingSpeed(name, tuple(wall[name]), tuple(cpu[name])) for name in loaders]


def make_loaders(data: Streamed, count: int) -> dict[str, Loader]:
    """All loaders that are installed, by name.

    Loaders that read from memory get the first `count` pictures of the training split.
    """
    examples = open_splits(data).train
    read = [read_example(examples, index) for index in range(min(count, len(examples)))]
    encoded = [example[0] for example in read if not isinstance(example, str)]
    loaders: dict[str, Loader] = {
        "decode and crop alone": partial(_crop_one_by_one, encoded, partial(_our_crop, data)),
        "the same by Pillow": partial(_crop_one_by_one, encoded, partial(_pillow_crop, data)),
    }
    for threads in (1, 2, 4):
        name = f"feed, {threads} thread{'s' * (threads > 1)}"
        loaders[name] = partial(_load_by_feed, data, examples, threads)
    others = [TORCH]
    if all(picture.startswith(_JPEG_START) for picture in encoded):
        others.append(TF_DATA)
    for other in others:
        try:
            importlib.import_module(other.module)  # takes seconds, which must not be timed
        except ImportError:
            continue
        for workers, word in enumerate(other.workers, start=1):
            loaders[f"{other.name}, {workers} {word}"] = partial(
                other.load, encoded, data.image_size, _BATCH_SIZE, workers
            )
    return loaders


def loading_table(speeds: Sequence[LoadingSpeed], title: str) -> Table:
    """The speeds as a table for a terminal; each is also shown as a multiple of the first."""
    table = Table(title=title, title_justify="left")
    table.add_column("way")
    for header in ("pictures/s", "of the first", "pictures/CPU s", "of the first"):
        table.add_column(header, justify="right")
    first = speeds[0]
    for speed in speeds:
        table.add_row(
            speed.name,
            f"{speed.median_per_second:.0f}",
            f"{speed.median_per_second / first.median_per_second:.2f}",
            f"{speed.median_per_cpu_second:.0f}",
            f"{speed.median_per_cpu_second / first.median_per_cpu_second:.2f}",
        )
    return table


def _our_crop(data: Streamed, encoded: bytes, doubles: Doubles) -> np.ndarray:
    return random_square(encoded, data, data.image_size, doubles)


def _pillow_crop(data: Streamed, encoded: bytes, doubles: Doubles) -> np.ndarray:
    return random_crop_by_pillow(encoded, data.image_size, doubles)


def _crop_one_by_one(
    encoded: Sequence[bytes],
    crop: Callable[[bytes, Doubles], np.ndarray],
    count: int,
) -> int:
    for index in range(count):
        crop(encoded[index % len(encoded)], Doubles(np.random.PCG64(index)))
    return count


@dataclass(frozen=True)
class _CountedPictures(ShuffledPictures):
    """Training pictures that note which positions were read and which were decoded."""

    begun: list[int] = field(default_factory=list)
    decoded: list[int] = field(default_factory=list)

    def read(self, position: int) -> EncodedOrFault:
        self.begun.append(position)
        return super().read(position)

    def picture(
        self, position: int, encoded: EncodedOrFault, into: np.ndarray | None = None
    ) -> DecodedPictures:
        picture = super().picture(position, encoded, into)
        self.decoded.append(position)
        return picture


def _load_by_feed(data: Streamed, examples: EncodedExamples, threads: int, count: int) -> int:
    order = ExampleOrder(len(examples), _BATCH_SIZE, seed=0)
    pictures = _CountedPictures(examples, data, _UNLIMITED, order, _UNLIMITED)
    with closing(pictures.batches(0, threads, lambda decoded: decoded)) as batches:
        while len(pictures.decoded) < count:
            next(batches)
    # Threads finish the pictures that they have begun; that must not slow down the next loader.
    while len(pictures.decoded) < len(pictures.begun):
        time.sleep(0.001)
    return len(pictures.decoded)


def _cpu_seconds() -> float:
    """Processor time of this process, its threads, and its child processes that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
