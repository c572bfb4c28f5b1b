"""A fault of the system does not make a good picture bad: it is waited for, or it ends the run."""

import contextlib
import dataclasses
import errno
import gc
import io
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from photos import encode, photo
from PIL import Image
from runs_in_process import once
from streamed import (
    CLASSES,
    assert_same_batches,
    declare_folder,
    declare_set,
    sharded_set,
    take_batches,
    training_pictures,
)
from whole_runs import assert_same, run

from resflax import Experiment, ResNet, TrainingError, UsageError
from resflax.benchmark.picture_loading import make_loaders
from resflax.data import faults, records
from resflax.data.encoded import PreparedExamples, open_splits
from resflax.data.faults import SystemFault, read_example, system_fault
from resflax.data.in_memory import first_pictures
from resflax.data.measured_split import OneLabelEach
from resflax.data.pictures.bad_picture import BadPicture
from resflax.evaluation.split_reader import DiskReader
from resflax.evaluation.views import PictureFormat, Views, view_maker
from resflax.feeding.streamed import StreamedEvaluationFeed, StreamedTrainingFeed
from resflax.terminal import command

PASSING = ("EMFILE", "ENFILE", "EIO", "ENOMEM", "ESTALE", "ETIMEDOUT", "ENOTCONN", "ECONNRESET")
LASTING = ("EACCES", "EPERM", "ENOSPC")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for nothing, and says every time that something is tried again."""
    monkeypatch.setattr(faults, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(faults, "SAID_EVERY", 0.0)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 40 files in each split; not to be changed."""
    return sharded_set(tmp_path_factory.mktemp("sharded"), 40)


