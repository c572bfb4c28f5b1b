"""Streamed pictures make the same batches from any step, with any threads, hosts and devices."""

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import encode, photo
from streamed import (
    CLASSES,
    assert_same_batches,
    declare_set,
    take_batches,
    training_pictures,
)
from whole_runs import assert_same, metrics, run, start

from resflax import Streamed
from resflax.data.crops import central_square
from resflax.data.encoded import open_splits
from resflax.data.in_memory import first_pictures
from resflax.devices.parallel import Devices
from resflax.feeding import order as orders
from resflax.feeding.decoding import HostRows, OrderedPictures, ShuffledPictures, doubles_at
from resflax.feeding.order import KEPT, ExampleOrder
from resflax.feeding.streamed import StreamedTrainingFeed


@pytest.mark.parametrize("crop", ["random_resized", "scale", "center"])
def test_batches_are_the_same_from_any_step_with_any_threads(prepared: Path, crop: str):
    pictures = training_pictures(declare_set(prepared, crop=crop))
    batches = take_batches(pictures, 0, 9, threads=1)
    forms = {(batch.images.shape, batch.images.dtype, batch.labels.dtype) for batch in batches}
    assert forms == {((6, 16, 16, 3), np.dtype(np.uint8), np.dtype(np.int32))}
    for first, threads in ((0, 4), (2, 1), (5, 3)):  # step 3 begins in the middle of an epoch
        assert_same_batches(batches[first:], take_batches(pictures, first, 9 - first, threads))
    with_other_seed = dataclasses.replace(pictures, order=ExampleOrder(23, 6, seed=4))
    assert not np.array_equal(take_batches(with_other_seed, 0, 1)[0].images, batches[0].images)


def test_every_example_comes_once_an_epoch(prepared: Path):
    pictures = training_pictures(declare_set(prepared, crop="center"), batch_size=4)
    batches = take_batches(pictures, 0, 23)  # four epochs
    images = [image.tobytes() for batch in batches for image in batch.images]
    counts = [Counter(images[i : i + 23]) for i in range(0, 92, 23)]
    assert counts[0].total() == len(counts[0]) == 23
    assert counts[1:] == counts[:1] * 3
    assert images[:23] != images[23:46]


def test_every_epoch_has_new_crops(prepared: Path):
    pictures = training_pictures(declare_set(prepared), batch_size=23)
    batches = take_batches(pictures, 0, 2)
    assert len({image.tobytes() for batch in batches for image in batch.images}) == 46


@pytest.mark.parametrize("hosts", [2, 3])
def test_shares_of_hosts_are_disjoint_and_complete(prepared: Path, hosts: int):
    pictures = training_pictures(declare_set(prepared))
    batches_of_hosts = [
        take_batches(dataclasses.replace(pictures, host=HostRows(host, hosts)), 2, 3)
        for host in range(hosts)
    ]
    for batch, *shares in zip(take_batches(pictures, 2, 3), *batches_of_hosts, strict=True):
        assert np.array_equal(np.concatenate([share.images for share in shares]), batch.images)
        assert np.array_equal(np.concatenate([share.labels for share in shares]), batch.labels)


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.integers(0, 9))
def test_what_is_random_depends_on_seed_and_position_alone(seed: int, position: int, before: int):
    doubles_at(seed, position + 1).draw(before)
    new = np.random.Generator(np.random.Philox(key=(seed, position)))
    assert doubles_at(seed, position).draw(7) == new.random(7).tolist()


def test_sizes_follow_one_another(prepared: Path):
    data = declare_set(prepared, training_sizes=(8, 12, 16))
    pictures = training_pictures(data, steps=9)
    batches = take_batches(pictures, 0, 9)
    sizes = [batch.images.shape[1:3] for batch in batches]
    assert sizes == [(8, 8)] * 3 + [(12, 12)] * 3 + [(16, 16)] * 3
    assert_same_batches(batches[4:], take_batches(pictures, 4, 5, threads=1))


def test_memory_does_not_grow_with_the_number_of_examples():
    class Million:
        """A million examples that all have the same picture."""

        encoded = encode(photo(20, 20))

        def __len__(self):
            return 2**20 + 7

        def __getitem__(self, index):
            seen.append(index)
            return self.encoded, index % CLASSES

        def name(self, index):
            return str(index)

    seen: list[int] = []
    order = ExampleOrder(len(Million()), 64, seed=1)
    data = Streamed("million", image_size=8)
    pictures = ShuffledPictures(Million(), data, CLASSES, order, 100)
    take_batches(pictures, 0, 1)
    import tracemalloc

    tracemalloc.start()
    take_batches(pictures, 2**14 - 2, 4)  # across the end of the first epoch
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20  # one byte for each example would be more
    assert len(set(seen)) > 0.99 * len(seen)
    assert min(seen) < 2**17 < 7 * 2**17 < max(seen)  # from all parts of the set


