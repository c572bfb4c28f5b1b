"""How fast pictures come from the disk to batches: ours step by step, and others beside.

Every way decodes the same pictures and crops and resizes them at random to one size. Counted are
pictures decoded, also those that are only ahead in a buffer, so that every picture is paid for.
"""

import importlib
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from resflax.benchmark import loaders
from resflax.benchmark.loaders import Load
from resflax.data.crops import random_square
from resflax.data.feed import Order
from resflax.data.records import Records, open_records
from resflax.data.stream import Pictures, Read, Shuffled
from resflax.declarations.data import Streamed

Way = Callable[[int], int]
"""Decodes at least so many pictures; returns how many it did."""

_BATCH = 64
_JPEG = b"\xff\xd8"


@dataclass(frozen=True)
class Speed:
    """One way, measured."""

    name: str
    per_second: tuple[float, ...]
    """Pictures per second of wall time, of each repetition."""
    per_cpu_second: tuple[float, ...]
    """Pictures per second of processor time, which other programs hardly change."""

    @property
    def wall(self) -> float:
        """Median."""
        return statistics.median(self.per_second)

    @property
    def cpu(self) -> float:
        """Median."""
        return statistics.median(self.per_cpu_second)


def measure_pictures(
    data: Streamed, count: int, repetitions: int, tick: Callable[[], None]
) -> list[Speed]:
    """Times every way in turn, `repetitions` times, on `count` pictures of the training split."""
    ways = make_ways(data, count)
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            began, used = time.perf_counter(), _cpu_seconds()
            done = way(count)
            wall[name].append(done / (time.perf_counter() - began))
            cpu[name].append(done / (_cpu_seconds() - used))
            tick()
    return [Speed(name, tuple(wall[name]), tuple(cpu[name])) for name in ways]


def make_ways(data: Streamed, count: int) -> dict[str, Way]:
    """All that there are here, by name."""
    records = open_records(data).train
    encoded = [records[index % len(records)][0] for index in range(min(count, len(records)))]
    ways: dict[str, Way] = {
        "decode and crop alone": partial(_one_after_another, encoded, partial(_ours, data)),
        "the same by Pillow": partial(_one_after_another, encoded, partial(_pillow, data)),
    }
    for threads in (1, 2, 4):
        ways[f"feed, {threads} thread{'s' * (threads > 1)}"] = partial(
            _feed, data, records, threads
        )
    others: list[tuple[str, str, tuple[str, str], Load]] = [
        ("PyTorch DataLoader", "torch.utils.data", ("process", "processes"), loaders.torchs)
    ]
    if all(picture.startswith(_JPEG) for picture in encoded):
        others.append(("tf.data", "tensorflow", ("thread", "threads"), loaders.tensorflows))
    for name, module, workers, load in others:
        try:
            importlib.import_module(module)  # now, for it takes seconds
        except ImportError:
            continue
        for number, worker in enumerate(workers, start=1):
            ways[f"{name}, {number} {worker}"] = partial(
                load, encoded, data.image_size, _BATCH, number
            )
    return ways


def _ours(data: Streamed, encoded: bytes, draw: np.random.Generator) -> np.ndarray:
    return random_square(encoded, data, data.image_size, draw)


def _pillow(data: Streamed, encoded: bytes, draw: np.random.Generator) -> np.ndarray:
    return loaders.pillow(encoded, data.image_size, draw)


def _one_after_another(
    encoded: Sequence[bytes],
    make: Callable[[bytes, np.random.Generator], np.ndarray],
    count: int,
) -> int:
    for index in range(count):
        make(encoded[index % len(encoded)], np.random.default_rng(index))
    return count


@dataclass(frozen=True)
class _Counted(Shuffled):
    """A feed that notes what it reads and what it makes of it."""

    begun: list[int] = field(default_factory=list)
    made: list[int] = field(default_factory=list)

    def read(self, position: int) -> Read:
        self.begun.append(position)
        return super().read(position)

    def picture(self, position: int, read: Read, into: np.ndarray | None = None) -> Pictures:
        found = super().picture(position, read, into)
        self.made.append(position)
        return found


def _feed(data: Streamed, records: Records, threads: int, count: int) -> int:
    order = Order(len(records), _BATCH, 0)
    row = _Counted(records, data, 2**31 - 1, order, 2**31 - 1)
    batches = row.batches(0, threads, lambda pictures: pictures)
    while len(row.made) < count:
        next(batches)
    batches.close()
    while len(row.made) < len(row.begun):  # what was begun is finished, and not in another's time
        time.sleep(0.001)
    return len(row.made)


def _cpu_seconds() -> float:
    """Of this process, all of its threads, and the processes that it has ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
