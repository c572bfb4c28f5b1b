"""Trials that train together: their groups, their numbers beside those of trials alone, faults."""

import dataclasses
import io
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from whole_runs import assert_same, files, metrics, result
from whole_sweeps import start_sweep, wait_until, worker_ids

from resflax import Cosine, Digits, Experiment, Grid, ResNet
from resflax.commands import sweep as sweep_command
from resflax.devices.parallel import Devices
from resflax.errors import Interrupted, UsageError
from resflax.experiment import flat_json, with_fields
from resflax.runs import environment, plan, session
from resflax.runs.checkpoints import Checkpoints
from resflax.runs.group import train_group
from resflax.runs.log import RunLog
from resflax.runs.loop import TrainingLoop
from resflax.runs.run_folder import RunFolder
from resflax.sweep.groups import form_groups
from resflax.sweep.queues import GridQueue
from resflax.sweep.trials import expand_grid
from resflax.training.together import group_step

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
OTHER_NUMBERS = {
    "seed": 2**32 - 1,
    "optimizer.learning_rate": 0.03,
    "optimizer.weight_decay": 0.01,
    "optimizer.momentum": 0.5,
}
MEMBERS = [BASE, with_fields(BASE, OTHER_NUMBERS)]


# Groups

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
def test_the_trials_of_a_group_differ_only_in_arguments_of_the_step(counts, group_size):
    trials = expand_grid(BASE, Grid({name: VALUES[name][:n] for name, n in counts.items()}))
    groups = form_groups(trials, group_size)
    assert Counter(t.hash for group in groups for t in group) == Counter(t.hash for t in trials)

    def program(trial):
        flat = flat_json(trial.experiment)
        fixed = {name: value for name, value in flat.items() if name not in OTHER_NUMBERS}
        return str(fixed | {"has momentum": flat["optimizer.momentum"] > 0})

    for group in groups:
        assert len({program(trial) for trial in group}) == 1
        assert not group_size or len(group) <= group_size
    trials_by_program = Counter(map(program, trials)).values()
    assert len(groups) == sum(-(-count // (group_size or count)) for count in trials_by_program)


def test_the_queue_hands_out_all_waiting_trials_of_a_group():
    trials = expand_grid(BASE, Grid({"model.depth": [8, 14], "seed": range(3)}))
    queue = GridQueue(trials, group_size=2)
    first = queue.take()
    assert [trial.label for trial in first] == ["depth 8, seed 0", "depth 8, seed 1"]
    assert [trial.label for trial in queue.take()] == ["depth 8, seed 2"]
    for trial in reversed(first):  # their worker was killed
        queue.give_back(trial)
    assert [len(queue.take()) for _ in range(4)] == [2, 1, 2, 0]


# Members in this process


@pytest.fixture
def devices(monkeypatch):
    """A function that gives the following runs so many devices."""
    monkeypatch.setattr(environment, "source_changes", lambda: "")

    def use(count):
        chosen = jax.local_devices()[:count]
        monkeypatch.setattr(plan, "Devices", lambda parallel: Devices(parallel, chosen))
        monkeypatch.setattr(jax, "devices", lambda: chosen)

    use(1)
    return use


def train_together(folder, experiments):
    """Trains a group in the folders 0, 1, ...

    Returns what was printed for each member, and the number of members that failed.
    """
    outputs = [io.StringIO() for _ in experiments]
    failures = train_group(
        [
            (experiment, RunFolder(folder / str(place)), Console(file=output, width=500))
            for place, (experiment, output) in enumerate(zip(experiments, outputs, strict=True))
        ]
    )
    return [output.getvalue() for output in outputs], failures


def train_alone(folder, experiment):
    session.train(experiment, RunFolder(folder), Console(file=io.StringIO()))


def final_parameters(folder):
    """The parameters after the last step."""
    assert BASE.steps is not None
    return Checkpoints(folder / "checkpoints").restore_arrays(BASE.steps)["params"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a group that was trained to its end on one device of this process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as monkeypatch:
        devices.__wrapped__(monkeypatch)  # type: ignore[attr-defined]
        train_together(folder, MEMBERS)
    return folder


def assert_logs_close(folder, expected_folder, tolerance):
    """Compares the lines of two logs, and floats up to a tolerance."""
    for line, expected in zip(metrics(folder), metrics(expected_folder), strict=True):
        assert_lines_close(line, expected, tolerance)


def assert_lines_close(line, expected, tolerance):
    assert line.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, dict):
            assert_lines_close(line[name], value, tolerance)
        elif isinstance(value, float):
            assert line[name] == pytest.approx(value, rel=tolerance, abs=tolerance), name
        else:
            assert line[name] == value, name


def test_a_member_that_steps_in_turn_trains_as_it_does_alone(devices, undisturbed, tmp_path):
    member = undisturbed / "1"
    train_alone(tmp_path, MEMBERS[1])
    assert_logs_close(member, tmp_path, 1e-5)
    for array, expected in zip(
        jax.tree.leaves(final_parameters(member)),
        jax.tree.leaves(final_parameters(tmp_path)),
        strict=True,
    ):
        np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5)
    assert {p.name for p in member.iterdir()} == {p.name for p in tmp_path.iterdir()}
    assert result(member).keys() == result(tmp_path).keys()
    assert json.loads((member / "environment.json").read_text())["group"] == ["0", "1"]


def test_vmapped_members_train_as_members_in_turn(devices, undisturbed, monkeypatch, tmp_path):
    """Accelerators have this form: several steps in a call, on two devices."""
    devices(2)
    monkeypatch.setattr(
        plan, "group_step", lambda step_of, in_turn: group_step(step_of, in_turn=False)
    )
    monkeypatch.setattr(Devices, "steps_per_call", 3)
    synchronized = [dataclasses.replace(x, batch_norm="synchronized") for x in MEMBERS]
    train_together(tmp_path, synchronized)
    for place in ("0", "1"):
        assert_logs_close(tmp_path / place, undisturbed / place, 0.02)


@pytest.mark.parametrize("in_turn", [True, False])
def test_the_gradient_of_each_member_is_clipped_by_itself(in_turn, devices, monkeypatch, tmp_path):
    monkeypatch.setattr(
        plan, "group_step", lambda step_of, **_: group_step(step_of, in_turn=in_turn)
    )
    fields = {"optimizer.max_gradient_norm": 0.5, "steps": 5}
    members = [with_fields(member, fields) for member in MEMBERS]
    train_together(tmp_path, members)
    for place, member in enumerate(members):
        alone = tmp_path / f"alone-{place}"
        train_alone(alone, member)
        assert all(x["gradient_norm"] > 0.5 for x in metrics(alone) if x["split"] == "train")
        assert_logs_close(tmp_path / str(place), alone, 1e-2 if in_turn else 0.02)


def test_each_member_keeps_its_own_best(devices, tmp_path):
    fields = {"data.validation": 100, "evaluate_every": 2, "keep_best": True}
    members = [with_fields(member, fields) for member in MEMBERS]
    _, failures = train_together(tmp_path, members)
    assert failures == 0
    for place, member in enumerate(members):
        folder, alone = tmp_path / str(place), tmp_path / f"alone-{place}"
        train_alone(alone, member)
        names = ("best_step", "best_validation_error", "best_test_error")
        ended, expected = result(folder), result(alone)
        assert [ended[name] for name in names] == [expected[name] for name in names]
        kept = [Checkpoints(x / "checkpoints").steps() for x in (folder, alone)]
        assert kept[0] == kept[1]
        assert ended["best_step"] in kept[0]


class Killed(BaseException):
    """Stands for the end of the process: the group cannot handle it."""


def test_a_group_continues_after_a_signal_and_a_kill_between_two_members_saves(
    devices, undisturbed, tmp_path
):
    def training(self, state, step, training=RunLog.training):
        signal.raise_signal(signal.SIGTERM)
        return training(self, state, step)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(RunLog, "training", training)
        with pytest.raises(Interrupted, match="stopped and saved"):
            train_together(tmp_path, MEMBERS)
    assert [Checkpoints(tmp_path / x / "checkpoints").steps() for x in "01"] == [[4], [4]]

    saves = []

    def save(self, state, step, save=TrainingLoop.save):
        saves.append(step)
        if len(saves) == 4:  # the second member saves at step 10
            raise Killed
        save(self, state, step)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(TrainingLoop, "save", save)
        with pytest.raises(Killed):
            train_together(tmp_path, MEMBERS)
    outputs, failures = train_together(tmp_path, MEMBERS)
    assert "continuing from step 10 of 14" in outputs[0]
    assert "continuing from step 5 of 14" in outputs[1]
    assert failures == 0
    for place in range(2):
        assert_same(tmp_path / str(place), undisturbed / str(place))
    before = files(tmp_path)
    outputs, failures = train_together(tmp_path, MEMBERS)
    assert ["finished: nothing to do" in output for output in outputs] == [True] * 2
    assert files(tmp_path) == before


@pytest.mark.parametrize("answer", ["stop", pytest.param("rollback", marks=pytest.mark.slow)])
def test_a_member_with_a_loss_that_is_not_finite_fails_by_itself(
    answer, devices, undisturbed, tmp_path
):
    wild = with_fields(BASE, {"optimizer.learning_rate": 1e30})
    members = [dataclasses.replace(x, on_nonfinite=answer) for x in (wild, MEMBERS[1])]
    outputs, failures = train_together(tmp_path, members)
    assert failures == 1
    assert "error: at step " in outputs[0].splitlines()[-1]
    assert outputs[0].count("going back to step 0") == (3 if answer == "rollback" else 0)
    assert not (tmp_path / "0" / "result.json").exists()
    assert "error:" not in outputs[1]
    assert_same(tmp_path / "1", undisturbed / "1")


def test_an_error_of_the_whole_group_is_printed_for_every_member(devices, tmp_path):
    outputs = [io.StringIO(), io.StringIO()]
    members = [
        (dataclasses.replace(x, data=Digits(name="no_set")), RunFolder(tmp_path / str(place)))
        for place, x in enumerate(MEMBERS)
    ]
    with pytest.raises(UsageError, match="'no_set'; no prepared set of that name"):
        train_group(
            [
                (*member, Console(file=output, width=999))
                for member, output in zip(members, outputs, strict=True)
            ]
        )
    for output in outputs:
        assert output.getvalue().startswith("error: Digits.name is 'no_set'")
        assert output.getvalue().count("\n") == 1
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


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to find the workers")
def test_kill_a_group_and_its_launcher_and_the_same_command_continues(tmp_path):
    file, folder = tmp_path / "tiny.py", tmp_path / "sweep"
    file.write_text(FILE)
    process = start_sweep(tmp_path / "undisturbed", file, "--vectorize")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, (out, err)

    process = start_sweep(folder, file, "--vectorize")
    wait_until(lambda: list(folder.glob("trials/*/checkpoints/12/sha256.json")), process)
    process.kill()
    process.communicate()
    if numbers := worker_ids(folder, "resflax.sweep.worker"):  # the worker keeps running
        os.kill(numbers[0], signal.SIGKILL)
        while worker_ids(folder, "resflax.sweep.worker"):
            time.sleep(0.01)
    process = start_sweep(folder, file, "--vectorize")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, (out, err)
    assert "2 trials: 2 done" in out
    trials = sorted((tmp_path / "undisturbed" / "trials").iterdir())
    assert len(trials) == 2
    for trial in trials:
        assert_same(folder / "trials" / trial.name, trial)


@pytest.mark.parametrize(
    ("sweep", "arguments", "message"),
    [
        ('Grid({"seed": range(2)})', ["--vectorize", "--executor", "slurm"], "a SLURM job has one"),
        ('Grid({"seed": range(2)})', ["--vectorize", "-2"], "--vectorize is -2; it must be at"),
        (
            'Search({"optimizer.learning_rate": Uniform(0.1, 0.2)}, trials=2)',
            ["--vectorize", "4"],
            "--vectorize needs a Grid",
        ),
    ],
)
def test_options_that_exclude_vectorize_are_refused(
    sweep, arguments, message, tmp_path, monkeypatch
):
    file = tmp_path / "tiny.py"
    file.write_text(FILE.split("sweep =")[0] + f"sweep = {sweep}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        sweep_command.main([str(file), *arguments])
    assert not (tmp_path / "sweeps").exists()
