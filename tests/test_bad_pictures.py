"""Bad pictures in streamed data are replaced in the same way everywhere, named and limited."""

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from streamed import (
    CLASSES,
    assert_same_batches,
    declare_folder,
    declare_set,
    take_batches,
    training_pictures,
)

from resflax import TrainingError
from resflax.benchmark.picture_loading import make_loaders
from resflax.data.encoded import open_splits
from resflax.devices.parallel import Devices
from resflax.feeding.decoding import OrderedPictures
from resflax.feeding.streamed import StreamedEvaluationFeed, StreamedTrainingFeed


def test_bad_pictures_are_replaced_in_the_same_way_everywhere(damaged: Path):
    pictures = training_pictures(declare_folder(damaged), batch_size=5)
    batches = take_batches(pictures, 0, 10)
    assert_same_batches(batches[3:], take_batches(pictures, 3, 7, threads=1))
    names = {Path(pictures.examples.name(i)).name for batch in batches for i in batch.bad}
    assert names == {"04.jpg", "11.jpg"}
    assert sum(len(batch.bad) for batch in batches) >= 4  # two in each of two epochs
    assert all(batch.weights.all() for batch in batches)


def test_the_benchmark_of_pictures_ends_where_some_are_bad(damaged: Path):
    loaders = make_loaders(declare_folder(damaged), 20)
    assert loaders["feed, 1 thread"](100) >= 100
    assert loaders["feed, 4 threads"](100) >= 100


def test_bad_pictures_are_counted_named_and_limited(damaged: Path):
    lines: list[str] = []
    devices = Devices("pmap", jax.devices()[:1])
    pictures = training_pictures(declare_folder(damaged), 23)
    lenient = StreamedTrainingFeed(devices, pictures, lines.append)
    for step in (0, 1, 2):
        lenient.step_input(step)
    assert len(lenient.bad) == len(lines) == 2  # each is named once
    assert "passed over (2 of at most 10)" in lines[1]
    lenient.close()
    pictures = training_pictures(declare_folder(damaged, bad_pictures=1), 23)
    strict = StreamedTrainingFeed(devices, pictures, print)
    with pytest.raises(TrainingError, match=r"\.jpg: .*bad picture number 2.*allows 1"):
        strict.step_input(0)
    strict.close()


def test_bad_pictures_do_not_count_in_tests(damaged: Path):
    data = declare_folder(damaged)
    pictures = OrderedPictures(open_splits(data).test, data, CLASSES)
    lines: list[str] = []
    feed = StreamedEvaluationFeed(Devices("pmap", jax.devices()[:2]), pictures, lines.append)
    weights = np.concatenate([np.ravel(weights) for _, weights in feed.batches(4)])
    assert (feed.examples, len(weights), weights.sum()) == (9, 12, 8)
    assert "02.jpg" in lines[0]


def test_a_set_of_nothing_but_bad_pictures_ends_the_reading(tmp_path: Path):
    for split in ("train", "val"):
        for number in range(3):
            folder = tmp_path / split / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.jpg").write_bytes(b"no picture")
    pictures = training_pictures(declare_folder(tmp_path, bad_pictures=2), 1)
    with pytest.raises(TrainingError, match=r"not a picture.*bad_pictures allows"):
        take_batches(pictures, 0, 1)


def test_damaged_records_of_a_set_are_passed_over(prepared: Path, tmp_path: Path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    (file,) = tmp_path.rglob("*train.array_record*")
    content = bytearray(file.read_bytes())
    content[20_000] ^= 0x55
    file.write_bytes(content)
    pictures = training_pictures(declare_set(tmp_path), batch_size=23)
    (batch,) = take_batches(pictures, 0, 1)
    assert len(batch.bad) == 1
    assert batch.weights.all()
    assert_same_batches([batch], take_batches(pictures, 0, 1, threads=1))


def test_examples_whose_label_is_not_a_class_are_bad(prepared: Path):
    pictures = dataclasses.replace(training_pictures(declare_set(prepared)), num_classes=3)
    reasons = {why for batch in take_batches(pictures, 0, 4) for why in batch.bad.values()}
    assert reasons == {"its label is 3; it must be at least 0 and below 3"}
