"""Faults while a run is going: disks, memory, other devices, other data. In this process."""

import dataclasses
import errno
import io
import os
import shutil
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from rich.console import Console
from runs_in_process import interrupt_after_saving, once
from whole_runs import assert_same, files, metrics, run

from resflax import Digits, TrainingError, UsageError
from resflax.data.description import describe
from resflax.data.faults import SystemFault
from resflax.data.in_memory import load_dataset
from resflax.devices import memory
from resflax.diagnostics.inspected import load_networks
from resflax.errors import Interrupted
from resflax.evaluation import evaluate, subject
from resflax.feeding import feeds
from resflax.feeding.order import ExampleOrder
from resflax.feeding.resident import ResidentTrainingFeed
from resflax.runs import log, manifest, run_folder
from resflax.runs import metrics as metrics_file
from resflax.runs.checkpoints import Checkpoints
from resflax.runs.run_folder import RunFolder
from resflax.terminal.display import Display

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Disks


@pytest.mark.parametrize(
    ("owner", "name", "when", "goes_on_from"),
    [
        (metrics_file, "_dump", lambda line: FULL if line["step"] == 21 else None, 18),
        (
            manifest,
            "write_atomically",
            lambda path, content: FULL if path.parent.name == "27" else None,
            18,
        ),
        (
            ocp.CheckpointManager,
            "save",
            lambda self, step, args: ValueError(f"x.cc: {FULL.strerror}") if step == 27 else None,
            18,
        ),
        (
            run_folder,
            "write_atomically",
            lambda path, content: FULL if path.name == "result.json" else None,
            40,
        ),
    ],
    ids=["log", "manifest", "checkpoint", "result"],
)
def test_a_full_disk_stops_the_run_and_costs_nothing(
    tiny, undisturbed_here, tmp_path, train, monkeypatch, owner, name, when, goes_on_from
):
    folder = tmp_path / "run"
    once(monkeypatch, owner, name, when)
    with pytest.raises(TrainingError, match="could not be written: the disk is full"):
        train(tiny, folder)
    assert f"continuing from step {goes_on_from}" in train(tiny, folder)
    assert_same(folder, undisturbed_here)


def test_a_file_that_cannot_grow_fails_the_save_and_costs_nothing(
    experiment, undisturbed, tmp_path
):
    """A real fault in the middle of a save: the system lets no file grow above 100 kB."""
    folder = shutil.copytree(undisturbed, tmp_path / "run")
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "40")
    before = files(folder / "checkpoints")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    _, err = run(experiment, "--run-dir", folder, code=1, patch=limit)
    assert f"{folder}/checkpoints/40 could not be written" in err
    assert before.items() <= files(folder / "checkpoints").items()
    run(experiment, "--run-dir", folder)
    assert_same(folder, undisturbed)


def test_steps_go_on_while_a_slow_disk_takes_a_checkpoint(
    tiny, undisturbed_here, tmp_path, train, monkeypatch
):
    """And it is that of its own step: the folder is as if the disk were fast."""
    folder = tmp_path / "run"
    write, begun = ocp.CheckpointManager.save, {}

    def save(self, step, args):
        deadline = time.monotonic() + 60
        while step == 27 and metrics(folder)[-1]["step"] < 35 and time.monotonic() < deadline:
            time.sleep(0.01)
        begun[step] = metrics(folder)[-1]["step"]
        return write(self, step, args=args)

    monkeypatch.setattr(ocp.CheckpointManager, "save", save)
    train(tiny, folder)
    assert list(begun) == [9, 18, 27, 36, 40]
    assert begun[27] == 35  # the log when it was written
    assert_same(folder, undisturbed_here)
    ours, others = (
        Checkpoints(run / "checkpoints").restore_arrays(27) for run in (folder, undisturbed_here)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, others)


def test_data_that_the_system_cannot_read_stop_the_run_after_saving(
    tiny, undisturbed_here, tmp_path, train, monkeypatch
):
    """In a step, and in an evaluation; `test_system_faults.py` has the faults themselves."""
    folder, fault = tmp_path / "run", SystemFault("a.jpg", errno.EIO)
    once(
        monkeypatch,
        ResidentTrainingFeed,
        "call_input",
        lambda feed, first, count: fault if first >= 15 else None,
    )
    with (
        jax.default_prng_impl("rbg"),  # would draw other weights, but a run has its own settings
        jax.threefry_partitionable(False),
        pytest.raises(TrainingError, match=r"a.jpg cannot be read: .* and saved; the same command"),
    ):
        train(tiny, folder)
    steps = Checkpoints(folder / "checkpoints").steps()
    assert 15 <= steps[-1] < 20  # the last whole step
    once(monkeypatch, log, "measure_split", lambda *arguments, **options: fault)
    with pytest.raises(TrainingError, match="stopped at step 20 of 40 and saved"):
        train(tiny, folder)
    assert "continuing from step 20" in train(tiny, folder)
    assert_same(folder, undisturbed_here)


