"""The launcher with jobs that are no processes, the sweep folder, and the places of workers."""

import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from resflax import Experiment, Grid, ResNet
from resflax.declarations.sweeps import Point
from resflax.errors import Interrupted, UsageError
from resflax.experiment import with_fields
from resflax.locks import take_lock
from resflax.sweep.executors import group_worker_command, worker_command
from resflax.sweep.launcher import Launcher
from resflax.sweep.live_table import standings_table
from resflax.sweep.local import GroupJob, slot_variables
from resflax.sweep.queues import GridQueue
from resflax.sweep.standings import Standing, TrialState
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trials import Trial, expand_grid
from resflax.terminal.experiment_files import load_experiment

BASE = Experiment(name="base", model=ResNet(20), batch_size=32, steps=10)


class FakeJob:
    def __init__(self, trial, folder, codes):
        self.trials, self._folder, self._codes = [trial], folder, codes
        self.stopped = False

    def poll(self):
        code = self._codes.pop(0) if self._codes else 0
        if code == 0:
            run = self._folder.run(*self.trials)
            run.path.mkdir(parents=True, exist_ok=True)
            run.result.write_text(json.dumps({"status": "finished"}))
        return 143 if self.stopped and code is None else code

    def close(self):
        pass

    def stop(self):
        self.stopped = True

    def failure_reason(self, trial):
        return "the loss is nan"


class FakeExecutor:
    detached = False

    def __init__(self, folder, capacity, codes=lambda trial: [None, 0]):
        self.folder, self.capacity, self.codes = folder, capacity, codes
        self.started = []

    def start(self, groups):
        self.started += [t.hash for (t,) in groups]
        return [FakeJob(t, self.folder, self.codes(t)) for (t,) in groups]

    def close(self):
        pass


def launch(tmp_path, grid, capacity=2, codes=lambda trial: [None, 0]):
    folder, trials = SweepFolder(tmp_path / "sweep"), expand_grid(BASE, grid)
    folder.begin(BASE)
    folder.add(list(trials))
    executor = FakeExecutor(folder, capacity, codes)
    launcher = Launcher(folder, GridQueue(trials), executor, say=lambda text: None)
    return launcher.run(), executor, folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("resflax.sweep.launcher.POLL_SECONDS", 0.001)


def test_every_trial_is_started_once_and_a_second_time_none(tmp_path):
    grid = Grid({"seed": range(5)})
    standings, executor, _ = launch(tmp_path, grid)
    assert [s.state for s in standings] == [TrialState.DONE] * 5
    assert len(set(executor.started)) == len(executor.started) == 5
    standings, executor, _ = launch(tmp_path, grid)
    assert [s.state for s in standings] == [TrialState.DONE] * 5
    assert executor.started == []
    _, executor, folder = launch(tmp_path, Grid({"seed": range(3, 8)}))
    assert len(executor.started) == 3
    assert len(folder.read()["trials"]) == 8


def test_a_failed_trial_is_reported_and_does_not_stop_the_others(tmp_path):
    def codes(trial):
        return [1] if trial.experiment.seed == 1 else [None, 0]

    standings, _, folder = launch(tmp_path, Grid({"seed": range(4)}), codes=codes)
    assert [s.state for s in standings].count(TrialState.DONE) == 3
    (failed,) = [s for s in standings if s.state is TrialState.FAILED]
    assert failed.reason == folder.read_end(failed.trial)["why"] == "the loss is nan"
    standings, executor, folder = launch(tmp_path, Grid({"seed": range(4)}))
    assert executor.started == [failed.trial.hash]  # tried again
    assert folder.read_end(failed.trial) is None


def test_a_killed_worker_is_started_again_but_not_for_ever(tmp_path):
    fates: dict[int, list[Any]] = {0: [[None, -9], [None, 0]], 1: [[-9], [-9], [-9], [0]]}

    def codes(trial):
        return fates[trial.experiment.seed].pop(0)

    standings, executor, _ = launch(tmp_path, Grid({"seed": [0, 1]}), codes=codes)
    assert [s.state for s in standings] == [TrialState.DONE, TrialState.FAILED]
    assert Counter(executor.started).most_common() == [
        (standings[1].trial.hash, 3), (standings[0].trial.hash, 2),
    ]  # fmt: skip
    assert standings[1].reason == "killed 3 times at step 0"


def test_the_launcher_waits_for_a_trial_that_another_process_runs(tmp_path):
    folder, (trial,) = SweepFolder(tmp_path / "sweep"), expand_grid(BASE, Grid({"seed": [0]}))
    folder.begin(BASE)
    lock = take_lock(folder.lock_file(trial))
    assert lock is not None
    assert take_lock(folder.lock_file(trial)) is None
    executor, seen = FakeExecutor(folder, 1), []

    def show(standings):
        seen.append([s.state for s in standings])
        if len(seen) == 3:
            os.close(lock)

    Launcher(folder, GridQueue([trial]), executor, show, lambda text: None).run()
    assert seen[:3] == [[TrialState.ELSEWHERE]] * 3
    assert executor.started == [trial.hash]


