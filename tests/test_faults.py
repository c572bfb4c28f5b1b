"""Faults while a run is going: disks, numbers, memory, another machine. In this process."""

import dataclasses
import errno
import io
import logging
import os
import shutil
import signal
import sys
import threading
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from rich.console import Console
from whole_runs import assert_same, files, metrics, result, run

from resflax import Digits, TrainingError, UsageError
from resflax.command_line import load_experiment
from resflax.data import source
from resflax.data.augmentation import fit_normalization
from resflax.data.feed import Order
from resflax.errors import Interrupted
from resflax.evaluation import evaluate
from resflax.models.layers import BatchNorm, Conv
from resflax.training import (
    checkpoints,
    environment,
    feeds,
    memory,
    plan,
    run_folder,
    session,
    step,
)
from resflax.training import metrics as log
from resflax.training.devices import Devices
from resflax.training.display import Display
from resflax.training.loop import Run
from resflax.training.nonfinite import explain
from resflax.training.run_folder import RunFolder
from resflax.training.state import initial_state
from resflax.training.step import Examples, loss_of, train_step

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def tiny(experiment):
    return load_experiment(experiment)


@pytest.fixture
def train(monkeypatch):
    """Trains on so many devices, and returns what was printed."""
    return here(monkeypatch)


@pytest.fixture(scope="module")
def undisturbed_here(experiment, tmp_path_factory):
    """The finished run on a device of this process: sums depend on its number of threads."""
    folder = tmp_path_factory.mktemp("undisturbed_here") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        here(monkeypatch)(load_experiment(experiment), folder)
    return folder


def here(monkeypatch):
    """What the fixture `train` gives."""
    monkeypatch.setattr(environment, "source_changes", lambda: "")
    for owner, hook in ((threading, "excepthook"), (sys, "unraisablehook")):
        monkeypatch.setattr(owner, hook, getattr(owner, hook))  # a failed save silences them
    monkeypatch.setattr(logging.root.manager, "disable", 0)

    def train(experiment, folder, devices=1):
        chosen = jax.local_devices()[:devices]
        monkeypatch.setattr(plan, "Devices", lambda parallel: Devices(parallel, chosen))
        monkeypatch.setattr(jax, "devices", lambda: chosen)
        said = io.StringIO()
        session.train(experiment, RunFolder(folder), Console(file=said, width=500))
        return said.getvalue()

    return train


def once(monkeypatch, owner, name, when):
    """Makes a function raise what `when` returns for its arguments, until that was something."""
    whole = getattr(owner, name)

    def faulty(*arguments, **options):
        error = when(*arguments, **options)
        if error is None:
            return whole(*arguments, **options)
        monkeypatch.setattr(owner, name, whole)
        raise error

    monkeypatch.setattr(owner, name, faulty)


def interrupt_after_saving(monkeypatch, at):
    whole = Run.save

    def save(self, state, step):
        due = self.saved != step
        whole(self, state, step)
        if due and step == at:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Run, "save", save)


# Disks


@pytest.mark.parametrize(
    ("owner", "name", "when", "goes_on_from"),
    [
        (log, "_dump", lambda line: FULL if line["step"] == 21 else None, 18),
        (
            checkpoints,
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
        checkpoints.Checkpoints(run / "checkpoints").restore_arrays(27)
        for run in (folder, undisturbed_here)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, others)


# Numbers


@pytest.fixture
def poison(monkeypatch, tiny):
    """Makes the loss of some batches NaN, in whatever step they come."""

    def poison(*batches):
        order = Order(1342, tiny.batch_size, tiny.seed)
        bad = jnp.array([order.batch(batch) for batch in batches])

        def poisoned(module, data, state, examples, indices, *recipe):
            loss = loss_of(module, data, state, examples, indices, *recipe)
            factor = jnp.where(jnp.any(jnp.all(indices == bad, axis=1)), jnp.nan, 1)

            def wrong(params):
                value, rest = loss(params)
                return value * factor, rest

            return wrong

        monkeypatch.setattr(step, "loss_of", poisoned)

    return poison


def test_a_loss_that_is_not_finite_stops_the_run_and_harms_nothing(
    tiny, undisturbed_here, tmp_path, train, poison, monkeypatch
):
    folder = tmp_path / "run"
    poison(30)
    with pytest.raises(TrainingError) as failure:
        train(tiny, folder)
    said = str(failure.value)
    assert said.startswith("at step 31 (learning rate ")
    assert "the loss is nan, and the outputs of all layers are finite" in said
    assert said.endswith("the newest checkpoint, of step 27, is good")
    assert metrics(folder)[-1]["step"] == 28
    monkeypatch.setattr(step, "loss_of", loss_of)
    assert "continuing from step 27" in train(tiny, folder)
    assert_same(folder, undisturbed_here)


def test_rollback_takes_the_data_behind_and_records_it(
    tiny, undisturbed_here, tmp_path, train, poison, monkeypatch
):
    """Batch 30 is bad: steps 28 to 40 take batches 31 to 43, also if interrupted."""
    tiny = dataclasses.replace(tiny, on_nonfinite="rollback")
    poison(30)
    said = train(tiny, tmp_path / "one")
    assert "going back to step 27 and passing over the batches of 4 steps (1 of at most 3" in said
    found = result(tmp_path / "one")
    (rollback,) = found["rollbacks"]
    assert (rollback["at"], rollback["to"]) == (31, 27)
    marks = [(line["step"], line["split"]) for line in metrics(tmp_path / "one")]
    assert marks == [(line["step"], line["split"]) for line in metrics(undisturbed_here)]
    assert found["params_sha256"] != result(undisturbed_here)["params_sha256"]

    interrupt_after_saving(monkeypatch, 36)
    with pytest.raises(Interrupted):
        train(tiny, tmp_path / "other")
    assert "continuing from step 36" in train(tiny, tmp_path / "other")
    assert_same(tmp_path / "other", tmp_path / "one")
    assert result(tmp_path / "other")["rollbacks"] == [rollback]


@pytest.mark.slow
def test_rollbacks_end(tiny, tmp_path, train, poison):
    """The fourth failure behind one checkpoint is the last; those before it are forgiven."""
    tiny = dataclasses.replace(tiny, on_nonfinite="rollback")
    poison(3, 20, 21, 22, 23)
    with pytest.raises(TrainingError, match="the run went back to step 9 3 times already"):
        train(tiny, tmp_path / "run")


SHAPE = (8, 8, 1)


class Root(nn.Module):
    """A network whose gradient is infinite behind its last convolution, but not its loss."""

    @nn.compact
    def __call__(self, images, *, train):
        x = Conv(4, 3, name="conv")(images)
        x = BatchNorm(name="norm")(x, train=train)
        return nn.Dense(10, name="head")(jnp.sqrt(0 * jnp.mean(x, (1, 2))))


def state_for(module):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, *SHAPE), dtype=np.uint8)
    examples = Examples(jnp.array(images), jnp.array(rng.integers(0, 10, 64), jnp.int32))
    normalization = fit_normalization(images, Digits())
    return initial_state(module, optax.sgd(0.1, 0.9), normalization, SHAPE, 0), examples


