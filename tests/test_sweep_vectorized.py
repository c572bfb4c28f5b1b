"""Trials that train together: which do, that each is what it is alone, and cutting them off."""

import dataclasses
import importlib
import io
import json
import os
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from test_sweep import start_sweep, wait_until
from whole_runs import assert_same, files, metrics, result

from resflax import Cosine, Digits, Experiment, Grid, ResNet
from resflax.errors import Interrupted, UsageError
from resflax.experiment import flat_json, with_fields
from resflax.sweep.groups import form_groups
from resflax.sweep.queues import GridQueue
from resflax.sweep.trials import expand
from resflax.training import environment, plan, session
from resflax.training.checkpoints import Checkpoints
from resflax.training.devices import Devices
from resflax.training.group import train_group
from resflax.training.loop import Run
from resflax.training.record import Record
from resflax.training.run_folder import RunFolder
from resflax.training.vectorized import group_step

ROOT = Path(__file__).parents[1]
BASE = Experiment(
    name="tiny",
    model=ResNet(8),
    data=Digits(),
    batch_size=24,
    steps=14,
    schedule=Cosine(warmup_steps=3),
    log_every=4,
    evaluate_every=7,
    checkpoint_every=5,
)
ARGUMENTS = {
    "seed": 2**32 - 1,
    "optimizer.learning_rate": 0.03,
    "optimizer.weight_decay": 0.01,
    "optimizer.momentum": 0.5,
}
MEMBERS = [BASE, with_fields(BASE, ARGUMENTS)]


# Which trials go together

VALUES: dict[str, list[Any]] = {
    "seed": [0, 1, 2],
    "optimizer.learning_rate": [0.1, 0.2],
    "optimizer.weight_decay": [0.0, 1e-4],
    "optimizer.momentum": [0.0, 0.5, 0.9],
    "model.depth": [8, 14],
    "model.shortcut": ["none", "zero_pad"],
    "batch_size": [24, 32],
    "schedule.warmup_steps": [3, 4],
}