def test_a_signal_stops_the_workers(tmp_path):
    folder, trials = SweepFolder(tmp_path / "sweep"), expand_grid(BASE, Grid({"seed": range(3)}))
    folder.begin(BASE)
    executor = FakeExecutor(folder, 2, lambda trial: [None] * 1000)
    with pytest.raises(Interrupted, match="all trials saved"):
        Launcher(
            folder,
            GridQueue(trials),
            executor,
            lambda standings: signal.raise_signal(signal.SIGTERM),
            lambda text: None,
        ).run()
    assert len(executor.started) == 2


def test_another_experiments_sweep_folder_is_refused(tmp_path):
    SweepFolder(tmp_path).begin(BASE)
    with pytest.raises(UsageError, match="holds a sweep of another experiment"):
        SweepFolder(tmp_path).begin(with_fields(BASE, {"batch_size": 7}))


def test_jobs_are_spread_over_the_gpus_and_share_the_memory_of_each():
    assert slot_variables(0, 1, ["0", "1"]) == {}  # one trial at a time has all devices
    assert slot_variables(3, 4, []) == {}
    assert [slot_variables(i, 2, ["4", "7"]) for i in range(2)] == [
        {"CUDA_VISIBLE_DEVICES": "4"},
        {"CUDA_VISIBLE_DEVICES": "7"},
    ]
    shares = [slot_variables(i, 3, ["0", "1"]) for i in range(3)]
    assert shares[0] == {"CUDA_VISIBLE_DEVICES": "0", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45"}
    assert shares[1] == {"CUDA_VISIBLE_DEVICES": "1"}
    assert shares[2] == shares[0]


def test_workers_find_the_package_and_the_sweep_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = with_fields(BASE, {"data.name": "no_set"})  # refused after it was read
    folder, trial = SweepFolder(Path("sweep")), Trial(Point({}), experiment)
    folder.begin(experiment)
    folder.add([trial])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "resflax.py").write_text("raise AssertionError\n")
    for command in (worker_command(folder, trial), group_worker_command(folder, [trial])):
        done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert "Digits.name is 'no_set'; no prepared set of that name" in done.stderr


@pytest.mark.parametrize("launcher_lives", [True, False])
def test_a_trial_is_locked_while_its_worker_lives_and_until_its_end_is_recorded(
    tmp_path, monkeypatch, launcher_lives
):
    folder, trial = SweepFolder(tmp_path), Trial(Point({}), BASE)
    folder.begin(BASE)
    sleep = [sys.executable, "-c", "import sys; sys.stdin = None; import time; time.sleep(60)"]
    monkeypatch.setattr("resflax.sweep.local.group_worker_command", lambda *_: sleep)
    lock = take_lock(folder.lock_file(trial))
    assert lock is not None
    job = GroupJob(folder, [trial], [lock], 0, {})
    if not launcher_lives:
        job.close()  # as the end of its process does
    assert take_lock(folder.lock_file(trial)) is None
    job.stop()
    job._process.wait()
    if launcher_lives:
        assert take_lock(folder.lock_file(trial)) is None
        job.close()
    assert take_lock(folder.lock_file(trial)) is not None


def test_a_trials_file_is_its_experiment(tmp_path):
    folder, trial = SweepFolder(tmp_path / "sweep"), Trial(Point({}), BASE)
    folder.begin(BASE)
    folder.add([trial])
    assert load_experiment(folder.experiment_file(trial.hash)) == BASE.resolved()
    folder.experiment_file(trial.hash).write_text('{"name": "x"}')
    with pytest.raises(UsageError, match="cannot be read: experiment lacks the field"):
        load_experiment(folder.experiment_file(trial.hash))


def test_the_table_shows_state_step_error_and_time_left(tmp_path):
    folder, trials = SweepFolder(tmp_path), expand_grid(BASE, Grid({"seed": [0, 1]}))
    metrics = folder.run(trials[0]).metrics
    metrics.parent.mkdir(parents=True)
    line = {"step": 4, "split": "test", "error": 0.25, "seconds": 100.0}
    metrics.write_text(json.dumps(line) + "\n")
    standings = [Standing(trials[0], TrialState.RUNNING), Standing(trials[1])]
    table = standings_table(folder, standings)
    assert table.title == "2 trials: 1 waiting, 1 running"
    rows = zip(*(column.cells for column in table.columns), strict=True)
    assert [tuple(map(str, row)) for row in rows] == [
        ("seed 0", "running", "4/10", "25.00% test", "2:30"),
        ("seed 1", "waiting", "0/10", "", ""),
    ]


def test_brackets_in_a_name_are_no_markup(tmp_path):
    trial = Trial(Point({}, "[/red] [bold]x[/bold]"), BASE)
    console = Console(file=io.StringIO(), width=100)
    console.print(standings_table(SweepFolder(tmp_path), [Standing(trial)]))
    assert "[/red] [bold]x[/bold]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_importing_the_launcher_does_not_import_jax():
    modules = ("launcher", "search", "slurm", "local", "assembly", "dry_run", "live_table")
    statements = [f"import resflax.sweep.{name}" for name in modules]
    code = "; ".join(["import sys", *statements, "sys.exit('jax' in sys.modules)"])
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