# Memory


def test_too_little_memory_is_said_before_a_folder_is_made(tiny, tmp_path, train, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda devices: 2**20)
    with pytest.raises(UsageError, match=r"needs .* GiB of memory .* reduce batch_size or"):
        train(tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_for_which_no_machine_has_memory_is_refused(tiny, tmp_path, train):
    huge = dataclasses.replace(tiny, batch_size=2**22)
    with pytest.raises(UsageError, match="reduce batch_size"):
        train(huge, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")])
def test_memory_that_runs_out_later_is_one_line(
    tiny, undisturbed_here, tmp_path, train, monkeypatch, error
):
    count = iter(range(100))
    once(
        monkeypatch,
        ExampleOrder,
        "batch",
        lambda self, step: error if next(count) == 30 else None,
    )
    with pytest.raises(TrainingError, match="out of memory; reduce batch_size"):
        train(tiny, tmp_path / "run")
    assert "continuing from step 27" in train(tiny, tmp_path / "run")
    assert_same(tmp_path / "run", undisturbed_here)


# Other devices


def assert_close(one, other):
    """Equal up to rounding that training amplifies: losses to 2 %, errors to a few examples."""
    for a, b in zip(metrics(one), metrics(other), strict=True):
        assert (a["step"], a["split"]) == (b["step"], b["split"])
        assert a["loss"] == pytest.approx(b["loss"], rel=0.02)
        assert a["error"] == pytest.approx(b["error"], abs=0.03)


@pytest.mark.parametrize("counts", [(1, 8), pytest.param((2, 4), marks=pytest.mark.slow)], ids=str)
def test_a_run_goes_on_with_other_devices(tiny, tmp_path, train, monkeypatch, counts):
    """Saved on eight, continued on the first number and then on the second."""
    tiny = dataclasses.replace(tiny, batch_norm="synchronized", steps=27)
    train(tiny, tmp_path / "eight", devices=8)
    folder = shutil.copytree(tmp_path / "eight", tmp_path / "other")
    (folder / "result.json").unlink()
    for newer in ("18", "27"):
        shutil.rmtree(folder / "checkpoints" / newer)
    with monkeypatch.context() as patch:
        interrupt_after_saving(patch, 18)
        with pytest.raises(Interrupted):
            train(tiny, folder, devices=counts[0])
    other = dataclasses.replace(tiny, parallel="shard_map")
    said = train(other, folder, devices=counts[1])
    assert f"last on {counts[0]} devices, continued on {counts[1]}: batch norm is" in said
    assert "begun with parallel pmap, continued with shard_map" in said
    assert_close(folder, tmp_path / "eight")


def test_what_batch_norm_sees_is_said_and_another_precision_refused(tiny, tmp_path, train):
    tiny = dataclasses.replace(tiny, steps=9)
    folder = tmp_path / "run"
    train(tiny, folder)
    (folder / "result.json").unlink()
    with pytest.raises(UsageError, match="precision: 'float32' != 'bfloat16'"):
        train(dataclasses.replace(tiny, precision="bfloat16"), folder)
    assert "batch norm now sees 24 examples at a time, not 48" in train(tiny, folder, devices=2)


def test_other_data_than_the_run_began_with_are_refused(tiny, tmp_path, train, monkeypatch):
    tiny = dataclasses.replace(tiny, steps=9)
    folder = tmp_path / "run"
    train(tiny, folder)
    (folder / "result.json").unlink()

    def changed(*arguments):
        dataset = load_dataset(*arguments)
        dataset.train.labels[0] ^= 1
        return dataset

    monkeypatch.setattr(feeds, "load_dataset", changed)
    with pytest.raises(UsageError, match="was trained on other pictures or labels"):
        train(tiny, folder)


def test_a_run_is_not_measured_on_data_of_other_classes(undisturbed, monkeypatch):
    facts = dataclasses.replace(describe(Digits()), num_classes=7)
    monkeypatch.setattr(subject, "describe", lambda data: facts)
    quiet = Display(Console(file=io.StringIO()))
    with pytest.raises(UsageError, match="does not fit the data: pictures of 8x8x1 in 7 classes"):
        evaluate.evaluate([RunFolder(undisturbed)], "test", None, quiet)


def test_diagnostics_read_only_checkpoints_that_are_as_they_were_saved(undisturbed_here, tmp_path):
    folder = shutil.copytree(undisturbed_here, tmp_path / "run")
    arrays = max((folder / "checkpoints/36").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(arrays.read_bytes())
    content[len(content) // 2] ^= 1
    arrays.write_bytes(content)
    (folder / "checkpoints" / "27" / manifest.NAME).unlink()
    said: list[str] = []
    networks = load_networks(RunFolder(folder), 2, said.append)
    assert [network.step for network in networks] == [40]
    assert said == [
        f"passing over checkpoint 36: its file {arrays.relative_to(folder / 'checkpoints/36')} is "
        "damaged",
        "passing over checkpoint 27: its save was not finished",
    ]