@given(
    st.dictionaries(st.sampled_from(sorted(VALUES)), st.integers(1, 3), min_size=1, max_size=5),
    st.integers(0, 5),
)
@settings(deadline=None, max_examples=40)
def test_every_trial_is_in_one_group_of_trials_that_differ_in_arguments_alone(counts, size):
    trials = expand(BASE, Grid({name: VALUES[name][:n] for name, n in counts.items()}))
    groups = form_groups(trials, size)
    assert Counter(t.hash for group in groups for t in group) == Counter(t.hash for t in trials)

    def program(trial):
        flat = flat_json(trial.experiment)
        fixed = {name: value for name, value in flat.items() if name not in ARGUMENTS}
        return str(fixed | {"has momentum": flat["optimizer.momentum"] > 0})

    for group in groups:
        assert len({program(trial) for trial in group}) == 1
        assert not size or len(group) <= size
    kinds = Counter(map(program, trials))
    assert len(groups) == sum(-(-count // (size or count)) for count in kinds.values())


def test_the_queue_gives_out_what_waits_of_a_group():
    trials = expand(BASE, Grid({"model.depth": [8, 14], "seed": range(3)}))
    queue = GridQueue(trials, together=2)
    first = queue.take()
    assert [trial.label for trial in first] == ["depth 8, seed 0", "depth 8, seed 1"]
    assert [trial.label for trial in queue.take()] == ["depth 8, seed 2"]
    for trial in reversed(first):  # their worker was killed
        queue.give_back(trial)
    assert [len(queue.take()) for _ in range(4)] == [2, 1, 2, 0]


# Members in this process


@pytest.fixture
def devices(monkeypatch):
    """Lets runs have that many devices from then on."""
    monkeypatch.setattr(environment, "source_changes", lambda: "")

    def take(count):
        chosen = jax.local_devices()[:count]
        monkeypatch.setattr(plan, "Devices", lambda parallel: Devices(parallel, chosen))
        monkeypatch.setattr(jax, "devices", lambda: chosen)

    take(1)
    return take


def together(folder, experiments):
    """Trains a group in folders named by place; what each member was told, and the failures."""
    told = [io.StringIO() for _ in experiments]
    failed = train_group(
        [
            (experiment, RunFolder(folder / str(place)), Console(file=said, width=500))
            for place, (experiment, said) in enumerate(zip(experiments, told, strict=True))
        ]
    )
    return [said.getvalue() for said in told], failed


def alone(folder, experiment):
    session.train(experiment, RunFolder(folder), Console(file=io.StringIO()))


def final(folder):
    """The parameters after the last step."""
    assert BASE.steps is not None
    return Checkpoints(folder / "checkpoints").restore_arrays(BASE.steps)["params"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A group's folder, finished on one device of this process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as monkeypatch:
        devices.__wrapped__(monkeypatch)  # type: ignore[attr-defined]
        together(folder, MEMBERS)
    return folder


def close(found, wanted, tolerance):
    """Compares lines of a log, numbers to a tolerance."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, dict):
            close(found[name], value, tolerance)
        elif isinstance(value, float):
            assert found[name] == pytest.approx(value, rel=tolerance, abs=tolerance), name
        else:
            assert found[name] == value, name


def test_a_member_in_turn_is_what_it_is_alone(devices, undisturbed, tmp_path):
    member = undisturbed / "1"
    alone(tmp_path, MEMBERS[1])
    for found, wanted in zip(metrics(member), metrics(tmp_path), strict=True):
        close(found, wanted, 1e-5)
    for found, wanted in zip(
        jax.tree.leaves(final(member)), jax.tree.leaves(final(tmp_path)), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert {p.name for p in member.iterdir()} == {p.name for p in tmp_path.iterdir()}
    assert result(member).keys() == result(tmp_path).keys()
    assert json.loads((member / "environment.json").read_text())["group"] == ["0", "1"]


def test_a_vmapped_member_is_what_it_is_in_turn(devices, undisturbed, monkeypatch, tmp_path):
    """The form for accelerators, with several steps a call, on two devices."""
    devices(2)
    monkeypatch.setattr(
        plan, "group_step", lambda step_of, in_turn: group_step(step_of, in_turn=False)
    )
    monkeypatch.setattr(Devices, "steps_at_once", 3)
    synchronized = [dataclasses.replace(x, batch_norm="synchronized") for x in MEMBERS]
    together(tmp_path, synchronized)
    for place in ("0", "1"):
        pairs = zip(metrics(tmp_path / place), metrics(undisturbed / place), strict=True)
        for found, wanted in pairs:
            close(found, wanted, 0.02)


class Killed(BaseException):
    """The end of this process, as far as the group can tell."""


def test_stopped_then_cut_off_between_two_members_saves(devices, undisturbed, tmp_path):
    def training(self, state, step, training=Record.training):
        signal.raise_signal(signal.SIGTERM)
        return training(self, state, step)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Record, "training", training)
        with pytest.raises(Interrupted, match="stopped and saved"):
            together(tmp_path, MEMBERS)
    assert [Checkpoints(tmp_path / x / "checkpoints").steps() for x in "01"] == [[4], [4]]

    saves = []

    def save(self, state, step, save=Run.save):
        saves.append(step)
        if len(saves) == 4:  # the second member's at step 10
            raise Killed
        save(self, state, step)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Run, "save", save)
        with pytest.raises(Killed):
            together(tmp_path, MEMBERS)
    told, failed = together(tmp_path, MEMBERS)
    assert "continuing from step 10 of 14" in told[0]
    assert "continuing from step 5 of 14" in told[1]
    assert failed == 0
    for place in range(2):
        assert_same(tmp_path / str(place), undisturbed / str(place))
    before = files(tmp_path)
    told, failed = together(tmp_path, MEMBERS)
    assert ["finished: nothing to do" in said for said in told] == [True] * 2
    assert files(tmp_path) == before


@pytest.mark.parametrize("answer", ["stop", pytest.param("rollback", marks=pytest.mark.slow)])
def test_a_member_whose_numbers_go_wrong_fails_by_itself(answer, devices, undisturbed, tmp_path):
    wild = with_fields(BASE, {"optimizer.learning_rate": 1e30})
    members = [dataclasses.replace(x, on_nonfinite=answer) for x in (wild, MEMBERS[1])]
    told, failed = together(tmp_path, members)
    assert failed == 1
    assert "error: at step " in told[0].splitlines()[-1]
    assert told[0].count("going back to step 0") == (3 if answer == "rollback" else 0)
    assert not (tmp_path / "0" / "result.json").exists()
    assert "error:" not in told[1]
    assert_same(tmp_path / "1", undisturbed / "1")


def test_what_is_wrong_for_all_is_said_to_all(devices, tmp_path):
    told = [io.StringIO(), io.StringIO()]
    members = [
        (dataclasses.replace(x, data=Digits(name="no_set")), RunFolder(tmp_path / str(place)))
        for place, x in enumerate(MEMBERS)
    ]
    with pytest.raises(UsageError, match="'no_set'; no prepared set of that name"):
        train_group([(*m, Console(file=t, width=999)) for m, t in zip(members, told, strict=True)])
    for said in told:
        assert said.getvalue().startswith("error: Digits.name is 'no_set'")
        assert said.getvalue().count("\n") == 1
    assert not list(tmp_path.iterdir())


# By scripts/sweep.py

FILE = """
from resflax import *

experiment = Experiment(
    name="tiny", model=ResNet(8), data=Digits(), batch_size=24, steps=30,
    log_every=4, evaluate_every=15, checkpoint_every=6,
)
sweep = Grid({("seed", "optimizer.learning_rate"): [(0, 0.1), (1, 0.05)]})
"""


def worker(folder):
    """Process id of the sweep's group worker, if there is one."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except OSError:
            continue
        if "resflax.sweep.worker" in words and str(folder) in words:
            return int(path.parent.name)
    return None


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the workers in /proc")
def test_kill_a_group_and_its_launcher_and_the_same_command_continues(tmp_path):
    file, folder = tmp_path / "tiny.py", tmp_path / "sweep"
    file.write_text(FILE)
    start = partial(start_sweep, flags="--xla_backend_optimization_level=0")
    process = start(tmp_path / "undisturbed", file, "--vectorize")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, (out, err)

    process = start(folder, file, "--vectorize")
    wait_until(lambda: list(folder.glob("trials/*/checkpoints/12/sha256.json")), process)
    process.kill()
    process.communicate()
    if (number := worker(folder)) is not None:  # it goes on by itself
        os.kill(number, signal.SIGKILL)
        while worker(folder) is not None:
            time.sleep(0.01)
    process = start(folder, file, "--vectorize")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, (out, err)
    assert "2 trials: 2 done" in out
    trials = sorted((tmp_path / "undisturbed" / "trials").iterdir())
    assert len(trials) == 2
    for trial in trials:
        assert_same(folder / "trials" / trial.name, trial)


@pytest.mark.parametrize(
    ("sweep", "arguments", "said"),
    [
        ('Grid({"seed": range(2)})', ["--vectorize", "--executor", "slurm"], "a SLURM job has one"),
        ('Grid({"seed": range(2)})', ["--vectorize", "-2"], "--vectorize is -2; it must be at"),
        (
            'Search({"optimizer.learning_rate": Uniform(0.1, 0.2)}, trials=2)',
            ["--vectorize", "4"],
            "--vectorize is for a Grid",
        ),
    ],
)
def test_what_cannot_train_together_is_refused(sweep, arguments, said, tmp_path, monkeypatch):
    file = tmp_path / "tiny.py"
    file.write_text(FILE.split("sweep =")[0] + f"sweep = {sweep}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "scripts")
    with pytest.raises(UsageError, match=said):
        importlib.import_module("sweep").main([str(file), *arguments])
    assert not (tmp_path / "sweeps").exists()
