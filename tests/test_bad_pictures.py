"""Bad pictures of a stream: replaced the same everywhere, counted, said and limited."""

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from streamed import (
    CLASSES,
    assert_equal,
    declared,
    of_folder,
    take,
    training,
)

from resflax import TrainingError
from resflax.benchmark.pictures import make_ways
from resflax.data.records import open_records
from resflax.data.stream import InOrder
from resflax.training.devices import Devices
from resflax.training.streamed import StreamedTest, StreamedTraining


def test_bad_pictures_are_replaced_the_same_everywhere(damaged: Path):
    row = training(of_folder(damaged), batch_size=5)
    whole = take(row, 0, 10)
    assert_equal(whole[3:], take(row, 3, 7, threads=1))
    names = {Path(row.records.name(i)).name for batch in whole for i in batch.bad}
    assert names == {"04.jpg", "11.jpg"}
    assert sum(len(batch.bad) for batch in whole) >= 4  # in each of two epochs
    assert all(batch.weights.all() for batch in whole)


def test_the_benchmark_of_pictures_ends_where_some_are_bad(damaged: Path):
    ways = make_ways(of_folder(damaged), 20)
    assert ways["feed, 1 thread"](100) >= 100
    assert ways["feed, 4 threads"](100) >= 100


def test_bad_pictures_are_counted_said_and_limited(damaged: Path):
    said: list[str] = []
    devices = Devices("pmap", jax.devices()[:1])
    lenient = StreamedTraining(devices, training(of_folder(damaged), 23), said.append)
    for step in (0, 1, 2):
        lenient.batch(step)
    assert len(lenient.bad) == len(said) == 2  # each once
    assert "passed over (2 of at most 10)" in said[1]
    lenient.close()
    strict = StreamedTraining(devices, training(of_folder(damaged, bad_pictures=1), 23), print)
    with pytest.raises(TrainingError, match=r"\.jpg: .*bad picture number 2.*allows 1"):
        strict.batch(0)
    strict.close()


def test_bad_pictures_do_not_count_in_tests(damaged: Path):
    data = of_folder(damaged)
    opened = open_records(data)
    said: list[str] = []
    test = StreamedTest(
        Devices("pmap", jax.devices()[:2]), InOrder(opened.test, data, CLASSES), said.append
    )
    weights = np.concatenate([np.ravel(weights) for _, weights in test.batches(4)])
    assert (test.examples, len(weights), weights.sum()) == (9, 12, 8)
    assert "02.jpg" in said[0]


def test_a_set_of_nothing_but_bad_pictures_ends(tmp_path: Path):
    for split in ("train", "val"):
        for number in range(3):
            (tmp_path / split / "a").mkdir(parents=True, exist_ok=True)
            (tmp_path / split / "a" / f"{number}.jpg").write_bytes(b"no picture")
    row = training(of_folder(tmp_path, bad_pictures=2), 1)
    with pytest.raises(TrainingError, match=r"no picture.*bad_pictures allows"):
        take(row, 0, 1)


def test_damaged_records_of_a_set_are_passed_over(prepared: Path, tmp_path: Path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    (file,) = tmp_path.rglob("*train.array_record*")
    content = bytearray(file.read_bytes())
    content[20_000] ^= 0x55
    file.write_bytes(content)
    row = training(declared(tmp_path), batch_size=23)
    (batch,) = take(row, 0, 1)
    assert len(batch.bad) == 1
    assert batch.weights.all()
    assert_equal([batch], take(row, 0, 1, threads=1))


def test_labels_that_are_no_class_are_bad(prepared: Path):
    row = dataclasses.replace(training(declared(prepared)), num_classes=3)
    reasons = {why for batch in take(row, 0, 4) for why in batch.bad.values()}
    assert reasons == {"its label is 3; it must be at least 0 and below 3"}