def system_error(name: str) -> OSError:
    number: int = getattr(errno, name)
    return OSError(number, os.strerror(number))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) - 1


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """A real limit: this process can open only so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 200, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(count):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


class Faulty:
    """Examples of which one read after another fails with the given errors."""

    def __init__(self, examples: Any, *errors: BaseException, at: int | None = None):
        self.examples, self.errors, self.at = examples, [*errors], at

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index: int):
        if self.errors and self.at in (None, index):
            raise self.errors.pop(0)
        return self.examples[index]

    def name(self, index: int):
        return self.examples.name(index)


# --- What an error means


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes_is_waited_for(prepared: Path, name: str):
    examples = open_splits(declare_set(prepared)).train
    lines: list[str] = []
    faulty = Faulty(examples, *[system_error(name) for _ in range(3)])
    assert read_example(faulty, 5, lines.append) == examples[5]
    assert len(lines) == 3
    assert lines[0].startswith(
        f"{examples.name(5)} cannot be read: {os.strerror(getattr(errno, name))}; trying"
    )
    with pytest.raises(SystemFault, match="cannot be read"):
        read_example(Faulty(examples, *[system_error(name) for _ in range(4)]), 5)


@pytest.mark.parametrize("name", LASTING)
def test_a_fault_that_lasts_is_raised_at_once(prepared: Path, name: str):
    faulty = Faulty(open_splits(declare_set(prepared)).train, system_error(name))
    with pytest.raises(SystemFault, match=os.strerror(getattr(errno, name))):
        read_example(faulty, 5)


def test_many_threads_say_only_once_that_they_wait(prepared: Path, monkeypatch):
    monkeypatch.setattr(faults, "SAID_EVERY", 60.0)
    monkeypatch.setattr(faults, "_said_at", -1e9)
    examples = open_splits(declare_set(prepared)).train
    lines: list[str] = []
    faulty = [Faulty(examples, system_error("EIO")) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda one: read_example(one, 0, lines.append), faulty))
    assert len(lines) == 1


def raised(cause: BaseException) -> BaseException:
    """The error for a bad picture that hides another one, as `data.pictures` raises it."""
    try:
        try:
            raise cause
        except BaseException:
            raise BadPicture("damaged") from None
    except BadPicture as error:
        return error


def test_errors_in_disguise_are_recognised(tmp_path: Path):
    assert system_fault(raised(MemoryError()), "a") is not None
    assert system_fault(raised(system_error("EMFILE")), "a") is not None
    with pytest.raises(cv2.error) as no_memory:
        cv2.resize(np.zeros((2, 2, 3), np.uint8), (2**24, 2**24))
    if no_memory.value.code == cv2.Error.StsNoMem:
        assert system_fault(no_memory.value, "a") is not None
    gone = FileNotFoundError(errno.ENOENT, "gone", str(tmp_path / "folder" / "a.jpg"))
    assert system_fault(gone, "a") is not None
    (tmp_path / "folder").mkdir()
    assert system_fault(gone, "a") is None  # the picture alone is gone


def test_damage_is_no_fault_of_the_system():
    content = encode(photo(40, 40), "png")
    for error_of in (
        lambda: Image.open(io.BytesIO(b"no picture")),
        lambda: Image.open(io.BytesIO(content[:100])).load(),
    ):
        with pytest.raises(OSError) as refusal:
            error_of()
        assert system_fault(refusal.value, "a") is None
    corrupt = RuntimeError("Corrupted Riegeli/records file: chunk data hash mismatch")
    for damage in (BadPicture("damaged"), IndexError("list index"), KeyError("image"), corrupt):
        assert system_fault(damage, "a") is None


# --- Sets of many files


def test_a_set_of_many_files_is_read_with_few_descriptors(sharded: Path):
    pictures = training_pictures(declare_set(sharded), batch_size=10)
    expected = take_batches(pictures, 0, 8)
    del pictures
    gc.collect()
    with descriptors_left(14):
        pictures = training_pictures(declare_set(sharded), batch_size=10)
        batches = take_batches(pictures, 0, 8, threads=4)
    assert not any(batch.bad for batch in batches)
    assert_same_batches(batches, expected)


def test_readers_are_closed_when_others_need_room_and_with_their_set(sharded, monkeypatch):
    gc.collect()
    before = open_files()
    monkeypatch.setattr(records, "most_open", lambda: 5)
    examples = open_splits(declare_set(sharded)).train
    with ThreadPoolExecutor(4) as threads:
        indices = [*range(40)] * 4
        read = list(threads.map(examples.__getitem__, indices))
    assert read[:40] == read[40:80] == read[80:120] == read[120:]
    assert len(set(read)) == 40
    assert open_files() - before <= 5
    del examples
    gc.collect()
    assert open_files() == before


def test_without_descriptors_no_picture_is_bad(sharded: Path, damaged: Path):
    in_set = training_pictures(declare_set(sharded), batch_size=4)
    in_folder = training_pictures(declare_folder(damaged), batch_size=4)
    lines: list[str] = []
    for pictures in (in_set, in_folder):
        said = dataclasses.replace(pictures, say=lines.append)
        gc.collect()
        records._readers.close_idle()
        with descriptors_left(0), pytest.raises(SystemFault, match=r"Too many open files.*ulimit"):
            take_batches(said, 0, 1)
        assert not any(batch.bad for batch in take_batches(in_set, 0, 1))
    assert all("trying again" in line for line in lines)
    assert any(".array_record-" in line for line in lines)
    assert any(".jpg" in line for line in lines)


def test_a_set_is_not_to_be_prepared_anew_because_of_the_system(sharded: Path):
    records._readers.close_idle()
    with (
        descriptors_left(0),
        pytest.raises(UsageError, match=r"Too many open files.*ulimit") as refusal,
    ):
        open_splits(declare_set(sharded))
    assert "anew" not in str(refusal.value)
    with descriptors_left(1):  # enough for the description of the set, and for one file
        assert len(open_splits(declare_set(sharded)).train) == 40


def test_a_missing_file_of_a_set_is_no_bad_picture(sharded: Path, tmp_path: Path):
    shutil.copytree(sharded, tmp_path, dirs_exist_ok=True)
    pictures = training_pictures(declare_set(tmp_path), batch_size=10)
    gone = sorted(tmp_path.rglob("*train.array_record*"))[7]
    gone.unlink()
    with pytest.raises(SystemFault, match=rf"{gone.name} cannot be read: No such file"):
        take_batches(pictures, 0, 4)
    with pytest.raises(UsageError, match=f"No such file.*{gone.name}.*prepare the set anew"):
        open_splits(declare_set(tmp_path))


def test_a_picture_that_is_gone_is_bad_but_not_where_its_folder_is_gone_too(damaged, tmp_path):
    shutil.copytree(damaged, tmp_path, dirs_exist_ok=True)
    pictures = training_pictures(declare_folder(tmp_path), batch_size=23)
    (tmp_path / "train" / "0" / "08.jpg").unlink()
    (batch,) = take_batches(pictures, 0, 1)
    names = {Path(pictures.examples.name(index)).name for index in batch.bad}
    assert names == {"04.jpg", "11.jpg", "08.jpg"}
    shutil.rmtree(tmp_path / "train" / "1")
    with pytest.raises(SystemFault, match=r"train/1/\d+.jpg cannot be read: No such file"):
        take_batches(pictures, 0, 1)


# --- Whoever reads


def test_no_reader_passes_over_what_the_system_cannot_read(prepared: Path, monkeypatch):
    data = declare_set(prepared)
    splits = open_splits(data)

    def refused(examples: PreparedExamples, index: int):
        raise system_error("EACCES")

    monkeypatch.setattr(PreparedExamples, "__getitem__", refused)
    maker = view_maker(Views(), PictureFormat((16, 16, 3), 18, 0))
    for read in (
        lambda: list(DiskReader(OneLabelEach(splits.test), CLASSES, print).read(maker, range(9))),
        lambda: first_pictures(data, "test", 3),
        lambda: make_loaders(data, 3),
    ):
        with pytest.raises(SystemFault, match="Permission denied; give this user the permission"):
            read()


def test_commands_may_open_as_many_files_as_the_system_allows(monkeypatch):
    allowed: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda of, limits: allowed.append(limits))
    for limits in ((1024, 4096), (1024, 2**20), (1024, resource.RLIM_INFINITY), (2**17, 2**17)):
        monkeypatch.setattr(resource, "getrlimit", lambda of, limits=limits: limits)
        command._allow_many_files()
    assert allowed == [(4096, 4096), (2**16, 2**20), (2**16, resource.RLIM_INFINITY)]


# --- Runs


@pytest.mark.slow
def test_a_fault_stops_a_streamed_run_which_is_saved_and_continues_to_the_bit(
    prepared: Path, tmp_path: Path, train: Callable[..., str], monkeypatch
):
    experiment = Experiment(
        name="streamed",
        model=ResNet(8),
        data=declare_set(prepared, validation=4, image_size=8),
        batch_size=6,
        steps=12,
        log_every=4,
        evaluate_every=8,
        checkpoint_every=6,
    )
    train(experiment, tmp_path / "undisturbed")
    folder = tmp_path / "run"
    fault = SystemFault("a.jpg", errno.EIO)
    at_steps = (
        (
            StreamedTrainingFeed,
            "call_input",
            lambda feed, first, count: fault if first == 5 else None,
            5,
        ),
        (StreamedEvaluationFeed, "batches", lambda feed, batch_size: fault, 8),
        (
            StreamedTrainingFeed,
            "call_input",
            lambda feed, first, count: fault if first == 11 else None,
            11,
        ),
    )
    for owner, name, when, step in at_steps:
        with monkeypatch.context() as patch:
            once(patch, owner, name, when)
            with pytest.raises(
                TrainingError,
                match=rf"a.jpg cannot be read: Input/output error.*; stopped at step {step} of 12 "
                "and saved; the same command continues",
            ):
                train(experiment, folder)
    assert "continuing from step 11 of 12" in train(experiment, folder)
    assert_same(folder, tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_run_and_an_evaluation_have_enough_descriptors_for_300_files(tmp_path: Path):
    """In processes of their own, which can open 128 files and cannot raise that number."""
    data_dir = sharded_set(tmp_path / "data", 300)
    file = tmp_path / "sharded.py"
    file.write_text(
        f"""
from resflax import *

experiment = Experiment(
    name="sharded",
    model=ResNet(8),
    data=Streamed("pictures", {str(data_dir)!r}, image_size=8, shorter_side=(18, 30),
                  test_shorter_side=18, bad_pictures=0),
    batch_size=60,
    steps=10,
)
"""
    )
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))"
    out, _ = run(file, "--run-dir", tmp_path / "run", patch=limit)
    assert "passed over" not in out
    out, err = run(tmp_path / "run", "--json", "--crops", 1, script="evaluate", patch=limit)
    assert json.loads(out)["examples"] == 300
    assert "passing over" not in err