@settings(deadline=None, max_examples=20)
@given(examples=st.integers(KEPT + 1, 2**31), seed=st.integers(0, 2**32 - 1))
def test_large_orders_are_permutations_without_being_kept(examples: int, seed: int):
    order = ExampleOrder(examples, 500, seed)
    for step in (0, 10**6):
        batch = order.batch(step)
        assert [order.example(step * 500 + i) for i in range(500)] == batch.tolist()
        assert len(set(batch.tolist())) >= 499  # two epochs may meet in the batch
        assert (batch.min() >= 0) & (batch.max() < examples)
    assert abs(order.batch(0).mean() / examples - 0.5) < 5 * 12**-0.5 / 500**0.5


def test_a_large_order_has_every_example_once(monkeypatch):
    monkeypatch.setattr(orders, "KEPT", 1000)
    order = ExampleOrder(1003, 1003, seed=5)
    first, second = order.batch(0), order.batch(1)
    assert np.array_equal(np.sort(first), np.arange(1003))
    assert np.array_equal(np.sort(second), np.arange(1003))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("batch_size", [2, 4, 9, 16])
def test_an_evaluation_has_every_example_once(prepared: Path, batch_size: int):
    data = declare_set(prepared)
    splits = open_splits(data)
    pictures = OrderedPictures(splits.test, data, splits.num_classes)
    batches = list(pictures.batches(batch_size, 2, lambda batch: batch))
    assert {batch.images.shape for batch in batches} == {(batch_size, 16, 16, 3)}
    weights = np.concatenate([batch.weights for batch in batches])
    images = np.concatenate([batch.images for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches])
    assert weights.tolist() == [1] * 9 + [0] * (len(weights) - 9)
    for number in range(9):
        encoded, label = splits.test[number]
        assert np.array_equal(images[number], central_square(encoded, data, 16))
        assert labels[number] == label
    assert first_pictures(data, "test", 5).images.tobytes() == images[:5].tobytes()


@pytest.mark.parametrize("parallel", ["pmap", "shard_map"])
def test_batches_are_sharded_over_devices_in_order(prepared: Path, parallel):
    pictures = training_pictures(declare_set(prepared), batch_size=8)
    feed = StreamedTrainingFeed(Devices(parallel, jax.devices()[:4]), pictures, print, threads=2)
    for step in (0, 1, 4, 0):  # the next one, a later one and an earlier one
        images, labels = feed.step_input(step)
        expected = take_batches(pictures, step, 1)[0]
        assert np.array_equal(np.reshape(images, (8, 16, 16, 3)), expected.images)
        assert np.array_equal(np.ravel(labels), expected.labels)
        assert isinstance(images, jax.Array)
        assert len(images.sharding.device_set) == 4
        shard = images.addressable_shards[1].data
        assert np.array_equal(np.reshape(shard, (2, 16, 16, 3)), expected.images[2:4])
    feed.close()


EXPERIMENT = """
from resflax import *

experiment = Experiment(
    name="streamed",
    model=ResNet(8),
    data=ImageFolder(image_size=16, training_sizes=(8, 16), shorter_side=(18, 30),
                     test_shorter_side=18, validation=4),
    batch_size=6,
    steps=24,
    schedule=Cosine(warmup_steps=5),
    log_every=4,
    evaluate_every=10,
    checkpoint_every=5,
)
"""


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "streamed.py"
    path.write_text(EXPERIMENT)
    return path


def test_a_killed_run_equals_an_undisturbed_one(streamed: Path, damaged: Path, tmp_path: Path):
    data = ("--data.data-dir", damaged)
    out, _ = run(streamed, *data, "--run-dir", tmp_path / "undisturbed")
    assert "passed over (2 of at most 10)" in out
    killed = tmp_path / "killed"
    # The kill comes in the middle of an epoch and between two checkpoints. The number of threads is
    # another one than in the undisturbed run.
    patch = """
import os, signal
from resflax.feeding import streamed
streamed.default_threads = lambda: 1
call = streamed.StreamedTrainingFeed.call_input
def call_or_die(self, first, count):
    if first == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return call(self, first, count)
streamed.StreamedTrainingFeed.call_input = call_or_die
"""
    process = start(streamed, *data, "--run-dir", killed, patch=patch)
    process.communicate(timeout=300)
    assert process.returncode == -9
    out, _ = run(streamed, *data, "--run-dir", killed)
    # Checkpoint 10 is written in the background, so it may not have been whole yet.
    assert re.search(r"continuing from step (5|10) of 24", out)
    assert_same(killed, tmp_path / "undisturbed")
    lines = metrics(killed)
    assert {line["bad_pictures"] for line in lines if "bad_pictures" in line} <= {1, 2}
    assert [line for line in lines if line["split"] == "train"][-1]["bad_pictures"] == 2

    out, _ = run(killed, "--json", "--split", "test", script="evaluate")
    evaluation = json.loads(out)
    assert evaluation["examples"] == 8  # of nine, one is damaged
    last = [line for line in lines if line["split"] == "test"][-1]
    assert evaluation["top1_error"] == last["error"]
