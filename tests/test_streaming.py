"""Streamed pictures: the same batches from any step, with any threads and hosts; bad pictures."""

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from runs import assert_same, metrics, run, start
from test_pictures import encode, photo
from test_source import prepare

from resflax import (
    ImageFolder,
    ImageNet,
    Streamed,
    TrainingError,
    UsageError,
)
from resflax.benchmark.pictures import make_ways
from resflax.data import feed
from resflax.data.crops import central_square, random_box, random_square
from resflax.data.feed import KEPT, Order
from resflax.data.pictures import decode, resize
from resflax.data.records import open_records
from resflax.data.source import describe, first_pictures, training_examples
from resflax.data.stream import InOrder, Pictures, Share, Shuffled, draws
from resflax.training.devices import Devices
from resflax.training.feeds import StreamedTest, StreamedTraining

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


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data_dir of a set of 23 training and 9 test pictures."""
    data_dir = tmp_path_factory.mktemp("streamed")
    prepare(data_dir, {"train": made(23), "test": made(9, seed=1)})
    return data_dir


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


# --- The same batches


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


# --- Crops


@settings(deadline=None, max_examples=200)
@given(height=st.integers(1, 500), width=st.integers(1, 500), seed=st.integers(0, 2**32))
def test_random_boxes_lie_within_the_picture(height: int, width: int, seed: int):
    top, left, rows, columns = random_box(height, width, np.random.default_rng(seed))
    assert 0 <= top <= top + rows <= height
    assert 0 <= left <= left + columns <= width
    assert rows > 0
    assert columns > 0


def test_random_boxes_have_the_areas_and_ratios_of_the_paper():
    draw = np.random.default_rng(0)
    boxes = np.array([random_box(500, 500, draw)[2:] for _ in range(4000)], float)
    area, ratio = boxes.prod(1) / 500**2, boxes[:, 1] / boxes[:, 0]
    assert np.min(area) < 0.1
    assert np.min(area) > 0.079
    assert np.max(area) > 0.95
    assert 0.99 * 3 / 4 <= ratio.min() < 0.8
    assert 1.25 < ratio.max() <= 1.01 * 4 / 3
    assert abs(np.log(ratio).mean()) < 0.01
    # Uniform areas; the largest are rarer, since boxes that do not fit are drawn again.
    assert abs(area[area < 0.5].mean() - 0.29) < 0.01


def test_too_long_pictures_give_the_centre():
    assert random_box(200, 2, np.random.default_rng(0)) == (98, 0, 3, 2)
    assert random_box(2, 200, np.random.default_rng(0)) == (0, 98, 2, 3)


def test_a_random_crop_is_that_part_of_the_picture():
    ramp = np.stack(np.broadcast_arrays(*np.ogrid[:200, :250], 7), -1).astype(np.uint8)
    encoded, data = encode(ramp, "png"), Streamed("any", image_size=32)
    for seed in range(20):
        top, left, rows, columns = random_box(200, 250, np.random.default_rng(seed))
        found = random_square(encoded, data, 32, np.random.default_rng(seed)).astype(int)
        assert np.abs(found[:, 0, 0] - (top + (np.arange(32) + 0.5) * rows / 32 - 0.5)).max() <= 1
        across = left + (np.arange(32) + 0.5) * columns / 32 - 0.5
        assert np.abs(found[0, :, 1] - across).max() <= 1
        assert (found[..., 2] == 7).all()


def test_crops_of_scaled_jpegs_are_those_of_whole_ones():
    encoded = encode(photo(400, 600), quality=95, subsampling=0)
    data = Streamed("any", image_size=32)
    for seed in range(10):
        top, left, rows, columns = random_box(400, 600, np.random.default_rng(seed))
        expected = resize(decode(encoded)[top : top + rows, left : left + columns], 32, 32)
        found = random_square(encoded, data, 32, np.random.default_rng(seed))
        assert np.abs(found.astype(int) - expected).mean() < 4  # places are rounded to an eighth


def test_scale_crops_have_the_shorter_sides_that_are_declared():
    ramp = np.stack(np.broadcast_arrays(*np.ogrid[:120, :160], 7), -1).astype(np.uint8)
    encoded = encode(ramp, "png")
    data = Streamed("any", image_size=60, crop="scale", shorter_side=(60, 240))
    steps, corners = [], set()
    for seed in range(60):
        found = random_square(encoded, data, 60, np.random.default_rng(seed)).astype(float)
        assert found.shape == (60, 60, 3)
        steps.append((found[-3, 0, 0] - found[2, 0, 0]) / 55)  # source pixels for each of the crop
        corners.add((found[0, 0, 0], found[0, 0, 1]))
    sides = 120 / np.array(steps)
    assert 58 < np.min(sides) < 80
    assert 215 < np.max(sides) < 245
    assert len(corners) > 20


def test_test_squares_are_the_centre_of_the_resized_picture():
    image = photo(60, 90)
    data = Streamed("any", image_size=20, test_shorter_side=30)
    halves = image.reshape(30, 2, 45, 2, 3).mean((1, 3))
    found = central_square(encode(image, "png"), data, 20)
    assert np.abs(found - halves[5:25, 12:32]).max() <= 0.51
    smaller = central_square(encode(image, "png"), data, 10)  # the same part
    quarters = image.reshape(15, 4, 90 // 2, 2, 3)[:, :, :].mean(1).mean(2)
    assert smaller.shape == (10, 10, 3)
    assert abs(smaller.mean() - found.mean()) < 3
    assert quarters.shape[0] == 15


# --- Tests


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


# --- Sets, folders and what is held out


def write_folder(root: Path, data: Streamed) -> None:
    """The splits of a prepared set as folders of files, in the set's order."""
    opened = open_records(data)
    for split, records in (("train", opened.train), ("val", opened.test)):
        for number in range(len(records)):
            encoded, label = records[number]
            folder = root / split / f"class {label}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:03}.jpg").write_bytes(encoded)


