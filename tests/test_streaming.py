"""Streamed pictures: the same batches from any step, with any threads, hosts and devices."""

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
from streamed import CLASSES, assert_equal, declared, take, training
from test_pictures import encode, photo
from whole_runs import assert_same, metrics, run, start

from resflax import Streamed
from resflax.data import feed
from resflax.data.crops import central_square
from resflax.data.feed import KEPT, Order
from resflax.data.records import open_records
from resflax.data.source import first_pictures
from resflax.data.stream import InOrder, Share, Shuffled, draws
from resflax.training.devices import Devices
from resflax.training.streamed import StreamedTraining


@pytest.mark.parametrize("crop", ["random_resized", "scale", "center"])
def test_batches_are_the_same_from_any_step_with_any_threads(prepared: Path, crop: str):
    row = training(declared(prepared, crop=crop))
    whole = take(row, 0, 9, threads=1)
    assert {(b.images.shape, b.images.dtype) for b in whole} == {((6, 16, 16, 3), np.dtype("u1"))}
    assert {b.labels.dtype for b in whole} == {np.dtype(np.int32)}
    for first, threads in ((0, 4), (2, 1), (5, 3)):  # step 3 begins in the middle of an epoch
        assert_equal(whole[first:], take(row, first, 9 - first, threads))
    other = take(dataclasses.replace(row, order=Order(23, 6, seed=4)), 0, 1)
    assert not np.array_equal(other[0].images, whole[0].images)


def test_every_example_comes_once_an_epoch(prepared: Path):
    row = training(declared(prepared, crop="center"), batch_size=4)
    pictures = [one for batch in take(row, 0, 23) for one in batch.images]  # four epochs
    counts = [Counter(p.tobytes() for p in pictures[i : i + 23]) for i in range(0, 92, 23)]
    assert counts[0].total() == len(counts[0]) == 23
    assert counts[1:] == counts[:1] * 3
    assert [p.tobytes() for p in pictures[:23]] != [p.tobytes() for p in pictures[23:46]]


def test_an_epoch_crops_anew(prepared: Path):
    row = training(declared(prepared), batch_size=23)
    first, second = take(row, 0, 2)
    crops = {image.tobytes() for batch in (first, second) for image in batch.images}
    assert len(crops) == 46


@pytest.mark.parametrize("hosts", [2, 3])
def test_shares_of_hosts_are_disjoint_and_complete(prepared: Path, hosts: int):
    row = training(declared(prepared))
    shares = [
        take(dataclasses.replace(row, share=Share(host, hosts)), 2, 3) for host in range(hosts)
    ]
    for step, whole in enumerate(take(row, 2, 3)):
        parts = [share[step] for share in shares]
        assert np.array_equal(np.concatenate([part.images for part in parts]), whole.images)
        assert np.array_equal(np.concatenate([part.labels for part in parts]), whole.labels)


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.integers(0, 9))
def test_what_is_random_depends_on_seed_and_position_alone(seed: int, position: int, before: int):
    draws(seed, position + 1).integers(0, 2**31, before, np.uint32)  # leaves half a draw behind
    anew = np.random.Generator(np.random.Philox(key=(seed, position)))
    assert draws(seed, position).random(7).tolist() == anew.random(7).tolist()


def test_sizes_follow_one_another(prepared: Path):
    row = training(declared(prepared, training_sizes=(8, 12, 16)), steps=9)
    sizes = [batch.images.shape[1:3] for batch in take(row, 0, 9)]
    assert sizes == [(8, 8)] * 3 + [(12, 12)] * 3 + [(16, 16)] * 3
    assert_equal(take(row, 0, 9)[4:], take(row, 4, 5, threads=1))


def test_memory_does_not_grow_with_the_number_of_examples():
    class Million:
        """A million examples, read again and again from one."""

        encoded = encode(photo(20, 20))

        def __len__(self):
            return 2**20 + 7

        def __getitem__(self, index):
            seen.append(index)
            return self.encoded, index % CLASSES

        def name(self, index):
            return str(index)

    seen: list[int] = []
    records = Million()
    order = Order(len(records), 64, seed=1)
    data = Streamed("million", image_size=8)
    row = Shuffled(records, data, CLASSES, order, 100)
    take(row, 0, 1)
    import tracemalloc

    tracemalloc.start()
    take(row, 2**14 - 2, 4)  # across the end of the first epoch
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20  # a byte for each would be as much
    assert len(set(seen)) > 0.99 * len(seen)
    assert min(seen) < 2**17 < 7 * 2**17 < max(seen)  # from the whole of the set