@pytest.mark.parametrize("parallel", ["pmap", "shard_map"])
def test_a_failed_step_changes_nothing_and_neither_do_those_after_it(parallel):
    module = Root()
    state, examples = state_for(module)
    devices = Devices(parallel, jax.devices()[:2])
    before = jax.device_get(state)
    examples = Examples(*devices.replicate(tuple(examples)))
    run_step = devices.parallelize(
        train_step(module, optax.sgd(0.1, 0.9), Digits()), donate_state=True
    )
    state = devices.replicate(state)
    for _ in range(3):
        state, loss = run_step(state, examples, np.arange(32, dtype=np.int32))
        assert np.isnan(loss)
        after = jax.device_get(state)
        assert after.failed
        same = jax.tree.map(np.array_equal, after.replace(failed=before.failed), before)
        assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("parallel", ["pmap", "shard_map"])
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("", "the gradient is not finite from layer norm down"),
        ("head", "the first layer whose output is not finite is head"),
        ("norm", "the first layer whose output is not finite is norm"),
        ("picture", "the first layer whose output is not finite is conv"),
    ],
)
def test_the_layer_where_it_began_is_named(parallel, harm, said):
    module = Root()
    state, examples = state_for(module)
    if harm == "picture":
        scale = state.normalization.scale * jnp.inf
        state = state.replace(normalization=state.normalization._replace(scale=scale))
    elif harm:
        bias = state.params[harm]["bias"] + jnp.inf
        state = state.replace(params=state.params | {harm: state.params[harm] | {"bias": bias}})
    devices = Devices(parallel, jax.devices()[:2])
    found = explain(
        devices,
        lambda *arguments: loss_of(module, Digits(), *arguments),
        devices.replicate(state),
        Examples(*devices.replicate(tuple(examples))),
        np.arange(32, dtype=np.int32),
    )
    assert found.endswith(said), found


# Memory


def test_too_little_memory_is_said_before_a_folder_is_made(tiny, tmp_path, train, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda devices: 2**20)
    with pytest.raises(UsageError, match=r"needs .* GiB of memory .* reduce batch_size or"):
        train(tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_for_which_no_machine_has_memory_is_refused(tiny, tmp_path, train):
    huge = dataclasses.replace(tiny, batch_size=2**24)
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
        Order,
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
    whole = source.load

    def changed(*arguments):
        dataset = whole(*arguments)
        dataset.train.labels[0] ^= 1
        return dataset

    monkeypatch.setattr(feeds, "load", changed)
    with pytest.raises(UsageError, match="was trained on other pictures or labels"):
        train(tiny, folder)


def test_a_run_is_not_measured_on_data_of_other_classes(undisturbed, monkeypatch):
    facts = dataclasses.replace(source.describe(Digits()), num_classes=7)
    monkeypatch.setattr(evaluate, "describe", lambda data: facts)
    quiet = Display(Console(file=io.StringIO()))
    with pytest.raises(UsageError, match="does not fit the data: pictures of 8x8x1 in 7 classes"):
        evaluate.evaluate([RunFolder(undisturbed)], "test", None, quiet)