def test_a_folder_has_the_pictures_of_its_files(prepared: Path, tmp_path: Path):
    write_folder(tmp_path, declared(prepared))
    (tmp_path / "train" / "class 0" / "notes.txt").write_text("no picture")
    (tmp_path / "train" / ".hidden").mkdir()
    data = ImageFolder(data_dir=str(tmp_path), image_size=16)
    opened, other = open_records(data), open_records(declared(prepared))
    assert (opened.num_classes, len(opened.train), len(opened.test)) == (CLASSES, 23, 9)
    for records, same in ((opened.train, other.train), (opened.test, other.test)):
        assert sorted(records[i] for i in range(len(records))) == sorted(
            same[i] for i in range(len(same))
        )
        labels = [records[i][1] for i in range(len(records))]
        assert labels == sorted(labels)
    assert describe(data).num_classes == CLASSES
    assert training_examples(data) == 23


@pytest.mark.parametrize("kind", ["set", "folder"])
def test_validation_examples_are_held_out(prepared: Path, tmp_path: Path, kind: str):
    data = declared(prepared, validation=5)
    if kind == "folder":
        write_folder(tmp_path, declared(prepared))
        data = ImageFolder(data_dir=str(tmp_path), validation=5, image_size=16)
    opened = open_records(data)
    assert opened.validation is not None
    kept, held_out = (
        [records[i] for i in range(len(records))] for records in (opened.train, opened.validation)
    )
    whole = open_records(dataclasses.replace(data, validation=0)).train
    assert (len(kept), len(held_out)) == (18, 5)
    assert sorted(kept + held_out) == sorted(whole[i] for i in range(23))
    again = open_records(data).validation
    assert again is not None
    assert [again[i] for i in range(5)] == held_out