@settings(deadline=None, max_examples=20)
@given(examples=st.integers(KEPT + 1, 2**31), seed=st.integers(0, 2**32 - 1))
def test_large_orders_are_permutations_without_being_kept(examples: int, seed: int):
    order = Order(examples, 500, seed)
    for step in (0, 10**6):
        batch = order.batch(step)
        assert [order.example(step * 500 + i) for i in range(500)] == batch.tolist()
        assert len(set(batch.tolist())) >= 499  # two epochs may meet in it
        assert (batch.min() >= 0) & (batch.max() < examples)
    assert abs(order.batch(0).mean() / examples - 0.5) < 5 * 12**-0.5 / 500**0.5


def test_a_large_order_has_every_example_once(monkeypatch):
    monkeypatch.setattr(feed, "KEPT", 1000)
    order = Order(1003, 1003, seed=5)
    first, second = order.batch(0), order.batch(1)
    assert np.array_equal(np.sort(first), np.arange(1003))
    assert np.array_equal(np.sort(second), np.arange(1003))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("batch_size", [2, 4, 9, 16])
def test_a_test_has_every_example_once(prepared: Path, batch_size: int):
    data = declared(prepared)
    opened = open_records(data)
    test = InOrder(opened.test, data, opened.num_classes)
    batches = list(test.batches(batch_size, 2, lambda pictures: pictures))
    assert {b.images.shape for b in batches} == {(batch_size, 16, 16, 3)}
    weights = np.concatenate([b.weights for b in batches])
    images = np.concatenate([b.images for b in batches])
    labels = np.concatenate([b.labels for b in batches])
    assert weights.tolist() == [1] * 9 + [0] * (len(weights) - 9)
    for number in range(9):
        encoded, label = opened.test[number]
        assert np.array_equal(images[number], central_square(encoded, data, 16))
        assert labels[number] == label
    assert first_pictures(data, "test", 5).images.tobytes() == images[:5].tobytes()


@pytest.mark.parametrize("parallel", ["pmap", "shard_map"])
def test_batches_are_dealt_out_to_devices_in_order(prepared: Path, parallel):
    row = training(declared(prepared), batch_size=8)
    devices = Devices(parallel, jax.devices()[:4])
    dealt = StreamedTraining(devices, row, print, threads=2)
    for step in (0, 1, 4, 0):  # on, ahead and back
        images, labels = dealt.batch(step)
        expected = take(row, step, 1)[0]
        assert np.array_equal(np.reshape(images, (8, 16, 16, 3)), expected.images)
        assert np.array_equal(np.ravel(labels), expected.labels)
        assert len(images.sharding.device_set) == 4
        shard = images.addressable_shards[1].data
        assert np.array_equal(np.reshape(shard, (2, 16, 16, 3)), expected.images[2:4])
    dealt.close()


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
    # In the middle of an epoch and between two checkpoints, with other threads.
    patch = """
import os, signal
from resflax.data import stream
stream.default_threads = lambda: 1
from resflax.training import streamed
streamed.default_threads = lambda: 1
batches = streamed.StreamedTraining.batches
def at_most(self, first, count):
    if first == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return batches(self, first, count)
streamed.StreamedTraining.batches = at_most
"""
    process = start(streamed, *data, "--run-dir", killed, patch=patch)
    process.communicate(timeout=300)
    assert process.returncode == -9
    out, _ = run(streamed, *data, "--run-dir", killed)
    # From step 5 if checkpoint 10, which is written beside the steps, was not whole yet.
    assert re.search(r"continuing from step (5|10) of 24", out)
    assert_same(killed, tmp_path / "undisturbed")
    lines = metrics(killed)
    assert {line["bad_pictures"] for line in lines if "bad_pictures" in line} <= {1, 2}
    assert [line for line in lines if line["split"] == "train"][-1]["bad_pictures"] == 2

    out, _ = run(killed, "--json", "--split", "test", script="evaluate")
    found = json.loads(out)
    assert found["examples"] == 8  # of nine, one is damaged
    last = [line for line in lines if line["split"] == "test"][-1]
    assert found["top1_error"] == last["error"]