def test_wrong_folders_are_refused_in_one_line(prepared: Path, tmp_path: Path):
    def opened(**fields):
        return open_records(ImageFolder(data_dir=str(tmp_path), image_size=16, **fields))

    with pytest.raises(UsageError, match="name the folder of the pictures with"):
        open_records(ImageFolder())
    with pytest.raises(UsageError, match=r"there is no folder .*train; the pictures must lie in"):
        opened()
    (tmp_path / "train").mkdir()
    (tmp_path / "val" / "other").mkdir(parents=True)
    with pytest.raises(UsageError, match="train has no folders; it needs one for each class"):
        opened()
    (tmp_path / "train" / "cat").mkdir()
    with pytest.raises(UsageError, match="train has no pictures"):
        opened()
    (tmp_path / "train" / "cat" / "1.PNG").write_bytes(encode(photo(), "png"))
    with pytest.raises(UsageError, match="val has the class other, and train has not"):
        opened()
    (tmp_path / "val" / "other").rename(tmp_path / "val" / "cat")
    (tmp_path / "val" / "cat" / "2.jpeg").write_bytes(encode(photo()))
    assert len(opened().test) == 1
    with pytest.raises(UsageError, match="validation is 1; it must be below the 1 training"):
        opened(validation=1)


def test_imagenet_needs_not_be_there_to_be_described():
    facts = describe(ImageNet())
    assert (facts.num_classes, facts.image_shape) == (1000, (224, 224, 3))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image_size": 0}, "image_size is 0; it must be at least 1"),
        ({"training_sizes": (64, 5000)}, "each must be at least 1 and at most 4096"),
        ({"shorter_side": (200, 300)}, "it must be at least image_size, 224"),
        ({"shorter_side": (300, 256)}, "two sizes, the smaller one first"),
        ({"shorter_side": (256,)}, "two sizes, the smaller one first"),
        ({"test_shorter_side": 200}, "it must be at least image_size, 224"),
        ({"crop": "none"}, "must be one of random_resized, scale, center"),
        ({"bad_pictures": -1}, "it must be at least 0"),
    ],
)
def test_wrong_declarations_are_refused(fields, said):
    with pytest.raises(UsageError, match=said):
        ImageNet(**fields)


# --- Bad pictures


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 23 and 9 pictures of which two and one are damaged."""
    root = tmp_path_factory.mktemp("damaged")
    for split, count, bad in (("train", 23, (4, 11)), ("val", 9, (2,))):
        for number, (encoded, label) in enumerate(made(count)):
            folder = root / split / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            content = encoded[: len(encoded) // 3] if number in bad else encoded
            (folder / f"{number:02}.jpg").write_bytes(content)
    return root


def of_folder(root: Path, **fields: Any) -> ImageFolder:
    return ImageFolder(data_dir=str(root), **(SMALL | fields))


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


# --- Devices


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


# --- Whole runs

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
from resflax.training import feeds
feeds.default_threads = lambda: 1
batches = feeds.StreamedTraining.batches
def at_most(self, first, count):
    if first == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return batches(self, first, count)
feeds.StreamedTraining.batches = at_most
"""
    process = start(streamed, *data, "--run-dir", killed, patch=patch)
    process.communicate(timeout=300)
    assert process.returncode == -9
    out, _ = run(streamed, *data, "--run-dir", killed)
    assert "continuing from step 10 of 24" in out
    assert_same(killed, tmp_path / "undisturbed")
    lines = metrics(killed)
    assert {line["bad_pictures"] for line in lines if "bad_pictures" in line} <= {1, 2}
    assert [line for line in lines if line["split"] == "train"][-1]["bad_pictures"] == 2

    out, _ = run(killed, "--json", "--split", "test", script="evaluate")
    found = json.loads(out)
    assert found["examples"] == 8  # of nine, one is damaged
    last = [line for line in lines if line["split"] == "test"][-1]
    assert found["top1_error"] == last["error"]
